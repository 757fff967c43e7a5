"""The memory of a recurrent layer's forward pass, made once per shape (T, B) and used again.

The layout is chosen for speed, measured by ``benchmarks/``:

* what the big products read stands feature by feature, (features, T, B), so that all steps are one
  matrix without a copy: the outputs ``h`` and the gate gradients ``dz``;
* what only elementwise operations read stands step by step, (T, features, B), each step contiguous;
* nothing is allocated in the loops: every view of every step is made here, once.
"""

import numpy as np

from pydarknet.layers.base import flat, steps_per_block

CACHE_LINE = 16  # numbers of four bytes


class Tape:
    """What the recurrent layers have in common: the outputs with a row of ones, and dz.

    ``h`` is (H+1, T+1, B), H the layer's ``state_size``: ``h[:H, t]`` is the state *before* step t
    (``h[:H, 0]`` the carried one), and row H is all ones, so that a bias is the weight of one more
    input. ``dz`` (R, T, B) takes d(loss)/d(z) of R rows. ``blocks`` are the ranges of steps that are
    treated together.
    """

    def __init__(self, layer, T, B, rows):
        H, dtype = layer.state_size, layer.dtype
        self.T, self.B, self.H, self.rows, self.dtype = T, B, H, rows, dtype
        self.h = np.zeros((H + 1, T + 1, B), dtype)
        self.h[H] = 1
        size = steps_per_block(T, B)
        self.blocks = [range(t, min(t + size, T)) for t in range(0, T, size)]
        self._weights = np.empty(rows * (H + 1), dtype)
        self._dz = None

    def fits(self, T, B):
        return (self.T, self.B) == (T, B)

    @property
    def dz(self):
        if self._dz is None:  # a network that only predicts never pays for it
            self._dz = np.zeros((self.rows, self.T, self.B), self.dtype)
        return self._dz

    def empty(self, *shape):
        return np.empty(shape, self.dtype)

    # The three uses of one buffer: they never overlap in time.

    def weights_and_bias(self, W, b):
        """The matrix [W b] (R, H+1) that multiplies h with its row of ones."""
        Wb = self._weights.reshape(self.rows, self.H + 1)
        Wb[:, :self.H] = W
        Wb[:, self.H] = b
        return Wb

    def transposed(self, W):
        """Wᵀ (H, R) as an array of its own: a product with it is up to a fifth faster than with W.T."""
        W_T = self._weights[:W.size].reshape(W.shape[1], W.shape[0])
        for row in range(0, len(W), CACHE_LINE):  # a few rows at a time: six times faster than all at once
            W_T[:, row:row + CACHE_LINE] = W[row:row + CACHE_LINE].T
        return W_T

    def weight_products(self, dz):
        """Σ dz [h₋₁; 1]ᵀ over all steps and streams: the gradients of W (R, H) and of b (R,)."""
        N = self.T * self.B
        product = self._weights.reshape(self.rows, self.H + 1)
        np.matmul(flat(dz), flat(self.h)[:, :N].T, out=product)
        return product[:, :self.H], product[:, self.H]
