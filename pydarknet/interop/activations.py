"""Every activation of a cfg, written once for PyTorch and for ONNX.

``m`` is the module ``torch``, or what stands for it in :mod:`pydarknet.interop.onnx`; ``x`` is a tensor of either. The
formulas, what Darknet's names mean, and which slope holds at a kink are in :mod:`pydarknet.layers.activations`. The
exponentials are bounded, so that neither a value nor a gradient overflows on the side that is not taken.
"""

from pydarknet.layers.activations import GELU_CUBIC, GELU_LINEAR, SELU_ALPHA, SELU_SCALE


def _two_slopes(above, below):
    return lambda m, x: m.where(x > 0, x * above, x * below)


def _elu(scale, alpha):
    return lambda m, x: scale * m.where(x >= 0, x, alpha * (m.exp(m.clamp(x, max=0.0)) - 1))


def _clip(low, high):
    # Unlike clamp it has the slope 0 at the bounds themselves.
    return lambda m, x: m.where(x > low, m.where(x < high, x, high), low)


def _lhtan(m, x):
    middle = _clip(0.0, 1.0)(m, x)
    return middle + 0.001 * (x - middle)


def _plse(m, x):
    middle = m.clamp(x, -4.0, 4.0)
    return middle * 0.125 + 0.5 + 0.01 * (x - middle)


def _mish(m, x):
    e = m.exp(m.clamp(x, max=20.0))
    q = e * (e + 2)
    return x * (q / (q + 2))


def _hard_mish(m, x):
    return m.where(x > 0, x, m.where(x > -2, x * (x * 0.5 + 1), 0.0))


def _stair(m, x):
    n = m.floor(x * 0.5)
    return m.where(x - n > n + 1, x - n - 1, n)


FORMULAS = {
    "linear": lambda m, x: x,
    "logistic": lambda m, x: m.sigmoid(x),
    "loggy": lambda m, x: m.tanh(x * 0.5),
    "tanh": lambda m, x: m.tanh(x),
    "relu": _two_slopes(1.0, 0.0),
    "leaky": _two_slopes(1.0, 0.1),
    "revleaky": _two_slopes(1.0, 0.1),
    "relie": _two_slopes(1.0, 0.01),
    "ramp": _two_slopes(1.1, 0.1),
    "elu": _elu(1.0, 1.0),
    "selu": _elu(SELU_SCALE, SELU_ALPHA),
    "hardtan": _clip(-1.0, 1.0),
    "relu6": _clip(0.0, 6.0),
    "lhtan": _lhtan,
    "plse": _plse,
    "stair": _stair,
    "swish": lambda m, x: x * m.sigmoid(x),
    "mish": _mish,
    "hard_mish": _hard_mish,
    "gelu": lambda m, x: x * (m.tanh(x * (GELU_LINEAR + GELU_CUBIC * (x * x))) + 1) * 0.5,
}
