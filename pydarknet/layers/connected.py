"""The fully connected layer: y = activation(W x + b) at every step and stream alike.

With ``batch_normalize`` the product is normalised over all N = T * B columns of the call:
y = activation(scale * ẑ + b). Source: Darknet's ``src/connected_layer.c``.
"""

import numpy as np

from pydarknet.layers.activations import get_activation
from pydarknet.layers.base import Layer, Matrix, flat, uniform_weights
from pydarknet.layers.batchnorm import BatchNorm
from pydarknet.layers.input_product import InputProjection


class Connected(Layer):
    """A fully connected layer: input (D, T, B), output (H, T, B).

    Parameters of the constructor: ``inputs`` D, ``outputs`` H (Darknet's ``output``), ``activation``
    by its Darknet name, ``batch_normalize``, and ``random``, a numpy Generator for the initial weights.
    """

    type = "connected"
    takes_one_hot = True

    def __init__(self, inputs, outputs, activation="logistic", batch_normalize=False,
                 dtype=np.float32, random=None):
        super().__init__(inputs, outputs, dtype)
        self.activation = get_activation(activation)
        self.weights = self._parameter("weights", (outputs, inputs), decayed=True)
        self.biases = self._parameter("biases", (outputs,), decayed=False)
        self.norm = BatchNorm(self, "norm", outputs) if batch_normalize else None
        self.matrix = Matrix("", self.weights, self.biases, self.norm)
        if random is not None:
            uniform_weights(random, self.weights.value)
        self._input = InputProjection(self.weights)

    def stored(self, dialect):
        return self.matrix.stored()

    def forward(self, x, train=False):
        _, T, B = x.shape
        W, b = self._weights(fold=not train)
        self._input.begin(x)
        U, = self._input.weights(W)
        z = flat(self._input.block(range(T), U)[0])
        if train and self.norm is not None:
            pieces = self._normalized_together(z.reshape(-1, T, B))
            self.norm.begin(len(pieces), pieces[0].shape[1])
            for n, piece in enumerate(pieces):
                self.norm.forward(piece, n)
        z += b[:, None]                                   # z = W x + b
        self._z = z.copy(order="K") if train and self.activation.needs_input else None
        self._y = self.activation.forward(z, out=z)       # y = activation(z)
        return self._y.reshape(-1, T, B)

    def backward(self, dy, want_dx=True):
        dz = flat(dy)
        dz = self.activation.backward(dz, self._y, self._z, out=dz)
        self.biases.gradient += dz.sum(axis=1)            # db = Σ dz
        if self.norm is not None:
            for n, piece in enumerate(self._normalized_together(dz.reshape(dy.shape))):
                self.norm.backward(piece, n)
            dz = self.norm.gradient
        return self._input.backward(dz.reshape(dy.shape), want_dx)  # dW = Σ dz xᵀ, dx = Wᵀ dz

    def _normalized_together(self, z):
        """The parts of ``z`` (H, T, B) that batch norm treats each by itself, as matrices: here all N columns."""
        return [flat(z)]

    def stepper(self, streams, one_hot):
        project = self._input.stepper(*self._weights(fold=True), streams, one_hot)
        out = np.empty((self.outputs, streams), self.dtype)
        return lambda x: self.activation.forward(project(x), out=out)

    def _weights(self, fold):
        if fold and self.norm is not None:
            return self.norm.fold(self.weights.value, self.biases.value, self.dialect)
        return self.weights.value, self.biases.value
