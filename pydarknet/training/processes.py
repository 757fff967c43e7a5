"""Training on several cores: processes that share out the streams of a batch.

The streams of a batch meet only in the sum of their gradients. So each process runs a part of them,
forward and backward, on a core of its own, and the gradients are added. They meet once a call, and no
process waits for another within it. (Threads of the matrix library on both cores must wait for each
other twice a step, and leave all that is not a matrix product to one core.) Darknet does the same with
several GPUs, but it averages weights.

This process is one of them; the others are its forks. Parameters, states and symbols are in memory that
all see; each has gradients of its own. The result is that of one process but for the order in which
float32 numbers are added.
"""

import atexit
import itertools
import mmap
import multiprocessing
import os
import resource
import signal
import sys
import warnings
from contextlib import contextmanager, suppress
from multiprocessing import util  # noqa: F401 (it registers what ends processes when the program ends: before we do)

import numpy as np

from pydarknet.errors import InputError, TrainingError


@contextmanager
def stream_processes(network, count):
    """Give a function that does what ``network.train_call(symbols, truth)`` does, in ``count`` processes.

    They start with the first call and end with the context. Load weights before the first call. Where no processes can be
    had, this one does all, with a warning. Raises InputError when this network can't be trained so, and the function
    TrainingError when a process ends or fails, MemoryError when it has too little memory.
    """
    if count == 1:
        yield network.train_call
        return
    if not 1 <= count <= network.streams:
        raise InputError(
            f"{count} processes: the batch has {network.streams} streams to share out; give 1 to {network.streams}"
        )
    if any(layer.statistics for layer in network.layers):
        raise InputError(
            f"{count} processes: batch normalisation takes its mean over all streams, which only one process sees; use one"
        )
    if not sys.platform.startswith("linux"):  # there is no fork, or (macOS) the system libraries do not bear it
        warnings.warn("processes share the work on Linux only: training goes on in one process", stacklevel=3)
        yield network.train_call
        return
    processes = _Processes(network, count)
    try:
        yield processes.train_call
    finally:
        processes.close()


