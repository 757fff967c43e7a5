"""Threads: those of NumPy's matrix library, which can be asked for and bounded, and a team of our own.

OpenBLAS, which NumPy's packages bring, shares out every product by itself, and its threads then wait for
the next one at full load for some 30 ms, on cores that others would need; beside another busy program they
wait for each other. The threads of a :class:`Team` share out whole steps instead, each with its own units of a
layer, and wait for each other once a step, asleep. While they run, the library is held to one thread.

Source: OpenBLAS's ``openblas_get_num_threads`` and ``openblas_set_num_threads``; NumPy's packages put
``scipy_`` before and ``64_`` after the names.
"""

import _thread
import ctypes
import functools
import itertools
import sys
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

_NAMES = "scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads"
_HOMES = "numpy._core._multiarray_umath", "numpy.core._multiarray_umath"  # of NumPy 2 and 1
LOOK = 0.05  # seconds: so often a thread that waits checks that the others are alive
PATIENCE = 0.2  # seconds to try again when a thread is refused: for a moment the system still counts one that has ended


class Team:
    """``count`` threads that share out the work of a call, the calling thread among them: see :func:`team_of`.

    A thread may die without a word, when no memory is left to say so. So whoever waits checks now and then that the others are
    alive.
    """

    def __init__(self, count=1):
        self.count = count
        self._threads = []  # weak references to what a thread alone holds, until it ends
        self._gates = [threading.Lock() for _ in range(count)]  # where each waits for the others, closed while it does
        self._lock, self._come = threading.Lock(), 0  # how many have come to the gates
        self._job: Any = None  # the work of a run, and numpy's settings for errors in it
        self._errors: list[BaseException] = []
        self._over = False

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

        ``meet()`` waits until all have come there. An error in one of them ends all, and the team, and is raised here.
        """
        if self.count == 1:
            work(0, lambda: None)
            return
        self._job = work, np.geterr()
        try:
            self._meet(0)
            work(0, functools.partial(self._meet, 0))
            self._meet(0)
        except _Over:
            raise self._errors[0] if self._errors else MemoryError("a thread that shared the work has ended") from None
        except BaseException as error:
            self._errors.append(error)
            self._stop()
            raise
        finally:
            self._job = None

    def start(self):
        """Start the threads; return whether all could be had."""
        for gate in self._gates:
            gate.acquire()
        if not all(self._start_thread(n) for n in range(1, self.count)):
            return False
        try:
            self._meet(0)
        except _Over:
            return False
        return True

    def end(self):
        """End the threads, and wait until they have ended."""
        self._stop()
        while any(thread() is not None for thread in self._threads):
            time.sleep(1e-4)
        self._errors.clear()

    def _start_thread(self, n):
        # A Thread of the threading module would wait for ever for one that dies before it has told that it has begun.
        serve, until = functools.partial(self._serve, n), time.monotonic() + PATIENCE
        while True:
            try:
                _thread.start_new_thread(serve, ())
            except (RuntimeError, MemoryError):
                if time.monotonic() > until:
                    return False
                time.sleep(1e-3)
            else:
                self._threads.append(weakref.ref(serve))
                return True

    def _serve(self, n):
        """What the thread ``n`` does until the team ends."""
        meet = functools.partial(self._meet, n)
        try:
            meet()  # to tell that it is there
            while True:
                meet()
                work, settings = self._job
                with np.errstate(**settings):
                    work(n, meet)
                meet()
        except _Over:
            pass
        except BaseException as error:
            self._errors.append(error)
            self._stop()

    def _meet(self, n):
        """As thread ``n``, wait until all have come. Raises _Over when the team has ended."""
        with self._lock:
            self._come = (self._come + 1) % self.count
            last = self._come == 0
        if last:
            self._open(n)
        else:
            while not self._gates[n].acquire(timeout=LOOK) and not self._over:
                if any(thread() is None for thread in self._threads):
                    self._stop()
        if self._over:
            raise _Over

    def _open(self, own=None):
        for n, gate in enumerate(self._gates):
            if n != own:
                with suppress(RuntimeError):  # it is open: the team ends
                    gate.release()

    def _stop(self):
        self._over = True
        self._open()


class _Over(Exception):
    """The team ends: another thread has failed, or there is no more work."""


ALONE = Team()


@contextmanager
def team_of(count):
    """A :class:`Team` of ``count`` threads, which end with the context; :data:`ALONE` where so many cannot be had.

    The system may bound them (``ulimit -u``), or have no memory for one more. They are started here, not in the midst of a
    call, when what has been shared out could no longer be done alone.
    """
    team = Team(count)
    try:
        yield team if team.start() else ALONE
    finally:
        team.end()


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
