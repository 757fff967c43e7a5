"""Write ``docs/commands.md`` from the commands' own help: ``python docs/make_commands.py``.

It goes by the commands' parameters and docstrings, not by click's printed help, whose layout differs
between click's versions. ``tests/test_docs.py`` fails when the page is not what this script makes.
"""

import re
from pathlib import Path

import click

from pydarknet.cli import SECTIONS, cli
from pydarknet.cli.commands import options_by_section, summary

PAGE = Path(__file__).parent / "commands.md"

TITLE = """\
# The commands

This page is made from the commands' own help by [`make_commands.py`](make_commands.py). `pydarknet COMMAND -h` prints the
same in a terminal; `python -m pydarknet` is another name for `pydarknet`.

Every option works with one dash, as Darknet spells it, and with two: `-srand 1` and `--srand 1`, `-backup` and `--backup`
do the same. A path that begins with a dash is written `./-name`.

**Completion.** This line makes the Tab key complete commands, options, their choices and file names, from the next shell on
(`bash` has to be version 4.4 or newer):

| shell | line | in the file |
|---|---|---|
| bash | `eval "$(_PYDARKNET_COMPLETE=bash_source pydarknet)"` | `~/.bashrc` |
| zsh | `eval "$(_PYDARKNET_COMPLETE=zsh_source pydarknet)"` | `~/.zshrc` |
| fish | `_PYDARKNET_COMPLETE=fish_source pydarknet \\| source` | `~/.config/fish/config.fish` |

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a mistake in a file, or a fault: one line on standard error says where, what and how to mend it |
| 2 | the command line cannot be understood |
| 130, 143, 129 | ended by Ctrl-C, SIGTERM or a terminal that closed; `train` has saved its work, unless a second one ended it |
| 141 | whoever read the output has gone (`\\| head`) |
"""

RNN = """\
Darknet's own spelling, so that old scripts run. They are the commands above, with Darknet's conventions: every option is
taken by every sub-command, wherever it stands on the line, and ignored where it means nothing; words that Darknet doesn't
know are ignored too, with a warning; the text of `train`
is `-file`, that of the others standard input; `valid` and `validtactic` print a line for every character.
"""


def page():
    """The text of ``docs/commands.md``."""
    commands = {name: cli.get_command(None, name) for names in SECTIONS.values() for name in names}
    parts = [TITLE]
    for title, names in SECTIONS.items():
        rows = [(f"[`{name}`](#{name})", _escaped(summary(commands[name]))) for name in names]
        parts.append(_table((title, "what it does"), rows))
    return "\n".join(parts + [_section(name, command) for name, command in commands.items()])


def _section(name, command):
    paragraphs = [re.sub(r"\s+", " ", paragraph).strip() for paragraph in command.help.strip().split("\n\n")]
    example = paragraphs.pop().removeprefix("Example: ")
    parts = [f"## {name}\n"]
    if isinstance(command, click.Group):
        parts += [RNN] if name == "rnn" else [_escaped(paragraph) + "\n" for paragraph in paragraphs]
        parts += [_code(example), "Sub-commands: " + ", ".join(f"`{name}`" for name in command.commands) + ".\n"]
        if name != "rnn":
            parts += [_section(f"{name} {sub}", subcommand) for sub, subcommand in command.commands.items()]
        return "\n".join(parts)
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    usage = " ".join(["pydarknet", name, "[OPTIONS]", *map(_argument, arguments)])
    parts += [f"`{usage}`\n", *(_escaped(paragraph) + "\n" for paragraph in paragraphs), _code(example)]
    for title, options in options_by_section(command, click.Context(command, help_option_names=[])):
        if options:
            parts.append(_table((title, "meaning"), [(_option(option), _meaning(option)) for option in options]))
    return "\n".join(parts)


def _argument(argument):
    name = argument.metavar or argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required or argument.metavar else f"[{name}]"


def _option(option):
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names if option.is_flag else f"{names} {_value(option)}"


def _value(option):
    """What stands behind the option."""
    if isinstance(option.type, click.Choice):
        return " or ".join(f"`{choice}`" for choice in option.type.choices)
    return option.metavar or "TEXT"


def _meaning(option):
    default = f" Default: {option.default}." if option.show_default else ""
    return _escaped(option.help) + default


def _escaped(text):
    return re.sub(r"(?<!`)([|<>*])", r"\\\1", text)


def _code(example):
    return f"```sh\n{example}\n```\n"


def _table(header, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, *rows]]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:], ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
