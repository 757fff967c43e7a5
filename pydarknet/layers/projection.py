"""The product of a layer's input matrix with its input, ``U @ x``, and its gradient.

Every layer begins with it, and it comes in two kinds: a dense ``x`` (D, T, B) is multiplied, a
:class:`~pydarknet.layers.base.OneHot` picks columns of U. Neither depends on the recurrence, so
recurrent layers take it for a block of steps at a time.
"""

import numpy as np

from pydarknet.layers.base import Buffer, OneHot, flat
from pydarknet.threads import product


FEW_SYMBOLS = 192  # up to so many different ones a product beats picking columns, by an estimate (benchmarks/README.md)


class InputProjection:
    """``U @ x`` for the parameter ``U`` (R, D), block by block, and the gradients of U and x."""

    def __init__(self, U):
        self._U = U
        self._dtype = U.value.dtype
        self._outputs = Buffer(self._dtype)
        self._dU, self._dx = Buffer(self._dtype), Buffer(self._dtype)

    def begin(self, x):
        """Use the input ``x`` (D, T, B) for what follows."""
        self._x, self._used = x, None
        if isinstance(x, OneHot):
            self._symbols, self._ones = x.symbols, x.ones
            # Text has few symbols: with the rows of zeros taken out, x is small and as good as dense.
            self._used, self._x = x.compact(self._dtype)

    @property
    def few_rows(self):
        """``x`` without the symbols that do not occur, (D', T, B), if these are few; else None.

        A recurrent layer can stack so small an x below its state and save a product. It then gives
        the gradient back to :meth:`add_gradient`.
        """
        return self._x if self._used is not None and self._used.size <= FEW_SYMBOLS else None

    def columns(self, U):
        """The columns of ``U`` (R, D) that :meth:`block` multiplies with: of few symbols, only theirs, (R, D')."""
        return U if self.few_rows is None else U.take(self._used, axis=1)

    def block(self, block, U, outputs=None):
        """U @ x of the steps in the range ``block``: (R, len(block), B), valid until the next call.

        ``U`` has the rows that are wanted, of the :meth:`columns`. A thread that shares this object with
        others brings ``outputs``, a Buffer of its own.
        """
        x = self._x
        out = (outputs or self._outputs).array(len(U), len(block), x.shape[2])
        steps = slice(block.start, block.stop)
        if U.shape[1] == len(x):
            multiply = np.matmul if outputs else product
            multiply(U, flat(x[:, steps]), out=flat(out))
        else:
            # The network has checked the range; "clip" spares numpy a copy that "raise" makes with out=.
            np.take(U, self._symbols[steps], axis=1, out=out, mode="clip")
            if self._ones is not None:
                np.multiply(out, self._ones[steps], out=out)
        return out

    def add_gradient(self, dU):
        """Add ``dU`` to the gradient of U: of all its columns (R, D), or of those that occur (R, D')."""
        if self._used is None:
            self._U.gradient += dU
        else:
            columns = self._U.gradient.take(self._used, axis=1)
            columns += dU
            self._U.gradient[:, self._used] = columns

    def backward(self, dz, want_dx):
        """Add dz xᵀ to the gradient of U; return dx = Uᵀ dz (D, T, B), or None when it is not wanted.

        ``dz`` is d(loss)/d(U @ x), (R, T, B). A one-hot input has no gradient: always None. Only the
        columns of symbols that occur are computed, which is far faster than np.add.at over N columns.
        """
        x, dz = self._x, flat(dz)
        dU = self._dU.array(len(dz), len(x))
        product(dz, flat(x).T, out=dU)
        self.add_gradient(dU)
        if not want_dx or self._used is not None:
            return None
        dx = self._dx.array(*x.shape)
        product(self._U.value.T, dz, out=flat(dx))
        return dx

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
