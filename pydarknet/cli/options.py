"""What several commands share: options, arguments, and where a text comes from.

Darknet's spelling of an option (``-srand``) and GNU's (``--srand``) both work.
"""

import io
import os
import stat
import sys
from contextlib import contextmanager, suppress

import click

from pydarknet.cli.commands import Choice
from pydarknet.cli.streams import tell
from pydarknet.darknet.dialect import Dialect
from pydarknet.darknet.recipes import cfg_path, find
from pydarknet.errors import InputError, TextError
from pydarknet.system.files import reported, show, why
from pydarknet.system.kinds import CFG, WEIGHTS, is_kind
from pydarknet.text.tokens import CANNOT_READ

PATH = click.Path(path_type=str, readable=False)  # what cannot be read is said by whoever reads it
SLOW = 1.0  # seconds, after which progress is shown
LONGEST_SEED = 16 << 20  # bytes that are read before a text begins; they are read one by one, which takes minutes
DIALECTS = Choice([d.value for d in Dialect])

# A recipe's name becomes its path here, or an output could be the very file that is read.
cfg_argument = click.argument("cfg", type=PATH, callback=lambda ctx, parameter, path: path and cfg_path(path))
weights_argument = click.argument("weights", type=PATH)
text_argument = click.argument("text", type=PATH, required=False)
texts_argument = click.argument("texts", metavar="[TEXT]...", nargs=-1, type=PATH)

dialect_option = click.option(
    "--dialect",
    type=DIALECTS,
    default=None,
    help="Order and conventions of the weights file; by default its header says which fork wrote it.",
)

settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override an option of the cfg: net.learning_rate=.002, lstm.output=256 (every [lstm]) or 0.output=256 (layer 0). "
    "May be given several times.",
)

seed_option = click.option("-seed", "--seed", help="Text that is read first. Default: two line ends.")


color_option = click.option(
    "--color",
    type=Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, unless NO_COLOR is set.",
)


def bytes_option(help):
    return click.option("--bytes", "as_bytes", is_flag=True, help=help)


def srand_option(what):
    return click.option(
        "-srand",
        "--srand",
        type=click.IntRange(-(2**31), 2**32 - 1),
        default=None,
        callback=_unsigned,
        help=f"Seed of the random numbers: the same seed gives the same {what}.",
    )


def _unsigned(ctx, parameter, number):
    return None if number is None else number % 2**32  # as C's srand() takes it


def check_name(ctx, parameter, name):
    """A name that files can begin with: no folder in it. Raises click.BadParameter."""
    if name is not None and (not name.isprintable() or "/" in name or name in ("", ".", "..")):
        raise click.BadParameter(f"{show(name)!r} cannot begin the name of a file: give a word without /", ctx, parameter)
    return name


def split_cfg(paths):
    """Take the cfg out of the positional ``paths``: the first, if it is one, or is named like one or a recipe; else None."""
    if paths and (paths[0].endswith(".cfg") or is_kind(paths[0], CFG) or (not os.path.lexists(paths[0]) and find(paths[0]))):
        return paths[0], paths[1:]
    return None, paths


def split_weights(paths, weights):
    """Take the weights file out of the positional ``paths``: the first, if it is one or is named like one."""
    if paths and weights is None and (paths[0].endswith((".weights", ".backup")) or is_kind(paths[0], WEIGHTS)):
        return paths[1:], paths[0]
    return paths, weights


def is_stdin(paths):
    """Whether the text is standard input: no path, or ``-``. Raises click.UsageError for ``-`` among others."""
    if "-" in paths and len(paths) > 1:
        raise click.UsageError("- is standard input, and can't be joined with files")
    return paths in ((), ("-",))


@contextmanager
def open_text(path):
    """The file at ``path``, or standard input for None and ``-``, to be read as bytes.

    Raises TextError, then and later, and for a device, which may have no end; InputError if standard output goes to the
    very file that is read.
    """
    if path in (None, "-"):
        if sys.stdin.isatty():
            tell("reading the text from standard input")
        _check_standard_output(sys.stdin, "standard input")
        yield io.BufferedReader(_Readable(sys.stdin.buffer, "standard input"))
        return
    with reported(TextError, path, CANNOT_READ):
        file = open(path, "rb")
    with file:
        _check_no_device(file, show(path))
        _check_standard_output(file, show(path))
        yield io.BufferedReader(_Readable(file, show(path)))


def name_of(path):
    """What messages call the text at ``path``: - and None are standard input."""
    return "standard input" if path in (None, "-") else show(path)


def read_text(path, longest, what="text"):
    """The bytes of :func:`open_text`, up to ``longest`` of them: a pipe may have no end. Raises TextError for more."""
    with open_text(path) as file:
        data = file.read(longest + 1)
    if len(data) > longest:
        raise TextError(f"{name_of(path)}: more than {longest:,} bytes: give a shorter {what}")
    return data


def showing(scored, total):
    """``scored``, with a bar on a terminal when it takes long."""
    if not sys.stderr.isatty():
        yield from scored
        return
    from tqdm import tqdm

    bar_format = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}" if total else "{n_fmt} characters {elapsed}"
    with tqdm(total=total, delay=SLOW, leave=False, dynamic_ncols=True, file=sys.stderr, bar_format=bar_format) as bar:
        for block in scored:
            yield block
            bar.update(len(block[1]))


@contextmanager
def showing_trials(quiet=False):
    """What ``make_recipe`` tells of the sizes that it tries: a terminal shows the one whose turn it is, until all are done."""
    if quiet or not sys.stderr.isatty():
        yield lambda output: None
        return
    from tqdm import tqdm

    with tqdm(leave=False, dynamic_ncols=True, file=sys.stderr, bar_format="{desc}") as bar:
        yield lambda output: bar.set_description_str(f"pydarknet: how fast is a GRU of {output} here?")


def _check_no_device(file, name):
    """Raise TextError for a device other than a terminal, /dev/null, and standard input by another name."""
    status = os.fstat(file.fileno())
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)) or file.isatty():
        return
    if os.path.samestat(status, os.stat(os.devnull)):
        return
    with suppress(OSError):  # a stream of a test has no number
        if os.path.samestat(status, os.fstat(sys.stdin.fileno())):
            return
    raise TextError(f"{name}: {CANNOT_READ}: a device, not a regular file; save the text to a file first")


def _check_standard_output(file, name):
    """Raise InputError if the output is appended to the very file that is read: it would never end."""
    with suppress(OSError):  # a stream of a test has no number
        read, written = os.fstat(file.fileno()), os.fstat(sys.stdout.fileno())
        if os.path.samestat(read, written) and stat.S_ISREG(read.st_mode):
            raise InputError(f"{name}: the output goes to the file that is read: send it elsewhere")


class _Readable(io.RawIOBase):
    """The bytes of ``file``, whose errors are TextErrors that begin with ``name``."""

    def __init__(self, file, name):
        self._file, self.name = file, name

    def readable(self):
        return True

    def fileno(self):
        return self._file.fileno()

    def readinto(self, buffer):
        try:
            return self._file.readinto1(buffer)
        except OSError as error:
            raise _cannot_read(self.name, error) from None


def _cannot_read(name, error):
    return TextError(f"{name}: {CANNOT_READ}: {why(error)}")
