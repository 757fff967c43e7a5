"""The end of a network: softmax with its cross-entropy, and Darknet's ``[cost]`` behind it.

Source: Darknet's ``src/softmax_layer.c``, ``src/cost_layer.c`` and ``softmax``,
``softmax_x_ent_cpu`` in ``src/blas.c``.
"""

import numpy as np

from pydarknet.layers.base import Layer, flat


class Softmax(Layer):
    """Probabilities of the symbols: p = exp(x / τ) / Σ exp(x / τ) for every column, V = H = D.

    ``temperature`` τ is Darknet's key of that name. The loss of true symbols y is the cross-entropy
    L = -Σ ln p[y], in nats, summed over the N columns; dL/dx = (p - onehot(y)) / τ. With ``noloss``,
    Darknet's key, the gradient is left to a cost behind it.
    """

    type = "softmax"

    def __init__(self, inputs, temperature=1.0, noloss=False, dtype=np.float32):
        super().__init__(inputs, inputs, dtype)
        self.temperature = temperature
        self.noloss = noloss
        self._p = np.empty((inputs, 0), self.dtype)

    def forward(self, x, train=False):
        x = flat(x)
        if self._p.shape != x.shape:
            self._p = np.empty_like(x)
        softmax(x, self.temperature, out=self._p)
        return self._p

    def loss(self, truth):
        """The cross-entropy L, in nats, of the true symbols (N,), for the last ``forward``."""
        # A probability that underflowed is taken as the smallest there is, so that the loss stays finite.
        p = self._p[truth, np.arange(truth.size)].astype(np.float64)
        return float(-np.log(np.maximum(p, np.finfo(self.dtype).tiny)).sum())

    def nats(self, x, truth):
        """-ln p of the true symbols (N,) for the input ``x`` (V, N): float64, and finite where p itself would be 0.

        With m the greatest of a column, -ln p[y] = ln Σ exp((x - m) / τ) - (x[y] - m) / τ.
        """
        x = flat(x)
        z = np.subtract(x, x.max(axis=0))
        if self.temperature != 1.0:
            z /= z.dtype.type(self.temperature)
        true_z = z[truth, np.arange(truth.size)].astype(np.float64)
        return np.log(np.exp(z, out=z).sum(axis=0), dtype=np.float64) - true_z

    def backward_from_truth(self, truth, scale=1.0):
        """``scale`` dL/dx (V, N) for the true symbols (N,). Overwrites the probabilities."""
        dx = self._p
        dx[truth, np.arange(truth.size)] -= 1
        if scale != self.temperature:
            dx *= self.dtype.type(scale / self.temperature)
        return dx


def softmax(x, temperature=1.0, out=None):
    """Columns of ``x`` (V, N) to probabilities; the greatest value is taken off first, so that nothing overflows."""
    out = np.subtract(x, x.max(axis=0), out=out)
    if temperature != 1.0:
        out /= out.dtype.type(temperature)
    np.exp(out, out=out)
    out /= out.sum(axis=0)
    return out


class Cost(Layer):
    """Darknet's ``[cost]``, here only behind a softmax: it adds ``scale`` (truth - output) to the delta again.

    The gradient of the network is therefore (1 + scale) times that of the cross-entropy (scale times, if
    the softmax has ``noloss=1``), as Darknet's is; the loss that we report stays the cross-entropy.
    """

    type = "cost"

    def __init__(self, inputs, scale=1.0, dtype=np.float32):
        super().__init__(inputs, inputs, dtype)
        self.scale = scale
