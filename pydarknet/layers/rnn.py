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

from pydarknet.layers.base import Layer, flat
from pydarknet.layers.connected import Connected
from pydarknet.layers.tape import Tape


class RNN(Layer):
    """A layer of B independent recurrent nets with shared weights: input (D, T, B), output (O, T, B).

    Parameters of the constructor: ``inputs`` D, ``outputs`` O (Darknet's ``output``), ``hidden`` H,
    the size of the state, and under Darknet's names ``activation``, ``self_activation`` (None: the
    same; ``logistic=1`` or ``2`` of a cfg make it logistic or loggy), ``shortcut`` and
    ``batch_normalize`` (each of the three products is normalised over the streams of its step);
    ``random`` is a numpy Generator for the initial weights. Darknet's layers are the attributes
    ``input_layer``, ``self_layer`` and ``output_layer``. The state h (H, B) is carried from call to
    call; after ``backward``, ``dh0`` is the gradient of the state that the last ``forward`` began with.
    """

    type = "rnn"
    takes_one_hot = True

    def __init__(self, inputs, outputs, hidden, activation="logistic", self_activation=None, shortcut=False,
                 batch_normalize=False, dtype=np.float32, random=None):
        super().__init__(inputs, outputs, dtype)
        self.state_size = hidden
        self.shortcut = shortcut
        common = batch_normalize, dtype, random
        self.input_layer = StepwiseConnected("input", inputs, hidden, activation, *common)
        self.self_layer = StepwiseConnected("self", hidden, hidden, self_activation or activation, *common)
        self.output_layer = StepwiseConnected("output", hidden, outputs, activation, *common)
        self._layers = self.input_layer, self.self_layer, self.output_layer  # in the file's order
        for layer in self._layers:
            self.parameters += layer.parameters
            self.statistics += layer.statistics
        self._tape = None

    def stored(self, dialect):
        return [array for layer in self._layers for array in layer.stored(dialect)]

    def _state_names(self):
        return ("h",)

    def forward(self, x, train=False):
        H, (_, T, B) = self.state_size, x.shape
        self._pass_dialect_on()
        tape, state = self._tape_for(T, B), self.state(B)
        tape.h[:H, 0] = state["h"]
        psi, norm = self.self_layer.activation, self.self_layer.norm
        normalize = train and norm is not None
        a = self.input_layer.forward(x, train)       # φ(U x + bu)
        W, b = self.self_layer.weights_for(train)
        Wb = tape.weights_and_bias(W, (b * 0 if normalize else b)[:, None])[0, 0]
        if normalize:
            norm.begin(T, B)
        for t in range(T):
            h_1, h_, z, e, h = tape.steps[t]
            np.matmul(Wb, h_1, out=z)                # z = W h₋₁ + bw
            if normalize:
                norm.forward(z, t)
                np.add(z, b[:, None], out=z)
            psi.forward(z, out=e)
            np.add(a[:, t], e, out=h)
            if self.shortcut:
                np.add(h, h_, out=h)
        state["h"][...] = tape.h[:H, T]
        return self.output_layer.forward(tape.h[:H, 1:], train)  # y = φ(R h + br)

    def backward(self, dy, want_dx=True):
        tape, norm = self._tape, self.self_layer.norm
        W_T = self.self_layer.weights.value.T
        dh_y = self.output_layer.backward(dy)
        self.dh0 = dh_ = tape.start_back()  # zero: nothing comes from after the end
        for block in reversed(tape.blocks):
            tape.differentiate(block, self.self_layer.activation)
            for t in reversed(block):
                slope, dz = tape.steps_back[t]
                dh = dh_y[:, t]
                np.add(dh, dh_, out=dh)
                np.multiply(dh, slope, out=dz)
                np.matmul(W_T, norm.backward(dz, t) if norm is not None else dz, out=dh_)
                if self.shortcut:
                    np.add(dh_, dh, out=dh_)
        if norm is not None:
            db = flat(tape.dz).sum(axis=1)
            dW, _ = tape.recurrent_products(norm.gradient)
        else:
            dW, db = tape.recurrent_products(tape.dz)   # dW = Σ dz h₋₁ᵀ, dbw = Σ dz
        self.self_layer.weights.gradient += dW
        self.self_layer.biases.gradient += db
        return self.input_layer.backward(dh_y, want_dx)

    def stepper(self, streams, one_hot):
        self._pass_dialect_on()
        h = self.state(streams)["h"]
        input_step = self.input_layer.stepper(streams, one_hot)
        self_step = self.self_layer.stepper(streams, one_hot=False)
        output_step = self.output_layer.stepper(streams, one_hot=False)
        shortcut = self.shortcut

        def step(x):
            a, e = input_step(x), self_step(h)
            if shortcut:
                np.add(h, a, out=h)
                np.add(h, e, out=h)
            else:
                np.add(a, e, out=h)
            return output_step(h)

        return step

    def _pass_dialect_on(self):
        for layer in self._layers:
            layer.dialect = self.dialect  # it may have changed when weights were loaded

    def _tape_for(self, T, B):
        if self._tape is None or not self._tape.fits(T, B):
            self._tape = RNNTape(self, T, B)
        return self._tape


class StepwiseConnected(Connected):
    """A connected layer as a recurrent layer has it: named, and normalised over the B streams of each step."""

    def __init__(self, name, inputs, outputs, activation, batch_normalize, dtype, random):
        super().__init__(inputs, outputs, activation, batch_normalize, dtype, random)
        self.matrix.name = name
        for owned in (*self.parameters, *self.statistics):
            owned.name = f"{name}.{owned.name}"

    def _normalized_together(self, z):
        return [z[:, t] for t in range(z.shape[1])]

    def weights_for(self, train):
        """W and b of W x + b; at inference with batch norm folded in."""
        return self._weights(fold=not train)


class RNNTape(Tape):
    """The tape of an RNN: e (T, H, B) and, where ψ' needs it, what ψ was given, z (T, H, B)."""

    def __init__(self, layer, T, B):
        super().__init__(layer, T, B, rows=layer.state_size)
        H = self.H
        self.e = self.per_step(T, H)
        self.z = self.per_step(T, H) if layer.self_layer.activation.needs_input else self.e
        self.steps = [(self.h[:, t], self.h[:H, t], self.z[t], self.e[t], self.h[:H, t + 1]) for t in range(T)]
        self.steps_back = None

    def start_back(self):
        """Make the views of the backward pass, if it is the first; return dh of after the end: zero."""
        H = self.H
        if self.steps_back is None:
            size = max(len(block) for block in self.blocks)
            self.ones = self.per_step(size, H, make=np.ones)
            self.slopes = self.per_step(size, H)
            self.steps_back = [(slope, self.dz[:, t]) for block in self.blocks for slope, t in zip(self.slopes, block)]
        return self.per_step(H, make=np.zeros)

    def differentiate(self, block, psi):
        """What the steps of ``block`` multiply dh with: ψ'."""
        steps = slice(block.start, block.stop)
        n = len(block)
        psi.backward(self.ones[:n], self.e[steps], self.z[steps], out=self.slopes[:n])
