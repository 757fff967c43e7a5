"""Where a text surprises a network: bits of each character, and lines by how surprising they are.

The bits of a character are -log₂ p, given all that stands before it; those of a character of several bytes
are the sum of its bytes'. A network that was trained on such texts finds a mistake of typing unlikely.
"""

import io
import math
from dataclasses import dataclass

import numpy as np

from pydarknet.errors import TextError

# benchmarks/mistakes.py: of 40 planted mistakes 10 are among the first 40 lines; by the mean none, by all bits 1.
NEIGHBOURS = 3


@dataclass(frozen=True)
class Line:
    """Line ``number`` of a text, from 1: its ``characters``, the line end among them, and the ``bits`` of each, (n,).

    A byte that is no UTF-8 is a character of its own, written ``\\xff``.
    """

    number: int
    characters: tuple
    bits: np.ndarray

    @property
    def text(self):
        """The line without its end."""
        return "".join(self.characters).rstrip("\r\n")

    @property
    def total(self):
        """The bits of all characters."""
        return float(self.bits.sum())

    @property
    def mean(self):
        """Bits per character."""
        return self.total / len(self.bits)

    @property
    def peak(self):
        """The most bits of :data:`NEIGHBOURS` characters in a row: what follows a mistake of typing surprises too."""
        if len(self.bits) < NEIGHBOURS:
            return self.total
        return float(np.convolve(self.bits, np.ones(NEIGHBOURS), "valid").max())


MEASURES = ("peak", "mean", "total")


def lines_of(data, nats):
    """The :class:`Line` objects of the bytes ``data`` (n,), whose bytes but the first cost ``nats`` (n - 1,).

    The first byte, which nothing stands before, costs nothing. Raises TextError for a text of fewer than two bytes.
    """
    if len(data) < 2:
        raise TextError("there is nothing to score: the text needs at least two characters")
    bits = np.concatenate([[0.0], nats]) / math.log(2)
    lines, start = [], 0
    for number, line in enumerate(io.BytesIO(data), 1):
        characters, sizes = _characters(line)
        edges = np.cumsum([0, *sizes[:-1]])
        lines.append(Line(number, characters, np.add.reduceat(bits[start : start + len(line)], edges)))
        start += len(line)
    return lines


def _characters(line):
    """The characters of a line and the bytes of each."""
    characters = line.decode("utf-8", "surrogateescape")
    if characters.isascii():
        return tuple(characters), [1] * len(characters)
    stray = [0xDC80 <= ord(character) <= 0xDCFF for character in characters]
    sizes = [1 if alone else len(character.encode()) for character, alone in zip(characters, stray)]
    shown = (f"\\x{ord(character) - 0xDC00:02x}" if alone else character for character, alone in zip(characters, stray))
    return tuple(shown), sizes


def most_surprising(lines, count, measure="peak"):
    """The ``count`` lines with the greatest ``measure``, one of :data:`MEASURES`, the greatest first."""
    return sorted(lines, key=lambda line: -getattr(line, measure))[:count]
