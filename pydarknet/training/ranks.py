"""Training on several machines: MPI ranks that share out the streams of a batch.

Every rank runs the same trainer on the whole network, and forward and backward for its own streams. Once an iteration one sum
over all ranks (an all-reduce) makes the gradients and the states whole again everywhere, and each moves its parameters by
them. So a checkpoint knows nothing of ranks. What one rank alone decides or reads is handed to all; rank 0 alone measures,
tells and saves. The block that is summed:

    gradients   G numbers, the network's own
    states      h, c of every layer, (B, H): the rank's own streams, 0 elsewhere
    rows        a row a rank, 0 elsewhere: its loss in three parts, the number of a signal, 1 if it cannot go on
"""

import json
import os
import socket
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import contextmanager, suppress

import numpy as np

from pydarknet import __version__
from pydarknet.errors import InputError, PydarknetError, TrainingError
from pydarknet.system.files import show
from pydarknet.training import run_state
from pydarknet.training.checkpoint import Checkpoint
from pydarknet.training.trainer import Diverged
from pydarknet.training.validation import Interrupted

KNOWN = PydarknetError, MemoryError, OSError  # what may befall a rank, and is told in a line
LOSS, SIGNAL, FAILED = slice(0, 3), 3, 4  # three parts of 24 bits hold all 53 of the loss
ROW = 5
SPIN = 0.002  # seconds of a wait without sleep: longer than the ranks' steps differ as a rule
NAP = 0.0005

# What a process of its own does that outlives rank 0: mpirun kills all the others when one has died, and says little.
WATCH = """import os, sys
if not sys.stdin.read():
    there = os.path.exists(sys.argv[2])
    sys.stderr.write(sys.argv[1] + (sys.argv[3] if there else sys.argv[4]) + "\\n")
"""


