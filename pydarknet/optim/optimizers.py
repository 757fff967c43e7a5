"""How a gradient moves the parameters: Darknet's momentum rule, and Adam.

Both work on the whole block of a network, group by group, in pieces that stay in the processor's
cache: an update then reads and writes memory once rather than once an operation (benchmarks/README.md).
n is the number of samples of an update: streams * steps * subdivisions.
"""

from dataclasses import dataclass

import numpy as np

PIECE = 1 << 15  # elements; the size was measured with 100,000 to 4 million parameters (benchmarks/README.md)


class Optimizer:
    """What the optimizers share: nothing but arrays goes into a checkpoint."""

    def facts(self):
        """No facts: its state is all in the arrays."""
        return {}

    def check(self, facts, arrays):
        """Any memory is possible."""

    def take(self, facts):
        """The arrays are in place."""


class SGD(Optimizer):
    """Gradient descent with momentum and decay, in Darknet's order (``update_connected_layer``).

    With the buffer u (Darknet's ``weight_updates``), the summed gradient dw, the rate and n:

        u -= dw      u -= decay n w  (weight matrices only)      w += rate / n * u      u *= momentum
    """

    def __init__(self, block, momentum=0.9, decay=0.0001):
        self.momentum, self.decay = momentum, decay
        self.buffer = np.zeros_like(block.values)

    def arrays(self):
        """The optimizer's memory, by name, for a checkpoint."""
        return {"sgd.momentum": self.buffer}

    def update(self, block, rate, n):
        """Move ``block.values`` by ``block.gradients``, at the learning rate ``rate``, for ``n`` samples."""
        for group in block.groups:
            step = rate * group.learning_rate / n
            for piece in _pieces(group.run):
                w, u = block.values[piece], self.buffer[piece]
                u -= block.gradients[piece]
                if group.decayed and self.decay:
                    u -= self.decay * n * w
                w += step * u
                u *= self.momentum


class Adam(Optimizer):
    """Adam as Darknet defines it (``adam_update_gpu``), which runs it on a GPU only.

    With the summed gradient dw, and t the number of the update, starting at 1:

        d = -dw - decay n w      m = B1 m + (1 - B1) d      v = B2 v + (1 - B2) d²
        w += rate * m / (1 - B1^t) / (√(v / (1 - B2^t)) + eps)

    The rate is not divided by n. Decay, as in Darknet, pulls at biases and scales too.
    """

    def __init__(self, block, decay=0.0001, B1=0.9, B2=0.999, eps=1e-7):
        self.decay, self.B1, self.B2, self.eps = decay, B1, B2, eps
        self.m = np.zeros_like(block.values)
        self.v = np.zeros_like(block.values)
        self.t = np.zeros(1, np.int64)

    def arrays(self):
        """The optimizer's memory, by name, for a checkpoint."""
        return {"adam.m": self.m, "adam.v": self.v, "adam.t": self.t}

    def check(self, facts, arrays):
        """Raise ValueError for a memory that no updates can have left."""
        if not (0 <= arrays["adam.t"][0] <= facts["iteration"] and (arrays["adam.v"] >= 0).all()):
            raise ValueError("has no usable memory of the optimizer: its count of updates, or a mean of squares, is impossible")

    def update(self, block, rate, n):
        """Move ``block.values`` by ``block.gradients``, at the learning rate ``rate``, for ``n`` samples."""
        self.t += 1
        t = int(self.t[0])
        m_scale, v_scale = 1 / (1 - self.B1**t), 1 / (1 - self.B2**t)
        for group in block.groups:
            step = rate * group.learning_rate * m_scale
            for piece in _pieces(group.run):
                w, m, v = block.values[piece], self.m[piece], self.v[piece]
                d = -block.gradients[piece]
                if self.decay:
                    d -= self.decay * n * w
                m *= self.B1
                m += (1 - self.B1) * d
                d *= d
                d *= 1 - self.B2
                v *= self.B2
                v += d
                np.multiply(v, v_scale, out=d)
                np.sqrt(d, out=d)
                d += self.eps
                np.divide(m, d, out=d)
                d *= step
                w += d


def _pieces(run):
    for start in range(run.start, run.stop, PIECE):
        yield slice(start, min(start + PIECE, run.stop))


def clip_gradient(block, limit):
    """Scale the gradient so that its norm is at most ``limit``; return the norm that it had.

    Source: R. Pascanu et al., "On the difficulty of training recurrent neural networks", 2013.
    """
    norm = block.gradient_norm()
    if norm > limit:
        block.gradients *= block.gradients.dtype.type(limit / norm)
    return norm


@dataclass(frozen=True)
class OptimizerOptions:
    """The keys of ``[net]`` that choose and set the optimizer, with Darknet's names and defaults.

    ``clip_norm``, which Darknet does not know, bounds the norm of the gradient of the mean loss of
    an update; 0 leaves it alone.
    """

    momentum: float = 0.9
    decay: float = 0.0001
    adam: bool = False
    B1: float = 0.9
    B2: float = 0.999
    eps: float = 1e-7
    clip_norm: float = 0.0

    @classmethod
    def from_section(cls, net):
        """Read them from a cfg's ``[net]``. Raises CfgError."""
        options = {key: net.number(key, getattr(cls, key), minimum=0) for key in ("momentum", "decay", "clip_norm")}
        if not net.flag("adam"):
            return cls(**options)
        averages = {key: _below_one(net, key, getattr(cls, key)) for key in ("B1", "B2")}
        return cls(**options, **averages, adam=True, eps=net.number("eps", cls.eps, minimum=0))

    def make(self, block):
        """The optimizer for a :class:`~pydarknet.optim.parameters.ParameterBlock`."""
        if self.adam:
            return Adam(block, self.decay, self.B1, self.B2, self.eps)
        return SGD(block, self.momentum, self.decay)


def _below_one(net, key, default):
    value = net.number(key, default, minimum=0)
    if value >= 1:
        raise net.error(f"{key}={value:g} must be below 1: at 1 nothing new would enter the average", key)
    return value
