"""Random numbers: NumPy's for training, and the C library's for writing the very text that Darknet writes.

``-srand N`` gives Darknet's ``srand(N)``. Whoever passes the same number to both programs with the
same weights expects the same text, so generation draws from the generator of the GNU C library,
``rand()``: r[n] = r[n-3] + r[n-31] modulo 2^32, of which the upper 31 bits come out.
"""

import time
from numbers import Integral

import numpy as np

from pydarknet.errors import InputError

PURPOSES = ("weights", "dropout", "offsets")

_ORDER = 31
_DISCARDED = 310  # outputs that srand() throws away


def is_whole(number) -> bool:
    """Whether it is a whole number, of Python or of NumPy."""
    return isinstance(number, Integral)


def generator(srand, purpose):
    """A numpy Generator for one of :data:`PURPOSES`, independent of the others; ``srand`` None takes one from the system.

    Raises InputError for an ``srand`` that is not a whole number from 0.
    """
    if srand is not None and not (is_whole(srand) and srand >= 0):
        raise InputError(f"srand is {srand!r}; it must be a whole number from 0")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(srand, spawn_key=(PURPOSES.index(purpose),))))


def check_state(facts, name):
    """Raise ValueError unless ``facts["random"][name]`` is the state of a generator; one that stands still would hang us."""
    try:
        state = facts["random"][name]
        inner = state["state"]
        numbers = (inner["state"], 2**128), (inner["inc"], 2**128), (state["has_uint32"], 2), (state["uinteger"], 2**32)
        fine = all(type(number) is int and 0 <= number < end for number, end in numbers) and inner["inc"] % 2 == 1
        np.random.PCG64(0).state = state
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        fine = False
    if not fine:
        raise ValueError("has no usable random state")


class CRandom:
    """The generator behind ``rand()`` of the GNU C library, seeded as by ``srand(seed)``; None takes the time.

    Source: the algorithm as published by P. Selinger, "The GLIBC random number generator", 2007.
    """

    def __init__(self, seed=None):
        seed = int(time.time()) if seed is None else seed
        seed &= 0xFFFFFFFF
        word = seed - (1 << 32) if seed >> 31 else seed  # the C library computes with a signed int
        first = [word or 1]
        for _ in range(_ORDER - 1):
            # C's division rounds towards zero.
            high = int(first[-1] / 127773)
            value = 16807 * (first[-1] - high * 127773) - 2836 * high
            first.append(value + 2147483647 if value < 0 else value)
        self._last = np.array(first, np.int64).astype(np.uint32)  # the last 31 values, oldest first
        # The next three repeat the first three; from there on the rule holds.
        self._last = np.concatenate([self._last[3:], self._last[:3]])
        self._ahead = []
        self.skip(_DISCARDED)

    def skip(self, count):
        """Go on by ``count`` numbers, however many, in logarithmic time."""
        for _ in range(min(count, len(self._ahead))):
            self._ahead.pop()
            count -= 1
        if count:
            power = _power_of_x(count)
            window = np.concatenate([self._last, _following(self._last, _ORDER)])
            self._last = np.array([np.sum(power * window[n : n + _ORDER], dtype=np.uint32) for n in range(_ORDER)], np.uint32)

    def rand(self):
        """The next whole number of 0..2147483647."""
        if not self._ahead:
            values = _following(self._last, 16 * _ORDER)
            self._last = values[-_ORDER:]
            self._ahead = [int(value) for value in values[::-1] >> 1]
        return self._ahead.pop()

    def uniform(self):
        """The next number of 0..1, float32, as Darknet's ``rand_uniform(0, 1)`` computes it."""
        return np.float32(self.rand() * 2.0**-31)  # RAND_MAX is 2^31 in float32


def _following(last, count):
    """The ``count`` values after the 31 of ``last``."""
    values = np.empty(_ORDER + count, np.uint32)
    values[:_ORDER] = last
    for n in range(_ORDER, len(values), 3):  # three at a time: r[n] needs r[n-3]
        size = min(3, len(values) - n)
        values[n : n + size] = values[n - 3 : n - 3 + size] + values[n - 31 : n - 31 + size]
    return values[_ORDER:]


def _power_of_x(exponent):
    """x^exponent modulo x^31 - x^28 - 1, coefficients modulo 2^32, lowest first: how far values shift."""
    result = np.zeros(_ORDER, np.uint32)
    result[0] = 1
    base = np.zeros(_ORDER, np.uint32)
    base[1] = 1
    while exponent:
        if exponent & 1:
            result = _product(result, base)
        base = _product(base, base)
        exponent >>= 1
    return result


def _product(a, b):
    product = [int(c) & 0xFFFFFFFF for c in np.convolve(a.astype(np.uint64), b.astype(np.uint64))]
    for n in range(len(product) - 1, _ORDER - 1, -1):
        product[n - 3] += product[n]
        product[n - 31] += product[n]
    return np.array([c & 0xFFFFFFFF for c in product[:_ORDER]], np.uint32)
