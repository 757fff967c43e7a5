"""The product of a layer's input matrix with its input, ``U @ x``, and its gradient.

Every layer begins with it, and it comes in two kinds: a dense ``x`` (D, T, B) is multiplied, a
:class:`~pydarknet.layers.base.OneHot` picks columns of U, and its gradient adds up columns. Neither
depends on the recurrence, so recurrent layers take it for a block of steps at a time.
"""

import numpy as np

from pydarknet.layers.base import Buffer, OneHot, flat
from pydarknet.threads import product

SMALL = 1 << 18  # elements of dz, and of x: up to so many, a product with x written out beats adding up (benchmarks/README.md)


class InputProjection:
    """``U @ x`` for the parameter ``U`` (R, D), block by block, and the gradients of U and x."""

    def __init__(self, U):
        self._U = U
        self._dtype = U.value.dtype
        self._outputs, self._dU, self._dx = (Buffer(self._dtype) for _ in range(3))

    def begin(self, x):
        """Use the input ``x`` (D, T, B) for what follows."""
        self._x, self._used = x, None
        if isinstance(x, OneHot):
            self._used, self._x = x.compact()

    def columns(self, U):
        """What :meth:`block` needs of ``U`` (R, D): all of it, or of symbols the columns of those that occur, each one run of memory."""
        return U if self._used is None else np.asfortranarray(U.take(self._used, axis=1))

    def block(self, block, U, outputs=None):
        """U @ x of the steps in the range ``block``: (R, len(block), B), valid until the next call.

        ``U`` has the rows that are wanted, of the :meth:`columns`. A thread that shares this object with
        others brings ``outputs``, a Buffer of its own.
        """
        x, steps = self._x, slice(block.start, block.stop)
        out = (outputs or self._outputs).activation(len(U), len(block), x.shape[2])
        if self._used is None:
            multiply = np.matmul if outputs else product
            multiply(U, flat(x[:, steps]), out=flat(out))
        else:
            # They are in range; "clip" spares numpy a copy that "raise" makes with out=.
            np.take(U.T, x.symbols[steps], axis=0, out=out.transpose(1, 2, 0), mode="clip")
            if x.ones is not None:
                np.multiply(out, x.ones[steps], out=out)
        return out

    def backward(self, dz, want_dx):
        """Add dz xᵀ to the gradient of U; return dx = Uᵀ dz (D, T, B), or None when it is not wanted.

        ``dz`` is d(loss)/d(U @ x), (R, T, B). A one-hot input has no gradient: always None.
        """
        x, dz = self._x, flat(dz)
        if self._used is not None:
            small = max(len(dz), x.size) * dz.shape[1] <= SMALL
            dU = dz @ flat(x.dense(self._dtype)).T if small else self._sums(dz)
            self._U.gradient[:, self._used] += dU
            return None
        dU = self._dU.array(len(dz), len(x))
        product(dz, flat(x).T, out=dU)
        self._U.gradient += dU
        if not want_dx:
            return None
        dx = self._dx.activation(*x.shape)
        product(self._U.value.T, dz, out=flat(dx))
        return dx

    def _sums(self, dz):
        """For each symbol that occurs, the sum of the columns of ``dz`` (R, N) where it does: (R, D')."""
        symbols, ones = self._x.symbols.reshape(-1), self._x.ones
        columns = np.argsort(symbols, kind="stable")  # sorted by symbol
        ends = np.cumsum(np.bincount(symbols, minlength=self._used.size))
        sums = np.empty((self._used.size, len(dz)), self._dtype)
        for total, start, end in zip(sums, (0, *ends), ends):
            its = columns[start:end]
            addends = dz.T[its]
            if ones is not None:
                addends *= ones.reshape(-1)[its, None]
            np.add.reduce(addends, axis=0, out=total)
        return sums.T

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
