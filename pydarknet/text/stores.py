"""The files of a text: found, opened and read, without holding large ones in memory.

A text is the bytes of one or more files, joined, or the whole numbers of token files. What a file holds decides whether it
is one (:mod:`pydarknet.system.kinds`), not its name. Darknet's counterpart is ``read_file`` in ``src/utils.c``.
"""

import lzma
import os
import resource
import stat
import warnings
import weakref
import zlib
from collections.abc import Sequence

import numpy as np

from pydarknet.errors import TextError
from pydarknet.system.files import reported, show, why
from pydarknet.system.kinds import CFG, CHECKPOINT, LOG, PAGE, TOKENS, WEIGHTS, Kind, kind_of_file
from pydarknet.system.memory import memory_at_hand
from pydarknet.text.tokens import ADVICE, CANNOT_READ, read_token_file

IN_MEMORY = 64 << 20  # a text of up to this many bytes is read into memory
UNPACKED = 1 << 20  # bytes at a time of a compressed text, of which a few may stand for gigabytes


def open_store(paths, tokenized, in_memory):
    """The store of a text of at least two symbols; see :meth:`pydarknet.text.corpus.Corpus.open`. Raises TextError."""
    paths = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else list(paths)
    files, kinds = _find_files(paths, tokenized)
    if tokenized:
        store = MemoryStore.of_parts(files, [read_token_file(path) for path in files])
    elif any(kind and kind.opener for kind in kinds):
        store = MemoryStore.of_parts(files, _bytes_of_all(files, kinds))
    else:
        store = DiskStore(files)
        if store.size <= in_memory:
            text = store.read(0, store.size)
            store.close()
            store = MemoryStore(text, store.names, store.starts)
    if store.size < 2:
        names = ", ".join(map(show, paths[:3])) + ", ..." * (len(paths) > 3) or "no path given"
        found = "empty" if store.size == 0 else f"only one {store.unit}: there is nothing to predict"
        raise TextError(f"{names}: the text is {found}; give a text of at least two {store.unit}s")
    return store


class Store:
    """A whole text: ``names`` of its files, ``starts`` of each, ``size`` in symbols, ``unit`` as one is called.

    ``joints`` are the positions where pieces of a text were joined.
    """

    names: list
    starts: np.ndarray
    size: int
    unit: str
    joints: Sequence[int] = ()

    def read(self, start, count):
        """The ``count`` symbols from ``start`` on, in the type of the text (``dtype``)."""
        raise NotImplementedError

    def rows(self, starts, count):
        """The ``count`` symbols from each of ``starts`` on: (len(starts), count)."""
        raise NotImplementedError

    def locate(self, position):
        """Where a position is, for messages: ``file: byte 17``."""
        i = int(np.searchsorted(self.starts, position, "right")) - 1
        return f"{show(self.names[i])}: {self.unit} {position - self.starts[i]}"

    def close(self):
        """Let go of files; a later read opens them again."""


class MemoryStore(Store):
    """A whole text in one array: uint8 bytes or int32 tokens."""

    def __init__(self, array, names, starts):
        self.array, self.names, self.starts = array, names, starts
        self.size, self.dtype = len(array), array.dtype
        self.unit = "byte" if array.dtype == np.uint8 else "token"
        self.max_symbol = 255 if array.dtype == np.uint8 else int(array.max(initial=0))

    @classmethod
    def of_parts(cls, names, parts):
        starts = np.cumsum([0] + [len(part) for part in parts], dtype=np.int64)[:-1]
        if len(parts) == 1:
            return cls(parts[0], names, starts)  # the usual case; concatenate would take twice the memory
        return cls(np.concatenate(parts) if parts else np.empty(0, np.int32), names, starts)

    def read(self, start, count):
        return self.array[start : start + count]

    def rows(self, starts, count):
        return np.lib.stride_tricks.sliding_window_view(self.array, count)[starts]


