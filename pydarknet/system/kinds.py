"""What a file looks like, by its content: so that weights are never learned as text, and messages can say what a file is."""

import bz2
import codecs
import gzip
import json
import lzma
import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

HEAD = 1 << 16  # bytes that are looked at
LOG_HEADERS = b'{"pydarknet": ', b'# {"pydarknet": '  # of a log, of a table; the line may be longer than HEAD


@dataclass(frozen=True)
class Kind:
    """``name`` is what to call the file; ``ours`` whether pydarknet wrote it; ``opener`` reads what is inside, if we can."""

    name: str
    ours: bool = False
    opener: Any = None


WEIGHTS = Kind("a Darknet weights file", ours=True)
CHECKPOINT = Kind("a checkpoint of pydarknet", ours=True)
LOG = Kind("a training log of pydarknet", ours=True)
TOKENS = Kind("a file of token numbers")
CFG = Kind("a Darknet cfg")
LFS = Kind("a git-lfs pointer, which stands for a file that has not been downloaded (git lfs pull)")
PAGE = Kind("a saved web page")
TEXT = Kind("a text")

_MAGIC = [
    (b"PYDNCKPT", CHECKPOINT),
    (b"version https://git-lfs.github.com/spec/", LFS),
    (b"\x1f\x8b", Kind("compressed with gzip", opener=gzip.open)),
    (b"BZh", Kind("compressed with bzip2", opener=bz2.open)),
    (b"\xfd7zXZ\0", Kind("compressed with xz", opener=lzma.open)),
    (b"\x28\xb5\x2f\xfd", Kind("compressed with zstd")),
    (b"PK\x03\x04", Kind("a zip archive (also the form of docx, epub and PyTorch files)")),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive")),
    (b"Rar!\x1a\x07", Kind("a rar archive")),
    (b"%PDF-", Kind("a PDF")),
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG picture")),
    (b"\xff\xd8\xff", Kind("a JPEG picture")),
    (b"GIF8", Kind("a GIF picture")),
    (b"\x7fELF", Kind("a program")),
    (b"\x93NUMPY", Kind("a NumPy array")),
    (b"SQLite format 3\0", Kind("a database")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("an old Office document")),
    (b"\x80\x02}", Kind("a Python pickle")),
    (b"\x80\x03", Kind("a Python pickle")),
    (b"\x80\x04\x95", Kind("a Python pickle")),
    (b"\x80\x05\x95", Kind("a Python pickle")),
]


def kind_of(head, or_text=False):
    """The :class:`Kind` of a file that begins with the bytes ``head`` (:data:`HEAD` of them, or all); None for any other.

    With ``or_text`` text of no special kind counts too: for where a file of numbers is expected.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if _is_weights(head):
        return WEIGHTS
    if _is_safetensors(head):
        return Kind("a safetensors file")
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html[\s>])", head, re.IGNORECASE):
        return PAGE
    if _is_log(head):
        return LOG
    if re.match(rb"(\xef\xbb\xbf)?(\s|[#;][^\r\n]*[\r\n])*\[(net|network)\]", head[:4096]):
        return CFG
    # Possessive (++): what has matched is not tried again in other ways, which takes minutes of blanks by the thousand.
    if re.fullmatch(rb"(\xef\xbb\xbf)?\s*+(\d{1,10}+\s++){20,}+\d{0,10}+", head):
        return TOKENS
    return TEXT if or_text and len(head) >= 16 and _is_text(head) else None


def kind_of_file(path, or_text=False):
    """:func:`kind_of` the file at ``path``. Raises OSError."""
    with open(path, "rb") as file:
        return kind_of(file.read(HEAD), or_text)


def is_kind(path, kind):
    """Whether the file at ``path`` is of ``kind``; a file that cannot be read is of none."""
    with suppress(OSError, ValueError):
        return os.path.isfile(path) and kind_of_file(path, or_text=kind is TEXT) is kind
    return False


def _is_text(head):
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return not re.search("[\0-\x08\x0e-\x1f\x7f]", decoder.decode(head))  # its last character may be cut
    except UnicodeDecodeError:
        return False


def _is_weights(head):
    """Version numbers as Darknet writes them, then numbers as a network has them."""
    if len(head) < 24:
        return False
    major, minor, revision = struct.unpack_from("<3i", head)
    if not (0 <= major <= 1 and 0 <= minor <= 5 and 0 <= revision <= 20 and major + minor > 0):
        return False
    numbers = np.frombuffer(head[20 : 20 + 4 * ((len(head) - 20) // 4)], "<f4")
    with np.errstate(invalid="ignore"):
        usual = (numbers == 0) | ((np.abs(numbers) > 1e-30) & (np.abs(numbers) < 1e10))
    return bool(len(numbers) and usual.mean() > 0.99)


def _is_safetensors(head):
    if len(head) < 16:
        return False
    (length,) = struct.unpack_from("<Q", head)
    return 2 <= length < 1 << 32 and head[8:10] == b'{"'


def json_object(line):
    """The JSON object that ``line`` is, None if it is none, or one that Python cannot read: brackets by the thousand."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_log(head):
    if head.startswith((*LOG_HEADERS, b"iteration,loss,avg_loss,")):
        return True
    record = json_object(head.partition(b"\n")[0]) or {}
    return "pydarknet" in record or {"iteration", "loss"} <= record.keys()
