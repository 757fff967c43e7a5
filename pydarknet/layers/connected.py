"""The fully connected layer: y = activation(W x + b) at every step and stream alike.

With ``batch_normalize`` the product is normalised over all N = T * B rows of the call:
y = activation(scale ẑ + b). Source: Darknet's ``src/connected_layer.c``.
"""

import numpy as np

from pydarknet.layers.activations import activation_of, get_activation
from pydarknet.layers.batchnorm import BatchNorm
from pydarknet.layers.input_product import InputProduct
from pydarknet.layers.layer import Buffer, Layer, Matrix, flat
from pydarknet.system.threads import ALONE


class Connected(Layer):
    """A fully connected layer: input (T, B, D), output (T, B, H).

    Parameters of the constructor: ``inputs`` D, ``outputs`` H (Darknet's ``output``), ``activation``
    by its Darknet name, ``batch_normalize``, and ``random``, a numpy Generator for the initial weights.
    ``name`` is what a layer that consists of several calls this one.
    """

    type = "connected"
    abbreviations = ("conn",)
    takes_one_hot = True
    step_by_step = False  # whether batch norm takes the B rows of each step, not all N rows, together

    def __init__(self, inputs, outputs, activation="logistic", batch_normalize=False, dtype=np.float32, random=None, name=""):
        super().__init__(inputs, outputs, dtype)
        prefix = name and f"{name}."
        self.activation = get_activation(activation)
        self.weights = self._parameter(f"{prefix}weights", (outputs, inputs), decayed=True)
        self.input_weights = self.weights
        self.biases = self._parameter(f"{prefix}biases", (outputs,), decayed=False)
        self.norm = BatchNorm(self, f"{prefix}norm", outputs) if batch_normalize else None
        self.matrices[name or self.type] = Matrix(name, self.weights, self.biases, self.norm)
        if random is not None:
            self.initialize(random)
        self._input = InputProduct(self.weights)
        self._out, self._norm_tape = Buffer(self.dtype), None

    @classmethod
    def from_section(cls, section, context):
        return cls(context.inputs, section.integer("output", 1, minimum=1), activation_of(section, "logistic"),
                   section.flag("batch_normalize"), context.dtype)

    def forward(self, x, train=False, team=ALONE):
        T, B, _ = x.shape
        W, b = self.folded() if not train else (self.weights.value, self.biases.value)
        normalize = train and self.norm is not None
        self._input.begin(x)
        z = self._input.part(W, np.zeros_like(b) if normalize else b, self._out)(slice(T))[:, 0]  # z = W x + b
        if normalize:
            for t, rows in enumerate(self._normalized_together(z)):
                self._norm_tape.forward(rows, t)
            z += b
        self._z = z.copy() if train and self.activation.needs_input else None
        self._y = self.activation.forward(z, out=z)          # y = activation(z)
        return self._y

    def backward(self, dy, want_dx=True, team=ALONE):
        dz = self.activation.backward(dy, self._y, self._z, out=dy)
        self.biases.gradient += flat(dz).sum(axis=0)         # db = Σ dz
        if self.norm is not None:
            for t, rows in enumerate(self._normalized_together(dz)):
                self._norm_tape.backward(rows, t, out=rows)
        return self._input.backward(dz, want_dx, team)       # dW = Σ dz xᵀ, dx = Wᵀ dz

    def stepper(self, streams, one_hot):
        W, b = self.folded()
        project = self._input.stepper(W, b, streams, one_hot)
        out = np.empty((streams, self.outputs), self.dtype)
        return lambda x: self.activation.forward(project(x), out=out)

    def folded(self):
        """W and b of inference: those of the layer, with batch norm folded in."""
        (matrix,) = self.matrices.values()
        return matrix.folded(self.dialect)

    def _normalized_together(self, z):
        """The rows of ``z`` (T, B, H) that batch norm treats together, as arrays (1, rows, H)."""
        steps, rows = z.shape[:2] if self.step_by_step else (1, z.shape[0] * z.shape[1])
        if self._norm_tape is None or self._norm_tape.z_hat.shape[::2] != (steps, rows):
            self._norm_tape = self.norm.tape(steps, rows)
        return z.reshape(steps, 1, rows, -1)
