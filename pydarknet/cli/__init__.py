"""The command line: ``pydarknet`` and ``python -m pydarknet``.

Each command parses its arguments, calls the library and prints. Errors become one line on standard
error and an exit code here, and only here: 1 for a mistake or a fault, 2 for a command line that
cannot be understood, 130 and 143 for a run ended by Ctrl-C and by SIGTERM.
"""

import os
import sys
import warnings

import click

from pydarknet import __version__
from pydarknet.cli.generate import generate
from pydarknet.cli.train import train
from pydarknet.errors import CfgWarning, PydarknetError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="pydarknet %(version)s")
def cli():
    """Train Darknet's recurrent networks on text, and write text with them.

    Example: pydarknet train cfg/rnn.cfg data/stdlib.txt
    """


cli.add_command(train)
cli.add_command(generate)


def main(arguments=None):
    """Run the command line; return the exit code."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", CfgWarning)
    try:
        code = cli.main(args=arguments, prog_name="pydarknet", standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message(), err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PydarknetError as error:
        click.echo(f"pydarknet: {error}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("pydarknet: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing is wrong, and nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _show_warning(message, category, filename, lineno, file=None, line=None):
    click.echo(f"pydarknet: warning: {message}", err=True)
