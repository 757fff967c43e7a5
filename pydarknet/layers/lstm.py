"""The LSTM: long short-term memory, forward and backward through time.

At each step, for every stream, with x the input, h the output and c the cell:

    g = tanh(Ug x + Wg h₋₁ + bg)        the candidate: what could be written
    i = σ(Ui x + Wi h₋₁ + bi)           the input gate: how much of it is
    f = σ(Uf x + Wf h₋₁ + bf)           the forget gate: how much of the old cell stays
    o = σ(Uo x + Wo h₋₁ + bo)           the output gate: how much of the cell shows
    c = f ∘ c₋₁ + i ∘ g
    h = o ∘ tanh(c)

with σ the logistic function, ∘ the product of elements and h₋₁, c₋₁ those of the step before; at the
first step, those that the call before left behind. The sums of all four are computed as one,
z = U x + W h₋₁ + b, with U (4H, D) and W (4H, H).

Backward, from the last step to the first, dh is d(loss)/dh and so on; what arrives from the step
after is added to what arrives from above:

    dh  = dy + Wᵀ dz₊₁
    dc  = f₊₁ ∘ dc₊₁ + dh ∘ o ∘ (1 - tanh²c)
    dzg = dc ∘ i ∘ (1 - g²)
    dzi = dc ∘ g ∘ i ∘ (1 - i)
    dzf = dc ∘ c₋₁ ∘ f ∘ (1 - f)
    dzo = dh ∘ tanh(c) ∘ o ∘ (1 - o)
    dx  = Uᵀ dz      dU = Σ dz xᵀ      dW = Σ dz h₋₁ᵀ      db = Σ dz

The loop over the steps, and the lines that hold a matrix, are in :mod:`pydarknet.layers.gated`.

Source: S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997,
with the forget gate of F. Gers et al., 2000; Darknet's ``src/lstm_layer.c``, whose defects (the cell
gradient that leaks from call to call, the first step that reads its own cell for the carried one)
are not repeated here. docs/lstm.md reads this file line by line.
"""

import numpy as np

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers.activations import sigmoid
from pydarknet.layers.gated import Gated


class LSTM(Gated):
    """A layer of B independent LSTMs with shared weights: input (T, B, D), output (T, B, H).

    Darknet's eight connected layers are ``matrices["wi"]`` and so on: w takes h, u takes x. The
    constructor and the state, h and c, are those of :class:`~pydarknet.layers.gated.Gated`.
    """

    type = "lstm"
    gates = "oifg"            # the logistic ones stand together (o i f), and so do those that act through the cell (i f g)
    together = "oif", "ifg"
    states = "h", "c"
    kept = ("tanh_c",)
    slopes_of = "oifgc"
    file_order = {
        PJREDDIE: "wi wf wo wg ui uf uo ug".split(),
        ALEXEYAB: "wf wi wg wo uf ui ug uo".split(),
    }

    @classmethod
    def from_section(cls, section, context):
        return cls(context.inputs, section.integer("output", 1, minimum=1), section.flag("batch_normalize"), context.dtype)

    def forward_step(self, s):                       # the gates hold z = U x + W h₋₁ + b
        sigmoid(s.oif)                               # o, i, f = σ(z)
        np.tanh(s.g, out=s.g)                        # g = tanh(z)
        np.multiply(s.f, s.c_, out=s.c)
        np.multiply(s.i, s.g, out=s.spare)
        np.add(s.c, s.spare, out=s.c)                # c = f ∘ c₋₁ + i ∘ g
        np.tanh(s.c, out=s.tanh_c)
        np.multiply(s.o, s.tanh_c, out=s.h)          # h = o ∘ tanh(c)

    def backward_step(self, s):                      # dh = dy + Wᵀ dz₊₁, and dc = f₊₁ ∘ dc₊₁
        np.multiply(s.slope_c, s.dh, out=s.spare)
        np.add(s.dc, s.spare, out=s.dc)              # dc = f₊₁ ∘ dc₊₁ + dh ∘ o ∘ (1 - tanh²c)
        np.multiply(s.slope_o, s.dh, out=s.dz_o)     # dzo
        np.multiply(s.slope_ifg, s.dc, out=s.dz_ifg)  # dzi, dzf, dzg
        np.multiply(s.f, s.dc, out=s.dc)             # for the step before

    def slopes(self, s):
        np.multiply(s.oif, s.oif, out=s.slope_oif)
        np.subtract(s.oif, s.slope_oif, out=s.slope_oif)       # σ' = σ - σ²
        np.multiply(s.slope_o, s.tanh_c, out=s.slope_o)        # tanh(c) ∘ o ∘ (1 - o)
        np.multiply(s.slope_i, s.g, out=s.slope_i)             # g ∘ i ∘ (1 - i)
        np.multiply(s.slope_f, s.c_, out=s.slope_f)            # c₋₁ ∘ f ∘ (1 - f)
        np.multiply(s.g, s.g, out=s.slope_g)
        np.multiply(s.i, s.slope_g, out=s.slope_g)
        np.subtract(s.i, s.slope_g, out=s.slope_g)             # i ∘ (1 - g²)
        np.multiply(s.tanh_c, s.tanh_c, out=s.slope_c)
        np.multiply(s.o, s.slope_c, out=s.slope_c)
        np.subtract(s.o, s.slope_c, out=s.slope_c)             # o ∘ (1 - tanh²c)
