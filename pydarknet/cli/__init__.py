"""The command line: ``pydarknet`` and ``python -m pydarknet``.

Each command parses its arguments, calls the library and prints. Errors become one line on standard
error and an exit code here, and only here: 1 for a mistake or a fault, 2 for a command line that
cannot be understood, 130 and 143 for a run ended by Ctrl-C and by SIGTERM, 141 when whoever read
the output has gone.
"""

import importlib
import os
import sys
import warnings

import click

from pydarknet import __version__
from pydarknet.errors import CfgWarning, PydarknetError

COMMANDS = {  # name: the module under pydarknet.cli that has it
    "train": "train",
    "generate": "generate",
    "generatetactic": "generate",
    "valid": "valid",
    "validtactic": "valid",
    "vec": "vec",
    "average": "weight_tools",
    "convert": "weight_tools",
    "denormalize": "weight_tools",
    "ops": "weight_tools",
    "partial": "weight_tools",
    "statistics": "weight_tools",
    "rnn": "darknet",
}


class ReaderGone(Exception):
    """A BrokenPipeError by another name: click would turn that one into exit code 1."""


class LazyGroup(click.Group):
    """The group of :data:`COMMANDS`. A command's module is imported when it is asked for: ``--version`` needs no numpy."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"pydarknet.cli.{COMMANDS[name]}"), name)

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

    Example: pydarknet train cfg/rnn.cfg data/stdlib.txt
    """


def main(arguments=None):
    """Run the command line; return the exit code."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", CfgWarning)
    try:
        code = cli.main(args=arguments, prog_name="pydarknet", standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PydarknetError as error:
        click.echo(f"pydarknet: {error}", err=True)
        return 1
    except MemoryError as error:
        click.echo(f"pydarknet: out of memory: {error or 'a smaller batch, time_steps or output is needed'}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("pydarknet: interrupted", err=True)
        return 130
    except (ReaderGone, BrokenPipeError):
        # Whoever read our output has gone (`| head`): nothing is wrong, and nobody is there to tell.
        _drop_output()
        return 141
    except OSError as error:  # of our own output: the library turns all others into PydarknetErrors
        _drop_output()
        click.echo(f"pydarknet: cannot write the output: {error.strerror or error}", err=True)
        return 1


def _drop_output():
    """Send what is left of the output nowhere, or Python would complain about it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message, category, filename, lineno, file=None, line=None):
    click.echo(f"pydarknet: warning: {message}", err=True)
