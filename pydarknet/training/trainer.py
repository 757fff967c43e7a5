"""The training loop: Darknet's streams, calls and updates, yielding one record per update.

Each of B streams reads consecutive text from an offset of its own, wrapping at the end. A call takes
the next T characters of every stream, (T, B), and adds to the gradients; after ``subdivisions`` calls
the parameters are updated: one iteration. Before each next call a stream jumps to a new random offset
with the cfg's probability ``jump``, as a rule 1/64, and its state is cleared then. Without jumps
(``jump=0``) the offsets are at equal distances, so that the text is read evenly. Source:
``train_char_rnn`` and ``get_rnn_data`` in Darknet's ``examples/rnn.c``, ``train_network_datum`` in
``src/network.c``.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pydarknet.darknet.randomness import check_state, generator
from pydarknet.errors import InputError, TextError, TrainingError
from pydarknet.network import Network
from pydarknet.optim.optimizers import clip_gradient
from pydarknet.sharing import sharing_of_training
from pydarknet.system.memory import check_training_memory
from pydarknet.text.corpus import Corpus
from pydarknet.training import run_state
from pydarknet.training.checkpoint import Checkpoint
from pydarknet.training.validation import MOST, Interrupted, Validation

UNMEASURED = {"loss", "rate", "seconds"}  # what is kept of an iteration until its measurement has been made


@dataclass(frozen=True)
class Step:
    """What one iteration (one update of the parameters) did.

    ``loss`` is the mean cross-entropy of its characters in nats, ``avg_loss`` Darknet's running
    average of it (a tenth new each time), ``rate`` the learning rate, ``seconds`` the wall time of
    this iteration, ``characters`` all those trained on so far (Darknet's ``seen``) and ``epochs``
    the same in lengths of the text. ``valid_loss`` is the loss on the held-out text where it was
    measured after this iteration, else None.
    """

    iteration: int
    loss: float
    avg_loss: float
    rate: float
    seconds: float
    characters: int
    epochs: float
    valid_loss: float | None = None

    @property
    def bits_per_character(self) -> float:
        return self.loss / math.log(2)


class Trainer:
    """Trains ``network`` on ``corpus``, a :class:`~pydarknet.text.corpus.Corpus` or the path of a text.

    ``max_batches`` takes the place of the cfg's: the number of the last iteration, counted from the
    network's first (Darknet's batch number, seen / samples of an update). ``srand`` seeds the
    streams' offsets; ``validation`` is a :class:`~pydarknet.training.validation.Validation` of the same network;
    ``train_call`` does what the network's own does, elsewhere or on several cores
    (:func:`~pydarknet.training.processes.stream_processes`, :mod:`~pydarknet.training.device`); by default
    :meth:`run` takes what :mod:`pydarknet.sharing` chooses, as the command does. While ``interrupted``, a function,
    gives true, a measurement of the held-out text is given up: :meth:`run` ends then, and its iteration is yielded when the
    run goes on, also from a checkpoint, with the measurement.

    Raises InputError for a ``corpus`` that is neither; TrainingError when max_batches is 0 or the memory does not suffice;
    TextError for a path that is no usable text, or a symbol that the network has no input for.
    """

    def __init__(
        self,
        network: Network,
        corpus: Corpus | str | bytes | os.PathLike,
        max_batches: int | None = None,
        srand: int | None = None,
        validation: Validation | None = None,
        train_call: Callable[[np.ndarray, np.ndarray], float] | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> None:
        if isinstance(corpus, (str, bytes, os.PathLike)):
            corpus = Corpus.open(corpus)
        if not isinstance(corpus, Corpus):
            raise InputError(
                f"the text is {corpus!r:.60}; give a path, or a pydarknet.Corpus (Corpus.from_symbols takes bytes)"
            )
        self.network = network
        self.train_call = train_call
        self.interrupted = interrupted
        self._unmeasured: dict[str, Any] | None = None  # of the last iteration, while its measurement is still to be made
        self.corpus = corpus
        self.validation = validation
        self.schedule = network.schedule
        if max_batches is not None:
            self.schedule = replace(self.schedule, max_batches=max_batches)
        if self.max_batches == 0:
            raise TrainingError(
                "max_batches is 0, which to Darknet means no training: set it in [net] of the cfg, or give --max-batches"
            )
        check_training_memory(network)
        self.samples = network.streams * network.time_steps * network.subdivisions
        self.optimizer = network.optimizer_options.make(network.parameters)
        self.random = generator(srand, "offsets")
        self.offsets = self._starts()
        self.avg_loss: Any = None
        for text in (corpus, validation.corpus) if validation else (corpus,):
            check_symbols(text, network.inputs)
        if len(corpus) <= network.time_steps:
            warnings.warn(
                f"the text has {len(corpus)} symbols, no more than time_steps={network.time_steps}: "
                "each window repeats it; a longer text or fewer time_steps would teach more",
                stacklevel=2,
            )
        if self.max_batches < self.schedule.burn_in:
            warnings.warn(
                f"max_batches={self.max_batches} is below burn_in={self.schedule.burn_in}: the learning rate never gets to "
                f"{self.schedule.learning_rate:g}; a lower burn_in in [net], or more iterations, would teach more",
                stacklevel=2,
            )
        self.text_digest = corpus.digest()

    def __repr__(self) -> str:
        return f"Trainer({self.network.cfg.path!r}, {self.corpus!r}, iteration {self.iteration} of {self.max_batches})"

    @property
    def max_batches(self) -> int:
        return self.schedule.max_batches

    @property
    def iteration(self) -> int:
        """The number of updates done: Darknet's ``get_current_batch``."""
        return self.network.seen // self.samples

    @property
    def stopped_early(self) -> bool:
        """Whether the patience of the validation has run out."""
        return self.validation is not None and self.validation.exhausted

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.unfinished and (self.iteration >= self.max_batches or self.stopped_early)

    @property
    def unfinished(self) -> bool:
        """Whether its last iteration is still to be measured and yielded."""
        return self._unmeasured is not None

    def put_back(self, step: Step) -> None:
        """Yield ``step``, the last one, again when the run goes on, and measure again: what should follow it has failed."""
        self._unmeasured = {name: getattr(step, name) for name in UNMEASURED}
        if self.validation:
            self.validation.forget()

    def checkpoint(self) -> Checkpoint:
        """A :class:`~pydarknet.training.checkpoint.Checkpoint` to write before the next iteration."""
        return run_state.checkpoint_of(self._owners(), run_state.meaning(self.network), self.text_digest)

    def restore(self, checkpoint: Checkpoint, command: str | None = None) -> None:
        """Go on where ``checkpoint`` was made: from there all is as if there had been no stop.

        Raises CheckpointError. If the checkpoint belongs to another text, its message tells the ``command``, if there is
        one: it starts a run of this text from the weights of the other.
        """
        run_state.restore(self._owners(), checkpoint, run_state.meaning(self.network), self.text_digest, command)

    def _owners(self):
        owners = [self.network, self, self.optimizer]
        return [*owners, self.validation] if self.validation else owners

    def arrays(self) -> dict[str, np.ndarray]:
        """Its own part of a checkpoint: the streams' offsets."""
        return {"offsets": self.offsets}

    def facts(self) -> dict[str, Any]:
        """Its own part of a checkpoint: the iteration, the running average and the generator of the offsets.

        Of an iteration that is still to be measured also what its :class:`Step` will say.
        """
        return {
            "iteration": self.iteration,
            "avg_loss": self.avg_loss,
            "unmeasured": self._unmeasured,
            "random": {"offsets": self.random.bit_generator.state},
        }

    def check(self, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Raise ValueError for what no run of this text can have."""
        if (arrays["offsets"] < 0).any() or (arrays["offsets"] >= len(self.corpus)).any():
            raise ValueError("has offsets outside the text")
        average = facts.get("avg_loss", "")
        if average is not None and not (type(average) is float and 0 <= average <= MOST):
            raise ValueError("has no usable 'avg_loss'")
        unmeasured = facts.get("unmeasured")  # earlier versions did not write it
        if unmeasured is not None and not (
            average is not None
            and type(unmeasured) is dict
            and unmeasured.keys() == UNMEASURED
            and all(type(value) is float and 0 <= value <= MOST for value in unmeasured.values())
        ):
            raise ValueError("has no usable 'unmeasured'")
        if facts.get("iteration") != facts["seen"] // self.samples:
            raise ValueError("has no usable 'iteration': it does not agree with the characters seen")
        check_state(facts, "offsets")

    def take(self, facts: dict[str, Any]) -> None:
        """Go on from the ``facts``; the offsets are in place."""
        self.avg_loss, self._unmeasured = facts["avg_loss"], facts.get("unmeasured")
        self.random.bit_generator.state = facts["random"]["offsets"]

    def run(self) -> Iterator[Step]:
        """Yield a :class:`Step` after every iteration, up to ``max_batches`` or until patience runs out.

        Raises TrainingError when there is nothing to do, and what :meth:`step` raises.
        """
        if self.done:
            raise TrainingError(
                f"{self.iteration} iterations are done already and max_batches is {self.max_batches}: "
                "nothing to do; to go on, raise max_batches (--max-batches N)"
                if self.iteration >= self.max_batches
                else "this run was stopped because its validation loss no longer fell: "
                "nothing to do; raise --patience, or leave it out"
            )
        with self._shared_out():
            while not self.done:
                try:
                    step = self.step()
                except Interrupted:
                    return
                yield step

    @contextmanager
    def _shared_out(self):
        """While it lasts, calls are shared out as suits the network here, unless the trainer was handed another way."""
        if self.train_call is not None:
            yield
            return
        from pydarknet.training.processes import stream_processes  # not for those who bring their own

        with stream_processes(self.network, sharing_of_training(self.network).processes) as self.train_call:
            try:
                yield
            finally:
                self.train_call = None

    def step(self) -> Step:
        """Do one iteration; return its :class:`Step`.

        Raises TrainingError if the loss is not finite, or if a device or a process that computes gradients fails; TextError
        if a file of the text has become shorter;
        :class:`~pydarknet.training.validation.Interrupted` if its measurement was given up; the next call makes that.
        """
        if self._unmeasured is None:
            self._unmeasured = self._iterate()
        step = Step(
            iteration=self.iteration,
            avg_loss=self.avg_loss,
            characters=self.network.seen,
            epochs=self.network.seen / len(self.corpus),
            valid_loss=self._validate(),
            **self._unmeasured,
        )
        self._unmeasured = None
        return step

    def _iterate(self):
        """Do one iteration, without its measurement; return loss, rate and seconds."""
        start = time.perf_counter()
        network = self.network
        loss = 0.0
        network.parameters.clear_gradients()
        # Numbers that overflow on the way end in a loss that is not finite: said once, below.
        with self._whole_or_not_at_all(), np.errstate(over="ignore", invalid="ignore"):
            with network.parameters.thinned(network.dropout_random):
                for _ in range(network.subdivisions):
                    loss += self._call()
            loss /= self.samples
            if not math.isfinite(loss):
                raise diverged(self.iteration, f"the loss is {loss}")
            # Darknet counts the samples before it reads the rate: the first update has number 1.
            rate = self.schedule.rate(self.iteration, self.random)
            if self.validation:
                rate *= self.validation.rate_factor
            if network.optimizer_options.clip_norm:
                clip_gradient(network.parameters, network.optimizer_options.clip_norm * self.samples)
            self.optimizer.update(network.parameters, rate, self.samples)
        self.avg_loss = loss if self.avg_loss is None else 0.9 * self.avg_loss + 0.1 * loss
        return {"loss": loss, "rate": rate, "seconds": time.perf_counter() - start}

    @contextmanager
    def _whole_or_not_at_all(self):
        """After an error on the way, all but the parameters, which move at the end, is as it was before the iteration."""
        network = self.network
        generators = [(random, random.bit_generator.state) for random in (self.random, network.dropout_random)]
        seen, kept = network.seen, {name: array.copy() for name, array in self._moving().items()}
        try:
            yield
        except BaseException:
            network.seen = seen
            for random, state in generators:
                random.bit_generator.state = state
            for name, array in self._moving().items():  # looked up again: they may have moved to memory that is shared
                array[...] = kept[name]
            raise

    def _moving(self):
        return {name: array for name, array in (self.network.arrays() | self.arrays()).items() if name != "values"}

    def _call(self):
        network = self.network
        T = network.time_steps
        text = self.corpus.gather(self.offsets, T, network.inputs)
        loss = (self.train_call or network.train_call)(text[:-1], text[1:])
        self.offsets[:] = (self.offsets + T) % len(self.corpus)
        self._jump()
        return loss

    def _starts(self):
        length, streams = len(self.corpus), self.network.streams
        if self.network.jump > 0:
            return self.random.integers(length, size=streams)
        return (self.random.integers(length) + np.arange(streams) * length // streams) % length

    def _jump(self):
        jumps = np.flatnonzero(self.random.random(len(self.offsets)) < self.network.jump)
        if jumps.size:
            self.offsets[jumps] = self.random.integers(len(self.corpus), size=jumps.size)
            self.network.reset_state(jumps)

    def _validate(self):
        if self.validation is None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):  # as in a call of training: said once, below
            loss = self.validation.after(self.iteration, last=self.iteration == self.max_batches, interrupted=self.interrupted)
        if loss is not None and not math.isfinite(loss):
            raise diverged(self.iteration, f"the loss on the held-out text is {loss}")
        return loss


class Diverged(TrainingError):
    """A run whose numbers are no longer finite: there is nothing in it to save."""


def diverged(iteration, what):
    """The error of such a run."""
    return Diverged(
        f"iteration {iteration}: {what}: training has diverged, and nothing of it is saved: earlier files are as they "
        "were; lower learning_rate, raise burn_in, or set clip_norm=1 in [net]"
    )


def check_symbols(corpus, inputs):
    """Raise TextError, with its place, for the first symbol of ``corpus`` that is not below ``inputs``.

    At the start, for it may stand where training comes only after hours.
    """
    if corpus.max_symbol < inputs:
        return
    for start, symbols in corpus.blocks():
        if symbols.max() >= inputs:
            at = int(np.argmax(symbols >= inputs))
            raise TextError(
                f"{corpus.locate(start + at)}: symbol {symbols[at]} is out of range for a network of {inputs} inputs "
                f"(0 to {inputs - 1}); give [net] more inputs, or change the text"
            )
