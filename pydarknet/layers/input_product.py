"""The product of a layer's input matrix with its input, U x, and its gradient.

Every layer with an input matrix begins with it, and it comes in two kinds: a dense x (T, B, D) is multiplied, a
:class:`~pydarknet.layers.layer.OneHot` picks columns of U, and its gradient adds up columns. Neither
depends on the recurrence, so recurrent layers take it for a block of steps at a time.
"""

import numpy as np

from pydarknet.layers.layer import Buffer, OneHot, flat

SMALL = 1 << 18  # elements of dz, and of x: up to so many, a product with x written out beats adding up (benchmarks/README.md)


class InputProduct:
    """U x + b for the parameter ``U`` (R, D), block by block, and the gradients of U and x.

    The R rows of U are those of several ``gates``, one gate's H rows after the other's.
    """

    def __init__(self, U, gates=1):
        self._U, self._gates = U, gates
        self._dU, self._dx = Buffer(U.dtype), Buffer(U.dtype)

    def begin(self, x):
        """Use the input ``x`` (T, B, D) for what follows."""
        self._x, self._one_hot = x, isinstance(x, OneHot)
        if self._one_hot:
            occurs = np.zeros(x.size, bool)
            occurs[x.symbols.reshape(-1)] = True
            self._used = np.flatnonzero(occurs)  # the symbols that occur, ascending (D',)
            self._symbols = (np.cumsum(occurs) - 1)[x.symbols]  # (T, B), numbered among them

    def part(self, U, b, out, units=slice(None)):
        """A function of a slice of steps that gives U x + b of the features ``units`` of every gate, (S, gates, B, H').

        ``U`` (R, D) and ``b`` (R,) may be others than the parameter. Each result lies in ``out``, a Buffer, until the next.
        """
        U = U.reshape(self._gates, -1, U.shape[1])[:, units]
        b = b.reshape(self._gates, 1, -1)[..., units]
        return self._picked(U, b, out) if self._one_hot else self._multiplied(U, b, out)

    def _multiplied(self, U, b, out):
        def block(steps):
            x = self._x[steps]
            S, B, _ = x.shape
            z = out.array(len(U), S * B, U.shape[1])
            np.matmul(flat(x), U.swapaxes(1, 2), out=z)
            np.add(z, b, out=z)
            return z.reshape(len(U), S, B, -1).swapaxes(0, 1)

        return block

    def _picked(self, U, b, out):
        # A column of a gate becomes a row of the table: one run of memory.
        gates, H, D = len(U), U.shape[1], self._used.size
        table = np.ascontiguousarray(U.take(self._used, axis=2).swapaxes(1, 2))
        ones = self._x.ones
        if ones is None:
            table += b
        table = table.reshape(gates * D, H)
        rows = self._symbols[:, None] + D * np.arange(gates)[:, None]  # (T, gates, B)

        def block(steps):
            z = out.array(*rows[steps].shape, H)
            # The rows are in range; "clip" spares numpy a copy that "raise" makes with out=.
            np.take(table, rows[steps], axis=0, out=z, mode="clip")
            if ones is not None:
                np.multiply(z, ones[steps, None, :, None], out=z)
                np.add(z, b, out=z)
            return z

        return block

    def backward(self, dz, want_dx, team):
        """Add dz xᵀ to the gradient of U; return dx = Uᵀ dz (T, B, D), or None when it is not wanted.

        ``dz`` is d(loss)/d(U x), (T, B, R). A one-hot input has no gradient: always None.
        """
        x, dz = self._x, flat(dz)
        if self._one_hot:
            compact = OneHot(self._symbols, self._used.size, x.ones)
            small = max(dz.shape[1], compact.size) * len(dz) <= SMALL
            sums = flat(compact.dense(dz.dtype)).T @ dz if small else self._sums(dz)
            self._U.gradient[:, self._used] += sums.T
            return None
        dU = self._dU.array(*self._U.shape)
        team.product(dz.T, flat(x), out=dU)
        self._U.gradient += dU
        if not want_dx:
            return None
        dx = self._dx.array(*x.shape)
        team.product(dz, self._U.value, out=flat(dx))
        return dx

    def _sums(self, dz):
        """For each symbol that occurs, the sum of the rows of ``dz`` (N, R) where it does: (D', R)."""
        symbols, ones = self._symbols.reshape(-1), self._x.ones
        order = np.argsort(symbols, kind="stable")  # by symbol
        ends = np.cumsum(np.bincount(symbols, minlength=self._used.size))
        sums = np.empty((self._used.size, dz.shape[1]), dz.dtype)
        for total, start, end in zip(sums, (0, *ends), ends):
            addends = dz[order[start:end]]
            if ones is not None:
                addends *= ones.reshape(-1)[order[start:end], None]
            np.add.reduce(addends, axis=0, out=total)
        return sums

    def stepper(self, U, b, streams, one_hot):
        """A function of x (B, D), or of symbols (B,) with ``one_hot``, that returns U x + b (B, R)."""
        if one_hot:
            table = np.ascontiguousarray(U.T + b)  # a symbol's column as a row: one run of memory
            return lambda symbols: table[symbols]
        out = np.empty((streams, len(U)), U.dtype)

        def project(x):
            np.matmul(x, U.T, out=out)
            return np.add(out, b, out=out)

        return project
