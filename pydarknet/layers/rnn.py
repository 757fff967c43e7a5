"""The plain recurrent layer of Darknet: three connected layers around one state.

At each step t, for every stream, with x the input (D), h the state (H) and y the output (O):

    h = φ(U x + bu) + ψ(W h₋₁ + bw)     and, with ``shortcut=1``, + h₋₁
    y = φ(R h + br)

with φ the layer's activation, ψ the same or what ``logistic`` says, and h₋₁ the state of the step
before; at the first step, the one that the call before left behind. Unlike a textbook's RNN it
activates the two products apart, so that the state is a sum. Darknet calls the three layers input,
self and output; the first and the last don't depend on the recurrence and run on all steps at once.

Backward, from the last step to the first; what arrives from the step after is added to what arrives
from above, and e = ψ(W h₋₁ + bw):

    dh  = d(loss)/dh through y + Wᵀ dz₊₁     and, with ``shortcut=1``, + dh₊₁
    dz  = dh ∘ ψ'(W h₋₁ + bw)
    dW  = Σ dz h₋₁ᵀ     dbw = Σ dz     dφ(U x + bu) = dh

Source: Darknet's ``src/rnn_layer.c``. On a CPU it hands the input layer dz where dh belongs, forgets
the state at every training call, and in pjreddie's fork writes past the end of the state.
"""

import numpy as np

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers.activations import activation_of
from pydarknet.layers.connected import Connected
from pydarknet.layers.layer import Layer, flat
from pydarknet.system.threads import ALONE


