"""The LSTM: long short-term memory, forward and backward through time.

At each step t, for every stream, with x the input, h the output and c the cell:

    g = tanh(Ug x + Wg h₋₁ + bg)        the candidate: what could be written
    i = σ(Ui x + Wi h₋₁ + bi)           the input gate: how much of it is
    f = σ(Uf x + Wf h₋₁ + bf)           the forget gate: how much of the old cell stays
    o = σ(Uo x + Wo h₋₁ + bo)           the output gate: how much of the cell shows
    c = f ∘ c₋₁ + i ∘ g
    h = o ∘ tanh(c)

with σ the logistic function, ∘ the product of elements and h₋₁, c₋₁ those of the step before; at the
first step, those that the call before left behind. The gates of all four kinds are computed as one,
``z = U @ x + W @ h + b`` with U (4H, D) and W (4H, H): rows 0..H of z are o's, then i's, f's, g's.

Backward, from the last step to the first, dh is d(loss)/dh and so on; what arrives from the step
after is added to what arrives from above:

    dh  = dy + Wᵀ dz₊₁
    dc  = f₊₁ ∘ dc₊₁ + dh ∘ o ∘ (1 - tanh²c)
    dzg = dc ∘ i ∘ (1 - g²)
    dzi = dc ∘ g ∘ i ∘ (1 - i)
    dzf = dc ∘ c₋₁ ∘ f ∘ (1 - f)
    dzo = dh ∘ tanh(c) ∘ o ∘ (1 - o)
    dx  = Uᵀ dz      dU = Σ dz xᵀ      dW = Σ dz h₋₁ᵀ      db = Σ dz

Source: S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997,
with the forget gate of F. Gers et al., 2000; Darknet's ``src/lstm_layer.c``, whose defects (the cell
gradient that leaks from call to call, the first step that reads its own cell for the carried one)
are not repeated here.
"""

import numpy as np

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers.activations import logistic_of_minus
from pydarknet.layers.base import Layer, Matrix, as_it_lies, by_gate, flat, uniform_weights
from pydarknet.layers.batchnorm import BatchNorm
from pydarknet.layers.input_product import InputProjection
from pydarknet.layers.lstm_tape import LSTMTape, cell_views
from pydarknet.system.threads import own_threads, run_together

# The order of the gates in U, W, b and z: the logistic ones stand together (o i f), and so do those
# that act through the cell (i f g), and each of i f beside what it multiplies (g c₋₁, see cell()).
GATES = "oifg"

# The eight connected layers of Darknet in the order of the weights file: w takes h, u takes x.
FILE_ORDER = {
    PJREDDIE: "wi wf wo wg ui uf uo ug".split(),
    ALEXEYAB: "wf wi wg wo uf ui ug uo".split(),
}


