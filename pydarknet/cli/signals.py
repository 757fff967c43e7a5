"""Signals that end a command, and those that stop a training run.

A run ends between two iterations, saved, however long whoever reads its output sleeps.
"""

import multiprocessing
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

from pydarknet.cli.streams import tell

STOP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
PATIENCE = 0.5  # seconds for what is to be written, once a signal has come; if it moves no further, the run ends without it
AT_MOST = 3.0  # seconds, if nothing tells whether it moves


class _Ended(SystemExit):
    pass


@contextmanager
def ended_by_signals():
    """While it lasts, SIGTERM and SIGHUP end the command as Ctrl-C does: what it has begun is cleaned up.

    A signal that the process was started to ignore stays ignored.
    """

    def end(number, frame):
        raise _Ended(128 + number)

    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in heard:
        signal.signal(number, end)
    try:
        yield
    except _Ended:
        tell("interrupted")
        raise
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


class StopSignals:
    """While it lasts, SIGINT, SIGTERM and SIGHUP are only noted, in ``numbers``; a SIGINT after one ends all at once.

    So an iteration is always whole: an interrupted update would leave half of the parameters moved.
    A signal that the process was started to ignore (as shells start a background job) stays ignored.

    What is computed and saved runs :meth:`undisturbed`. All else may have to wait for a reader: of a pipe, of a terminal that
    Ctrl-S has stopped. After a signal it waits no longer than it must: then ``rescue()`` saves the work, and the process ends
    here, for on the usual way out more would be written. ``descriptors`` are the files that tell whether they can be written.

    A rank of ``mpi`` leaves it to mpirun to end all at once, and waits for readers as long as it takes, for others wait for
    it; only the ``first`` says anything. The run stops by ``agreed``: the numbers, or those that all ranks know of.
    """

    def __init__(self, mpi: bool = False, first: bool = True):
        self.numbers: list[int] = []
        self.agreed = self.numbers
        self.rescue: Callable[[], object] | None = None
        self._mpi, self._first = mpi, first
        self.descriptors: set[int] = {1, 2}
        self._undisturbed = int(mpi)
        self._since: float | None = None  # when what may be waiting for a reader began
        self._before: dict[int, Any] = {}

    def __bool__(self):
        """Whether one has come, and the run is to stop."""
        return bool(self.agreed)

    @property
    def code(self):
        """The exit code of a process that the first of them has ended."""
        return 128 + self.agreed[0]

    def __enter__(self):
        handlers = {number: signal.getsignal(number) for number in STOP}
        self._before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        self._disarm()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def undisturbed(self):
        """While it lasts, the run is not ended but by a second Ctrl-C."""
        self._undisturbed += 1
        self._disarm()
        try:
            yield
        finally:
            self._undisturbed -= 1
            if self.numbers:
                self._arm()

    def _note(self, number, frame):
        first, at_once = not self.numbers and self._first, bool(self.numbers) and number == signal.SIGINT and not self._mpi
        self.numbers.append(number)  # before anything is written: whoever reads it may send the next signal at once
        if at_once or first:
            said = b"interrupted" if at_once else b"finishing this iteration; Ctrl-C again stops now, without saving"
            if _can_be_written(2):
                with suppress(OSError):  # not click.echo: the signal may have come in the midst of one
                    os.write(2, b"\npydarknet: " + said + b"\n")
        if at_once:  # an exception could be lost: Python drops one that is raised in a __del__
            _end(130)
        self._arm()

    def _arm(self):
        """Look again in a while whether what is written now moves."""
        if self._undisturbed:
            return
        if self._since is None:
            self._since = time.monotonic()
            self._before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
            signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def _disarm(self):
        if self._since is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._since = None

    def _look(self, number, frame):
        if self._since is None:  # it was on its way when it was called off
            return
        if all(map(_can_be_written, self.descriptors)) and time.monotonic() - self._since < AT_MOST:
            self._arm()
            return
        # Between two iterations, or none has begun: nothing changes while somebody is waited for.
        with self.undisturbed():
            if self.rescue:
                with suppress(Exception):  # nobody reads why
                    self.rescue()
        _end(self.code)


def _can_be_written(descriptor):
    """Whether a line goes there at once; also where it never can, which needs no waiting either."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _end(code):
    for process in multiprocessing.active_children():
        process.kill()
    os._exit(code)