class Ranks:
    """The ranks that mpirun has started, seen from one of them; a context manager.

    ``first`` says whether this is rank 0; ``stopped_by`` holds the number of a signal once all know of it. An error that
    leaves the context ends all ranks: it was raised on all of them alike, or the others learn of it with their next sum.
    Raises InputError without mpi4py, or where its MPI is not that of mpirun, which started so many ``told`` ranks.
    """

    def __init__(self, told=1):
        try:
            import mpi4py

            mpi4py.rc.threads = False  # one thread makes all calls
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an mpirun that is not its own: said once, below
                from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library
            raise InputError(
                f"--mpi needs mpi4py and an MPI library ({str(error).splitlines()[0]}): "
                "python3 -m pip install 'pydarknet[mpi]' mpich"
            ) from None
        self._mpi, self._comm = MPI, MPI.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        if told not in (1, self.size):  # 1: a launcher that sets none of the variables that we know
            library = " ".join(MPI.Get_library_version().split("\n")[0].strip("\0").split())
            raise InputError(
                f"--mpi: mpirun has started {told} ranks, and mpi4py sees {self.size}: they are of different MPIs; "
                f"take the mpirun that belongs to {library}"
            )
        self.first = self.rank == 0
        self.stopped_by: list[int] = []
        self._noted: list[int] = []  # signals, on this rank
        self._hosts = self._comm.allgather(socket.gethostname())
        self._alike = False  # whether an error that is on its way was raised on all ranks
        self._trainer = self._watcher = None
        self._sums = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if error is not None and not self._alike and not isinstance(error, SystemExit):
            self._leave(error)
        if self._watcher:
            with suppress(OSError):  # it has been killed
                self._watcher.communicate(b"goodbye")

    # Before the iterations

    @contextmanager
    def together(self):
        """While it lasts every rank works for itself; if one meets an error, all of them end with it.

        Nothing within it may wait for another rank.
        """
        error = None
        try:
            yield
        except KNOWN as met:
            error = met
        self._meet()
        told = self._comm.allgather(error and _line(error))
        failed = [rank for rank, line in enumerate(told) if line]
        if failed:
            self._alike = True
            if failed[0] > 0:
                raise TrainingError(f"{self._name(failed[0])}: {told[failed[0]]}")
            raise error or TrainingError(told[0])

    def from_first(self, work):
        """What ``work()`` returns on rank 0, or its error."""
        result = error = None
        if self.first:
            try:
                result = work()
            except KNOWN as met:
                error = met
        self._meet()
        result, line = self._comm.bcast((result, error and _line(error)))
        if line:
            self._alike = True
            raise error or TrainingError(line)
        return result

    def measured(self, validation):
        """``validation``, which rank 0 alone measures from now on."""
        measure = validation.measure

        def on_first():
            try:
                return measure(lambda: bool(self._noted)), None
            except Interrupted:
                return None, self._noted[0]

        def everywhere(interrupted=None):
            loss, number = self.from_first(on_first)
            if number is not None:
                self.stopped_by.append(number)
                raise Interrupted
            return loss

        validation.measure = everywhere
        return validation

    @contextmanager
    def calls(self, network):
        """Give a function that does what ``network.train_call`` does, shared out among the ranks.

        Gradients and loss of all are there after the last call of an iteration; before that it returns 0. Raises InputError.
        """
        if self.size > network.streams:
            raise InputError(
                f"{self.size} ranks: the batch has {network.streams} streams to share out; start {network.streams} at most"
            )
        if self.size > 1 and any(layer.statistics for layer in network.layers):
            raise InputError(
                f"{self.size} ranks: batch normalisation takes its mean over all streams, which only one rank sees; start one"
            )
        self._network = network
        edge = [network.streams * n // self.size for n in (self.rank, self.rank + 1)]
        self._own = slice(*edge)
        network.streams_here = edge[1] - edge[0]
        parameters, states = network.parameters, self._states()
        sizes = [parameters.gradients.size, *(state.size for state in states), ROW * self.size]
        self._block = np.zeros(sum(sizes), network.dtype)
        gradients, *homes, rows = np.split(self._block, np.cumsum(sizes)[:-1])
        self._homes = [home.reshape(state.shape) for home, state in zip(homes, states)]
        self._rows = rows.reshape(self.size, ROW)
        parameters.move_gradients(gradients)
        self._begun = None  # of the gradients, as the block of parameters counts
        yield self._train_call

    def check_alike(self, trainer):
        """Raise InputError if a rank has another pydarknet, cfg, text or settings than rank 0."""
        held_out = trainer.validation
        settings = [trainer.max_batches, *((held_out.every, held_out.patience, held_out.plateau) if held_out else ())]
        facts = {
            "pydarknet": __version__,
            "cfg": json.dumps(run_state.meaning(trainer.network)),
            "text": trainer.text_digest,
            "held-out text": held_out and held_out.text_digest,
            "command line": settings,
        }
        every = self._comm.allgather(list(facts.values()))
        for rank, values in enumerate(every):
            for name, value, ours in zip(facts, values, every[0]):
                if value != ours:
                    self._alike = True
                    both = f" (version {value}, and {ours})" if name == "pydarknet" else ""
                    raise InputError(
                        f"{self._name(rank)}: has another {name} than {self._name(0)}{both}: "
                        "every rank must read the same; copy it there, or share a folder"
                    )

    def share(self, trainer):
        """Put all ranks where the ``trainer`` of rank 0 is: first weights, offsets, random numbers."""
        given = trainer.checkpoint()
        facts, arrays = self._comm.bcast((given.facts, given.arrays) if self.first else None)
        with self.together():
            if not self.first:
                trainer.restore(Checkpoint(facts, arrays, "what rank 0 has sent"))

    def hear(self, noted):
        """Take ``noted``, to which signals of this rank are added; return a list that holds one once all know of it."""
        self._noted = noted
        return self.stopped_by

    # The iterations

    def steps(self, trainer, checkpoint):
        """Yield what ``trainer.run()`` does. ``checkpoint`` is where rank 0 saves, for what is said when a rank is killed."""
        self._trainer, self._from = trainer, trainer.iteration
        if self.first and self.size > 1:
            self._watcher = _watcher(checkpoint)
        try:
            yield from trainer.run()
        except TrainingError as error:
            # Not finite, or nothing to do: all ranks see the same numbers.
            self._alike = self._alike or isinstance(error, Diverged) or trainer.done
            raise

    def _train_call(self, symbols, truth):
        network = self._network
        symbols, truth = network.checked_pair(symbols, truth)
        if self._begun != network.parameters.begun:
            self._begun, self._calls, self._loss = network.parameters.begun, 0, 0.0
        seen = network.seen
        if self.size == 1:
            self._loss += network.train_call(symbols, truth)
        else:
            with network.part_of_streams(self._own):
                self._loss += network.train_call(symbols[:, self._own], truth[:, self._own])
        network.seen = seen + truth.size
        self._calls += 1
        return self._sum_up() if self._calls == network.subdivisions else 0.0

    def _states(self):
        network = self._network
        return [array for layer in network.layers for array in layer.state(network.streams).values()]

    def _sum_up(self):
        """Make the gradients and states whole; return the loss of all."""
        states = self._states()
        for home, state in zip(self._homes, states):
            home[...] = 0
            home[self._own] = state[self._own]
        parts, rest = [], self._loss
        for _ in range(3):
            parts.append(float(self._rows.dtype.type(rest)))
            rest -= parts[-1]
        self._sum(*parts, self._noted[0] if self._noted else 0, 0)
        for home, state in zip(self._homes, states):
            state[...] = home
        self.stopped_by += [int(number) for number in self._rows[:, SIGNAL] if number]
        return float(self._rows[:, LOSS].astype(np.float64).sum())

    def _sum(self, *row):
        """Sum the block over all ranks, with this rank's ``row``. Raises TrainingError if a rank cannot go on."""
        self._rows[...] = 0
        self._rows[self.rank] = row
        self._meet()
        self._comm.Allreduce(self._mpi.IN_PLACE, self._block, self._mpi.SUM)
        self._sums += 1
        failed = np.flatnonzero(self._rows[:, FAILED])
        if failed.size:
            self._alike = True
            line = self._comm.bcast(self._last_line if row[FAILED] else None, root=failed[0])
            raise TrainingError(f"{self._name(failed[0])}: {line}")

    def _meet(self):
        """Wait until all ranks have come here, and leave the core to others meanwhile: MPI's own waiting does not."""
        request = self._comm.Ibarrier()
        begun = time.monotonic()
        while not request.Test():
            if time.monotonic() < begun + SPIN:
                os.sched_yield()
            else:
                time.sleep(NAP)

    # The end

    def _leave(self, error):
        """End the others too, after an ``error`` that only this rank has met."""
        trainer = self._trainer
        if trainer is not None and isinstance(error, KNOWN):
            if trainer.done or self.stopped_by:  # the others have come to their end
                return
            if trainer.iteration - self._from == self._sums:  # they come to the next sum, or wait there
                self._last_line = _line(error)
                self._block[...] = 0
                with suppress(TrainingError):  # which says what we know
                    self._sum(0, 0, 0, 0, 1)
                return
        if isinstance(error, KeyboardInterrupt):
            told, code = "pydarknet: interrupted\n", 130
        elif isinstance(error, KNOWN):
            told, code = f"pydarknet: {self._name(self.rank)}: {_line(error)}\n", 1
        else:
            told, code = "".join(traceback.format_exception(error)), 1
        with suppress(OSError):
            os.write(2, told.encode(errors="backslashreplace"))  # sys.stderr of all but rank 0 leads nowhere
        if self._watcher:
            self._watcher.communicate(b"goodbye")
        self._comm.Abort(code)

    def _name(self, rank):
        return f"rank {rank} ({show(self._hosts[rank])})"


def _line(error):
    return str(error) if isinstance(error, PydarknetError) else f"{type(error).__name__}: {error}"


def _watcher(checkpoint):
    """A process that tells, if this one ends without a goodbye, that it did, and how to go on."""
    head = "pydarknet: a rank of this run has ended, and MPI has ended the others: "
    there = f"the last checkpoint is {show(checkpoint)}; the same command with --resume goes on from there"
    none = "there was no checkpoint yet; --save-every N saves more often"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WATCH, head, checkpoint, there, none], stdin=subprocess.PIPE, start_new_session=True
    )