class LSTM(Layer):
    """A layer of B independent LSTMs with shared weights: input (D, T, B), output (H, T, B).

    Parameters of the constructor: ``inputs`` D, ``outputs`` H (Darknet's ``output``),
    ``batch_normalize`` (Darknet's key: each of the eight products is normalised over the streams of
    its step), and ``random``, a numpy Generator for the initial weights. Darknet's matrices are the
    attributes ``wi wf wo wg ui uf uo ug`` (:class:`~pydarknet.layers.base.Matrix`). The state h and
    c, each (H, B), is carried from call to call; after ``backward``, ``dh0`` and ``dc0`` are the
    gradients of the state that the last ``forward`` began with.
    """

    type = "lstm"
    takes_one_hot = True

    def __init__(self, inputs, outputs, batch_normalize=False, dtype=np.float32, random=None):
        super().__init__(inputs, outputs, dtype)
        D, H = inputs, outputs
        self.U = self._parameter("U", (4 * H, D), decayed=True)
        self.W = self._parameter("W", (4 * H, H), decayed=True)
        # Darknet keeps a bias with each of the two; their sum is the b of the equations.
        self.u_biases = self._parameter("u.biases", (4 * H,), decayed=False)
        self.w_biases = self._parameter("w.biases", (4 * H,), decayed=False)
        self.u_norm = BatchNorm(self, "u", 4 * H) if batch_normalize else None
        self.w_norm = BatchNorm(self, "w", 4 * H) if batch_normalize else None
        for n, gate in enumerate(GATES):
            rows = slice(n * H, (n + 1) * H)
            setattr(self, "u" + gate, Matrix("u" + gate, self.U, self.u_biases, self.u_norm, rows))
            setattr(self, "w" + gate, Matrix("w" + gate, self.W, self.w_biases, self.w_norm, rows))
        self.shares_units = not batch_normalize
        if random is not None:
            for name in FILE_ORDER[PJREDDIE]:
                uniform_weights(random, getattr(self, name).weights)
        self._input = InputProjection(self.U, len(GATES))
        self._signs = np.ones((4 * H, 1), dtype)
        self._signs[:3 * H] = -1  # of the logistic gates, for σ(z) = 1 / (1 + e⁻ᶻ): see cell()
        self._tape = None

    def stored(self, dialect):
        return [array for name in FILE_ORDER[dialect] for array in getattr(self, name).stored()]

    def _state_names(self):
        return "h", "c"

    @np.errstate(over="ignore")  # e⁻ᶻ may be infinite: σ(z) is 0 then
    def forward(self, x, train=False):
        H, (_, T, B) = self.outputs, x.shape
        normalize = train and self.u_norm is not None
        self._input.begin(x)
        tape, state = self._tape_for(T, B), self.state(B)
        tape.h[:H, 0] = state["h"]
        U, W, b = self._weights(fold=not train)
        signs = self._signs  # so that below, of o i f, minus z is added up
        if normalize:
            self.u_norm.begin(T, B, signs)
            self.w_norm.begin(T, B, signs)
            after_norm, b, signs = b * signs, np.zeros_like(b), np.ones_like(signs)
        Wb = tape.weights_and_bias(W, b, signs, len(tape.parts))
        U = self._input.weights(U, signs, len(tape.parts))

        def steps(n, meet):  # of one part of the units
            part, weights = tape.parts[n], Wb[n]
            Wh = part.Wh
            part.c[0][...] = state["c"][part.rows]
            for block in tape.blocks:
                Ux = self._input.block(block, U[n], part.outputs)
                for t, Ux_t in zip(block, Ux.transpose(2, 0, 1, 3)):
                    np.matmul(weights, tape.h[:, t], out=Wh)  # W h₋₁ + b, of each gate
                    if normalize:
                        self.w_norm.forward_gates(Wh, t)
                        self.u_norm.forward_gates(Ux_t, t)
                        np.add(Wh, by_gate(after_norm, 4), out=Wh)
                    np.add(as_it_lies(Wh), as_it_lies(Ux_t), out=part.z[t])  # z = U x + W h₋₁ + b
                    cell(*part.cells[t])
                    meet()  # the next step needs the h of all units
            state["c"][part.rows] = part.c[T]

        run_together(steps, len(tape.parts))
        state["h"][...] = tape.h[:H, T]
        return tape.h[:H, 1:]

    def backward(self, dy, want_dx=True):
        tape, normalize = self._tape, self.u_norm is not None
        W_T = self.W.value.T
        self.dh0, self.dc0 = tape.start_back()  # zero: nothing comes from after the end

        def steps(n, meet):  # of one part of the units
            part = tape.parts[n]
            rows, dh, spare = part.rows, part.dh, part.spare
            dh_, dc, W_T_rows = self.dh0[rows], self.dc0[rows], W_T[rows]
            for block in reversed(tape.blocks):
                differentiate(*part.to_differentiate(block))
                for t in reversed(block):
                    dz_dh, dz_dc, dc_dh, f, dz, dz_o, dz_ifg = part.steps_back[t]
                    np.add(dy[rows, t], dh_, out=dh)     # dh  = dy + Wᵀ dz₊₁
                    np.multiply(dc_dh, dh, out=spare)
                    np.add(dc, spare, out=dc)            # dc  = f₊₁ ∘ dc₊₁ + dh ∘ o ∘ (1 - tanh²c)
                    np.multiply(dz_dh, dh, out=dz_o)     # dzo
                    np.multiply(dz_dc, dc, out=dz_ifg)   # dzi, dzf, dzg
                    np.multiply(f, dc, out=dc)           # for the step before
                    meet()  # Wᵀ dz needs the dz of all units
                    np.matmul(W_T_rows, self.w_norm.backward(dz, t) if normalize else dz, out=dh_)

        run_together(steps, len(tape.parts))
        dW, db = tape.recurrent_products(self.w_norm.gradient if normalize else tape.dz)
        if normalize:                                # dW = Σ dz h₋₁ᵀ, db = Σ dz
            db = flat(tape.dz).sum(axis=1)
            for t in range(tape.T):
                self.u_norm.backward(tape.dz[:, t], t)
        self.W.gradient += dW
        self.w_biases.gradient += db
        self.u_biases.gradient += db
        return self._input.backward(self.u_norm.gradient if normalize else tape.dz, want_dx)  # dU = Σ dz xᵀ, dx = Uᵀ dz

    def stepper(self, streams, one_hot):
        U, W, b = (a * self._signs for a in self._weights(fold=True))
        B, H = streams, self.outputs
        state = self.state(B)
        h, c = state["h"], state["c"]
        gates, products = np.empty((5, H, B), self.dtype), np.empty((2, H, B), self.dtype)
        z, c_, views = gates[:4].reshape(4 * H, B), gates[4], cell_views(gates, products, c, np.empty_like(h), h)
        project = self._input.stepper(U, b[:, 0], B, one_hot)

        def step(x):
            np.matmul(W, h, out=z)
            np.add(z, project(x), out=z)
            c_[...] = c
            cell(*views)
            return h

        return step

    def _weights(self, fold):
        """U, W and b (4H, 1), with ``fold`` batch norm folded in."""
        U, W, b = self.U.value, self.W.value, self.u_biases.value + self.w_biases.value
        if fold and self.u_norm is not None:
            U, b = self.u_norm.fold(U, b, self.dialect)
            W, b = self.w_norm.fold(W, b, self.dialect)
        return U, W, b[:, None]

    def _tape_for(self, T, B):
        count = own_threads() if self.shares_units and self.outputs % own_threads() == 0 else 1
        if self._tape is None or not self._tape.fits(T, B, count):
            self._tape = LSTMTape(self, T, B, count)
        return self._tape


