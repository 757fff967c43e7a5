"""What pydarknet's commands do beyond click's own.

An option works with one dash and with two, whichever it was declared with (``-backup``, ``--srand``). A word
that is misspelled is named as it was typed, with what it resembles. Help is printed in sections, its summaries
and examples whole.
"""

import difflib
import inspect
import math
import os
import re
import shlex
from functools import partial
from itertools import islice

import click
from click.shell_completion import CompletionItem


class Number(click.FloatRange):
    """A number between bounds, which "nan" is not."""

    def convert(self, value, param, ctx):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return super().convert(number, param, ctx)


METAVARS = {click.IntRange: "N", type(click.INT): "N", Number: "X", type(click.FLOAT): "X", click.Path: "PATH"}


class Command(click.Command):
    """A command whose options stand in ``sections``: {title: names of parameters}; the others come last."""

    def __init__(self, *arguments, sections=None, **options):
        super().__init__(*arguments, **options)
        for parameter in self.params:
            if isinstance(parameter, click.Option) and not parameter.metavar:
                parameter.metavar = METAVARS.get(type(parameter.type))
        self.sections = {title: names.split() for title, names in (sections or {}).items()}

    def parse_args(self, ctx, args):
        return super().parse_args(ctx, spelled(self, ctx, args))

    def invoke(self, ctx):
        if self.name == "train":  # which has signals of its own
            return super().invoke(ctx)
        from pydarknet.cli.signals import ended_by_signals  # --help waits for no multiprocessing

        with ended_by_signals():
            return super().invoke(ctx)

    def shell_complete(self, ctx, incomplete):
        if re.match("-(?!-)", incomplete):
            names = names_of_options(self, ctx)
            return [CompletionItem(name, help=names[name].help) for name in names if name.startswith(incomplete)]
        return super().shell_complete(ctx, incomplete)

    def get_short_help_str(self, limit=None):
        return summary(self)

    def format_help_text(self, ctx, formatter):
        _write_help_text(self, formatter)

    def format_options(self, ctx, formatter):
        for title, options in options_by_section(self, ctx):
            with formatter.section(title):
                formatter.write_dl([option.get_help_record(ctx) for option in options])


class Group(click.Group):
    """A group of commands, in ``sections`` where it has any: {title: names of commands}."""

    command_class = Command
    sections: dict | None = None

    def parse_args(self, ctx, args):
        return super().parse_args(ctx, spelled(self, ctx, args))

    def resolve_command(self, ctx, args):
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command '{args[0]}'.{did_you_mean(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def get_short_help_str(self, limit=None):
        return summary(self)

    def format_help_text(self, ctx, formatter):
        _write_help_text(self, formatter)

    def format_commands(self, ctx, formatter):
        sections = self.sections or {"Commands": self.list_commands(ctx)}
        width = max(len(name) for names in sections.values() for name in names)
        for title, names in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), summary(self.get_command(ctx, name))) for name in names])


def to_copy(words):
    """A command line of these ``words`` that bash takes as it is printed: on one line, whatever they hold."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_escaped(word)}'" for word in words)


def argument(path):
    """``path`` as a word that is taken for no option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _escaped(word):
    return "".join(
        character
        if character.isprintable() and character not in "'\\"
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
        for character in word
    )


def typed_words():
    """The words after ``pydarknet`` as they were typed."""
    return list(click.get_current_context().find_root().obj or [])


def typed_without(names, start):
    """The words as they were typed, without the options ``names``, and without ``start``, the file that the run began with."""
    ctx = click.get_current_context()
    typed = typed_words()
    if ctx.command.name not in typed:
        return typed
    place = typed.index(ctx.command.name) + 1
    kept = typed[:place]
    for option, words in words_of(ctx.command, ctx, typed[place:]):
        name = option.name if option else None
        if name not in names and not (name is None and words == [start]):
            kept += words
    return kept


def with_options(words, options):
    """The ``words`` of a command line with ``options`` at their end, or before the ``--`` after which no word is an option."""
    place = words.index("--") if "--" in words else len(words)
    return [*words[:place], *options, *words[place:]]


command = partial(click.command, cls=Command)


