"""The end of a network: a softmax with its cross-entropy, and Darknet's ``[cost]`` after it. They are no layers.

Source: Darknet's ``src/softmax_layer.c``, ``src/cost_layer.c`` and ``softmax``,
``softmax_x_ent_cpu`` in ``src/blas.c``.
"""

import numpy as np

from pydarknet.layers.layer import flat


class SoftmaxLoss:
    """Probabilities of the symbols, p = exp(x / τ) / Σ exp(x / τ), and the cross-entropy L = -Σ ln p[y] of true symbols y.

    L is in nats, summed over the N rows. ``temperature`` τ is Darknet's key of that name; while training, too, the gradient
    is that of L, (p - onehot(y)) / τ, where Darknet leaves the division out. ``scale`` multiplies the gradient, not the
    loss that is returned: a ``[cost]`` after the softmax adds (truth - output) to Darknet's delta again.
    """

    def __init__(self, inputs, temperature=1.0, scale=1.0, dtype=np.float32):
        self.inputs, self.temperature, self.scale, self.dtype = inputs, temperature, scale, np.dtype(dtype)
        self._p = np.empty((0, inputs), self.dtype)

    def probabilities(self, x):
        """p (T, B, V) for the input ``x`` (T, B, V)."""
        return softmax(x, self.temperature)

    def nats(self, x, truth):
        """-ln p of the true symbols ``truth`` (T, B) for the input ``x`` (T, B, V): (T, B) float64, finite where p would be 0.

        With m the greatest of a row, -ln p[y] = ln Σ exp((x - m) / τ) - (x[y] - m) / τ.
        """
        return self._scored(flat(x), truth.reshape(-1))[0].reshape(truth.shape)

    def nats_and_gradient(self, x, truth):
        """:meth:`nats`, and ``scale`` dL/dx (T, B, V), which is overwritten by the next call."""
        rows, y = flat(x), truth.reshape(-1)
        if self._p.shape != rows.shape:
            self._p = np.empty_like(rows)
        nats, p, total = self._scored(rows, y, self._p)
        p /= total
        p[np.arange(len(p)), y] -= 1
        if self.scale != self.temperature:
            p *= p.dtype.type(self.scale / self.temperature)
        return nats.reshape(truth.shape), p.reshape(x.shape)

    def _scored(self, x, y, out=None):
        """-ln p of ``y`` (N,) in float64, and exp((x - m) / τ) with its sums, for ``x`` (N, V)."""
        z = np.subtract(x, x.max(axis=1, keepdims=True), out=out)
        if self.temperature != 1.0:
            z /= z.dtype.type(self.temperature)
        true_z = z[np.arange(len(z)), y].astype(np.float64)
        np.exp(z, out=z)
        total = z.sum(axis=1, keepdims=True)
        return np.log(total[:, 0], dtype=np.float64) - true_z, z, total


def softmax(x, temperature=1.0, out=None):
    """Rows of ``x`` (..., V) to probabilities; the greatest value is taken off first, so that nothing overflows."""
    out = np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    if temperature != 1.0:
        out /= out.dtype.type(temperature)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)
    return out


def read_loss(softmax_section, cost_section, inputs, dtype):
    """The loss of a ``[softmax]`` section and the ``[cost]`` section after it, None if there is none. Raises CfgError."""
    section = softmax_section
    if section.integer("groups", 1) != 1:
        raise section.error("groups of symbols have no meaning for one true symbol at a time; remove the line", "groups")
    section.ignore("spatial")
    temperature = section.number("temperature", 1.0)
    if temperature <= 0:
        raise section.error("temperature must be above 0", "temperature")
    scale = 0.0 if section.flag("noloss") else 1.0  # noloss=1 leaves the gradient to the cost
    if cost_section is not None:
        # The types are alike for probabilities and a truth without masked elements.
        cost_section.choice("type", "sse", ["sse", "masked", "smooth"])
        cost_section.ignore("ratio", "noobj", "thresh")
        scale += cost_section.number("scale", 1.0)
    return SoftmaxLoss(inputs, temperature, scale, dtype)
