"""Text as one long sequence of symbols, read from files without holding large ones in memory.

A text is bytes (symbols 0 to 255), or with ``tokenized=True`` the whole numbers of a token file.
Letters as everywhere in this package: T steps, B streams, V symbols. Darknet's counterparts are
``read_file``, ``read_tokenized_data``, ``read_tokens`` and ``get_rnn_data`` in ``examples/rnn.c``
and ``src/utils.c`` (pjreddie/darknet).
"""

import hashlib
import os
import stat
import threading
import weakref

import numpy as np

from pydarknet.errors import InputError, TextError

IN_MEMORY = 64 << 20  # a text of up to this many bytes is read into memory
LARGEST_TOKEN = 2**31 - 1
_TOKEN_DIGITS = len(str(LARGEST_TOKEN))
_BLANKS = (b" ", b"\t", b"\n", b"\v", b"\f", b"\r")
_TOKEN_BLOCK = 1 << 18  # bytes parsed at a time: its temporary arrays stay in the processor's cache
_HASH_WHOLE = 64 << 20  # a text of more symbols is fingerprinted by samples
_HASH_BLOCK, _HASH_BLOCKS = 4096, 1024


class Corpus:
    """A text, or a part of one: a sequence of symbols that wraps at its end.

    ``len(corpus)`` is the number of symbols. A text of up to 64 MiB is read into memory, so that
    nothing that happens to its files afterwards matters. A larger one stays on disk, and each call
    reads the few bytes it needs: if such a file shrinks, the next reading of the missing part is
    a ``TextError``; one that is replaced goes on as the old file while it is open; one that is
    edited in place is read as it then stands. Parts made by :meth:`split` and :meth:`slice` share
    the text and copy nothing.
    """

    def __init__(self, store, start, stop):
        """For :meth:`open`, :meth:`from_symbols` and :meth:`slice`: the symbols [start, stop) of a store."""
        self._store, self._start, self._length = store, start, stop - start

    @classmethod
    def open(cls, paths, tokenized=False, in_memory=IN_MEMORY):
        """Open one path, or a list of paths, of files and folders as one text, joined end to end.

        A folder is walked through all its subfolders, in each the files first, then the folders,
        sorted by name. In a folder, names that begin with a dot, links to folders and whatever is
        not a regular file are passed over. Empty files are skipped, and a file that can be
        reached twice (through a link, say) is read once, where it comes first.

        With ``tokenized`` the files hold whole numbers between blanks, which are kept in memory at 4
        bytes each (Darknet's ``-tokenized``). ``in_memory`` is the size in bytes up to which a byte
        text is read into memory.

        Raises TextError: a path that is missing, unreadable or neither file nor folder, a
        folder without text, fewer than two symbols, a word that is not a token.
        """
        paths = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else list(paths)
        files = _find_files(paths)
        if tokenized:
            store = _MemoryStore.of_parts(files, [_parse_token_file(path) for path in files])
        else:
            store = _DiskStore(files)
            if store.size <= in_memory:
                text = np.frombuffer(store.read(0, store.size), np.uint8)
                store.close()
                store = _MemoryStore(text, store.names, store.starts)
        if store.size < 2:
            names = ", ".join(map(_show, paths[:3])) + ", ..." * (len(paths) > 3) or "no path given"
            found = "empty" if store.size == 0 else f"only one {store.unit}: there is nothing to predict"
            raise TextError(f"{names}: the text is {found}; give a text of at least two {store.unit}s")
        return cls(store, 0, store.size)

    @classmethod
    def from_symbols(cls, symbols, name="<memory>"):
        """Make a text of ``bytes``, or of an array of whole numbers from 0 to 2**31 - 1.

        Raises TextError if there are fewer than two, InputError if one is out of range.
        """
        if isinstance(symbols, (bytes, bytearray)):
            symbols = np.frombuffer(bytes(symbols), np.uint8)
        symbols = np.asarray(symbols)
        if symbols.ndim != 1 or symbols.dtype.kind not in "iu":
            raise InputError(f"{name}: symbols are one row of integers, not {symbols.dtype} {symbols.shape}")
        if len(symbols) < 2:
            raise TextError(f"{name}: {len(symbols)} symbols leave nothing to predict; give at least two")
        if symbols.dtype != np.uint8:
            if symbols.min() < 0 or symbols.max() > LARGEST_TOKEN:
                raise InputError(f"{name}: symbols are from 0 to {LARGEST_TOKEN}")
            symbols = symbols.astype(np.int32)
        return cls(_MemoryStore(symbols, [name], np.zeros(1, np.int64)), 0, len(symbols))

    def __len__(self):
        return self._length

    @property
    def names(self):
        """The names of the files that make up the whole text, in order."""
        return list(self._store.names)

    @property
    def max_symbol(self):
        """The largest token of the whole text; for bytes 255, as looking for it would read all the text."""
        return self._store.max_symbol

    def symbols(self, start, count):
        """Return ``count`` symbols from position ``start`` on, wrapping at the end: (count,) int64."""
        if count < 0:
            raise InputError(f"count={count}: it cannot be negative")
        start %= self._length
        head = self._read(start, min(count, self._length - start))
        if len(head) == count:
            return head.astype(np.int64)
        once = np.concatenate((head, self._read(0, min(count - len(head), start))))
        return np.resize(once, count).astype(np.int64)  # resize repeats a text shorter than count

    def gather(self, offsets, steps, vocabulary=None):
        """Return what B streams read in T steps, and the symbol after them: (T+1, B) int64.

        ``offsets`` (B,) are positions in the text, taken modulo its length. Rows 0 to T-1 are
        the inputs, rows 1 to T the symbols to predict; the next call's offsets are T further
        (``get_rnn_data`` in examples/rnn.c). int64 because that is what NumPy indexes with,
        and because sums such as t*V + x would overflow in the bytes' own type.

        Raises TextError if a file has shrunk, or if a symbol is not below ``vocabulary`` (V).
        """
        if steps < 1:
            raise InputError(f"steps={steps}: at least one step is needed")
        count = steps + 1
        offsets = np.asarray(offsets, np.int64) % self._length
        if offsets.ndim != 1 or not len(offsets):
            raise InputError(f"offsets of shape {offsets.shape}: one position for each stream is needed")
        whole = offsets <= self._length - count
        if whole.all():
            rows = self._store.rows(self._start + offsets, count)
        else:
            rows = np.empty((len(offsets), count), self._store.dtype)
            if whole.any():
                rows[whole] = self._store.rows(self._start + offsets[whole], count)
            for b in np.flatnonzero(~whole):
                rows[b] = self.symbols(int(offsets[b]), count)
        if vocabulary is not None and vocabulary <= self.max_symbol and rows.max(initial=0) >= vocabulary:
            b, t = np.argwhere(rows >= vocabulary)[0]
            raise TextError(
                f"{self.locate(offsets[b] + t)}: symbol {rows[b, t]} is out of range for a network of "
                f"{vocabulary} inputs (0 to {vocabulary - 1}); give [net] more inputs or change the text"
            )
        return rows.T.astype(np.int64, order="C")

    def slice(self, start, stop):
        """Return the part [start, stop) as a text of its own, which wraps to its own start."""
        if not 0 <= start <= stop <= self._length:
            raise InputError(f"[{start}, {stop}) is not a part of a text of {self._length} {self._store.unit}s")
        if stop - start < 2:
            raise TextError(
                f"{self.locate(start)}: a part of {stop - start} {self._store.unit}s leaves nothing "
                f"to predict; a part needs at least two"
            )
        return Corpus(self._store, self._start + start, self._start + stop)

    def split(self, fraction):
        """Return (train, valid): the text without its last ``fraction``, and that last part.

        Raises InputError unless 0 < fraction < 1, TextError if a part has fewer than two symbols.
        """
        if not 0 < fraction < 1:
            raise InputError(f"fraction={fraction}: the part to hold out is more than 0 and less than 1")
        middle = self._length - round(self._length * fraction)
        if middle < 2 or self._length - middle < 2:
            raise TextError(
                f"{self.locate(0)}: {self._length} {self._store.unit}s cannot be split {1 - fraction:g} to "
                f"{fraction:g}, as each part needs at least two; give a longer text or another fraction"
            )
        return self.slice(0, middle), self.slice(middle, self._length)

    def locate(self, position):
        """Say where a position of this text is, for messages: ``file: byte 17`` (counted from 0)."""
        position = int(self._start + position % self._length)
        i = int(np.searchsorted(self._store.starts, position, "right")) - 1
        return f"{_show(self._store.names[i])}: {self._store.unit} {position - self._store.starts[i]}"

    def digest(self):
        """Return a fingerprint of the symbols, 32 hex digits, whatever files they came from.

        All symbols count up to 64 Mi of them; of a longer text the length and 1024 blocks of
        4096 symbols spread evenly over it, so a small change to a huge text may go unseen.
        """
        n = self._length
        digest = hashlib.blake2b(f"{self._store.unit} {n}:".encode(), digest_size=16)
        starts = range(0, n, _HASH_BLOCK)
        if n > _HASH_WHOLE:
            starts = ((n - _HASH_BLOCK) * i // (_HASH_BLOCKS - 1) for i in range(_HASH_BLOCKS))
        for start in starts:
            block = self._read(start, min(_HASH_BLOCK, n - start))
            digest.update(block.astype(block.dtype.newbyteorder("<"), copy=False))
        return digest.hexdigest()

    def close(self):
        """Close the files of this text and of its parts; a later read opens them again."""
        self._store.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _read(self, start, count):
        """``count`` symbols of this part from ``start`` on, in the store's own type; no wrapping."""
        block = self._store.read(self._start + start, count)
        return np.frombuffer(block, np.uint8) if isinstance(block, bytes) else block


class _MemoryStore:
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

    def close(self):
        pass


class _DiskStore:
    """The bytes of files, read as they are asked for.

    Reading at a position (``pread``) takes the place of memory mapping: 2000 gathers of 64 streams all over a
    5 GB file add 4 GB to a process that maps it, and 1 MB to this one; a file that shrinks gives a short read
    rather than SIGBUS; and a text of many files needs few descriptors (Python's ``mmap`` holds one a file).
    """

    dtype, unit, max_symbol = np.dtype(np.uint8), "byte", 255

    def __init__(self, paths):
        self.names = paths
        self._descriptors, self._limit = {}, _descriptor_limit()  # file number -> descriptor, oldest first
        weakref.finalize(self, _close_all, self._descriptors)
        # Every file is opened once here, so that an unreadable one is known before training begins.
        statuses = [self._open(i)[1] for i in range(len(paths))]
        self._identities = [_identity(status, path) for status, path in zip(statuses, paths, strict=True)]
        self._sizes = np.array([status.st_size for status in statuses], np.int64)
        ends = np.cumsum(self._sizes)
        self.starts, self.size = ends - self._sizes, int(ends[-1]) if len(paths) else 0

    def read(self, start, count):
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
        pieces = [self.read(start, count) if cross else self._read_file(i, at, count) for start, i, at, cross in rows]
        return np.frombuffer(b"".join(pieces), np.uint8).reshape(-1, count)

    def close(self):
        _close_all(self._descriptors)

    def __getstate__(self):
        return {**self.__dict__, "_descriptors": {}}  # in another process the numbers mean other files

    def _read_file(self, i, at, count):
        """Exactly ``count`` bytes of file ``i``."""
        try:
            data = _pread(self._descriptor(i), count, at)
        except OSError as error:
            raise _cannot_read(self.names[i], error) from None
        if len(data) == count:
            return data
        if not data:
            raise TextError(
                f"{_show(self.names[i])}: the file has shrunk while in use: byte {at} of {self._sizes[i]} is gone; "
                f"put the text back, or begin again with the new one"
            )
        return data + self._read_file(i, at + len(data), count - len(data))  # pread gives at most 2 GB a call

    def _descriptor(self, i):
        descriptor = self._descriptors.get(i)
        if descriptor is None:
            descriptor, status = self._open(i)
            if _identity(status, self.names[i]) != self._identities[i]:
                raise TextError(f"{_show(self.names[i])}: another file has taken its place while in use; begin again")
        return descriptor

    def _open(self, i):
        if len(self._descriptors) >= self._limit:
            os.close(self._descriptors.pop(next(iter(self._descriptors))))
        try:
            descriptor = self._descriptors[i] = os.open(self.names[i], os.O_RDONLY | getattr(os, "O_BINARY", 0))
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
        raise TextError(f"{_show(path)}: the vocabulary is empty; it needs one token a line")
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
        raise TextError(f"{_show(path)}:{line}: {word} is not a token (a whole number from 0 to {LARGEST_TOKEN})")
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
                raise TextError(
                    f"{_show(path)}: there is no text in this folder (hidden and empty files are passed over)"
                )
        else:  # a pipe or a device has no end, or cannot be read twice
            raise TextError(f"{_show(path)}: neither a file nor a folder; save the text to a file first")
        for name, status in found:
            identity = _identity(status, name)
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


def _identity(status, path):
    """What tells a file from every other; some network drives on Windows number no files."""
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _descriptor_limit():
    """How many files to keep open at once: half of what the system allows this process, at most 512."""
    try:
        import resource
    except ImportError:  # Windows
        return 128
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 512 if soft == resource.RLIM_INFINITY else max(1, min(512, soft // 2))


def _close_all(descriptors):
    while descriptors:
        os.close(descriptors.popitem()[1])


if hasattr(os, "pread"):
    _pread = os.pread
else:  # Windows
    _seek_then_read = threading.Lock()

    def _pread(descriptor, count, at):
        with _seek_then_read:
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.read(descriptor, count)


def _cannot_read(path, error):
    reason = getattr(error, "strerror", None) or str(error)
    return TextError(f"{_show(path)}: cannot read this text: {reason}; check the name and its permissions")


def _show(path):
    """A path as a message can hold it: on one line, and without stray halves of characters."""
    name = os.fsdecode(path)
    return name if name.isprintable() else ascii(name)[1:-1]
