"""Darknet's ``[dropout]``.

Source: Darknet's ``src/dropout_layer.c``. It works in place on the output of the layer before it, which a
recurrent layer's backward pass then reads for its state; here it has memory of its own.
"""

import numpy as np

from pydarknet.layers.layer import Layer, OneHot
from pydarknet.system.threads import ALONE


class Dropout(Layer):
    """While training, y = x * m, all (T, B, D), with m = 0 with probability p, else 1 / (1 - p); otherwise y = x.

    ``probability`` p is Darknet's key of that name; ``random`` is the numpy Generator that draws m.
    Before the first layer it drops whole symbols: of a one-hot row, only the one can be dropped.
    """

    type = "dropout"
    takes_one_hot = gives_one_hot = draws = True

    def __init__(self, inputs, probability=0.5, dtype=np.float32, random=None):
        super().__init__(inputs, inputs, dtype)
        self.probability, self.random = probability, random
        self._mask = None

    @classmethod
    def from_section(cls, section, context):
        probability = section.number("probability", 0.5, minimum=0, maximum=1)
        return cls(context.inputs, probability, context.dtype, context.dropout_random)

    def forward(self, x, train=False, team=ALONE):
        self._mask = None
        if not train or self.probability == 0:
            return x
        if isinstance(x, OneHot):
            ones = self.draw(x.symbols.shape)
            return OneHot(x.symbols, x.size, ones if x.ones is None else x.ones * ones)
        self._mask = self.draw(x.shape)
        return x * self._mask

    def draw(self, shape):
        """The next masks m (T, B, ...)."""
        if self.probability == 1:  # Darknet's scale would be infinite; what is kept of nothing is nothing
            return np.zeros(shape, self.dtype)
        T, B, *features = shape
        part, streams = self.streams_part or (slice(None), B)
        # Drawn for all streams, so that the masks are the same however the streams are shared out.
        kept = self.random.random((T, streams, *features), dtype=np.float32)[:, part] >= self.probability
        return kept * self.dtype.type(1 / (1 - self.probability))

    def backward(self, dy, want_dx=True, team=ALONE):
        return dy if self._mask is None else dy * self._mask

    def stepper(self, streams, one_hot):
        return lambda x: x

    def stop_drawing(self):
        self.probability = 0
