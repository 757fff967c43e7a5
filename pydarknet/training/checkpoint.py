"""Checkpoint files: all that a training run needs to go on exactly as if it had never stopped.

Darknet's weights file has no room for momentum, offsets, recurrent states or random numbers, so they
stand in a file of our own beside it. It holds *facts*, one JSON object, and *arrays*, raw numbers;
nothing in it can run code. Little-endian throughout:

    bytes      what
    8          b"PYDNCKPT"
    4          version, unsigned: 1
    4          n, the length of the header, unsigned
    n          header, JSON in UTF-8: {"facts": {...}, "arrays": [[name, type, shape], ...]}
    ...        the arrays in the order of the header, row by row; type is "<f4", "<f8" or "<i8"
    16         BLAKE2b of everything before, which tells a file that is cut off or damaged

What the facts and arrays are is for :mod:`pydarknet.training.run_state` to say.
"""

import hashlib
import json
import math
import os
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydarknet.errors import CheckpointError
from pydarknet.system.files import open_regular, reported, show, write_atomically
from pydarknet.system.kinds import HEAD, kind_of
from pydarknet.system.memory import memory_at_hand

MAGIC = b"PYDNCKPT"
VERSION = 1
TYPES = ("<f4", "<f8", "<i8")
_START = struct.Struct("<8sII")
_DIGEST = 16
CHUNK = 1 << 20  # bytes that are read at a time to compute the checksum
LONGEST_HEADER = 1 << 20  # bytes: that of a run has some thousands, and JSON takes 25 times as much memory as its text


@dataclass(frozen=True)
class Checkpoint:
    """``facts``, a dict of what JSON can hold, and ``arrays``, by name; ``path`` is where it was read, for messages."""

    facts: dict
    arrays: dict
    path: str = "checkpoint"

    def error(self, message):
        """Build (not raise) a CheckpointError that begins with the path."""
        return CheckpointError(f"{show(self.path)}: {message}")

    def fact(self, name, *kinds):
        """The fact ``name``, which must be of one of the types ``kinds``. Raises CheckpointError."""
        value = self.facts.get(name)
        if type(value) not in kinds:  # not isinstance: a bool is no whole number here
            raise self.error(f"has no usable {name!r}: it was not written by pydarknet's training")
        return value


def write_checkpoint(path, checkpoint, mode_of=None):
    """Write ``checkpoint`` to ``path``, atomically. Raises CheckpointError, and leaves ``path`` as it was then.

    A new file gets the permissions of the file ``mode_of``, if there is one.

    An array that is not finite is an error too: a run that diverged must not replace a good checkpoint.
    """
    for name, array in checkpoint.arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"{show(path)}: not saved: {name} holds numbers that are not finite, as the run has "
                "diverged. Earlier files are as they were; lower learning_rate, or set clip_norm=1"
            )
    with reported(CheckpointError, path, "cannot save the checkpoint", ". Earlier files are as they were"):
        write_atomically(path, _encoded(checkpoint), mode_of)


def _encoded(checkpoint):
    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in checkpoint.arrays.items()}
    header = json.dumps(
        {"facts": checkpoint.facts, "arrays": [[name, array.dtype.str, array.shape] for name, array in arrays.items()]},
        allow_nan=False,
    ).encode()
    if len(header) > LONGEST_HEADER:
        raise ValueError(f"its header would have {len(header):,} bytes, and {LONGEST_HEADER:,} are the most")
    digest = hashlib.blake2b(digest_size=_DIGEST)
    chunk: Any
    for chunk in (_START.pack(MAGIC, VERSION, len(header)), header, *(array.data for array in arrays.values())):
        digest.update(chunk)
        yield chunk
    yield digest.digest()


def read_checkpoint(path):
    """The :class:`Checkpoint` in the file at ``path``. Raises CheckpointError if it is not whole.

    Its arrays take memory only when the file is known to be whole, and there is as much: a file with holes may be far longer
    than what it takes on the disk.
    """
    with reported(CheckpointError, path, "cannot read the checkpoint"), open_regular(path) as file:
        return _decoded(file, path)


def _decoded(file, path):
    size = os.fstat(file.fileno()).st_size
    digest = hashlib.blake2b(digest_size=_DIGEST)

    def take(count):
        data = file.read(count)
        digest.update(data)
        return data

    start = take(_START.size)
    if start[:8] != MAGIC[: len(start)] or not start:
        kind = kind_of(start + file.read(HEAD), or_text=True)
        raise CheckpointError(f"{show(path)}: is no checkpoint of pydarknet" + (f": it is {kind.name}" if kind else ""))
    if len(start) < _START.size:
        raise _damaged(path, f"it ends at byte {size}, in its header")
    _, version, length = _START.unpack(start)
    if version != VERSION:
        raise CheckpointError(f"{show(path)}: is of version {version}, and this pydarknet reads version {VERSION}")
    if length > size - _START.size - _DIGEST:
        raise _damaged(path, f"its header should go to byte {_START.size + length}, but the file ends at {size}")
    if length > LONGEST_HEADER:
        raise _damaged(path, f"its header has {length:,} bytes, and {LONGEST_HEADER:,} are the most")
    facts, fields = _header(take(length), path)
    expected = _START.size + length + sum(_bytes(*field) for field in fields.values()) + _DIGEST
    if size != expected:
        raise _damaged(path, f"it should have {expected} bytes, and has {size}")
    _check_memory(size, path)
    begin, left = file.tell(), size - file.tell() - _DIGEST
    while left and (data := take(min(left, CHUNK))):
        left -= len(data)
    if file.read(_DIGEST) != digest.digest():
        raise _damaged(path, "its content does not agree with its checksum")
    file.seek(begin)
    arrays = {}
    for name, (kind, shape) in fields.items():
        data = file.read(_bytes(kind, shape))
        if len(data) < _bytes(kind, shape):
            raise _damaged(path, "it became shorter while it was read")
        arrays[name] = np.frombuffer(data, kind).reshape(shape)
    return Checkpoint(facts, arrays, os.fspath(path))


def _check_memory(needed, path):
    at_hand = memory_at_hand()
    if at_hand is not None and needed > at_hand:
        raise CheckpointError(
            f"{show(path)}: reading this checkpoint needs {needed:,} bytes of memory, and {at_hand:,} can be had: "
            "end other programs, or begin a run without it"
        )


def _header(data, path):
    """The facts, and the type and shape of every array by name."""
    try:
        header = json.loads(data, parse_constant=_refuse)
        facts, fields = header["facts"], header["arrays"]
        if type(facts) is not dict or type(fields) is not list:
            raise ValueError
        arrays = {}
        for name, kind, shape in fields:
            if type(name) is not str or name in arrays or kind not in TYPES or type(shape) is not list:
                raise ValueError
            if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
                raise ValueError
            if math.prod(n or 1 for n in shape) > 2**59:  # beyond what numpy can count, even of an empty array
                raise ValueError
            arrays[name] = (kind, tuple(shape))
        return facts, arrays
    # RecursionError: brackets nested without end.
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _damaged(path, "its header cannot be understood") from None


def _refuse(constant):
    raise ValueError(constant)  # NaN and Infinity, which are not JSON


def _bytes(kind, shape):
    return math.prod(shape) * int(kind[-1])


def _damaged(path, what):
    return CheckpointError(f"{show(path)}: the checkpoint is damaged: {what}")
