"""What several commands share: options, arguments, and where a text comes from.

Darknet's spelling of an option (``-srand``) and GNU's (``--srand``) both work.
"""

import io
import sys
from contextlib import contextmanager

import click

from pydarknet.cli.commands import Choice
from pydarknet.cli.streams import tell
from pydarknet.darknet.dialect import Dialect
from pydarknet.errors import TextError
from pydarknet.system.files import show, why

PATH = click.Path(path_type=str)
DIALECTS = Choice([d.value for d in Dialect])

cfg_argument = click.argument("cfg", type=PATH)
weights_argument = click.argument("weights", type=PATH)
text_argument = click.argument("text", type=PATH, required=False)

dialect_option = click.option(
    "--dialect",
    type=DIALECTS,
    default=None,
    help="Order and conventions of the weights file; by default its header says which fork wrote it.",
)

seed_option = click.option("-seed", "--seed", help="Text that is read first. Default: two line ends.")


def srand_option(what):
    return click.option(
        "-srand",
        "--srand",
        type=click.IntRange(-(2**31), 2**32 - 1),
        default=None,
        callback=_unsigned,
        help=f"Seed of the random numbers, for {what} that can be made again.",
    )


def _unsigned(ctx, parameter, number):
    return None if number is None else number % 2**32  # as C's srand() takes it


def split_weights(paths, weights):
    """Take the weights file out of the positional ``paths``: the first, if it is named like one."""
    if paths and weights is None and paths[0].endswith((".weights", ".backup")):
        return paths[1:], paths[0]
    return paths, weights


@contextmanager
def open_text(path):
    """The file at ``path``, or standard input for None and ``-``, to be read as bytes. Raises TextError, then and later."""
    if path in (None, "-"):
        if sys.stdin.isatty():
            tell("reading the text from standard input")
        yield io.BufferedReader(_Readable(sys.stdin.buffer, "standard input"))
        return
    try:
        file = open(path, "rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _cannot_read(show(path), error) from None
    with file:
        yield io.BufferedReader(_Readable(file, show(path)))


class _Readable(io.RawIOBase):
    """The bytes of ``file``, whose errors are TextErrors that begin with ``name``."""

    def __init__(self, file, name):
        self._file, self.name = file, name

    def readable(self):
        return True

    def readinto(self, buffer):
        try:
            return self._file.readinto1(buffer)
        except OSError as error:
            raise _cannot_read(self.name, error) from None


def _cannot_read(name, error):
    return TextError(f"{name}: cannot read this text: {why(error)}")
