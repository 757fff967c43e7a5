"""The memory of a recurrent layer's forward pass, made once per shape (T, B) and used again.

The layout is chosen for speed, measured by ``benchmarks/``:

* what the big products read stands feature by feature, (features, T, B), so that all steps are one
  matrix without a copy: the outputs ``h`` and the gate gradients ``dz``;
* what only elementwise operations read stands step by step, (T, features, B), each step contiguous;
* nothing is allocated in the loops: every view of every step is made here, once.
"""

import numpy as np

from pydarknet.layers.base import Buffer, flat, steps_per_block
from pydarknet.threads import product

CACHE_LINE = 16  # numbers of four bytes


class Tape:
    """What the recurrent layers have in common: the outputs with a row of ones, and dz.

    ``h`` is (H+1, T+1, B), H the layer's ``state_size``: ``h[:H, t]`` is the state *before* step t
    (``h[:H, 0]`` the carried one), and row H is all ones, so that a bias is the weight of one more
    input. ``stackable`` more rows below it are room for an input x of few rows, which then goes
    through the same product: [W b U] @ [h₋₁; 1; x]. ``dz`` (R, T, B) takes d(loss)/d(z) of R rows.
    ``blocks`` are the ranges of steps that are treated together.
    """

    def __init__(self, layer, T, B, rows, stackable=0):
        H, dtype = layer.state_size, layer.dtype
        self.T, self.B, self.H, self.rows, self.stackable, self.dtype = T, B, H, rows, stackable, dtype
        self._stack = np.zeros((H + 1 + stackable, T + 1, B), dtype)
        self.h = self._stack[:H + 1]
        self.h[H] = 1
        size = steps_per_block(T, B)
        self.blocks = [range(t, min(t + size, T)) for t in range(0, T, size)]
        self._height = H + 1  # of what stands in a column: h, 1 and a stacked x
        self._weights = Buffer(dtype)
        self._dz = None

    def fits(self, T, B, stackable=0):
        return (self.T, self.B) == (T, B) and self.stackable >= stackable

    @property
    def dz(self):
        if self._dz is None:  # a network that only predicts never pays for it
            self._dz = np.zeros((self.rows, self.T, self.B), self.dtype)
        return self._dz

    def empty(self, *shape):
        return np.empty(shape, self.dtype)

    def stack(self, x):
        """Put ``x`` (D, T, B), or nothing if None, below h and 1; return the columns of the T steps, each (H+1+D, B)."""
        self._height = self.H + 1
        if x is not None:
            self._height += len(x)
            self._stack[self.H + 1:self._height, :self.T] = x
        columns = self._stack[:self._height]
        return [columns[:, t] for t in range(self.T)]

    # The three uses of one buffer for weights: they never overlap in time.

    def weights_and_bias(self, W, b, scale=1):
        """The matrix [W b] (R, H+1) that multiplies the state and the ones below it; W times ``scale`` (R, 1)."""
        stacked = self._weights.array(self.rows, self.H + 1)
        np.multiply(W, scale, out=stacked[:, :self.H])
        stacked[:, self.H] = b
        return stacked

    def transposed(self, W):
        """Wᵀ (H, R) as an array of its own: a product with it is up to a fifth faster than with W.T."""
        W_T = self._weights.array(W.shape[1], W.shape[0])
        for row in range(0, len(W), CACHE_LINE):  # a few rows at a time: six times faster than all at once
            W_T[:, row:row + CACHE_LINE] = W[row:row + CACHE_LINE].T
        return W_T

    def recurrent_products(self, dz):
        """Σ dz [h₋₁; 1]ᵀ over all steps and streams: the gradients of W (R, H) and of b (R,)."""
        return self.weight_products(dz)[:2]

    def weight_products(self, dz):
        """The same with the x that was stacked, Σ dz [h₋₁; 1; x]ᵀ: of W, of b, and of U (R, D), D = 0 without one."""
        N, H = self.T * self.B, self.H
        gradient = self._weights.array(self.rows, self._height)
        product(flat(dz), flat(self._stack[:self._height])[:, :N].T, out=gradient)
        return gradient[:, :H], gradient[:, H], gradient[:, H + 1:]
