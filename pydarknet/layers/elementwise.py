"""Layers that treat every element alone: ``[dropout]`` and ``[activation]``.

Source: Darknet's ``src/dropout_layer.c`` and ``src/activation_layer.c``. Darknet's dropout works in
place on the output of the layer before it, which a recurrent layer's backward pass then reads for
its state; here it has memory of its own.
"""

import numpy as np

from pydarknet.layers.activations import get_activation
from pydarknet.layers.base import Layer, OneHot, flat


class Dropout(Layer):
    """While training, y = x * m with m = 0 with probability p, else 1 / (1 - p); otherwise y = x.

    ``probability`` p is Darknet's key of that name; ``random`` is the numpy Generator that draws m.
    Before the first layer it drops whole symbols: of a one-hot column, only the one can be dropped.
    """

    type = "dropout"
    takes_one_hot = gives_one_hot = True

    def __init__(self, inputs, probability=0.5, dtype=np.float32, random=None):
        super().__init__(inputs, inputs, dtype)
        self.probability = probability
        self.random = random
        self.part = None  # where only a part of the streams is run: (their slice, the number of all)
        self._mask = None

    def forward(self, x, train=False):
        self._mask = None
        if not train or self.probability == 0:
            return x
        if isinstance(x, OneHot):
            return OneHot(x.symbols, x.size, self._draw(x.symbols.shape))
        self._mask = self._draw(x.shape)
        return x * self._mask

    def _draw(self, shape):
        if self.probability == 1:  # Darknet's scale would be infinite; what is kept of nothing is nothing
            return np.zeros(shape, self.dtype)
        part, streams = self.part or (slice(None), shape[-1])
        # Drawn for all streams, so that the masks are the same however the streams are shared out.
        *features, T, _ = shape
        kept = self.random.random((T, streams, *features), dtype=np.float32)[:, part] >= self.probability
        mask = kept * self.dtype.type(1 / (1 - self.probability))
        return np.moveaxis(mask, -1, 0) if features else mask

    def backward(self, dy, want_dx=True):
        return dy if self._mask is None else dy * self._mask

    def stepper(self, streams, one_hot):
        return lambda x: x


class ActivationLayer(Layer):
    """y = activation(x), by its Darknet name."""

    type = "activation"

    def __init__(self, inputs, activation="linear", dtype=np.float32):
        super().__init__(inputs, inputs, dtype)
        self.activation = get_activation(activation)

    def forward(self, x, train=False):
        self._x = flat(x)
        self._y = self.activation.forward(self._x, out=np.empty_like(self._x))
        return self._y.reshape(x.shape)

    def backward(self, dy, want_dx=True):
        dz = flat(dy)
        return self.activation.backward(dz, self._y, self._x, out=dz).reshape(dy.shape)

    def stepper(self, streams, one_hot):
        out = np.empty((self.outputs, streams), self.dtype)
        return lambda x: self.activation.forward(x, out=out)
