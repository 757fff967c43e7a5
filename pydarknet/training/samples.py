"""What the network writes while it learns: a few words now and then, from a side state, so that training does not notice."""

import time

import numpy as np

from pydarknet.darknet.randomness import CRandom
from pydarknet.errors import PydarknetError
from pydarknet.inference.sample import DEFAULT_SEED, generate

LENGTH = 200  # characters
SHARE_OF_TIME = 0.01  # that samples may take, unless an interval is asked for
WITHOUT_MEASUREMENTS = 20, 100  # samples in a run that measures nothing, and the iterations between two at least


class Samples:
    """Texts of ``network``, each of ``length`` characters, after the iterations that :meth:`after` is called with.

    With ``every`` one is written after every so many iterations. Without, after each measurement (or twenty times in
    ``max_batches``, where there are none), as long as all of them together take a hundredth of the time, and at the end. The
    text depends on the weights and the iteration alone. It is whole characters of UTF-8, or with ``as_bytes``
    any bytes, of which those that are no character are written ``\\xff``.
    """

    def __init__(self, network, max_batches, every=None, length=LENGTH, as_bytes=False):
        self.network, self.every, self.length, self.as_bytes = network, every, length, as_bytes
        self._last, (count, least) = max_batches, WITHOUT_MEASUREMENTS
        self._interval = max(least, max_batches // count)
        self._begun, self._spent = time.perf_counter(), 0.0

    def after(self, step, measured):
        """The text after ``step`` (:class:`~pydarknet.training.trainer.Step`) if one is due, else None.

        ``measured`` says whether the run measures by a held-out text. A network that cannot write, for its numbers overflow,
        gives None: the training will say so.
        """
        if not self._due(step, measured):
            return None
        begun = time.perf_counter()
        try:
            return self.text(step.iteration)
        except PydarknetError:
            return None
        finally:
            self._spent += time.perf_counter() - begun

    def _due(self, step, measured):
        if self.every:
            return step.iteration % self.every == 0
        if step.iteration == self._last:
            return True
        if not (step.valid_loss is not None if measured else step.iteration % self._interval == 0):
            return False
        return self._spent <= SHARE_OF_TIME * (time.perf_counter() - self._begun)

    def text(self, srand):
        """``length`` characters with random numbers that begin at ``srand``; of a network over tokens their numbers."""
        over_bytes = self.network.inputs <= 256
        utf8 = over_bytes and not self.as_bytes
        seed = DEFAULT_SEED if self.network.inputs > 10 else b""
        with self.network.side_state(), np.errstate(over="ignore", invalid="ignore"):
            steps = list(generate(self.network, seed, self.length, random=CRandom(srand), utf8=utf8))
        symbols = [int(step[0]) for step in steps if step[0] >= 0]
        if not over_bytes:
            return " ".join(map(str, symbols))
        return bytes(symbols).decode("utf-8", "replace" if utf8 else "backslashreplace")
