"""Batch normalisation: of one matrix product inside a layer, and Darknet's ``[batchnorm]`` layer.

For the B values z of one feature at one step

    mean = Σ z / B      variance = Σ (z - mean)² / (B - 1)      s = √variance      d = s + 1e-6
    ẑ = (z - mean) / d     y = scale ẑ    (the bias is added by the layer that owns the product)

which is Darknet's forward pass (``forward_batchnorm_layer``, ``normalize_cpu``, ``variance_cpu``) to
the letter, and the exact gradient of it: with dẑ = scale dy

    dz = (dẑ - Σ dẑ / B) / d  -  ẑ Σ(dẑ ẑ) / ((B - 1) s)        dscale = Σ dy ẑ

Where all B values are equal, z - mean is rounding noise, which a division by its own spread would blow up
to ±1. So the mean of the deviations, what rounding left of it, is taken off them, and deviations within
:data:`NOISE` of the largest value count as 0; where the spread is 0, ẑ is 0 and nothing flows back.

The rolling statistics move by a hundredth at every step: rolling = .99 rolling + .01 measured.
With a single stream nothing can be measured (Darknet divides by zero: NaN); the rolling statistics,
with the one value taken into them as mean and as (z - rolling mean)², then take the place of the
measured ones, as constants. So the stock ``rnn.cfg`` and ``gru.cfg``, which have batch=1, can train.
At inference, too, they take the place of the measured ones, and d is √(rolling variance) + 1e-6 in
pjreddie's dialect, √(rolling variance + 1e-5) in AlexeyAB's.
"""

import warnings

import numpy as np

from pydarknet.darknet.dialect import PJREDDIE
from pydarknet.layers.layer import Layer, Stored
from pydarknet.optim.parameters import Statistic
from pydarknet.system.threads import ALONE

EPSILON = 1e-6
ALEXEYAB_EPSILON = 1e-5
MOMENTUM = 0.99  # of the rolling statistics
NOISE = 8  # units in the last place of the largest |z|


def inference_scale(scales, variance, dialect):
    """scale / d of the rolling variance, (F,): what multiplies z - rolling mean at inference; arrays of NumPy or of PyTorch."""
    return scales / (variance**0.5 + EPSILON if dialect is PJREDDIE else (variance + ALEXEYAB_EPSILON) ** 0.5)


def fold(weights, biases, scales, mean, variance, dialect):
    """The weights (H, D) and biases (H,) that at inference do what these and the batch norm do; arrays of either."""
    scale = inference_scale(scales, variance, dialect)
    return weights * scale[:, None], biases - scale * mean


class BatchNorm:
    """Batch normalisation of a product with F features. Owned by a layer, to which it adds its ``scales``
    (initially 1), ``rolling_mean`` and ``rolling_variance`` (initially 0, as Darknet allocates them).
    """

    def __init__(self, layer, name, features):
        self.scales = layer._parameter(f"{name}.scales", (features,), decayed=False, initial=1)
        self.rolling_mean = Statistic(f"{name}.rolling_mean", (features,), layer.dtype)
        self.rolling_variance = Statistic(f"{name}.rolling_variance", (features,), layer.dtype)
        layer.statistics += [self.rolling_mean, self.rolling_variance]

    def tape(self, T, B, gates=1, units=slice(None)):
        """A :class:`BatchNormTape` for T steps of B streams, for the features ``units`` of each of ``gates``."""
        return BatchNormTape(self, T, B, gates, units)

    def inference_scale(self, dialect):
        """What multiplies z - rolling mean at inference, (F,)."""
        return inference_scale(self.scales.value, self.rolling_variance.value, dialect)

    def fold(self, weights, biases, dialect, rows=slice(None)):
        """:func:`fold` for the features ``rows``."""
        scales, mean, variance = (array.value[rows] for array in (self.scales, self.rolling_mean, self.rolling_variance))
        return fold(weights, biases, scales, mean, variance, dialect)


