"""The memory of a recurrent layer's forward pass, made once per shape (T, B) and used again.

The layout is chosen for speed, measured by ``benchmarks/``:

* the features of a stream stand side by side, and the streams of a step one after the other, so that
  a step is one run of memory and all steps are one matrix for the big products, without a copy;
* nothing is allocated in the loops: every view of every step is made here, once.
"""

import numpy as np

from pydarknet.layers.base import Buffer, activation_array, by_part, flat, steps_per_block
from pydarknet.system.threads import product


class Tape:
    """What the recurrent layers have in common: the outputs with a row of ones, and dz.

    ``h`` is (H+1, T+1, B), H the layer's ``state_size``: ``h[:H, t]`` is the state *before* step t
    (``h[:H, 0]`` the carried one), and row H is all ones, so that a bias is the weight of one more
    input. ``dz`` (R, T, B) takes d(loss)/d(z) of the R rows of z. ``blocks`` are the ranges of steps
    that are treated together.
    """

    def __init__(self, layer, T, B, rows):
        H, dtype = layer.state_size, layer.dtype
        self.T, self.B, self.H, self.rows, self.dtype = T, B, H, rows, dtype
        self.h = activation_array(H + 1, T + 1, B, dtype, make=np.zeros)
        self.h[H] = 1
        size = steps_per_block(T, B)
        self.blocks = [range(t, min(t + size, T)) for t in range(0, T, size)]
        self._weights = Buffer(dtype)
        self._dz = None

    def fits(self, T, B):
        return (self.T, self.B) == (T, B)

    @property
    def dz(self):
        if self._dz is None:  # a network that only predicts never pays for it
            self._dz = activation_array(self.rows, self.T, self.B, self.dtype, make=np.zeros)
        return self._dz

    def per_step(self, *shape, make=np.empty):
        """An array (*shape, B) for what only steps read: all of ``shape``, and each of its matrices, in one run of memory."""
        *shape, features = shape
        return make((*shape, self.B, features), self.dtype).swapaxes(-1, -2)

    # The two uses of one buffer for weights: they never overlap in time.

    def weights_and_bias(self, W, b, scale=None, parts=1):
        """[W b], which multiplies the state and the ones below it, times ``scale``: (parts, gates, H', H+1).

        ``b`` and ``scale`` are (R, 1). Of W (R, H) the R / H gates are apart, and of each gate the ``parts`` of
        its H units. Valid until :meth:`recurrent_products`.
        """
        H, gates = self.H, self.rows // self.H
        # Turned around in memory: with few streams the product is faster by a tenth.
        weights = self._weights.array(parts, gates, H + 1, H // parts).swapaxes(2, 3)
        weights[..., :H] = by_part(W, gates, parts)
        weights[..., H:] = by_part(b, gates, parts)
        return weights if scale is None else np.multiply(weights, by_part(scale, gates, parts), out=weights)

    def recurrent_products(self, dz):
        """Σ dz [h₋₁; 1]ᵀ over all steps and streams: the gradients of W (R, H) and of b (R,)."""
        N, H = self.T * self.B, self.H
        gradient = self._weights.array(self.rows, H + 1)
        product(flat(dz), flat(self.h)[:, :N].T, out=gradient)
        return gradient[:, :H], gradient[:, H]