class _Processes:
    """This process and its workers."""

    def __init__(self, network, count):
        self.network = network
        edges = [network.streams * n // count for n in range(count + 1)]
        self._own, *self._parts = (slice(*pair) for pair in itertools.pairwise(edges))
        self._draws = any(layer.draws for layer in network.layers)
        self._workers = []
        self._closed = False
        self._alone = False  # whether no process could be started
        # Where the context is never left. It runs before multiprocessing's own, which would wait for the workers.
        atexit.register(self.end)

    def train_call(self, symbols, truth):
        """:meth:`Network.train_call` of all streams. After an error the streams' states may be anything."""
        network = self.network
        if self._closed:
            raise InputError("the context of this train_call has been left: its processes have ended")
        symbols, truth = network.checked_pair(symbols, truth)
        if symbols.shape != (network.time_steps, network.streams):
            raise InputError(
                f"symbols {symbols.shape} must be of the network's (T, B), "
                f"{(network.time_steps, network.streams)}, to be shared out"
            )
        seen = network.seen
        try:
            if not self._workers and not self._alone:
                self._start_or_do_without()
            loss = network.train_call(symbols, truth) if self._alone else self._call(symbols, truth)
        except BaseException:
            network.seen = seen
            self.end()  # somewhere in a call; the next one starts new workers
            raise
        network.seen = seen + truth.size
        return loss

    def _start_or_do_without(self):
        try:
            self._start()
        except TrainingError as error:  # too many processes, too little memory
            self.end()
            self._alone = True
            warnings.warn(f"{error}: training goes on in one process", stacklevel=4)

    def _start(self):
        network, block = self.network, self.network.parameters
        block.move_values(_shared(block.values))
        self._states = [
            {name: _shared(array) for name, array in layer.state(network.streams).items()} for layer in network.layers
        ]
        self._share_states()
        self._text = _shared(np.zeros((2, network.time_steps, network.streams), np.int64))
        with _uninterrupted():  # which they inherit, and keep: the first process decides when to stop
            for part in self._parts:
                self._workers.append(_Worker(network, part, self._text))

    def _share_states(self):
        """Put the states where all processes see them, with what the layers have now: another use may have made new ones."""
        for layer, shared in zip(self.network.layers, self._states):
            for name, array in layer.state(self.network.streams).items():
                if array is not shared[name]:
                    shared[name][...] = array
            layer.swap_state(dict(shared))

    def _call(self, symbols, truth):
        network = self.network
        self._share_states()
        self._text[0], self._text[1] = symbols, truth
        random = network.dropout_random.bit_generator.state if self._draws else None
        for worker in self._workers:
            worker.begin(random)
        with network.part_of_streams(self._own):
            loss = network.train_call(symbols[:, self._own], truth[:, self._own])
        for worker in self._workers:
            loss += worker.finish()
            network.parameters.gradients += worker.gradients
        return loss

    def end(self):
        """End the workers, if there are any."""
        with _uninterrupted():
            for worker in self._workers:
                worker.end()
            self._workers.clear()

    def close(self):
        """End them for good."""
        self._closed = True
        self.end()
        atexit.unregister(self.end)


class _Worker:
    """A process that runs the streams ``part``, and this process's end of the pipe to it."""

    def __init__(self, network, part, text):
        self.gradients = _shared(np.zeros_like(network.parameters.gradients))
        context = multiprocessing.get_context("fork")
        try:
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(network, part, text, self.gradients, theirs), daemon=True)
            self._process.start()
        except OSError as error:
            raise TrainingError(f"cannot start a process to share the work: {error.strerror}") from None
        theirs.close()

    def begin(self, random):
        """Let it run the streams, from the state ``random`` of the generator for dropout on, if there is one."""
        with suppress(OSError):  # it has ended: finish() says so
            self._pipe.send(random)

    def finish(self):
        """Wait; return its loss."""
        try:
            loss, problem = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise TrainingError(
                f"a process that shared the work has ended (exit code {self._process.exitcode}); --processes 1 does without"
            ) from None
        if problem:
            raise problem
        return loss

    def end(self):
        self._process.kill()  # nothing of it is needed, and it may be in the midst of a long call
        self._process.join()
        self._pipe.close()


def _work(network, part, text, gradients, pipe):
    """What a worker does until the other end of ``pipe`` is closed, or its process has ended."""
    _let_go_of_files(pipe.fileno())
    network.parameters.move_gradients(gradients)
    with network.part_of_streams(part):
        while True:
            try:
                random = pipe.recv()
            except EOFError:
                return
            if random is not None:
                network.dropout_random.bit_generator.state = random
            network.parameters.clear_gradients()
            loss = 0.0
            problem: Exception | None = None
            try:
                loss = network.train_call(text[0][:, part], text[1][:, part])
            except MemoryError as error:  # the same advice helps as where this process had been alone
                problem = MemoryError(str(error))
            except Exception as error:
                problem = TrainingError(f"in a process that shares the work: {type(error).__name__}: {error}")
            pipe.send((loss, problem))


def _let_go_of_files(kept):
    """Close what a fork inherits: others wait for the end of a pipe, or for a lock, until the last copy is closed."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc in this container
        numbers = list(range(min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0])))
    for number in numbers:
        if number not in (0, 1, 2, kept):
            with suppress(OSError):  # it was the list's own
                os.close(number)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in {0, 1, 2} - {kept, nowhere}:
        os.dup2(nowhere, number)


@contextmanager
def _uninterrupted():
    """While it lasts, signals to stop wait: a process that has started must not be lost before it is noted."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared(array):
    """A copy of ``array`` in memory that forks share."""
    try:
        memory = mmap.mmap(-1, max(1, array.nbytes))
    except OSError as error:
        raise TrainingError(
            f"cannot get {array.nbytes:,} bytes of shared memory: {error.strerror}; --processes 1 does without"
        ) from None
    copy = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
    copy[...] = array
    return copy
