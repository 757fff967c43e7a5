"""Threads: those of NumPy's matrix library, which can be asked for and bounded, and a team of our own.

OpenBLAS, which NumPy's packages bring, shares out every product by itself, and its threads then wait for
the next one at full load for some 30 ms, on cores that others would need; beside another busy program they
wait for each other. The threads of a :class:`Team` share out whole steps instead, each with its own units of a
layer, and wait for each other once a step, asleep. While they run, the library is held to one thread.

Source: OpenBLAS's ``openblas_get_num_threads`` and ``openblas_set_num_threads``; NumPy's packages put
``scipy_`` before and ``64_`` after the names.
"""

import ctypes
import functools
import itertools
import sys
import threading
from contextlib import contextmanager

import numpy as np

from pydarknet.errors import TrainingError

_NAMES = "scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads"
_HOMES = "numpy._core._multiarray_umath", "numpy.core._multiarray_umath"  # of NumPy 2 and 1


class Team:
    """``count`` threads that share out the work of a call, the calling thread among them."""

    def __init__(self, count=1):
        self.count = count

    def shares(self, size):
        """``size`` things in ``count`` runs of about equal length: slices."""
        edges = [size * n // self.count for n in range(self.count + 1)]
        return [slice(start, stop) for start, stop in itertools.pairwise(edges)]

    def product(self, a, b, out):
        """``out`` = ``a`` @ ``b``, its rows shared out. Not for use within :meth:`run`."""
        shares = self.shares(len(a))
        self.run(lambda n, meet: np.matmul(a[shares[n]], b, out=out[shares[n]]))

    def run(self, work):
        """Call ``work(n, meet)`` for each n below ``count``, on a thread each, and wait for all.

        ``meet()`` waits until all have come there. An error in one of them ends all, and is raised here. Raises TrainingError
        when a thread cannot be started.
        """
        if self.count == 1:
            work(0, lambda: None)
            return
        barrier = threading.Barrier(self.count)
        errors, settings = [], np.geterr()

        def guarded(n):
            try:
                with np.errstate(**settings):
                    work(n, barrier.wait)
            except threading.BrokenBarrierError:
                pass  # it stopped because another has
            except BaseException as error:
                errors.append(error)
                barrier.abort()

        started = []
        try:
            for n in range(1, self.count):
                thread = threading.Thread(target=guarded, args=(n,), daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise TrainingError(
                        f"cannot start a thread to share the work: {error}; with OPENBLAS_NUM_THREADS=1 none is needed"
                    ) from None
                started.append(thread)
            guarded(0)
        except BaseException:  # no more threads can be had, or Ctrl-C between the lines
            barrier.abort()
            raise
        finally:
            for thread in started:
                thread.join()
        if errors:
            raise errors[0]


ALONE = Team()


def can_start(count):
    """Whether ``count`` threads more can run at once: the system may bound them (``ulimit -u``)."""
    ready = threading.Event()
    started = []
    try:
        for _ in range(count):
            started.append(threading.Thread(target=ready.wait, daemon=True))
            started[-1].start()
    except RuntimeError:
        started.pop()
        return False
    finally:
        ready.set()
        for thread in started:
            thread.join()
    return True


@functools.cache
def _functions():
    """The library's functions to get and to set the number, or None if it is another library."""
    home = next((sys.modules[name] for name in _HOMES if name in sys.modules), None)
    if home is None:
        return None
    library = ctypes.CDLL(home.__file__)
    for name in _NAMES:
        try:
            return getattr(library, name.format("get")), getattr(library, name.format("set"))
        except AttributeError:
            pass
    return None


def blas_threads():
    """On how many threads a large matrix product runs: as a rule one a core; None if the library does not tell."""
    functions = _functions()
    return functions[0]() if functions else None


@contextmanager
def blas_limited(count):
    """While it lasts, matrix products run on at most ``count`` threads; a library without such a setting goes on as before."""
    before = blas_threads()
    if before is None or before <= count:
        yield
        return
    _, set_threads = _functions()
    set_threads(count)
    try:
        yield
    finally:
        set_threads(before)
