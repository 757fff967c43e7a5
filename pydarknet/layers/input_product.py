"""The product of a layer's input matrix with its input, ``U @ x``, and its gradient.

Every layer begins with it, and it comes in two kinds: a dense ``x`` (D, T, B) is multiplied, a
:class:`~pydarknet.layers.base.OneHot` picks columns of U, and its gradient adds up columns. Neither
depends on the recurrence, so recurrent layers take it for a block of steps at a time.
"""

import numpy as np

from pydarknet.layers.base import Buffer, OneHot, by_gate, by_part, flat
from pydarknet.system.threads import product

SMALL = 1 << 18  # elements of dz, and of x: up to so many, a product with x written out beats adding up (benchmarks/README.md)


class InputProjection:
    """``U @ x`` for the parameter ``U`` (R, D), block by block, and the gradients of U and x.

    The R rows of U are those of several ``gates``, one gate's after the other's.
    """

    def __init__(self, U, gates=1):
        self._U, self._gates = U, gates
        self._dtype = U.value.dtype
        self._weights, self._outputs, self._dU, self._dx = (Buffer(self._dtype) for _ in range(4))

    def begin(self, x):
        """Use the input ``x`` (D, T, B) for what follows."""
        self._x, self._used = x, None
        if isinstance(x, OneHot):
            self._used, self._x = x.compact()
            # Where the columns of all gates are the rows of one table, the symbols' (T, gates, B) rows:
            self._rows = self._x.symbols[:, None] + self._used.size * np.arange(self._gates)[:, None]

    def weights(self, U, scale=None, parts=1):
        """What :meth:`block` needs of ``U`` (R, D) times ``scale`` (R, 1), for each of ``parts`` of the H units of
        all gates: (parts, gates, H', D), of symbols only the D' columns of those that occur. Valid until the next call."""
        if self._used is None:
            U = by_part(U, self._gates, parts)
            if scale is None:
                return U
            out = self._weights.array(*U.shape)
        else:
            U = by_part(U.take(self._used, axis=1), self._gates, parts)
            *shape, H, D = U.shape
            out = self._weights.array(*shape, D, H).swapaxes(2, 3)  # a column of a gate: one run of memory
        return np.multiply(U, 1 if scale is None else by_part(scale, self._gates, parts), out=out)

    def block(self, block, U, outputs=None):
        """U @ x of the steps in the range ``block``, for one part ``U`` of the :meth:`weights`: (gates, H', len(block), B).

        Valid until the next call. A thread that shares this object with others brings ``outputs``, a Buffer of its own.
        """
        x, steps, out = self._x, slice(block.start, block.stop), outputs or self._outputs
        gates, H, D = U.shape
        if self._used is None:
            z = out.activation(gates * H, len(block), x.shape[2])
            multiply = np.matmul if outputs else product
            multiply(U.reshape(gates * H, D), flat(x[:, steps]), out=flat(z))
            return by_gate(z, gates)
        z = out.array(len(block), gates, x.shape[2], H)
        table = U.swapaxes(1, 2).reshape(gates * D, H)
        # They are in range; "clip" spares numpy a copy that "raise" makes with out=.
        np.take(table, self._rows[steps], axis=0, out=z, mode="clip")
        if x.ones is not None:
            np.multiply(z, x.ones[steps, None, :, None], out=z)
        return z.transpose(1, 3, 0, 2)

    def backward(self, dz, want_dx):
        """Add dz xᵀ to the gradient of U; return dx = Uᵀ dz (D, T, B), or None when it is not wanted.

        ``dz`` is d(loss)/d(U @ x), (R, T, B). A one-hot input has no gradient: always None.
        """
        x, dz = self._x, flat(dz)
        if self._used is not None:
            small = max(len(dz), x.size) * dz.shape[1] <= SMALL
            dU_T = flat(x.dense(self._dtype)) @ dz.T if small else self._sums(dz)
            self._U.gradient[:, self._used] += dU_T.T
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
        """For each symbol that occurs, the sum of the columns of ``dz`` (R, N) where it does: (D', R)."""
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
        return sums

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
