"""The training loop: Darknet's streams, calls and updates, yielding one record per update.

Each of B streams reads consecutive text from an offset of its own, wrapping at the end. A call takes
the next T characters of every stream, (T, B), and adds to the gradients; after ``subdivisions`` calls
the parameters are updated: one iteration. Before each next call a stream jumps to a new random offset
with probability 1/64, and its state is cleared then. Source: ``train_char_rnn`` and ``get_rnn_data``
in Darknet's ``examples/rnn.c``, ``train_network_datum`` in ``src/network.c``.
"""

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from pydarknet.errors import TrainingError
from pydarknet.optimizers import clip_gradient
from pydarknet.randomness import generator

JUMP_PROBABILITY = 1 / 64


@dataclass(frozen=True)
class Step:
    """What one iteration (one update of the parameters) did.

    ``loss`` is the mean cross-entropy of its characters in nats, ``avg_loss`` Darknet's running
    average of it (a tenth new each time), ``rate`` the learning rate, ``seconds`` the wall time of
    this iteration, ``characters`` all those trained on so far (Darknet's ``seen``) and ``epochs``
    the same in lengths of the text.
    """

    iteration: int
    loss: float
    avg_loss: float
    rate: float
    seconds: float
    characters: int
    epochs: float

    @property
    def bits_per_character(self):
        return self.loss / math.log(2)


class Trainer:
    """Trains ``network`` on ``corpus`` (:class:`~pydarknet.corpus.Corpus`).

    ``max_batches`` takes the place of the cfg's: the number of the last iteration, counted from the
    network's first (Darknet's batch number, seen / samples of an update). ``srand`` seeds the
    streams' offsets; ``jump_probability`` is the chance of a stream to jump before a call. Raises
    TrainingError when there is nothing to do.
    """

    def __init__(self, network, corpus, max_batches=None, srand=None, jump_probability=JUMP_PROBABILITY):
        self.network = network
        self.corpus = corpus
        self.schedule = network.schedule
        if max_batches is not None:
            self.schedule = replace(self.schedule, max_batches=max_batches)
        self.samples = network.streams * network.time_steps * network.subdivisions
        self.optimizer = network.optimizer_options.make(network.parameters)
        self.random = generator(srand, "offsets")
        self.jump_probability = jump_probability
        self.offsets = self.random.integers(len(corpus), size=network.streams)
        self.avg_loss = None
        if self.max_batches == 0:
            raise TrainingError("max_batches is 0, which to Darknet means no training: "
                                "set it in [net] of the cfg, or give --max-batches")
        if self.iteration >= self.max_batches:
            raise TrainingError(f"the weights have {self.iteration} iterations behind them and max_batches is {self.max_batches}: "
                                "nothing to do; raise --max-batches, or count from 0 with --clear")

    @property
    def max_batches(self):
        return self.schedule.max_batches

    @property
    def iteration(self):
        """The number of updates done: Darknet's ``get_current_batch``."""
        return self.network.seen // self.samples

    def run(self):
        """Yield a :class:`Step` after every iteration, up to ``max_batches``."""
        while self.iteration < self.max_batches:
            yield self.step()

    def step(self):
        """Do one iteration; return its :class:`Step`. Raises TrainingError if the loss is not finite."""
        start = time.perf_counter()
        network = self.network
        loss = 0.0
        network.parameters.clear_gradients()
        for _ in range(network.subdivisions):
            loss += self._call()
        loss /= self.samples
        if not math.isfinite(loss):
            raise TrainingError(
                f"iteration {self.iteration}: the loss is {loss}: training has diverged, and the weights of this iteration "
                "are not saved; lower learning_rate, raise burn_in, or set clip_norm=1 in [net]")
        # Darknet counts the samples before it reads the rate: the first update has number 1.
        rate = self.schedule.rate(self.iteration, self.random)
        if network.optimizer_options.clip_norm:
            clip_gradient(network.parameters, network.optimizer_options.clip_norm * self.samples)
        self.optimizer.update(network.parameters, rate, self.samples)
        self.avg_loss = loss if self.avg_loss is None else 0.9 * self.avg_loss + 0.1 * loss
        return Step(self.iteration, loss, self.avg_loss, rate, time.perf_counter() - start,
                    network.seen, network.seen / len(self.corpus))

    def _call(self):
        network = self.network
        T = network.time_steps
        text = self.corpus.gather(self.offsets, T, network.inputs)
        loss = network.train_call(text[:-1], text[1:])
        self.offsets = (self.offsets + T) % len(self.corpus)
        self._jump()
        return loss

    def _jump(self):
        jumps = np.flatnonzero(self.random.random(len(self.offsets)) < self.jump_probability)
        if jumps.size:
            self.offsets[jumps] = self.random.integers(len(self.corpus), size=jumps.size)
            self.network.reset_state(jumps)
