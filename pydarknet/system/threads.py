"""Threads: those of NumPy's matrix library, which can be asked for and bounded, and our own, which share out a layer's units.

OpenBLAS, which NumPy's packages bring, shares out every product by itself, and its threads then wait for
the next one at full load for some 30 ms, on the cores that threads of our own would need. So it is the one
or the other: :func:`taking_over`. Ours share out whole steps: each keeps to its rows of the weights, and
they wait for each other once a step, asleep.

Source: OpenBLAS's ``openblas_get_num_threads`` and ``openblas_set_num_threads``; NumPy's packages put
``scipy_`` before and ``64_`` behind the names.
"""

import ctypes
import functools
import sys
import threading
from contextlib import contextmanager

import numpy as np

_NAMES = "scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads"
_HOMES = "numpy._core._multiarray_umath", "numpy.core._multiarray_umath"  # of NumPy 2 and 1

_own = 1


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
    """While it lasts, matrix products run on at most ``count`` threads; of a library that cannot be told, as many as before."""
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


def own_threads():
    """How many threads of our own are to share out the work: 1 but in :func:`taking_over`."""
    return _own


@contextmanager
def taking_over():
    """While it lasts, as many threads of our own share out the work as the library had, and the library has one.

    That is so for the whole program: networks that train in several of its threads get the right results, but
    perhaps on too many threads or too few.
    """
    global _own
    before = _own
    _own = max(before, blas_threads() or 1)
    try:
        with blas_limited(1):
            yield
    finally:
        _own = before


def product(a, b, out):
    """``out`` = ``a`` @ ``b``, rows shared out to our own threads, or left to the library's. Not for use in :func:`run_together`."""
    count = own_threads()
    edges = [len(a) * n // count for n in range(count + 1)]

    def rows(n, meet):
        part = slice(edges[n], edges[n + 1])
        np.matmul(a[part], b, out=out[part])

    run_together(rows, count)


def run_together(work, count):
    """Call ``work(n, meet)`` for each n below ``count``, on as many threads, this one among them, and wait for all.

    ``meet()`` waits until all have come there. An error in one of them ends all, and is raised here.
    """
    if count == 1:
        work(0, lambda: None)
        return
    barrier = threading.Barrier(count)
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
        for n in range(1, count):
            thread = threading.Thread(target=guarded, args=(n,), daemon=True)
            thread.start()
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
