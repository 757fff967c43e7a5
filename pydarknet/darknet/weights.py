"""Darknet's binary weights files, read and written in both dialects.

Little-endian. The header is int32 major, minor, revision, then ``seen``, the number of samples
trained on: unsigned, 8 bytes when 10 * major + minor >= 2 and both are below 1000, else 4 bytes.
Then, layer by layer in cfg order, what :meth:`Layer.stored` names, as float32. A major or minor
above 1000 says that connected matrices are stored transposed. Source: ``load_weights_upto`` and
``save_weights_upto`` in Darknet's ``src/parser.c``.

The format does not say which dialect ordered the matrices of a recurrent layer, but the header's
revision says who wrote it: see :mod:`pydarknet.darknet.dialect`.
"""

import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pydarknet.darknet.dialect import Dialect
from pydarknet.errors import WeightsError
from pydarknet.system.files import open_regular, reported, show, write_atomically
from pydarknet.system.kinds import HEAD, WEIGHTS, kind_of


@dataclass(frozen=True)
class Header:
    """The header of a weights file: version and ``seen``, which has 8 bytes since version 0.2 and had 4 before."""

    major: int
    minor: int
    revision: int
    seen: int

    @property
    def dialect(self):
        return Dialect.of_header(self.major, self.minor, self.revision)

    @property
    def transposed(self):
        return self.major > 1000 or self.minor > 1000

    @property
    def size(self):
        """Its own size in bytes."""
        return struct.calcsize(self._format)

    @property
    def _format(self):
        return "<3iQ" if self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000 else "<3iI"

    def packed(self):
        """Its bytes. ``seen`` wraps as in C: a save never fails for it."""
        return struct.pack(self._format, self.major, self.minor, self.revision, self.seen % 2 ** (8 * (self.size - 12)))

    @staticmethod
    def parse(data, path):
        """The header at the start of ``data``. Raises WeightsError if it is cut short or impossible."""
        if len(data) < 12:
            raise _header_too_short(path, len(data), "16 or 20")
        major, minor, revision = struct.unpack_from("<3i", data)
        if min(major, minor, revision) < 0:
            raise WeightsError(
                f"{show(path)}: version {major}.{minor}.{revision} (bytes 0 to 12) is impossible: no weights file?"
            )
        unseen = Header(major, minor, revision, 0)
        if len(data) < unseen.size:
            raise _header_too_short(path, len(data), unseen.size)
        return Header(*struct.unpack_from(unseen._format, data))


def _header_too_short(path, size, header_size):
    return WeightsError(
        f"{show(path)}: too short: the header has {header_size} bytes, but the file ends at byte {size}. "
        "Is it no weights file, or cut off?"
    )


def read_header(path):
    """The :class:`Header` of the file at ``path``. Raises WeightsError."""
    with _opened(path) as file:
        return Header.parse(file.read(20), path)


@contextmanager
def _opened(path):
    """The file at ``path``, to be read; whatever the system has against it is a WeightsError."""
    with reported(WeightsError, path, "cannot read the weights"), open_regular(path) as file:
        kind = kind_of(file.read(HEAD), or_text=True)
        if kind not in (None, WEIGHTS):
            raise WeightsError(f"{show(path)}: is {kind.name}, not a weights file")
        file.seek(0)
        yield file


def _fields(layers, dialect, kept):
    """(label, array) of everything that the file keeps, in its order; ``kept`` names the layer's veto."""
    for number, layer in enumerate(layers):
        if getattr(layer, kept):
            continue
        for name, array in layer.stored(dialect):
            yield f"layer {number} [{layer.type}] {name.lstrip('.')}", array


def fits(layers, path, dialect):
    """Whether the file at ``path`` is as long as the layers need in ``dialect``. Raises WeightsError."""
    with _opened(path) as file:
        expected = Header.parse(file.read(20), path).size + _size(_fields(layers, dialect, "dontload"))
        return file.seek(0, os.SEEK_END) == expected


def _size(fields):
    return sum(4 * array.size for _, array in fields)


