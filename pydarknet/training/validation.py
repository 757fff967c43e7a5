"""Validation while training: the loss on a text that is never trained on, the best so far, and what follows from it.

A measurement is a forward pass over the held-out text, in up to 64 parallel streams of equal length that each begin with
an empty state; what is left over at its end, fewer than 64 symbols, is not measured. It reads the network and leaves no
trace: training goes the same way, bit for bit, with it and without it, until ``plateau`` or ``patience`` act on what was
measured.
"""

import math

import numpy as np

from pydarknet.errors import InputError

STREAMS = 64  # at most: enough columns for full speed
CHARACTERS_OF_A_STREAM = 1000  # at least: each stream's first symbols are guessed without context
COLUMNS = 4096  # of a call
PLATEAU_FACTOR = 0.5  # of the learning rate
FORWARD = 1 / 3  # of a training step's time

RECENT = 8  # measurements that are kept
MOST = 1e300  # beyond any loss or rate of a run, and what is computed from it is finite
SEEN = ("best_loss", "best_iteration", "lowest_loss", "since_lowest", "since_cut", "rate_factor")


class Interrupted(Exception):
    """A measurement was given up on the way, and has left nothing."""


class Validation:
    """The held-out text ``corpus`` of ``network``, measured every ``every`` iterations.

    By default that is every 100, or as many more as keep the measuring to a tenth of the time. After
    ``plateau`` measurements in a row without a new lowest loss the learning rate is halved, after
    ``patience`` of them training stops. What is known so far: ``best_loss`` (nats a symbol) and
    ``best_iteration``, of all measurements, ``recent``, the last of the regular ones, and ``rate_factor``, what plateaus have
    made of the rate. Raises InputError if ``every``, ``patience`` or ``plateau`` is below 1.
    """

    def __init__(self, network, corpus, every=None, patience=None, plateau=None):
        for name, value in (("every", every), ("patience", patience), ("plateau", plateau)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be a whole number from 1")
        self.network = network
        self.corpus, self.text_digest = corpus, corpus.digest()  # now: later a file may have shrunk
        self.patience, self.plateau = patience, plateau
        samples = network.streams * network.time_steps * network.subdivisions
        self.every = every or max(100, math.ceil(len(corpus) * FORWARD / (samples * 0.1)))
        self.best_loss = self.best_iteration = None
        # Training goes by the regular measurements alone. One more at the end of a run, which a longer
        # run would not have made, counts for the best and for nothing else.
        self.lowest_loss = None
        self.since_lowest = self.since_cut = 0
        self.rate_factor = 1.0
        self.recent = []
        self._before = self._seen()

    def __repr__(self):
        best = "not measured yet" if self.best_loss is None else f"best {self.best_loss:.4f} nats at {self.best_iteration}"
        return f"Validation({self.corpus!r}, every {self.every} iterations, {best})"

    def after(self, iteration, last, interrupted=None):
        """Measure if it is time, or if this iteration is the ``last``; return the loss, or None.

        Raises Interrupted, with all as it was before, if ``interrupted()`` is true on the way.
        """
        self._before = self._seen()
        regular = iteration % self.every == 0
        if not regular and not last:
            return None
        loss = self.measure(interrupted)
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_iteration = loss, iteration
        if regular:
            self._note(loss)
        return loss

    def forget(self):
        """Be as before the last call of :meth:`after`."""
        vars(self).update(self._before)

    def _note(self, loss):
        self.recent = [*self.recent, loss][-RECENT:]
        if self.lowest_loss is None or loss < self.lowest_loss:
            self.lowest_loss = loss
            self.since_lowest = self.since_cut = 0
            return
        self.since_lowest += 1
        self.since_cut += 1
        if self.plateau and self.since_cut >= self.plateau:
            self.rate_factor *= PLATEAU_FACTOR
            self.since_cut = 0

    @property
    def exhausted(self):
        """Whether patience has run out."""
        return bool(self.patience) and self.since_lowest >= self.patience

    # What a run goes on from (pydarknet.training.run_state)

    def arrays(self):
        """No arrays: its state is all in the facts."""
        return {}

    def facts(self):
        """What it has seen, and of which text."""
        return {"validation": {"text": self.text_digest, **self._seen()}}

    def _seen(self):
        return {name: getattr(self, name) for name in (*SEEN, "recent")}

    def check(self, facts, arrays):
        """Raise ValueError for what no measurements can have left."""
        known = self._known(facts)
        if not known:
            return
        iteration, best, factor = facts["iteration"], known.get("best_iteration", ""), known.get("rate_factor")
        fine = {name: type(known.get(name)) is int and 0 <= known[name] <= iteration for name in ("since_lowest", "since_cut")}
        for name in "best_loss", "lowest_loss":
            fine[name] = name in known and (known[name] is None or _is_loss(known[name]))
        fine["best_iteration"] = (
            best is None if known.get("best_loss") is None else type(best) is int and 1 <= best <= iteration
        )
        most_cuts = min(iteration, 1075)  # as many make 0 of it
        fine["rate_factor"] = type(factor) in (int, float) and factor in [PLATEAU_FACTOR**n for n in range(most_cuts + 1)]
        recent = known.get("recent", [])  # earlier versions did not write it
        fine["recent"] = type(recent) is list and len(recent) <= RECENT and all(map(_is_loss, recent))
        for name, is_fine in fine.items():
            if not is_fine:
                raise ValueError(f"has no usable {name!r} of its validation")

    def take(self, facts):
        """Go on from what was seen; from nothing if it was seen on another text."""
        for name, value in self._known(facts).items():
            if name in (*SEEN, "recent"):
                setattr(self, name, value)

    def _known(self, facts):
        known = facts.get("validation") or {}
        if type(known) is not dict:
            raise ValueError("has no usable 'validation'")
        return known if known.get("text") == self.text_digest else {}

    def measure(self, interrupted=None):
        """The mean cross-entropy of the held-out text, in nats a symbol. Raises Interrupted if ``interrupted()`` on the way."""
        length = len(self.corpus) - 1  # the first symbol is not predicted
        streams = max(1, min(STREAMS, length // CHARACTERS_OF_A_STREAM))
        part = length // streams
        steps = max(1, COLUMNS // streams)
        starts = np.arange(streams, dtype=np.int64) * part
        loss = 0.0
        with self.network.side_state():
            for t in range(0, part, steps):
                if interrupted and interrupted():
                    raise Interrupted
                text = self.corpus.gather(starts + t, min(steps, part - t), self.network.inputs)
                loss += self.network.nats(text[:-1], text[1:]).sum()
        return float(loss) / (part * streams)


def _is_loss(value):
    return type(value) in (int, float) and 0 <= value <= MOST
