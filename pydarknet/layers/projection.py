"""The product of a layer's input matrix with its input, ``U @ x``, and its gradient.

Every layer begins with it, and it comes in two kinds: a dense ``x`` (D, T, B) is multiplied, a
:class:`~pydarknet.layers.base.OneHot` picks columns of U. Neither depends on the recurrence, so
recurrent layers take it for a block of steps at a time.
"""

import numpy as np

from pydarknet.layers.base import OneHot, flat


class InputProjection:
    """``U @ x`` for the parameter ``U`` (R, D), block by block, and the gradients of U and x."""

    def __init__(self, U):
        self._U = U
        self._dtype = U.value.dtype
        self._buffer = np.empty(0, self._dtype)

    def begin(self, x, U):
        """Use the input ``x`` (D, T, B) with the values ``U`` (R, D) for the blocks that follow."""
        self._x, self._values = x, U

    def block(self, block):
        """U @ x of the steps in the range ``block``: (R, len(block), B), valid until the next call."""
        x, U = self._x, self._values
        start, stop, shape = block.start, block.stop, (len(U), len(block), x.shape[2])
        size = np.prod(shape)
        if self._buffer.size < size:
            self._buffer = np.empty(size, self._dtype)
        out = self._buffer[:size].reshape(shape)
        if isinstance(x, OneHot):
            # The network has checked the range; "clip" spares numpy a copy that "raise" makes with out=.
            np.take(U, x.symbols[start:stop], axis=1, out=out, mode="clip")
        else:
            np.matmul(U, flat(x[:, start:stop]), out=flat(out))
        return out

    def backward(self, dz, want_dx):
        """Add dz xᵀ to the gradient of U; return dx = Uᵀ dz (D, T, B), or None when it is not wanted.

        ``dz`` is d(loss)/d(U @ x), (R, T, B). A one-hot input has no gradient.
        """
        x = self._x
        if isinstance(x, OneHot):
            self._backward_one_hot(dz)
            return None
        self._U.gradient += flat(dz) @ flat(x).T
        if not want_dx:
            return None
        return (self._U.value.T @ flat(dz)).reshape(x.shape)

    def _backward_one_hot(self, dz):
        # Column v of the gradient is the sum of the columns of dz where the symbol is v: a product
        # with the one-hot matrix of the symbols that occur, many times faster than np.add.at.
        symbols = self._x.symbols.reshape(-1)
        occurs = np.zeros(self._x.size, bool)
        occurs[symbols] = True
        used = np.flatnonzero(occurs)
        rank = np.cumsum(occurs) - 1
        one_hot = np.zeros((symbols.size, used.size), self._dtype)
        one_hot[np.arange(symbols.size), rank[symbols]] = 1
        self._U.gradient[:, used] += flat(dz) @ one_hot

    def stepper(self, U, b, streams, one_hot):
        """A function of x (D, B), or of symbols (B,) with ``one_hot``, that returns U @ x + b (R, B)."""
        if one_hot:
            table = np.ascontiguousarray((U + b[:, None]).T)  # a symbol's column as a row: one run of memory
            return lambda symbols: table[symbols].T
        b = b[:, None]
        out = np.empty((len(U), streams), self._dtype)

        def project(x):
            np.matmul(U, x, out=out)
            return np.add(out, b, out=out)

        return project
