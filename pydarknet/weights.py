"""Darknet's binary weights files, read and written in both dialects.

Little-endian. The header is int32 major, minor, revision, then ``seen``, the number of samples
trained on: unsigned, 8 bytes when 10 * major + minor >= 2 and both are below 1000, else 4 bytes.
Then, layer by layer in cfg order, what :meth:`Layer.stored` names, as float32. A major or minor
above 1000 says that connected matrices are stored transposed. Source: ``load_weights_upto`` and
``save_weights_upto`` in Darknet's ``src/parser.c``.

The format does not say which dialect ordered the matrices of a recurrent layer, but the header's
revision says who wrote it: see :mod:`pydarknet.dialect`.
"""

import struct
from dataclasses import dataclass

import numpy as np

from pydarknet.dialect import Dialect
from pydarknet.errors import WeightsError
from pydarknet.files import why, write_atomically


@dataclass(frozen=True)
class Header:
    """The header of a weights file: version, ``seen``, and its own ``size`` in bytes."""

    major: int
    minor: int
    revision: int
    seen: int
    size: int

    @property
    def dialect(self):
        return Dialect.of_header(self.major, self.minor, self.revision)

    @property
    def transposed(self):
        return self.major > 1000 or self.minor > 1000

    @staticmethod
    def parse(data, path):
        """The header at the start of ``data``. Raises WeightsError if it is cut short or impossible."""
        if len(data) < 12:
            raise WeightsError(f"{path}: {len(data)} bytes are too few for a weights file, whose header alone has 16 to 20")
        major, minor, revision = struct.unpack_from("<3i", data)
        if min(major, minor, revision) < 0:
            raise WeightsError(f"{path}: version {major}.{minor}.{revision} in bytes 0 to 11 is impossible; is this a weights file?")
        wide = major * 10 + minor >= 2 and major < 1000 and minor < 1000
        size = 20 if wide else 16
        if len(data) < size:
            raise WeightsError(f"{path}: {len(data)} bytes are too few for the header of version {major}.{minor}.{revision}, which has {size}")
        (seen,) = struct.unpack_from("<Q" if wide else "<I", data, 12)
        return Header(major, minor, revision, seen, size)


def read_header(path):
    """The :class:`Header` of the file at ``path``. Raises WeightsError."""
    try:
        with open(path, "rb") as file:
            return Header.parse(file.read(20), path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {why(error)}") from None


def _fields(layers, dialect, kept):
    """(label, array) of everything that the file keeps, in its order; ``kept`` names the layer's veto."""
    for number, layer in enumerate(layers):
        if getattr(layer, kept):
            continue
        for name, array in layer.stored(dialect):
            yield f"layer {number} [{layer.type}] {name.lstrip('.')}", array


def read_weights(layers, path, dialect=None):
    """Fill the layers from the file at ``path``; return its :class:`Header`.

    ``dialect`` overrides what the header says about the order. Raises WeightsError when the file
    cannot be read, or is too short, too long or not finite; the layers are then as before.
    """
    try:
        with open(path, "rb") as file:
            header = Header.parse(file.read(20), path)
            fields = list(_fields(layers, dialect or header.dialect, "dontload"))
            expected = header.size + sum(4 * array.size for _, array in fields)
            size = file.seek(0, 2)
            if size < expected:
                raise _too_short(path, size, header.size, fields, expected)
            if size > expected:
                raise WeightsError(
                    f"{path}: {size} bytes are {size - expected} too many for this cfg: its layers end at byte {expected}. "
                    "Is it of another cfg?")
            file.seek(header.size)
            values = [_read_array(file, path, label, array, header.transposed) for label, array in fields]
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {why(error)}") from None
    for (_, array), value in zip(fields, values):
        array[...] = value
    return header


def _too_short(path, size, position, fields, expected):
    for label, array in fields:
        end = position + 4 * array.size
        if size < end:
            return WeightsError(
                f"{path}: too short: {label} needs bytes {position} to {end}, but the file ends at byte {size} "
                f"(this cfg's weights have {expected} bytes). Is it of another cfg, or cut off?")
        position = end


def _read_array(file, path, label, array, transposed):
    start = file.tell()
    values = np.frombuffer(file.read(4 * array.size), "<f4")
    if values.size != array.size:
        raise WeightsError(f"{path}: the file became shorter while it was read, in {label}")
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        raise WeightsError(
            f"{path}: {label} holds {values[first]} at byte {start + 4 * first}: not a finite number. "
            "The file is damaged, or was saved by a run that diverged")
    if transposed and array.ndim == 2:
        return values.reshape(array.shape[::-1]).T
    return values.reshape(array.shape)


def write_weights(layers, path, seen, dialect):
    """Write the layers to ``path``, atomically, with the version of ``dialect``. Raises WeightsError."""
    header = struct.pack("<3iQ", *dialect.version, seen)
    arrays = (np.ascontiguousarray(array, "<f4").tobytes() for _, array in _fields(layers, dialect, "dontsave"))
    try:
        write_atomically(path, (chunk for part in ([header], arrays) for chunk in part))
    except OSError as error:
        raise WeightsError(f"{path}: cannot save the weights: {why(error)}. Earlier files are as they were") from None
