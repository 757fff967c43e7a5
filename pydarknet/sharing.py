"""Who shares out the work of a network: the one place that decides it, by the network and the machine.

There are three ways. *One thread* does everything. *Processes* share out the streams of a batch while training
(:mod:`pydarknet.training.processes`): they meet once a call. *Threads* share out the units of the recurrent layers
(:class:`~pydarknet.system.threads.Team`): they meet at every step, which pays for large layers only. In all of them the
matrix library is held to one thread, because its own threads wait for each other whenever another program is busy
(benchmarks/README.md).
"""

from dataclasses import dataclass

from pydarknet.system.threads import blas_threads

# Measured by benchmarks/sharing.py on two cores.
WORK_OF_PROCESSES = 1 << 18  # multiplications of W h in a step, from which a second process pays
SMALLEST_OF_PROCESSES = 1 << 14  # elements of the largest W: below, beside a busy process one thread is much faster
# Where threads pay: (elements of the largest W, streams), both at least; in training, which meets no more often and does more.
THREADS_PAY = [(1 << 19, 4)]
THREADS_PAY_IN_TRAINING = [*THREADS_PAY, (1 << 18, 64)]
MOST_THREADS = 4  # on more cores it has not been measured
STREAMS_OF_A_PROCESS = 8  # at least: below, a step costs as much with half of the streams
LARGEST_OF_PROCESSES = 3 << 18  # elements of a matrix: beyond, the streams of a part are too few for the weights


@dataclass(frozen=True)
class Sharing:
    """``processes`` that share out the streams, each with ``threads`` that share out the units."""

    processes: int = 1
    threads: int = 1

    def __str__(self):
        if self.processes > 1:
            return f"{self.processes} processes share out the streams"
        return f"{self.threads} threads share out the units" if self.threads > 1 else "one thread"


ONE_THREAD = Sharing()


def sharing_of_a_call(layers, streams, train=False):
    """The :class:`Sharing` of a call in this process, over ``streams``: forward, with ``train`` also backward."""
    largest = _largest(layers)
    pays = any(largest >= size and streams >= least for size, least in (THREADS_PAY_IN_TRAINING if train else THREADS_PAY))
    return Sharing(threads=min(_cores(), MOST_THREADS) if pays else 1)


def sharing_of_training(network):
    """The :class:`Sharing` that trains ``network`` fastest here."""
    largest = max((parameter.size for layer in network.layers for parameter in layer.parameters), default=0)
    suits = (
        not any(layer.statistics for layer in network.layers)  # batch norm needs all streams in one process
        and _largest(network.layers) >= SMALLEST_OF_PROCESSES
        and largest <= LARGEST_OF_PROCESSES
        and _work(network.layers, network.streams) >= WORK_OF_PROCESSES
    )
    if suits:
        processes = min(_cores(), network.streams // STREAMS_OF_A_PROCESS)
        if processes > 1:
            return Sharing(processes=processes)
    return sharing_of_a_call(network.layers, network.streams, train=True)


def sharing_in_processes(network, processes):
    """The :class:`Sharing` of a training in just so many ``processes``."""
    return Sharing(processes=processes) if processes > 1 else sharing_of_a_call(network.layers, network.streams, train=True)


def _largest(layers):
    return max((layer.recurrent_weights for layer in layers), default=0)


def _work(layers, streams):
    """Multiplications of the recurrent products of one step."""
    return sum(layer.recurrent_weights for layer in layers) * streams


def _cores():
    """As many as the matrix library would use: the user bounds it by OPENBLAS_NUM_THREADS, the system by affinity."""
    return blas_threads() or 1