class PiecesStore(Store):
    """Pieces of another store, joined: ``pieces`` are pairs [start, stop) of its positions, in order."""

    def __init__(self, store, pieces):
        self._store = store
        self._froms, stops = np.array(pieces, np.int64).T
        ends = np.cumsum(stops - self._froms)
        self._starts, self._ends, self.size = ends - (stops - self._froms), ends, int(ends[-1])
        self.names, self.dtype, self.unit, self.max_symbol = store.names, store.dtype, store.unit, store.max_symbol
        self.joints = self._starts[1:].tolist()

    def read(self, start, count):
        found = []
        while count:
            at, rest = self._place(start)
            found.append(self._store.read(at, min(count, rest)))
            start, count = start + len(found[-1]), count - len(found[-1])
        return np.concatenate(found) if found else np.empty(0, self.dtype)

    def rows(self, starts, count):
        at, rest = self._place(starts)
        if (rest >= count).all():
            return self._store.rows(at, count)
        return np.array([self.read(start, count) for start in starts.tolist()])

    def locate(self, position):
        return self._store.locate(int(self._place(position)[0]))

    def close(self):
        self._store.close()

    def _place(self, position):
        """Where a position is in the store, and how many symbols its piece has from there on."""
        i = np.searchsorted(self._ends, position, "right")
        return self._froms[i] + position - self._starts[i], self._ends[i] - position


class DiskStore(Store):
    """The bytes of files, read as they are asked for.

    Reading at a position (``pread``) takes the place of memory mapping: 2000 gathers of 64 streams all over a
    5 GB file add 4 GB to a process that maps it, and 1 MB to this one; a file that shrinks gives a short read
    rather than SIGBUS; and a text of many files needs few descriptors (Python's ``mmap`` holds one a file).
    """

    dtype, unit, max_symbol = np.dtype(np.uint8), "byte", 255

    def __init__(self, paths):
        self.names = paths
        self._descriptors: dict[int, int] = {}  # file number -> descriptor, oldest first
        self._limit = _descriptor_limit()
        weakref.finalize(self, _close_all, self._descriptors)
        # Every file is opened once here, so that an unreadable one is known before training begins.
        statuses = [self._open(i)[1] for i in range(len(paths))]
        self._identities = [_identity(status) for status in statuses]
        self._sizes = np.array([status.st_size for status in statuses], np.int64)
        ends = np.cumsum(self._sizes)
        self.starts, self.size = ends - self._sizes, int(ends[-1]) if len(paths) else 0

    def read(self, start, count):
        return np.frombuffer(self._bytes(start, count), np.uint8)

    def _bytes(self, start, count):
        pieces, stop = [], start + count
        i = int(np.searchsorted(self.starts, start, "right")) - 1
        while start < stop:
            at = start - int(self.starts[i])
            piece = self._read_file(i, at, min(stop - start, int(self._sizes[i]) - at))
            pieces.append(piece)
            start += len(piece)
            i += 1
        return b"".join(pieces)

    def rows(self, starts, count):
        files = np.searchsorted(self.starts, starts, "right") - 1
        inside = starts - self.starts[files]
        crosses = inside + count > self._sizes[files]
        rows = zip(starts.tolist(), files.tolist(), inside.tolist(), crosses.tolist(), strict=True)
        pieces = [self._bytes(start, count) if cross else self._read_file(i, at, count) for start, i, at, cross in rows]
        return np.frombuffer(b"".join(pieces), np.uint8).reshape(-1, count)

    def close(self):
        _close_all(self._descriptors)

    def __getstate__(self):
        return {**self.__dict__, "_descriptors": {}}  # in another process the numbers mean other files

    def _read_file(self, i, at, count):
        """Exactly ``count`` bytes of file ``i``."""
        try:
            data = os.pread(self._descriptor(i), count, at)
        except OSError as error:
            raise _cannot_read(self.names[i], error) from None
        if len(data) == count:
            return data
        if not data:
            raise TextError(
                f"{show(self.names[i])}: the file has shrunk while in use: byte {at} of {self._sizes[i]} is gone; "
                f"put the text back, or begin again with the new one"
            )
        return data + self._read_file(i, at + len(data), count - len(data))  # pread gives at most 2 GB a call

    def _descriptor(self, i):
        descriptor = self._descriptors.get(i)
        if descriptor is None:
            descriptor, status = self._open(i)
            if _identity(status) != self._identities[i]:
                raise TextError(f"{show(self.names[i])}: another file has taken its place while in use; begin again")
        return descriptor

    def _open(self, i):
        if len(self._descriptors) >= self._limit:
            os.close(self._descriptors.pop(next(iter(self._descriptors))))
        try:
            descriptor = self._descriptors[i] = os.open(self.names[i], os.O_RDONLY)
            return descriptor, os.fstat(descriptor)
        except OSError as error:
            raise _cannot_read(self.names[i], error) from None


