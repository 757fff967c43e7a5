"""The GRU: gated recurrent unit, forward and backward through time.

At each step, for every stream, with x the input and h the output, which is all of the state:

    r = σ(Ur x + Wr h₋₁ + br)           the reset gate: how much of the state the candidate sees
    z = σ(Uz x + Wz h₋₁ + bz)           the update gate: how much of the state stays
    q = φ(Uh x + Wh (r ∘ h₋₁) + bh)     the candidate: what could take its place
    h = z ∘ h₋₁ + (1 - z) ∘ q

with σ the logistic function, ∘ the product of elements and h₋₁ the output of the step before; at the
first step, of the call before. φ is Darknet's oddity: *the logistic function too*, unless the cfg
says ``tanh=1`` and the dialect is pjreddie's; AlexeyAB's Darknet has no such key. The sums inside σ and φ
are U x + W h₋₁ + b, with U (3H, D) and W (3H, H), but the candidate's W multiplies v = r ∘ h₋₁.

Backward, from the last step to the first; what arrives from the step after is added to what arrives
from above, and dr, dz and dq are gradients of those sums:

    dh  = dy + Wrᵀ dr₊₁ + Wzᵀ dz₊₁ + dh₊₁ ∘ z₊₁ + dv₊₁ ∘ r₊₁
    dq  = dh ∘ (1 - z) ∘ φ'
    dz  = dh ∘ (h₋₁ - q) ∘ z ∘ (1 - z)
    dv  = Whᵀ dq
    dr  = dv ∘ h₋₁ ∘ r ∘ (1 - r)
    dx  = Uᵀ [dr dz dq]     dU = Σ [dr dz dq] xᵀ     dWr, dWz = Σ dr h₋₁ᵀ, Σ dz h₋₁ᵀ     dWh = Σ dq vᵀ

The loop over the steps, and the lines that hold a matrix, are in :mod:`pydarknet.layers.gated`.

Source: K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014; Darknet's
``src/gru_layer.c``, whose backward pass is an empty function on a CPU.
"""

import numpy as np

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers.activations import sigmoid
from pydarknet.layers.gated import Gated


class GRU(Gated):
    """A layer of B independent GRUs with shared weights: input (T, B, D), output (T, B, H).

    ``tanh`` is Darknet's key: a candidate in -1..1, in pjreddie's dialect only. Darknet's six connected
    layers are ``matrices["wz"]`` and so on: w takes h, u takes x, and the candidate's letter is h. The rest
    of the constructor and the state h are those of :class:`~pydarknet.layers.gated.Gated`.
    """

    type = "gru"
    gates, darknet_gates = "rzq", "rzh"
    late = "q"
    together = "rz", "zq"
    states = ("h",)
    slopes_of = "rzq"
    passes_by = True
    file_order = {
        PJREDDIE: "wz wr wh uz ur uh".split(),
        ALEXEYAB: "uz ur uh wz wr wh".split(),
    }

    def __init__(self, inputs, outputs, tanh=False, batch_normalize=False, dtype=np.float32, random=None):
        super().__init__(inputs, outputs, batch_normalize, dtype, random)
        self.tanh = tanh

    @classmethod
    def from_section(cls, section, context):
        return cls(context.inputs, section.integer("output", 1, minimum=1), section.flag("tanh"),
                   section.flag("batch_normalize"), context.dtype)

    @property
    def logistic_candidate(self):
        """Whether φ is the logistic function, by the cfg and by the dialect as it is now."""
        return not self.tanh or self.dialect is ALEXEYAB

    def differences(self, section, dialect):
        yield from super().differences(section, dialect)
        if self.tanh:
            yield "tanh=1 is ignored by alexeyab, whose candidate is always logistic: the outputs change"

    def phi(self, q):
        """The candidate's activation, in place."""
        if self.logistic_candidate:
            sigmoid(q)
        else:
            np.tanh(q, out=q)

    def forward_step(self, s):                       # r and z hold U x + W h₋₁ + b
        sigmoid(s.rz)                                # r, z = σ(z)
        np.multiply(s.r, s.h_, out=s.v)              # v = r ∘ h₋₁
        s.late_product()                             # q = U x + W v + b
        self.phi(s.q)                                # q = φ(q)
        np.subtract(s.h_, s.q, out=s.spare)
        np.multiply(s.z, s.spare, out=s.spare)
        np.add(s.q, s.spare, out=s.h)                # h = z ∘ h₋₁ + (1 - z) ∘ q

    def backward_step(self, s):                      # dh = dy + what the step after sends back
        np.multiply(s.slope_zq, s.dh, out=s.dz_zq)   # dz, dq
        s.late_product_back()                        # dv = Whᵀ dq
        np.multiply(s.slope_r, s.dv, out=s.dz_r)     # dr
        np.multiply(s.z, s.dh, out=s.passed)
        np.multiply(s.r, s.dv, out=s.spare)
        np.add(s.passed, s.spare, out=s.passed)      # dh ∘ z + dv ∘ r, for the step before

    def slopes(self, s):
        np.multiply(s.rz, s.rz, out=s.slope_rz)
        np.subtract(s.rz, s.slope_rz, out=s.slope_rz)          # σ' = σ - σ²
        np.multiply(s.slope_r, s.h_, out=s.slope_r)            # h₋₁ ∘ r ∘ (1 - r)
        np.subtract(s.h_, s.q, out=s.slope_q)
        np.multiply(s.slope_z, s.slope_q, out=s.slope_z)       # (h₋₁ - q) ∘ z ∘ (1 - z)
        np.multiply(s.q, s.q, out=s.slope_q)
        np.subtract(s.q if self.logistic_candidate else 1, s.slope_q, out=s.slope_q)  # φ' = q - q², or 1 - q² of tanh
        s.slope_q -= s.z * s.slope_q                           # (1 - z) ∘ φ'
