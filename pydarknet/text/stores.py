"""The files of a text: found, opened and read, without holding large ones in memory.

A text is the bytes of one or more files, joined, or the whole numbers of token files. Darknet's counterparts
are ``read_file`` in ``src/utils.c``, ``read_tokenized_data`` and ``read_tokens`` in ``examples/rnn.c``
(pjreddie/darknet).
"""

import os
import resource
import stat
import weakref

import numpy as np

from pydarknet.errors import TextError
from pydarknet.system.files import show, why

IN_MEMORY = 64 << 20  # a text of up to this many bytes is read into memory
LARGEST_TOKEN = 2**31 - 1
_TOKEN_DIGITS = len(str(LARGEST_TOKEN))
_BLANKS = (b" ", b"\t", b"\n", b"\v", b"\f", b"\r")
_TOKEN_BLOCK = 1 << 18  # bytes parsed at a time: its temporary arrays stay in the processor's cache


def open_store(paths, tokenized, in_memory):
    """The store of a text of at least two symbols; see :meth:`pydarknet.text.corpus.Corpus.open`. Raises TextError."""
    paths = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else list(paths)
    files = _find_files(paths)
    if tokenized:
        store = MemoryStore.of_parts(files, [_parse_token_file(path) for path in files])
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
    """A whole text: ``names`` of its files, ``starts`` of each, ``size`` in symbols, ``unit`` as one is called."""

    names: list
    starts: np.ndarray
    size: int
    unit: str

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
        return cls(np.concatenate([np.empty(0, np.int32), *parts]), names, starts)

    def read(self, start, count):
        return self.array[start : start + count]

    def rows(self, starts, count):
        return np.lib.stride_tricks.sliding_window_view(self.array, count)[starts]


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


def read_tokens(path):
    """Read a vocabulary (Darknet's ``-tokens``): line n, counted from 0, is the text of token n, as bytes.

    The line ``<NEWLINE>`` stands for the newline itself; nothing else is escaped (``read_tokens`` in
    examples/rnn.c, whose ``print_symbol`` writes a blank after every token). A blank line is an empty
    token. If all lines end in CR LF, the CR is dropped too.

    Raises TextError: a file that is missing, unreadable or empty.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from None
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise TextError(f"{show(path)}: the vocabulary is empty; it needs one token a line")
    if all(line.endswith(b"\r") for line in lines):
        lines = [line[:-1] for line in lines]
    return [b"\n" if line == b"<NEWLINE>" else line for line in lines]


def _parse_token_file(path):
    """Read the whole numbers of a file as an int32 array.

    Darknet (``read_tokenized_data`` in examples/rnn.c) stops at the first word that is not a number, as
    if the text ended there, and lets numbers overflow; here both are errors with file and line.
    """
    tokens, line, rest = bytearray(), 1, b""  # a bytearray grows in place: no second copy at the end
    try:
        with open(path, "rb") as file:
            while block := file.read(_TOKEN_BLOCK):
                block = rest + block
                cut = 1 + max(map(block.rfind, _BLANKS))  # the last word may go on in the next block,
                if len(block) - cut > _TOKEN_DIGITS:  # unless it is too long for a token as it is
                    cut = len(block)
                tokens += _parse_tokens(block[:cut], path, line)
                line += block.count(b"\n", 0, cut)
                rest = block[cut:]
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from None
    tokens += _parse_tokens(rest, path, line)
    return np.frombuffer(tokens, np.int32)


def _parse_tokens(block, path, line):
    """The whole numbers in a block of text, whose first line has the number ``line``, as the bytes of int32."""
    digits = np.frombuffer(block, np.uint8) - np.uint8(ord("0"))  # below "0" wraps round to over 9
    is_digit = digits < 10
    edges = np.flatnonzero(np.diff(is_digit, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]  # words of digits
    lengths = ends - starts
    values = np.zeros(len(starts), np.int64)
    for place in range(min(lengths.max(initial=0), _TOKEN_DIGITS)):
        # A word without this place reads a digit of something else, which where() then drops.
        values += np.where(lengths > place, digits[ends - 1 - place].astype(np.int64), 0) * 10**place
    # Bytes 9 to 13 and 32 are the blanks of C's isspace(), which fscanf() goes by.
    raw = np.frombuffer(block, np.uint8)
    foreign = np.flatnonzero(~is_digit & (raw != 32) & (raw - np.uint8(9) > 4))
    too_large = starts[(lengths > _TOKEN_DIGITS) | (values > LARGEST_TOKEN)]
    if len(foreign) or len(too_large):
        at = int(min([*foreign[:1], *too_large[:1]]))
        begin = 1 + max(block.rfind(blank, 0, at) for blank in _BLANKS)
        line += block.count(b"\n", 0, at)
        word = repr(block[begin : begin + 40].split()[0])[1:]  # without the b of b'x1'
        raise TextError(f"{show(path)}:{line}: {word} is not a token (a whole number from 0 to {LARGEST_TOKEN})")
    return values.astype(np.int32).tobytes()


def _find_files(paths):
    """The names of the files under ``paths`` that have text, each file once, in the order of the text."""
    files, seen = [], set()
    for path in paths:
        status = _status(path)
        if stat.S_ISREG(status.st_mode):
            found = [(path, status)]
        elif stat.S_ISDIR(status.st_mode):
            found = list(_walk(path))
            if not any(status.st_size for _, status in found):
                raise TextError(f"{show(path)}: there is no text in this folder (hidden and empty files are passed over)")
        else:  # a pipe or a device has no end, or cannot be read twice
            raise TextError(f"{show(path)}: neither a file nor a folder; save the text to a file first")
        for name, status in found:
            identity = _identity(status)
            if status.st_size and identity not in seen:
                seen.add(identity)
                files.append(os.fspath(name))
    return files


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
    return TextError(f"{show(path)}: cannot read this text: {why(error)}; check the name and its permissions")