def _find_files(paths, tokenized):
    """The names of the files under ``paths`` that have text, each file once, in the order of the text; and their kinds."""
    files: list = []
    kinds: list[Kind | None] = []
    ours: list = []
    seen = set()
    for path in paths:
        status = _status(path)
        in_folder = stat.S_ISDIR(status.st_mode)
        if stat.S_ISREG(status.st_mode):
            found = [(path, status)]
        elif in_folder:
            found = list(_walk(path))
        else:  # a pipe or a device has no end, or cannot be read twice
            raise TextError(f"{show(path)}: neither a file nor a folder; save the text to a file first")
        texts = len(files)
        for name, status in found:
            identity = _identity(status)
            if not status.st_size or identity in seen:
                continue
            seen.add(identity)
            kind = _kind(name)
            if kind and (kind.ours or kind is CFG) and in_folder:  # a folder of texts may hold the backups of a training
                ours.append(name)
                continue
            _check_kind(name, kind, tokenized)
            files.append(os.fspath(name))
            kinds.append(kind)
        if in_folder and len(files) == texts and all(not status.st_size or name in ours for name, status in found):
            raise TextError(
                f"{show(path)}: there is no text in this folder (hidden and empty files, and those of networks, are skipped)"
            )
    if ours:
        more = f" and {len(ours) - 1} more" if len(ours) > 1 else ""
        warnings.warn(f"{show(ours[0])}{more}: skipped, as it belongs to a network and is no text", stacklevel=5)
    return files, kinds


def _kind(path):
    with reported(TextError, path, CANNOT_READ, ADVICE):
        return kind_of_file(path)


def _check_kind(path, kind, tokenized):
    """Raise TextError for a file that nobody means to learn as bytes; warn of one that somebody might."""
    if kind is None or kind.opener or (kind is TOKENS and tokenized):
        return
    if kind is WEIGHTS:
        raise TextError(f"{show(path)}: is {kind.name}, not a text: it belongs before the texts, or after --weights")
    if kind is CHECKPOINT:
        raise TextError(f"{show(path)}: is {kind.name}, not a text: it belongs before the texts, or use --resume")
    if kind is TOKENS:
        warnings.warn(f"{show(path)}: looks like {kind.name}: without -tokenized it is read as digits", stacklevel=6)
    elif kind is PAGE or kind is CFG or kind is LOG:
        warnings.warn(f"{show(path)}: looks like {kind.name}; it is read as it stands", stacklevel=6)
    else:
        raise TextError(f"{show(path)}: is {kind.name}, not a text: give the text that is in it")


def _bytes_of_all(files, kinds):
    """The whole content of each file, unpacked if it is compressed, uint8. Raises TextError if they would fill the memory."""
    at_hand, parts, held = memory_at_hand(), [], 0
    most = None if at_hand is None else at_hand // 2  # joined, they take as much again
    for path, kind in zip(files, kinds):
        parts.append(_bytes_of(path, kind, most, held))
        held += len(parts[-1])
    return parts


def _bytes_of(path, kind, most, held):
    opener = kind.opener if kind and kind.opener else open
    data = bytearray()  # which grows in place
    with reported(TextError, path, CANNOT_READ, ADVICE):
        try:
            with opener(path, "rb") as file:
                while block := file.read(UNPACKED):
                    data += block
                    if most is not None and held + len(data) > most:
                        others = " with the files before it" * (held > 0)
                        raise TextError(
                            f"{show(path)}: takes more than {most:,} bytes unpacked{others}, too much for the memory: "
                            "unpack compressed texts to files, which are read piece by piece"
                        )
                return np.frombuffer(data, np.uint8)
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise TextError(f"{show(path)}: is {kind.name}, and damaged: {error}") from None


def _walk(folder):
    """Yield (name, status) of the regular files under a folder; os.walk follows no links to folders."""

    def fail(error):
        raise _cannot_read(error.filename, error)

    for parent, folders, names in os.walk(os.fsdecode(folder), onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(parent, name)
            if name.startswith(".") or (os.path.islink(path) and not os.path.exists(path)):
                continue  # hidden, or a link that leads nowhere or round in a circle
            status = _status(path)
            if stat.S_ISREG(status.st_mode):
                yield path, status


def _status(path):
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _cannot_read(path, error) from None


def _identity(status):
    """What tells a file from every other."""
    return status.st_dev, status.st_ino


def _descriptor_limit():
    """How many files to keep open at once: half of what the system allows this process, at most 512."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 512 if soft == resource.RLIM_INFINITY else max(1, min(512, soft // 2))


def _close_all(descriptors):
    while descriptors:
        os.close(descriptors.popitem()[1])


def _cannot_read(path, error):
    return TextError(f"{show(path)}: {CANNOT_READ}: {why(error)}{ADVICE}")