def cell(oif, g, i_f, g_c_, products, ig, fc_, c, tanh_c, o, h):
    """One step of the cell, in place: z becomes the gates o i f g; then c from c₋₁, and h (:func:`cell_views`).

    Of the logistic gates ``oif`` holds *minus* z, and c₋₁ is that of ``g_c_``.
    """
    logistic_of_minus(oif)                 # o, i, f = σ(z)
    np.tanh(g, out=g)                      # g = tanh(z)
    np.multiply(i_f, g_c_, out=products)   # i ∘ g and f ∘ c₋₁
    np.add(ig, fc_, out=c)                 # c = f ∘ c₋₁ + i ∘ g
    np.tanh(c, out=tanh_c)
    np.multiply(o, tanh_c, out=h)          # h = o ∘ tanh(c)


def differentiate(gates, tanh_c, slopes):
    """The ``slopes`` (S, 5, H, B) of S steps with ``gates`` (S, 5, H, B), o i f g c₋₁, and ``tanh_c`` (S, H, B).

    They are what backward multiplies with: dzo by dh; dzi, dzf, dzg by dc; and dc by dh.
    """
    oif, g_c_ = gates[:, :3], gates[:, 3:]
    o, i, _, g, _ = gates.swapaxes(0, 1)
    dzo_dh, _, _, dzg_dc, dc_dh = slopes.swapaxes(0, 1)
    np.multiply(oif, oif, out=slopes[:, :3])
    np.subtract(oif, slopes[:, :3], out=slopes[:, :3])      # σ' = σ - σ²
    np.multiply(dzo_dh, tanh_c, out=dzo_dh)                 # tanh(c) ∘ o ∘ (1 - o)
    np.multiply(slopes[:, 1:3], g_c_, out=slopes[:, 1:3])   # g ∘ i ∘ (1 - i) and c₋₁ ∘ f ∘ (1 - f)
    np.multiply(g, g, out=dzg_dc)
    np.multiply(dzg_dc, i, out=dzg_dc)
    np.subtract(i, dzg_dc, out=dzg_dc)                      # i ∘ (1 - g²)
    np.multiply(tanh_c, tanh_c, out=dc_dh)
    np.multiply(dc_dh, o, out=dc_dh)
    np.subtract(o, dc_dh, out=dc_dh)                        # o ∘ (1 - tanh²c)
