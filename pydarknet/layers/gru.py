"""The GRU: gated recurrent unit, forward and backward through time.

At each step t, for every stream, with x the input and h the output, which is all of the state:

    r = σ(Ur x + Wr h₋₁ + br)           the reset gate: how much of the state the candidate sees
    z = σ(Uz x + Wz h₋₁ + bz)           the update gate: how much of the state stays
    q = φ(Uh x + Wh (r ∘ h₋₁) + bh)     the candidate: what could take its place
    h = z ∘ h₋₁ + (1 - z) ∘ q

with σ the logistic function, ∘ the product of elements and h₋₁ the output of the step before; at the
first step, of the call before. φ is Darknet's oddity: *the logistic function too*, unless the cfg
says ``tanh=1`` and the dialect is pjreddie's; AlexeyAB's Darknet has no such key. The matrices are
stacked as in the LSTM, U (3H, D) and W (3H, H): rows 0..H are r's, then z's, then the candidate's.

Backward, from the last step to the first; what arrives from the step after is added to what arrives
from above, dr, dz and dq are gradients of the sums inside σ and φ, and v = r ∘ h₋₁:

    dh  = dy + dh₊₁ ∘ z₊₁ + dv₊₁ ∘ r₊₁ + Wrᵀ dr₊₁ + Wzᵀ dz₊₁
    dq  = dh ∘ (1 - z) ∘ φ'
    dz  = dh ∘ (h₋₁ - q) ∘ z ∘ (1 - z)
    dv  = Whᵀ dq
    dr  = dv ∘ h₋₁ ∘ r ∘ (1 - r)
    dx  = Uᵀ [dr dz dq]     dU = Σ [dr dz dq] xᵀ     dWr, dWz = Σ dr h₋₁ᵀ, Σ dz h₋₁ᵀ     dWh = Σ dq vᵀ

Source: K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014; Darknet's
``src/gru_layer.c``, whose backward pass is an empty function on a CPU.
"""

import numpy as np

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers.activations import logistic_of_minus
from pydarknet.layers.base import Layer, Matrix, activation_array, as_it_lies, by_gate, flat, uniform_weights
from pydarknet.layers.batchnorm import BatchNorm
from pydarknet.layers.input_product import InputProjection
from pydarknet.layers.tape import Tape

GATES = "rzh"  # the order of the gates and the candidate in U, W and b

# The six connected layers of Darknet in the order of the weights file: w takes h, u takes x.
FILE_ORDER = {
    PJREDDIE: "wz wr wh uz ur uh".split(),
    ALEXEYAB: "uz ur uh wz wr wh".split(),
}


