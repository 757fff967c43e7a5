"""Darknet's ``[activation]``: y = activation(x) at every element. Source: ``src/activation_layer.c``."""

import numpy as np

from pydarknet.layers.activations import activation_of, get_activation
from pydarknet.layers.layer import Layer
from pydarknet.system.threads import ALONE


class ActivationLayer(Layer):
    """y = activation(x), input and output (T, B, D). ``inputs`` D; ``activation`` is its Darknet name. Raises KeyError for an
    unknown one."""

    type = "activation"

    def __init__(self, inputs, activation="linear", dtype=np.float32):
        super().__init__(inputs, inputs, dtype)
        self.activation = get_activation(activation)

    @classmethod
    def from_section(cls, section, context):
        return cls(context.inputs, activation_of(section, "linear"), context.dtype)

    def forward(self, x, train=False, team=ALONE):
        self._x = x
        self._y = self.activation.forward(x)
        return self._y

    def backward(self, dy, want_dx=True, team=ALONE):
        return self.activation.backward(dy, self._y, self._x, out=dy)

    def stepper(self, streams, one_hot):
        out = np.empty((streams, self.outputs), self.dtype)
        return lambda x: self.activation.forward(x, out=out)