class BatchNormTape:
    """What :class:`BatchNorm` keeps between forward and backward of T steps: ẑ (T, gates, B, F') and s (T, gates, 1, F')."""

    def __init__(self, norm, T, B, gates, units):
        if B == 1:
            warnings.warn(
                "batch norm over a single stream: there is nothing to average over, so it trains with the rolling statistics "
                "in place of measured ones; raise batch for batch norm proper", stacklevel=1)
        dtype = norm.scales.dtype
        by_gate = [array.reshape(gates, 1, -1)[..., units] for array in
                   (norm.scales.value, norm.scales.gradient, norm.rolling_mean.value, norm.rolling_variance.value)]
        self.scales, self.scale_gradients, self.rolling_mean, self.rolling_variance = by_gate
        features = self.scales.shape[-1]
        self.B, self.epsilon, self.noise = B, dtype.type(EPSILON), NOISE * np.finfo(dtype).eps
        self.z_hat = np.empty((T, gates, B, features), dtype)
        self.s = np.empty((T, gates, 1, features), dtype)

    def forward(self, z, t, gates=slice(None)):
        """y of step ``t`` in place of ``z`` (gates, B, F'). Moves the rolling statistics. ``gates`` picks those in ``z``."""
        z_hat, s = self.z_hat[t, gates], self.s[t, gates]
        if self.B == 1:
            squares = (z - self.rolling_mean[gates]) ** 2
            mean, variance = self._roll(self.rolling_mean[gates], z), self._roll(self.rolling_variance[gates], squares)
            np.subtract(z, mean, out=z_hat)
        else:
            mean = z.mean(axis=1, keepdims=True)
            np.subtract(z, mean, out=z_hat)
            z_hat -= z_hat.mean(axis=1, keepdims=True)
            z_hat *= np.abs(z_hat) > self.noise * np.abs(z).max(axis=1, keepdims=True)
            variance = np.einsum("gbf,gbf->gf", z_hat, z_hat)[:, None]
            variance /= self.B - 1
            self._roll(self.rolling_mean[gates], mean)
            self._roll(self.rolling_variance[gates], variance)
        np.sqrt(variance, out=s)
        z_hat /= s + self.epsilon
        np.multiply(z_hat, self.scales[gates], out=z)

    @staticmethod
    def _roll(rolling, measured):
        rolling *= MOMENTUM
        rolling += (1 - MOMENTUM) * measured
        return rolling

    def backward(self, dy, t, gates=slice(None), out=None):
        """d(loss)/dz of step ``t`` from ``dy`` = d(loss)/d(scale ẑ), both (gates, B, F'), into ``out``.

        Adds to the gradient of the scales.
        """
        z_hat, s, scales = self.z_hat[t, gates], self.s[t, gates], self.scales[gates]
        product = np.einsum("gbf,gbf->gf", dy, z_hat)[:, None]
        self.scale_gradients[gates] += product
        if self.B == 1:  # the rolling statistics are constants to the gradient
            return np.multiply(dy, scales / (s + self.epsilon), out=out)
        spread = s > 0
        pull = product * scales / ((self.B - 1) * np.where(spread, s, 1))
        out = np.subtract(dy, dy.mean(axis=1, keepdims=True), out=out)
        out *= spread * scales / (s + self.epsilon)
        out -= z_hat * pull
        return out


class BatchNormLayer(Layer):
    """Darknet's ``[batchnorm]``, y = scale ẑ + b, (T, B, D): each feature is normalised over all N = T * B rows of the call.

    pjreddie's file has no room for the biases, and pjreddie's programs leave them at zero; so they
    are trained in AlexeyAB's dialect alone: in pjreddie's, a saved network would differ from the trained one.
    (That fork's CPU program cannot run the layer at all: ``make_batchnorm_layer`` forgets its ``x``.)
    """

    type = "batchnorm"

    def __init__(self, inputs, dtype=np.float32):
        super().__init__(inputs, inputs, dtype)
        self.biases = self._parameter("biases", (inputs,), decayed=False)
        self.norm = BatchNorm(self, "norm", inputs)

    @classmethod
    def from_section(cls, section, context):
        return cls(context.inputs, context.dtype)

    def stored(self, dialect):
        norm = self.norm
        kept = [] if dialect is PJREDDIE else [Stored("biases", self.biases.value)]
        return kept + [Stored(name, getattr(norm, name).value) for name in ("scales", "rolling_mean", "rolling_variance")]

    def forward(self, x, train=False, team=ALONE):
        if not train:
            scale, b = self._scale_and_bias()
            return scale * x + b
        y = x.copy()
        self._tape = self.norm.tape(1, y.shape[0] * y.shape[1])
        self._tape.forward(y.reshape(1, -1, self.outputs), 0)
        y += self.biases.value
        return y

    def backward(self, dy, want_dx=True, team=ALONE):
        if self.dialect is not PJREDDIE:
            self.biases.gradient += dy.sum(axis=(0, 1))
        return self._tape.backward(dy.reshape(1, -1, self.outputs), 0).reshape(dy.shape)

    def stepper(self, streams, one_hot):
        scale, b = self._scale_and_bias()
        return lambda x: scale * x + b

    def _scale_and_bias(self):
        """What the layer is at inference, y = scale x + b, each (H,)."""
        scale = self.norm.inference_scale(self.dialect)
        return scale, self.biases.value - scale * self.norm.rolling_mean.value