class Choice(click.Choice):
    """One of several words; of a misspelled one it says which it resembles."""

    def convert(self, value, param, ctx):
        if value not in self.choices:
            self.fail(f"'{value}' is not one of {', '.join(self.choices)}.{did_you_mean(value, self.choices)}", param, ctx)
        return value


def did_you_mean(word, names):
    """ " Did you mean ...?" with up to three of the ``names`` that ``word`` resembles or begins; "" if none does."""
    bare = {name.lstrip("-"): name for name in names}
    typed = word.lstrip("-").lower()
    found = difflib.get_close_matches(typed, bare, n=3)
    found += [name for name in bare if len(typed) > 1 and name.startswith(typed) and name not in found]
    return f" Did you mean {' or '.join(bare[name] for name in found[:3])}?" if found else ""


def names_of_options(command, ctx):
    """{name: click.Option} of every spelling that ``command`` takes, with one dash and with two."""
    names: dict[str, click.Option] = {}
    for parameter in command.get_params(ctx):
        if isinstance(parameter, click.Option):
            for name in parameter.opts:
                names |= (
                    {name: parameter} if len(name) == 2 else {dashes + name.lstrip("-"): parameter for dashes in ("-", "--")}
                )
    return names


def words_of(command, ctx, args):
    """Yield (option, words) for the words ``args``: an option with its value, or a word that is none, with None.

    ``words`` are in click's own spelling. An option that ``command`` doesn't take is ``False``.
    """
    names = names_of_options(command, ctx)
    rest = iter(args)
    for word in rest:
        name, equals, value = word.partition("=")
        if len(word) < 2 or word[0] != "-":
            yield None, [word]
        elif name not in names:
            yield False, [word]
        else:
            option = names[name]
            known = name if name in option.opts else option.opts[-1]  # the long one: click reads -o=1 as "=1"
            takes_next = not (equals or option.is_flag or option.count)
            yield option, [known + equals + value, *islice(rest, 1 if takes_next else 0)]


def spelled(command, ctx, args):
    """The words ``args`` as click knows the options. Raises click.UsageError for one that ``command`` doesn't take."""
    words: list[str] = []
    args = list(args)
    for option, found in words_of(command, ctx, args):
        if found == ["--"] or (option is None and not ctx.allow_interspersed_args):
            return words + args[len(words) :]
        if option is False and not ctx.resilient_parsing:
            typed = found[0].partition("=")[0]
            raise click.UsageError(f"No such option '{typed}'.{like_option(command, ctx, typed)}", ctx)
        words += found
    return words


def like_option(command, ctx, word):
    """What the option ``word`` resembles, with as many dashes as were typed: see :func:`did_you_mean`."""
    dashes = "--" if word.startswith("--") else "-"
    names = [option.opts[-1] for option in command.get_params(ctx) if isinstance(option, click.Option) and not option.hidden]
    return did_you_mean(word, [dashes + name.lstrip("-") for name in names if len(name) > 2])


def summary(command):
    """The first sentence of a command's help, without its full stop."""
    return re.split(r"\.(?:\s|$)|:\s", command.help.strip().replace("\n", " "), maxsplit=1)[0].strip()


def options_by_section(command, ctx):
    """[(title, [option])] of the options that help shows; arguments are no options."""
    shown = [p for p in command.get_params(ctx) if isinstance(p, click.Option) and not p.hidden]
    sections = [(title, [p for name in names for p in shown if p.name == name]) for title, names in command.sections.items()]
    placed = [option.name for _, options in sections for option in options]
    others = [option for option in shown if option.name not in placed]
    return [*sections, ("Other options" if sections else "Options", others)]


def _write_help_text(command, formatter):
    """The help, wrapped; the example too, so that it can be copied."""
    text, _, example = inspect.cleandoc(command.help).partition("Example: ")
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(text)
        if example:
            formatter.write("\n")
            for line in _example_lines(f"Example: {example}", formatter.width - formatter.current_indent):
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _example_lines(example, width):
    """A command line as lines of at most ``width`` columns, each of which but the last ends as one that goes on does."""
    line = ""
    for word in re.findall(r'(?:[-<]\S* )?(?:"[^"]*"|\S)+', example):  # an option with its value
        if line and len(line) + 1 + len(word) > width - 2:
            yield line + " \\"
            line = "   "
        line += f" {word}" if line else word
    yield line
