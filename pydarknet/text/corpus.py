"""Text as one long sequence of symbols, wrapping at its end: what the streams of a network read.

A text is bytes (symbols 0 to 255), or with ``tokenized=True`` the whole numbers of a token file; the files
themselves are read by :mod:`pydarknet.text.stores`. Letters as everywhere in this package: T steps, B streams,
V symbols. Darknet's counterpart is ``get_rnn_data`` in ``examples/rnn.c`` (pjreddie/darknet).
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from pydarknet.errors import InputError, TextError
from pydarknet.system.files import show
from pydarknet.text.stores import IN_MEMORY, MemoryStore, PiecesStore, open_store
from pydarknet.text.tokens import LARGEST_TOKEN

BLOCK = 1 << 20  # symbols that are read at once
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
    def open(cls, paths, tokenized: bool = False, in_memory: int = IN_MEMORY) -> "Corpus":
        """Open one path, or a list of paths, of files and folders as one text, joined end to end.

        A folder is walked through all its subfolders, in each the files first, then the folders,
        sorted by name. In a folder, names that begin with a dot, links to folders and whatever is
        not a regular file are skipped. Empty files are skipped, and a file that can be
        reached twice (through a link, say) is read once, where it comes first.

        With ``tokenized`` the files hold whole numbers between blanks, which are kept in memory at 4
        bytes each (Darknet's ``-tokenized``). ``in_memory`` is the size in bytes up to which a byte
        text is read into memory.

        Raises TextError: a path that is missing, unreadable or neither file nor folder, a
        folder without text, fewer than two symbols, a word that is not a token.
        """
        store = open_store(paths, tokenized, in_memory)
        return cls(store, 0, store.size)

    @classmethod
    def from_symbols(cls, symbols: Any, name: str = "<memory>") -> "Corpus":
        """Make a text of ``bytes``, or of an array of whole numbers from 0 to 2**31 - 1.

        Raises TextError if there are fewer than two, InputError if one is out of range.
        """
        if isinstance(symbols, (bytes, bytearray)):
            symbols = np.frombuffer(bytes(symbols), np.uint8)
        symbols = np.asarray(symbols)
        if symbols.ndim != 1 or symbols.dtype.kind not in "iu":
            raise InputError(f"{name}: symbols are one row of integers, not {symbols.dtype} {symbols.shape}")
        if len(symbols) < 2:
            raise TextError(f"{name}: {len(symbols)} symbol{'s' * (len(symbols) != 1)}: nothing to predict; give at least two")
        if symbols.dtype != np.uint8:
            if symbols.min() < 0 or symbols.max() > LARGEST_TOKEN:
                raise InputError(f"{name}: symbols are from 0 to {LARGEST_TOKEN}")
            symbols = symbols.astype(np.int32)
        return cls(MemoryStore(symbols, [name], np.zeros(1, np.int64)), 0, len(symbols))

    def __repr__(self) -> str:
        return f"Corpus({self.title}, {self._length:,} {self._store.unit}s)"

    @property
    def title(self) -> str:
        """What messages call it: the first file, and how many more there are."""
        names = self.names
        return show(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")

    def __len__(self) -> int:
        return self._length

    @property
    def names(self) -> list:
        """The names of the files that make up the whole text, in order."""
        return list(self._store.names)

    @property
    def unit(self) -> str:
        """What a symbol is: ``byte`` or ``token``."""
        return self._store.unit

    @property
    def max_symbol(self) -> int:
        """The largest token of the whole text; for bytes 255, as looking for it would read all the text."""
        return self._store.max_symbol

    def symbols(self, start: int, count: int) -> np.ndarray:
        """Return ``count`` symbols from position ``start`` on, wrapping at the end: (count,) int64."""
        if count < 0:
            raise InputError(f"count={count}: it cannot be negative")
        start %= self._length
        head = self._read(start, min(count, self._length - start))
        if len(head) == count:
            return head.astype(np.int64)
        once = np.concatenate((head, self._read(0, min(count - len(head), start))))
        return np.resize(once, count).astype(np.int64)  # resize repeats a text shorter than count

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position, symbols) for the whole text, a block of symbols (n,) int64 at a time."""
        for start in range(0, self._length, BLOCK):
            yield start, self.symbols(start, min(BLOCK, self._length - start))

    def gather(self, offsets: Any, steps: int, vocabulary: int | None = None) -> np.ndarray:
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
        if vocabulary is not None and vocabulary <= self.max_symbol and rows.max() >= vocabulary:
            b, t = np.argwhere(rows >= vocabulary)[0]
            raise TextError(
                f"{self.locate(offsets[b] + t)}: symbol {rows[b, t]} is out of range for a network of "
                f"{vocabulary} inputs (0 to {vocabulary - 1}); give [net] more inputs or change the text"
            )
        return rows.T.astype(np.int64, order="C")

    def slice(self, start: int, stop: int) -> "Corpus":
        """Return the part [start, stop) as a text of its own, which wraps to its own start."""
        if not 0 <= start <= stop <= self._length:
            raise InputError(f"[{start}, {stop}) is not a part of a text of {self._length} {self._store.unit}s")
        if stop - start < 2:
            raise TextError(
                f"{self.locate(start)}: a part of {stop - start} {self._store.unit}s leaves nothing "
                f"to predict; a part needs at least two"
            )
        return Corpus(self._store, self._start + start, self._start + stop)

    def split(self, fraction: float, parts: int = 1) -> tuple["Corpus", "Corpus"]:
        """Return (train, valid): the text without its last ``fraction``, and that last part.

        With more ``parts`` the text is cut into so many stretches of equal length, and each gives its last ``fraction``;
        what is left of them is joined, and so is what they give.

        Raises InputError unless 0 < fraction < 1 and parts >= 1, TextError if a part has fewer than two symbols.
        """
        if not 0 < fraction < 1:
            raise InputError(f"fraction={fraction}: the part to hold out is more than 0 and less than 1")
        if parts < 1:
            raise InputError(f"parts={parts}: it must be a whole number from 1")
        sizes = self._length // parts, -(-self._length // parts)  # of all stretches: known before a list of them takes memory
        held_out = [round(size * fraction) for size in sizes]
        if min(*held_out, *(size - held for size, held in zip(sizes, held_out))) < 2:
            into = f" in {parts} places" if parts > 1 else ""
            raise TextError(
                f"{self.locate(0)}: {self._length} {self._store.unit}s cannot be split {1 - fraction:g} to "
                f"{fraction:g}{into}, as each part needs at least two; give a longer text or another fraction"
            )
        ends = [self._length * i // parts for i in range(parts + 1)]
        middles = [stop - round((stop - start) * fraction) for start, stop in pairwise(ends)]
        return self._joined(list(zip(ends, middles))), self._joined(list(zip(middles, ends[1:])))

    def stretches(self) -> "list[Corpus]":
        """The parts of this text that were joined to it by :meth:`split`, in order; else the text itself."""
        stop = self._start + self._length
        cuts = [self._start, *(cut for cut in self._store.joints if self._start < cut < stop), stop]
        return [Corpus(self._store, *pair) for pair in pairwise(cuts)]

    def _joined(self, pieces):
        if len(pieces) == 1:
            return self.slice(*pieces[0])
        store = PiecesStore(self._store, [(self._start + start, self._start + stop) for start, stop in pieces])
        return Corpus(store, 0, store.size)

    def locate(self, position: int) -> str:
        """Say where a position of this text is, for messages: ``file: byte 17`` (counted from 0)."""
        return self._store.locate(self._start + int(position) % self._length)

    def digest(self) -> str:
        """Return a fingerprint of the symbols, 32 hex digits, whatever files they came from.

        All symbols count up to 64 Mi of them; of a longer text the length and 1024 blocks of
        4096 symbols spread evenly over it, so a small change to a huge text may go unseen.
        """
        n = self._length
        digest = hashlib.blake2b(f"{self._store.unit} {n}:".encode(), digest_size=16)
        starts: Iterable[int] = range(0, n, _HASH_BLOCK)
        if n > _HASH_WHOLE:
            starts = ((n - _HASH_BLOCK) * i // (_HASH_BLOCKS - 1) for i in range(_HASH_BLOCKS))
        for start in starts:
            block = self._read(start, min(_HASH_BLOCK, n - start))
            digest.update(block.astype(block.dtype.newbyteorder("<"), copy=False))
        return digest.hexdigest()

    def close(self) -> None:
        """Close the files of this text and of its parts; a later read opens them again."""
        self._store.close()

    def __enter__(self) -> "Corpus":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _read(self, start, count):
        """``count`` symbols of this part from ``start`` on, in the store's own type; no wrapping."""
        return self._store.read(self._start + start, count)