def read_weights(layers, path, dialect):
    """Fill the layers from the file at ``path``, in the order of ``dialect``; return its :class:`Header`.

    Raises WeightsError when the file cannot be read, or is too short, too long, not finite or of a negative variance;
    the layers are then as before.
    """
    with _opened(path) as file:
        header = Header.parse(file.read(20), path)
        fields = list(_fields(layers, dialect, "dontload"))
        expected = header.size + _size(fields)
        size = file.seek(0, os.SEEK_END)
        if size < expected:
            raise _too_short(path, size, header.size, fields, expected)
        if size > expected:
            raise WeightsError(
                f"{show(path)}: too long: the layers of this cfg end at byte {expected}, but the file at byte {size}. "
                "Is it of another cfg?"
            )
        file.seek(header.size)
        values = [_read_array(file, path, label, array, header.transposed) for label, array in fields]
    for (_, array), value in zip(fields, values):
        array[...] = value
    _clear_what_has_no_room(layers, dialect)
    return header


def _clear_what_has_no_room(layers, dialect):
    """Zero what a file of ``dialect`` does not keep, as its programs have it: nothing of a file read before may stay."""
    for layer in layers:
        if not layer.dontload:
            kept = {name for name, _ in layer.stored(dialect)}
            for name, array in (stored for other in Dialect for stored in layer.stored(other)):
                if name not in kept:
                    array[...] = 0


def _too_short(path, size, position, fields, expected):
    for label, array in fields:
        end = position + 4 * array.size
        if size < end:
            return WeightsError(
                f"{show(path)}: too short: {label} needs bytes {position} to {end}, but the file ends at byte {size} "
                f"(this cfg's weights have {expected} bytes). Is it of another cfg, or cut off?"
            )
        position = end


def _read_array(file, path, label, array, transposed):
    start = file.tell()
    values = np.frombuffer(file.read(4 * array.size), "<f4")
    if values.size != array.size:
        raise WeightsError(f"{show(path)}: the file became shorter while it was read, in {label}")
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        raise WeightsError(
            f"{show(path)}: {label} holds {values[first]} at byte {start + 4 * first}: not a finite number. "
            "The file is damaged, or was saved by a run that diverged"
        )
    if label.endswith("rolling_variance") and (values < 0).any():  # its root would be NaN, in Darknet also
        first = int(np.argmax(values < 0))
        raise WeightsError(
            f"{show(path)}: {label} holds {values[first]} at byte {start + 4 * first}: a variance is never below 0. "
            "Is it a file of the other dialect, of another cfg, or damaged?"
        )
    if transposed and array.ndim == 2:
        return values.reshape(array.shape[::-1]).T
    return values.reshape(array.shape)


def write_weights(layers, path, seen, dialect, version=None):
    """Write the layers to ``path``, atomically, in the order of ``dialect``.

    The header has its version, or another ``version`` (major, minor, revision), which decides the width of ``seen`` and
    whether connected matrices are transposed.

    Raises WeightsError when the system does not allow it or a number is not finite, so that a run
    that diverged does not replace the last good file; ``path`` is then as before.
    """
    with reported(WeightsError, path, "cannot save the weights", ". Earlier files are as they were"):
        write_atomically(path, _encoded(layers, path, seen, dialect, version or dialect.version))


def is_written(layers, path, seen, dialect):
    """Whether the file at ``path`` is, to the byte, what :func:`write_weights` would write."""
    try:
        with open_regular(path) as file:
            chunks = _encoded(layers, path, seen, dialect, dialect.version)
            return all(file.read(len(chunk)) == chunk for chunk in chunks) and not file.read(1)
    except OSError:
        return False


def _encoded(layers, path, seen, dialect, version):
    major, minor, revision = version
    header = Header(major, minor, revision, seen)
    yield header.packed()
    for label, array in _fields(layers, dialect, "dontsave"):
        if header.transposed and array.ndim == 2:
            array = array.T
        with np.errstate(over="ignore"):  # from float64 to inf, which the next line tells
            array = np.ascontiguousarray(array, "<f4")
        if not np.isfinite(array).all():
            raise WeightsError(
                f"{show(path)}: not saved: {label} holds numbers that are not finite, as the run has diverged. "
                "Earlier files are as they were; go on from one of them with a lower learning_rate"
            )
        yield array.tobytes()