class GRU(Layer):
    """A layer of B independent GRUs with shared weights: input (D, T, B), output (H, T, B).

    Parameters of the constructor: ``inputs`` D, ``outputs`` H (Darknet's ``output``), ``tanh``
    (Darknet's key: a candidate in -1..1, in pjreddie's dialect only), ``batch_normalize`` (each of
    the six products is normalised over the streams of its step), and ``random``, a numpy Generator
    for the initial weights. Darknet's matrices are the attributes ``wz wr wh uz ur uh``
    (:class:`~pydarknet.layers.base.Matrix`). The state h (H, B) is carried from call to call; after
    ``backward``, ``dh0`` is the gradient of the state that the last ``forward`` began with.
    """

    type = "gru"
    takes_one_hot = True

    def __init__(self, inputs, outputs, tanh=False, batch_normalize=False, dtype=np.float32, random=None):
        super().__init__(inputs, outputs, dtype)
        D, H = inputs, outputs
        self.tanh = tanh
        self.U = self._parameter("U", (3 * H, D), decayed=True)
        self.W = self._parameter("W", (3 * H, H), decayed=True)
        # Darknet keeps a bias with each of the two; their sum is the b of the equations.
        self.u_biases = self._parameter("u.biases", (3 * H,), decayed=False)
        self.w_biases = self._parameter("w.biases", (3 * H,), decayed=False)
        self.u_norm = BatchNorm(self, "u", 3 * H) if batch_normalize else None
        self.w_norm = BatchNorm(self, "w", 3 * H) if batch_normalize else None
        for n, gate in enumerate(GATES):
            rows = slice(n * H, (n + 1) * H)
            setattr(self, "u" + gate, Matrix("u" + gate, self.U, self.u_biases, self.u_norm, rows))
            setattr(self, "w" + gate, Matrix("w" + gate, self.W, self.w_biases, self.w_norm, rows))
        if random is not None:
            for name in FILE_ORDER[PJREDDIE]:
                uniform_weights(random, getattr(self, name).weights)
        self._input = InputProjection(self.U, len(GATES))
        self._rz = slice(0, 2 * H)  # rows of what is known before the candidate
        self._q = slice(2 * H, 3 * H)
        self._tape = None

    @property
    def logistic_candidate(self):
        """Whether φ is the logistic function, by the cfg and by the dialect as it is now."""
        return not self.tanh or self.dialect is ALEXEYAB

    def stored(self, dialect):
        return [array for name in FILE_ORDER[dialect] for array in getattr(self, name).stored()]

    def _state_names(self):
        return ("h",)

    @np.errstate(over="ignore")  # e⁻ᶻ may be infinite: σ(z) is 0 then
    def forward(self, x, train=False):
        H, (_, T, B) = self.outputs, x.shape
        tape, state = self._tape_for(T, B), self.state(B)
        tape.h[:H, 0] = state["h"]
        tape.logistic = logistic = self.logistic_candidate
        normalize = train and self.u_norm is not None
        signs, rz_rows, q_rows = self._signs(), self._rz, self._q
        U, W, b = self._weights(fold=not train)
        if normalize:
            self.u_norm.begin(T, B, signs)
            self.w_norm.begin(T, B, signs)
            after_norm, b, signs = b * signs, np.zeros_like(b), np.ones_like(signs)
        self._input.begin(x)
        U, = self._input.weights(U, signs)
        Wb, = tape.weights_and_bias(W, b, signs)
        Wb_rz, Wb_q, Wh_rz = Wb[:2], Wb[2], tape.Wh_rz
        for block in tape.blocks:
            Ux = self._input.block(block, U)
            for t, Ux_t in zip(block, Ux.transpose(2, 0, 1, 3)):
                h_1, v_1, rz, r, z, q, h_, v, h, spare = tape.steps[t]
                np.matmul(Wb_rz, h_1, out=Wh_rz)
                if normalize:
                    self.u_norm.forward_gates(Ux_t, t)
                    np.add(Ux_t, by_gate(after_norm, 3), out=Ux_t)
                    self.w_norm.forward_gates(Wh_rz, t, rz_rows)
                np.add(as_it_lies(Wh_rz), as_it_lies(Ux_t[:2]), out=rz)  # Ur x + Wr h₋₁ + br and Uz x + Wz h₋₁ + bz
                activate(rz, logistic=True)
                np.multiply(r, h_, out=v)           # v = r ∘ h₋₁
                np.matmul(Wb_q, v_1, out=q)
                if normalize:
                    self.w_norm.forward(q, t, q_rows)
                np.add(q, Ux_t[2], out=q)           # Uh x + Wh v + bh
                activate(q, logistic)
                blend(z, h_, q, spare, h)
        state["h"][...] = tape.h[:H, T]
        return tape.h[:H, 1:]

    def backward(self, dy, want_dx=True):
        tape, normalize = self._tape, self.u_norm is not None
        rz_rows, q_rows = self._rz, self._q
        W_T = self.W.value.T
        W_T_rz, W_T_q = W_T[:, rz_rows], W_T[:, q_rows]
        self.dh0 = dh_ = tape.start_back()  # zero: nothing comes from after the end
        dh, dv, spare = tape.dh, tape.dv, tape.spare
        for block in reversed(tape.blocks):
            tape.differentiate(block)
            for t in reversed(block):
                dzq_dh, dr_dv, r, z, drz, dzq, dr, dq = tape.steps_back[t]
                np.add(dy[:, t], dh_, out=dh)
                np.multiply(dzq_dh, dh, out=dzq)     # dz, dq
                np.matmul(W_T_q, self.w_norm.backward(dq, t, q_rows) if normalize else dq, out=dv)
                np.multiply(dr_dv, dv, out=dr)       # dr
                np.matmul(W_T_rz, self.w_norm.backward(drz, t, rz_rows) if normalize else drz, out=dh_)
                np.multiply(z, dh, out=spare)
                np.add(dh_, spare, out=dh_)
                np.multiply(r, dv, out=spare)
                np.add(dh_, spare, out=dh_)          # for the step before
        if normalize:
            db = flat(tape.dz).sum(axis=1)
            dW, _ = tape.recurrent_products(self.w_norm.gradient)
            for t in range(tape.T):
                self.u_norm.backward(tape.dz[:, t], t)
            dUx = self.u_norm.gradient
        else:
            dW, db = tape.recurrent_products(tape.dz)
            dUx = tape.dz
        self.W.gradient += dW
        self.w_biases.gradient += db
        self.u_biases.gradient += db
        return self._input.backward(dUx, want_dx)

    def stepper(self, streams, one_hot):
        B, H, logistic = streams, self.outputs, self.logistic_candidate
        rz_rows, q_rows = self._rz, self._q
        signs = self._signs()
        U, W, b = (a * signs for a in self._weights(fold=True))
        W_rz, W_q = W[rz_rows], W[q_rows]
        h = self.state(B)["h"]
        v, spare = np.empty_like(h), np.empty_like(h)
        r, z, q = gates = np.empty((3, H, B), self.dtype)
        rz = gates[:2].reshape(2 * H, B)
        project = self._input.stepper(U, b[:, 0], B, one_hot)

        def step(x):
            Ux = project(x)
            np.matmul(W_rz, h, out=rz)
            np.add(rz, Ux[rz_rows], out=rz)
            activate(rz, logistic=True)
            np.multiply(r, h, out=v)
            np.matmul(W_q, v, out=q)
            np.add(q, Ux[q_rows], out=q)
            activate(q, logistic)
            blend(z, h, q, spare, h)
            return h

        return step

    def _signs(self):
        """The factor (3H, 1) of each row of U, W and b: -1 where :func:`activate` is logistic, σ(z) = 1 / (1 + e⁻ᶻ)."""
        signs = np.full((3 * self.outputs, 1), -1, self.dtype)
        if not self.logistic_candidate:
            signs[self._q] = 1
        return signs

    def _weights(self, fold):
        """U, W and b (3H, 1), with ``fold`` batch norm folded in."""
        U, W, b = self.U.value, self.W.value, self.u_biases.value + self.w_biases.value
        if fold and self.u_norm is not None:
            U, b = self.u_norm.fold(U, b, self.dialect)
            W, b = self.w_norm.fold(W, b, self.dialect)
        return U, W, b[:, None]

    def _tape_for(self, T, B):
        if self._tape is None or not self._tape.fits(T, B):
            self._tape = GRUTape(self, T, B)
        return self._tape


