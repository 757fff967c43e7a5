"""The command line: ``pydarknet`` and ``python -m pydarknet``.

Each command parses its arguments, calls the library and prints. Errors become one line on standard
error and an exit code here, and only here: 1 for a mistake or a fault, 2 for a command line that
cannot be understood, 130, 143 and 129 for a run ended by Ctrl-C, by SIGTERM and by a terminal that
closed, 141 when whoever read the output has gone.
"""

import importlib
import io
import keyword
import sys
import warnings

import click

from pydarknet import __version__
from pydarknet.cli.commands import Group
from pydarknet.cli.streams import drop, prepare_streams, tell, write_error
from pydarknet.errors import CfgWarning, PydarknetError, printable

SECTIONS = {  # of the help: {command: the module under pydarknet.cli that has it}
    "Train": {"train": "train", "new": "new", "corpus": "corpus"},
    "Write": {"generate": "generate", "generatetactic": "generate", "compose": "compose"},
    "See": {"look": "look", "plot": "plot", "report": "plot"},
    "Measure": {"valid": "valid", "validtactic": "valid", "score": "score", "vec": "vec"},
    "Weights files": {
        "average": "weight_tools",
        "convert": "weight_tools",
        "denormalize": "weight_tools",
        "ops": "weight_tools",
        "partial": "weight_tools",
        "statistics": "weight_tools",
    },
    "Other programs": {"export": "interop", "import": "interop"},
    "Old scripts": {"rnn": "rnn"},
}
COMMANDS = {name: module for section in SECTIONS.values() for name, module in section.items()}


class ReaderGone(Exception):
    """A BrokenPipeError by another name: click would turn that one into exit code 1."""


class LazyGroup(Group):
    """The group of :data:`COMMANDS`. A command's module is imported when it is asked for: ``--version`` needs no numpy."""

    sections = SECTIONS

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        function = f"{name}_" if keyword.iskeyword(name) else name  # `import`
        return getattr(importlib.import_module(f"pydarknet.cli.{COMMANDS[name]}"), function)

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="pydarknet %(version)s")
@click.option("-i", "gpu", type=int, hidden=True, expose_value=False)  # Darknet's choice of a GPU
@click.option("-nogpu", is_flag=True, hidden=True, expose_value=False)
def cli():
    """Train Darknet's recurrent networks on text, and write text with them.

    `pydarknet COMMAND -h` explains a command. Every option works with one dash, as Darknet spells it, and with two.

    Example: pydarknet train cfg/rnn.cfg data/stdlib.txt
    """


def main(arguments=None):
    """Run the command line; return the exit code."""
    prepare_streams()
    _set_warnings()
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(args=arguments, prog_name="pydarknet", standalone_mode=False, obj=typed) or 0
        sys.stdout.flush()
        return code
    except BaseException as error:
        code = _explain(error, typed)
        try:
            sys.stdout.flush()
        except OSError:  # a second fault: the first has been told
            drop(sys.stdout)
        return code


def _explain(error, typed):
    """Tell what went wrong with the words ``typed``, in a line; return the exit code. Nobody's mistake is raised again."""
    if isinstance(error, SystemExit):
        return error.code
    if isinstance(error, click.ClickException):
        if not isinstance(error, click.exceptions.NoArgsIsHelpError):  # whose message is the help, of many lines
            error.message = printable(error.message)  # type: ignore[misc] # it may quote a word of any length
        text = io.StringIO()
        error.show(text)
        write_error(text.getvalue())
        return error.exit_code
    if isinstance(error, PydarknetError):
        tell(error)
        return 1
    if isinstance(error, MemoryError):
        commands = [word for word in typed if word in COMMANDS]
        trains = commands[:1] == ["train"] or commands[:2] == ["rnn", "train"]
        what = "a smaller batch, time_steps or output" if trains else "a shorter text or a smaller network"
        tell(f"out of memory{f': {error}' if str(error) else ''}; {what} needs less")
        return 1
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        tell("interrupted")
        return 130
    if isinstance(error, (ReaderGone, BrokenPipeError)):
        # Whoever read our output has gone (`| head`): nothing is wrong, and nobody is there to tell.
        drop(sys.stdout)
        return 141
    if isinstance(error, OSError):  # of our own output: the library turns all others into PydarknetErrors
        drop(sys.stdout)
        tell(f"cannot write the output: {error.strerror or error}")
        return 1
    raise error


def _set_warnings():
    """Every warning is a line, or nothing: with PYTHONWARNINGS=error Python would make exceptions of them."""
    warnings.showwarning = lambda message, *_, **__: tell(f"warning: {message}")
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)  # for programmers, as by default
    warnings.simplefilter("always", CfgWarning)
