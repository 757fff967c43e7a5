"""Dynamic evaluation: a network that goes on learning from the very text it is scored on.

Each character is scored before it is learned from, so that this is still one pass in which nothing
is known ahead. After every few steps the parameters w move against the gradient g of the mean loss
of these steps,

    w -= rate * g * min(1, 1 / |g|)

which adapts the network to the names and the style of the text. Source: B. Krause et al., "Dynamic
Evaluation of Neural Sequence Models", 2018, in its plainest form: gradient descent without decay.
"""

import numpy as np

from pydarknet.errors import InputError, WeightsError
from pydarknet.inference.sample import OVERFLOW
from pydarknet.optim.optimizers import SGD, clip_gradient

STEPS = 16  # between two updates


class Adaptation:
    """Scores text with ``network`` and trains it on what was scored; called like :meth:`Network.nats`.

    The network's parameters change; layers stop drawing random numbers. Raises InputError for a rate that is
    not above 0, and for one so high that the network overflows on the way; WeightsError for a network that
    overflows before it has learned anything.
    """

    def __init__(self, network, rate, steps=STEPS):
        if not rate > 0:
            raise InputError(f"the rate of adaptation is {rate:g}; it must be above 0")
        self.network, self.rate, self.steps = network, rate, steps
        self._begun = False
        self._optimizer = SGD(network.parameters, momentum=0, decay=0)
        for layer in network.layers:
            layer.stop_drawing()

    def nats(self, symbols, truth):
        """-ln p of each symbol of ``truth`` (T, B), which follow ``symbols`` (T, B): float64. Then learns from them."""
        pieces = [slice(t, t + self.steps) for t in range(0, len(symbols), self.steps)]
        return np.concatenate([self._learn(symbols[piece], truth[piece]) for piece in pieces])

    def _learn(self, symbols, truth):
        block, n = self.network.parameters, truth.size
        block.clear_gradients()
        nats = self.network.train_call(symbols, truth, each=True)
        if not np.isfinite(nats).all():
            if self._begun:
                raise InputError(f"adapting at a rate of {self.rate:g} has diverged: give a lower one")
            raise WeightsError(OVERFLOW)
        self._begun = True
        clip_gradient(block, n)  # the gradient is that of the sum: the mean's norm is at most 1
        self._optimizer.update(block, self.rate, n)
        return nats