class RNN(Layer):
    """A layer of B independent recurrent nets with shared weights: input (T, B, D), output (T, B, O).

    Parameters of the constructor: ``inputs`` D, ``outputs`` O (Darknet's ``output``), ``hidden`` H,
    the size of the state, and under Darknet's names ``activation``, ``self_activation`` (None: the
    same; in AlexeyAB's dialect ``logistic=1`` or ``2`` of a cfg make it logistic or loggy), ``shortcut`` and
    ``batch_normalize`` (each of the three products is normalised over the streams of its step);
    ``random`` is a numpy Generator for the initial weights. Darknet's layers are ``matrices["input"]``,
    ``["self"]`` and ``["output"]``. The state h (B, H) is carried from call to call; after ``backward``,
    ``dh0`` is the gradient of the state that the last ``forward`` began with.
    """

    type = "rnn"
    takes_one_hot = True
    states = ("h",)

    def __init__(self, inputs, outputs, hidden, activation="logistic", self_activation=None, shortcut=False,
                 batch_normalize=False, dtype=np.float32, random=None):
        super().__init__(inputs, outputs, dtype)
        self.state_size, self.shortcut = hidden, shortcut
        common = batch_normalize, dtype, random
        self.input_layer = StepwiseConnected(inputs, hidden, activation, *common, name="input")
        self.self_layer = StepwiseConnected(hidden, hidden, self_activation or activation, *common, name="self")
        self.output_layer = StepwiseConnected(hidden, outputs, activation, *common, name="output")
        self.input_weights, self.state_weights = self.input_layer.weights, self.self_layer.weights
        self._layers = self.input_layer, self.self_layer, self.output_layer  # in the file's order
        for layer in self._layers:
            self.parameters += layer.parameters
            self.statistics += layer.statistics
            self.matrices |= layer.matrices
        self._shape = self._norm = self._dz_norm = None

    @classmethod
    def from_section(cls, section, context):
        outputs = section.integer("output", 1, minimum=1)
        # pjreddie's fork has no `hidden`, its state is as large as the output; AlexeyAB's default is 1.
        hidden = section.integer("hidden", outputs if context.dialect is PJREDDIE else 1, minimum=1)
        logistic = section.integer("logistic", 0, minimum=0, maximum=2) if context.dialect is ALEXEYAB else 0
        return cls(context.inputs, outputs, hidden, activation_of(section, "logistic"), (None, "logistic", "loggy")[logistic],
                   section.flag("shortcut"), section.flag("batch_normalize"), context.dtype)

    def forward(self, x, train=False, team=ALONE):
        T, B, _ = x.shape
        self._pass_dialect_on()
        self._make_tape(T, B)
        if train and self._norm is None and self.self_layer.norm is not None:
            self._norm = self.self_layer.norm.tape(T, B)
        state, psi, norm = self.state(B)["h"], self.self_layer.activation, self._norm if train else None
        a = self.input_layer.forward(x, train, team)         # φ(U x + bu)
        W, b = (self.self_layer.weights.value, self.self_layer.biases.value) if train else self.self_layer.folded()
        W = np.ascontiguousarray(W.T)
        h, z, e = self._h, self._z, self._e
        h[0] = state
        for t in range(T):
            np.matmul(h[t], W, out=z[t])
            if norm is not None:
                norm.forward(z[t][None], t)
            np.add(z[t], b, out=z[t])                        # z = W h₋₁ + bw
            psi.forward(z[t], out=e[t])
            np.add(a[t], e[t], out=h[t + 1])                 # h = φ(U x + bu) + ψ(z)
            if self.shortcut:
                np.add(h[t + 1], h[t], out=h[t + 1])
        state[...] = h[T]
        return self.output_layer.forward(h[1:], train, team)  # y = φ(R h + br)

    def backward(self, dy, want_dx=True, team=ALONE):
        W, psi, norm, dz = self.self_layer.weights, self.self_layer.activation, self._norm, self._dz
        dh = self.output_layer.backward(dy, team=team)
        slope = psi.backward(np.ones_like(self._e), self._e, self._z)
        dh_ = np.zeros_like(self._h[0])                      # nothing comes from after the end
        for t in reversed(range(len(dz))):
            np.add(dh[t], dh_, out=dh[t])                    # dh = what comes through y + Wᵀ dz₊₁
            np.multiply(dh[t], slope[t], out=dz[t])          # dz = dh ∘ ψ'
            if norm is not None:
                norm.backward(dz[t][None], t, out=self._dz_norm[t][None])
            np.matmul(self._dz_norm[t], W.value, out=dh_)
            if self.shortcut:
                np.add(dh_, dh[t], out=dh_)
        self.dh0 = dh_
        W.gradient += flat(self._dz_norm).T @ flat(self._h[:-1])   # dW = Σ dz h₋₁ᵀ
        self.self_layer.biases.gradient += flat(dz).sum(axis=0)    # dbw = Σ dz
        return self.input_layer.backward(dh, want_dx, team)        # dφ = dh

    def stepper(self, streams, one_hot):
        self._pass_dialect_on()
        h = self.state(streams)["h"]
        input_step = self.input_layer.stepper(streams, one_hot)
        self_step = self.self_layer.stepper(streams, one_hot=False)
        output_step = self.output_layer.stepper(streams, one_hot=False)

        def step(x):
            a, e = input_step(x), self_step(h)
            if self.shortcut:
                np.add(h, a, out=h)
                np.add(h, e, out=h)
            else:
                np.add(a, e, out=h)
            return output_step(h)

        return step

    def trace(self):
        """The state h of each step of the last ``forward``, (T, B, H), by name."""
        return {"h": self._h[1:]}

    @property
    def recurrent_weights(self):
        return self.self_layer.weights.size

    def tape_bytes(self, T, B):
        return 4 * T * B * self.state_size * self.dtype.itemsize + super().tape_bytes(T, B)

    def differences(self, section, dialect):
        yield from super().differences(section, dialect)
        if not section.has("hidden"):
            yield f"without `hidden` the forks disagree about its size: write hidden={self.state_size} into the cfg"

    def _pass_dialect_on(self):
        for layer in self._layers:
            layer.dialect = self.dialect  # it may have changed when weights were loaded

    def _make_tape(self, T, B):
        """h (T+1, B, H), h[t] the state before step t; z = W h₋₁ + bw, ψ(z) and dz (T, B, H): once per shape."""
        if self._shape == (T, B):
            return
        self._shape = T, B
        H, normalize = self.state_size, self.self_layer.norm is not None
        self._h = np.zeros((T + 1, B, H), self.dtype)
        self._e, self._dz = (np.zeros((T, B, H), self.dtype) for _ in range(2))
        self._z = np.zeros_like(self._e) if self.self_layer.activation.needs_input else self._e
        self._norm = None
        self._dz_norm = np.zeros_like(self._dz) if normalize else self._dz


class StepwiseConnected(Connected):
    """A connected layer as a recurrent layer has it: normalised over the B streams of each step."""

    step_by_step = True
