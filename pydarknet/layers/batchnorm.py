"""Batch normalisation: of one matrix product inside a layer, and Darknet's ``[batchnorm]`` layer.

For the B values z of one feature at one step

    mean = Σ z / B      variance = Σ (z - mean)² / (B - 1)      s = √variance      d = s + 1e-6
    ẑ = (z - mean) / d     y = scale ẑ    (the bias is added by the layer that owns the product)

which is Darknet's forward pass (``forward_batchnorm_layer``, ``normalize_cpu``, ``variance_cpu``) to
the letter, and the exact gradient of it: with dẑ = scale dy

    dz = (dẑ - Σ dẑ / B) / d  -  ẑ Σ(dẑ ẑ) / ((B - 1) s)        dscale = Σ dy ẑ

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
from pydarknet.layers.base import Layer, Stored, activation_array, flat
from pydarknet.optim.parameters import Statistic

EPSILON = 1e-6
ALEXEYAB_EPSILON = 1e-5
MOMENTUM = 0.99  # of the rolling statistics


class BatchNorm:
    """Batch normalisation of a product with F features, step by step over its B streams.

    Owned by a layer, to which it adds its ``scales`` (initially 1), ``rolling_mean`` and
    ``rolling_variance`` (initially 0, as Darknet allocates them). It keeps its own tape between
    :meth:`forward` and :meth:`backward`.
    """

    def __init__(self, layer, name, features):
        self.scales = layer._parameter(f"{name}.scales", (features,), decayed=False)
        self.scales.value[:] = 1
        self.rolling_mean = Statistic(f"{name}.rolling_mean", (features,), layer.dtype)
        self.rolling_variance = Statistic(f"{name}.rolling_variance", (features,), layer.dtype)
        layer.statistics += [self.rolling_mean, self.rolling_variance]
        self.gradient = None

    def begin(self, T, B, factor=1):
        """Prepare for T steps of B streams; ``factor`` (F, 1) or 1 multiplies y (the layer's own scaling)."""
        if B == 1:
            warnings.warn(
                "batch_normalize=1 with a single stream: there is nothing to average over, so it trains with the rolling "
                "statistics in place of measured ones; raise batch for batch norm proper", stacklevel=2)
        F = self.scales.value.size
        if self.gradient is None or self.gradient.shape != (F, T, B):
            dtype = self.scales.value.dtype
            self._z_hat = np.empty((T, B, F), dtype).transpose(0, 2, 1)
            self._s = np.empty((T, F, 1), dtype)
            self.gradient = activation_array(F, T, B, dtype)
        self._factor = self.scales.value[:, None] * factor

    def forward(self, z, t, rows=slice(None)):
        """y of step ``t`` in place of ``z`` (F, B). Moves the rolling statistics.

        ``rows`` picks the features that ``z`` holds, where a step computes them in parts.
        """
        B = z.shape[1]
        z_hat, s = self._z_hat[t, rows], self._s[t, rows]
        if B == 1:
            mean, variance = self._roll(rows, z, (z - self.rolling_mean.value[rows, None]) ** 2)
            np.subtract(z, mean, out=z_hat)
        else:
            mean = z.mean(axis=1, keepdims=True)
            np.subtract(z, mean, out=z_hat)
            variance = np.einsum("fb,fb->f", z_hat, z_hat)[:, None]
            variance /= B - 1
            self._roll(rows, mean, variance)
        np.sqrt(variance, out=s)
        z_hat /= s + z.dtype.type(EPSILON)
        np.multiply(z_hat, self._factor[rows], out=z)

    def forward_gates(self, z, t, rows=slice(None)):
        """The same in place of gates ``z`` (gates, H, B), whose features are the rows of one after the other's."""
        matrix = z.reshape(-1, z.shape[-1])
        self.forward(matrix, t, rows)
        z[...] = matrix.reshape(z.shape)

    def _roll(self, rows, mean, variance):
        """Move the rolling statistics towards ``mean`` and ``variance`` (F, 1); return what they are then, alike."""
        rolled = []
        for rolling, measured in ((self.rolling_mean, mean), (self.rolling_variance, variance)):
            rolling.value[rows] *= MOMENTUM
            rolling.value[rows] += (1 - MOMENTUM) * measured[:, 0]
            rolled.append(rolling.value[rows, None])
        return rolled

    def backward(self, dy, t, rows=slice(None)):
        """d(loss)/dz of step ``t`` (F, B) from ``dy`` = d(loss)/d(scale ẑ), kept in ``gradient[:, t]``.

        Adds to the gradient of the scales. ``rows`` as in :meth:`forward`.
        """
        B = dy.shape[1]
        z_hat, s, dz = self._z_hat[t, rows], self._s[t, rows], self.gradient[rows, t]
        scales = self.scales.value[rows, None]
        product = np.einsum("fb,fb->f", dy, z_hat)
        self.scales.gradient[rows] += product
        if B == 1:  # the rolling statistics are constants to the gradient
            return np.multiply(dy, scales / (s + dy.dtype.type(EPSILON)), out=dz)
        # B equal values: s = 0 and ẑ = 0, and nothing comes back through the variance.
        pull = product[:, None] * scales / ((B - 1) * np.where(s > 0, s, 1))
        np.subtract(dy, dy.mean(axis=1, keepdims=True), out=dz)
        dz *= scales / (s + dy.dtype.type(EPSILON))
        dz -= z_hat * pull
        return dz

    def inference_scale(self, dialect):
        """scale / d of the rolling variance (F,): what multiplies z - rolling mean at inference."""
        variance = self.rolling_variance.value
        if dialect is PJREDDIE:
            d = np.sqrt(variance) + variance.dtype.type(EPSILON)
        else:
            d = np.sqrt(variance + variance.dtype.type(ALEXEYAB_EPSILON))
        return self.scales.value / d

    def fold(self, weights, biases, dialect):
        """Weights and biases that at inference do what ``weights``, this norm and ``biases`` do."""
        scale = self.inference_scale(dialect)
        return weights * scale[:, None], biases - scale * self.rolling_mean.value


class BatchNormLayer(Layer):
    """Darknet's ``[batchnorm]``: y = scale ẑ + b of each feature, normalised over all N columns of the call.

    pjreddie's file has no room for the biases, and pjreddie's programs leave them at zero; so they
    are trained in AlexeyAB's dialect alone, lest a saved network be another than the trained one.
    (That fork's CPU program cannot run the layer at all: ``make_batchnorm_layer`` forgets its ``x``.)
    """

    type = "batchnorm"

    def __init__(self, inputs, dtype=np.float32):
        super().__init__(inputs, inputs, dtype)
        self.biases = self._parameter("biases", (inputs,), decayed=False)
        self.norm = BatchNorm(self, "norm", inputs)

    def stored(self, dialect):
        norm = self.norm
        fields = [] if dialect is PJREDDIE else [Stored("biases", self.biases.value)]
        return [*fields, Stored("scales", norm.scales.value), Stored("rolling_mean", norm.rolling_mean.value),
                Stored("rolling_variance", norm.rolling_variance.value)]

    def forward(self, x, train=False):
        if not train:
            scale, b = self._scale_and_bias()
            return (scale * flat(x) + b).reshape(x.shape)
        y = flat(x).copy(order="K")
        self.norm.begin(1, y.shape[1])
        self.norm.forward(y, 0)
        y += self.biases.value[:, None]
        return y.reshape(x.shape)

    def backward(self, dy, want_dx=True):
        dz = flat(dy)
        if self.dialect is not PJREDDIE:
            self.biases.gradient += dz.sum(axis=1)
        return self.norm.backward(dz, 0).reshape(dy.shape)

    def stepper(self, streams, one_hot):
        scale, b = self._scale_and_bias()
        return lambda x: scale * x + b

    def _scale_and_bias(self):
        """What the layer is at inference, y = scale x + b, each (H, 1)."""
        scale, b = self.norm.fold(np.ones((self.inputs, 1), self.dtype), self.biases.value, self.dialect)
        return scale, b[:, None]