def activate(z, logistic):
    """In place, tanh(z), or σ of what ``z`` is *minus*."""
    if logistic:
        logistic_of_minus(z)
    else:
        np.tanh(z, out=z)


def blend(z, h_, q, spare, h):
    """h = z ∘ h₋₁ + (1 - z) ∘ q, as q + z ∘ (h₋₁ - q)."""
    np.subtract(h_, q, out=spare)
    np.multiply(z, spare, out=spare)
    np.add(q, spare, out=h)


class GRUTape(Tape):
    """The tape of a GRU: r, z and q (T, 3, H, B), and v with a row of ones (H+1, T, B).

    ``dz`` holds dr, dz and dq of the equations.
    """

    def __init__(self, layer, T, B):
        super().__init__(layer, T, B, rows=3 * layer.outputs)
        H = self.H
        self.gates = self.per_step(T, 3, H)
        self.v = activation_array(H + 1, T, B, self.dtype)
        self.v[H] = 1
        self.Wh_rz, self.spare = self.per_step(2, H), self.per_step(H)
        self.steps = [(self.h[:, t], self.v[:, t], as_it_lies(self.gates[t, :2]), *self.gates[t],
                       self.h[:H, t], self.v[:H, t], self.h[:H, t + 1], self.spare) for t in range(T)]
        self.logistic = True  # the candidate of the last forward
        self.steps_back = None

    def start_back(self):
        """Make the views of the backward pass, if it is the first; return dh of after the end: zero."""
        H = self.H
        if self.steps_back is None:
            size = max(len(block) for block in self.blocks)
            self.slopes = self.per_step(size, 4, H)
            self.dh, self.dv = self.per_step(H), self.per_step(H)
            dz = by_gate(self.dz, 3)
            self.steps_back = []
            for block in self.blocks:
                for slopes, t in zip(self.slopes, block):
                    self.steps_back.append((slopes[1:3], slopes[0], self.gates[t, 0], self.gates[t, 1],
                                            self.dz[:2 * H, t], dz[1:, :, t], dz[0, :, t], dz[2, :, t]))
        return self.per_step(H, make=np.zeros)

    def differentiate(self, block):
        """What the steps of ``block`` multiply dv with for dr, and dh with for dz and dq."""
        steps = slice(block.start, block.stop)
        z, q, rz = self.gates[steps, 1], self.gates[steps, 2], self.gates[steps, :2]
        h_ = self.h[:self.H, steps].transpose(1, 0, 2)
        slopes = self.slopes[:len(block)]
        dr, dz, dq, spare = (slopes[:, n] for n in range(4))
        np.multiply(q, q, out=dq)
        np.subtract(q if self.logistic else 1, dq, out=dq)  # φ' = q - q², or 1 - q² of tanh
        np.multiply(dq, z, out=spare)
        np.subtract(dq, spare, out=dq)                      # (1 - z) ∘ φ'
        np.multiply(rz, rz, out=slopes[:, :2])
        np.subtract(rz, slopes[:, :2], out=slopes[:, :2])   # σ' = σ - σ²
        np.multiply(dr, h_, out=dr)                         # h₋₁ ∘ r ∘ (1 - r)
        np.subtract(h_, q, out=spare)
        np.multiply(dz, spare, out=dz)                      # (h₋₁ - q) ∘ z ∘ (1 - z)

    def recurrent_products(self, dz):
        """As :meth:`Tape.recurrent_products`, but the candidate's matrix multiplies v, not h₋₁."""
        H, N = self.H, self.T * self.B
        product = self._weights.array(self.rows, H + 1)
        np.matmul(flat(dz[:2 * H]), flat(self.h)[:, :N].T, out=product[:2 * H])
        np.matmul(flat(dz[2 * H:]), flat(self.v).T, out=product[2 * H:])
        return product[:, :H], product[:, H]
