"""Standard input, output and error, also where they are closed, full, gone, or of a narrow encoding."""

import codecs
import io
import os
import re
import sys
from contextlib import suppress

import click

from pydarknet.errors import printable

# All but tabs and line ends: a terminal obeys them, or writes what follows in another direction or on another line.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def prepare_streams():
    """Make the three streams usable whatever the process was started with.

    A closed one (``>&-``) is None to Python, and the next file that is opened would get its number. It becomes
    the null device, opened the wrong way round where something would be missed: reading or writing there is
    the system's own "Bad file descriptor". Messages for a closed standard error go nowhere. What an encoding
    has no room for (a path in Chinese, in Latin-1) is written as an escape, and bytes of the input that are no text are
    read as they are in names of files.
    """
    for name, flags, mode in (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free is the closed stream's own.
            setattr(sys, name, _text_stream(os.open(os.devnull, flags), mode))
    for stream, errors in ((sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace"), (sys.stdin, "surrogateescape")):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):  # our caller has read from it: it stays as it is
                stream.reconfigure(encoding=_usable(stream.encoding), errors=errors)


def _usable(encoding):
    """``encoding``, or UTF-8 in the place of one that has no escapes, such as that of ``PYTHONIOENCODING=idna``."""
    try:
        "ä".encode(encoding, "backslashreplace")
        b"a".decode(encoding, "backslashreplace")
    except UnicodeError:
        return "utf-8"
    return encoding


def _text_stream(descriptor, mode):
    raw = io.FileIO(descriptor, mode, closefd=False)
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding="utf-8", line_buffering=mode == "w")


def in_colour(color="auto"):
    """Whether standard output gets colours, after the option --color, NO_COLOR and whether it is a terminal."""
    return color == "always" or (color == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def one_line(text):
    """A text that a network wrote, as one line: blanks and line ends as one space, other control characters as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def tell(message):
    """Write ``pydarknet: MESSAGE`` to standard error; where that can't be written, nobody is there to tell."""
    write_error(f"pydarknet: {printable(str(message))}\n")


def write_error(text):
    """Write to standard error, if it can be written."""
    try:
        click.echo(CONTROL.sub(_escape, text), err=True, nl=False)
    except OSError:
        drop(sys.stderr)


def _escape(match):
    return ascii(match[0])[1:-1]


def drop(stream):
    """Send what is left of ``stream`` nowhere, or Python would complain about it once more when it ends."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # a stream of a test, or one that has been closed
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def write_bytes(pieces, raw=False):
    """Write the byte strings ``pieces`` to standard output, on a terminal at once and, unless ``raw``, as it can be shown.

    What comes from a text or a network must not move the cursor or set the title of the window.
    """
    out = sys.stdout.buffer
    on_terminal = sys.stdout.isatty()
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    for piece in pieces:
        if on_terminal and not raw:
            piece = CONTROL.sub(_escape, decoder.decode(piece)).encode()
        out.write(piece)
        if on_terminal:
            out.flush()
    out.flush()
