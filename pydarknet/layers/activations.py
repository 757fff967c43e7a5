"""Every elementwise activation that a cfg file can name in ``activation=``, forward and backward.

The functions are those of ``get_activation`` in ``src/activations.c`` of both Darknet forks, with the formulas of
``*_activate`` and ``*_gradient`` in their ``src/activations.h``::

    name       y = f(x)                                       dy/dx                              fork
    ---------  ---------------------------------------------  ---------------------------------  ----
    linear     x                                              1                                  both
    logistic   1 / (1 + e^-x)                                 y (1 - y)                          both
    loggy      2 / (1 + e^-x) - 1  =  tanh(x/2)               (1 - y^2) / 2                      both
    tanh       tanh(x)                                        1 - y^2                            both
    relu       max(x, 0)                                      y > 0: 1        else 0             both
    leaky      x > 0: x               else .1 x               y > 0: 1        else .1            both
    relie      x > 0: x               else .01 x              y > 0: 1        else .01           both
    ramp       x > 0: 1.1 x           else .1 x               y > 0: 1.1      else .1            both
    elu        x >= 0: x              else e^x - 1            y >= 0: 1       else y + 1         both
    selu       x >= 0: k x            else k a (e^x - 1)      y >= 0: k       else y + k a       both
    hardtan    x held within -1..1                            -1 < y < 1: 1   else 0             both
    lhtan      x within 0..1, slope .001 beyond               0 < y < 1: 1    else .001          both
    plse       x/8 + .5 for |x| <= 4, slope .01 beyond        0 <= y <= 1: 1/8   else .01        both
    stair      flat at n on 2n..2n+1, then rises to n + 1     y a whole number: 0   else 1       both
    relu6      x held within 0..6                             0 < y < 6: 1    else 0             A
    swish      x s,  s = 1 / (1 + e^-x)                       y + s (1 - y)                      A
    mish       x tanh(log(1 + e^x))                           from x, see _mish_backward         A
    hard_mish  x > 0: x;  x > -2: x^2/2 + x;  else 0          x > 0: 1;  x > -2: x + 1;  else 0  A
    gelu       x/2 (1 + tanh(.797885 x + .035677 x^3))        from x, see _gelu_backward         A
    revleaky   the same as leaky                                                                 A

A is AlexeyAB/darknet, and hank-ai/darknet after it; k = 1.0507 and a = 1.6732 are Darknet's own roundings. The column
dy/dx also says what holds at a kink, where Darknet's choice is kept: relu'(0) = 0, elu'(0) = 1, plse'(4) = 1/8.
The ``normalize_channels`` family of A mixes the channels of an image; it is not elementwise, and not here.

Where Darknet is odd, forward values are the formula's and the derivative is the exact one of that formula:

* P (pjreddie/darknet) computes tanh as (e^2x - 1)/(e^2x + 1), which is inf/inf = NaN for x > 354.9. Ours is 1 there.
* A computes gelu's gradient from the *output* (``gradient_array`` passes it to ``gelu_gradient``, which is written for
  the input). Ours takes the input.
* A's ``activate`` has no case for swish, mish, hard_mish and relu6, so a connected layer that names one outputs zeros
  on a CPU (hank-ai's relu6 returns x as it is). Ours is the formula, which A's convolutional layer uses for the first
  three.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy import ndarray

SELU_SCALE, SELU_ALPHA = 1.0507, 1.6732
GELU_LINEAR, GELU_CUBIC = 0.797885, 0.035677  # Darknet's roundings of sqrt(2/pi) and .044715 sqrt(2/pi)


@dataclass(frozen=True)
class Activation:
    """One elementwise function and its derivative; get it by name from :func:`get_activation`.

    ``needs_input`` is True where the derivative cannot be had from the output alone. There the layer keeps x for
    :meth:`backward`, so it must not run :meth:`forward` in place. Everywhere else the output is enough, as in Darknet.
    """

    name: str
    f: Callable = field(repr=False)  # f(x, out) -> out
    df: Callable = field(repr=False)  # df(dy, y, x, out) -> out
    needs_input: bool = False

    def forward(self, x: ndarray, out: ndarray | None = None) -> ndarray:
        """Return y = f(x), written into `out`.

        x is any shape, float32 or float64, and y has its dtype. `out` may be x itself, which is the fast way (and costs
        nothing at all for linear); without `out` the result is a new array, never x.
        """
        return self.f(x, np.empty_like(x) if out is None else out)

    def backward(self, dy: ndarray, y: ndarray, x: ndarray | None = None, out: ndarray | None = None) -> ndarray:
        """Return dx = dy f'(x), written into `out`, which may be dy itself.

        y is what forward returned; x is what it was given, and is looked at only if ``needs_input``. Raises TypeError if it
        is missing then.
        """
        if self.needs_input and x is None:
            raise TypeError(f"the derivative of {self.name} needs the input x")
        return self.df(dy, y, x, np.empty_like(dy) if out is None else out)


# Below, each forward stands beside its backward. A forward has read x for the last time when it first writes out, and a
# backward reads dy last, so that out may be x or dy. Python numbers, unlike numpy's, leave a float32 array float32.


def _linear(x, out):
    if out is not x:
        np.copyto(out, x)
    return out


def _linear_backward(dy, y, x, out):
    return _linear(dy, out)


def _logistic(x, out):
    # 1/(1 + e^-x) = tanh(x/2)/2 + 1/2: no overflow at any x. Near 0 it is good to half a unit in the last place of 1,
    # not of y.
    _loggy(x, out)
    out *= 0.5
    out += 0.5
    return out


def sigmoid(z):
    """In place, σ(z) = 1 / (1 + e⁻ᶻ), for z any array: faster than ``logistic``, and exact far to the left.

    Where e⁻ᶻ overflows, to infinity, σ is 0: the caller silences numpy's "over".
    """
    np.negative(z, out=z)
    np.exp(z, out=z)
    np.add(z, 1, out=z)
    np.reciprocal(z, out=z)


def _logistic_backward(dy, y, x, out):
    slope = 1 - y
    slope *= y
    return np.multiply(dy, slope, out=out)


def _tanh(x, out):
    return np.tanh(x, out=out)


def _tanh_backward(dy, y, x, out):
    lost = y * y
    lost *= dy
    return np.subtract(dy, lost, out=out)  # dy - dy y^2


def _loggy(x, out):
    np.multiply(x, 0.5, out=out)
    return np.tanh(out, out=out)


def _loggy_backward(dy, y, x, out):
    _tanh_backward(dy, y, x, out)
    out *= 0.5
    return out


def _relu(x, out):
    return np.maximum(x, 0, out=out)


def _relu_backward(dy, y, x, out):
    return np.multiply(dy, y > 0, out=out)


def _two_slopes(x, out, above, below):
    # With above > below the steeper line is the higher one right of 0 and the lower one left of it.
    shallow = x * below
    np.multiply(x, above, out=out)
    return np.maximum(out, shallow, out=out)


def _two_slopes_backward(dy, y, x, out, above, below):
    return _times_slope(dy, y > 0, above, below, out)


def _times_slope(dy, mask, inside, outside, out):
    """dy times `inside` where `mask`, times `outside` elsewhere."""
    # Arithmetic on the mask, for speed: np.where and where= branch at each element, which is dear on mixed signs.
    slope = np.multiply(mask, inside - outside, dtype=dy.dtype)
    slope += outside
    return np.multiply(dy, slope, out=out)


def _elu(x, out, scale, alpha):
    curve = np.expm1(np.minimum(x, 0))  # 0 wherever x >= 0
    curve *= alpha
    np.maximum(x, 0, out=out)
    out += curve
    out *= scale
    return out


def _elu_backward(dy, y, x, out, scale, alpha):
    # For x < 0: dy/dx = scale alpha e^x = y + scale alpha. For selu that does not meet the right side at 0.
    slope = np.minimum(y, 0)
    slope += scale * alpha
    slope += np.multiply(y >= 0, scale - scale * alpha, dtype=y.dtype)
    return np.multiply(dy, slope, out=out)


def _clip(x, out, low, high):
    return np.clip(x, low, high, out=out)


def _clip_backward(dy, y, x, out, low, high):
    return np.multiply(dy, (y > low) & (y < high), out=out)


def _lhtan(x, out):
    middle = np.clip(x, 0, 1)
    np.subtract(x, middle, out=out)
    out *= 0.001
    out += middle
    return out


def _lhtan_backward(dy, y, x, out):
    return _times_slope(dy, (y > 0) & (y < 1), 1, 0.001, out)


def _plse(x, out):
    middle = np.clip(x, -4, 4)
    np.subtract(x, middle, out=out)
    out *= 0.01
    middle *= 0.125
    middle += 0.5
    out += middle
    return out


def _plse_backward(dy, y, x, out):
    return _times_slope(dy, (y >= 0) & (y <= 1), 0.125, 0.01, out)


def _stair(x, out):
    # Step n is y = n on 2n <= x <= 2n + 1; from there to 2n + 2 the line x - (n + 1) has risen above it.
    n = np.floor(x * 0.5)
    return np.maximum(n, x - (n + 1), out=out)


def _stair_backward(dy, y, x, out):
    return np.multiply(dy, y != np.floor(y), out=out)


def _inverse_logistic(x):
    # 1 + e^-x. Unlike _logistic it is exact to the last place far to the left, where swish multiplies it by a large x.
    # Below -80 swish is 0 to 33 digits, and e^-x would soon overflow float32.
    e = np.exp(-np.maximum(x, -80))
    e += 1
    return e


def _swish(x, out):
    return np.divide(x, _inverse_logistic(x), out=out)


def _swish_backward(dy, y, x, out):
    # y = x s, so dy/dx = s + x s (1 - s) = y + s (1 - y).
    slope = 1 - y
    slope /= _inverse_logistic(x)
    slope += y
    return np.multiply(dy, slope, out=out)


def _mish_parts(x):
    # With e = e^x and q = e^2 + 2e, tanh(log(1 + e)) = ((1 + e)^2 - 1) / ((1 + e)^2 + 1) = q / (q + 2). Beyond x = 20,
    # Darknet's own threshold, that is 1 in float64 too.
    e = np.exp(np.minimum(x, 20))
    return e, e * (e + 2)


def _mish(x, out):
    e, q = _mish_parts(x)
    return np.multiply(x, q / (q + 2), out=out)


def _mish_backward(dy, y, x, out):
    # y = x q/r with r = q + 2. As dq/dx = 2e^2 + 2e = 2 (q - e), dy/dx = q/r + x 4 (q - e)/r^2, taken as one fraction
    # over r so that r^2 need not fit in a float32.
    e, q = _mish_parts(x)
    r = q + 2
    slope = q - e
    slope *= 4
    slope *= x
    slope /= r
    slope += q
    slope /= r
    return np.multiply(dy, slope, out=out)


def _hard_mish(x, out):
    bend = np.clip(x, -2, 0)
    bend *= bend * 0.5 + 1  # x^2/2 + x, which is 0 at both ends
    np.maximum(x, 0, out=out)
    out += bend
    return out


def _hard_mish_backward(dy, y, x, out):
    slope = np.clip(x, -2, 0)
    slope += 1
    slope *= x > -2
    return np.multiply(dy, slope, out=out)


def _gelu_tanh(x):
    return np.tanh(x * (GELU_LINEAR + GELU_CUBIC * (x * x)))


def _gelu(x, out):
    weight = _gelu_tanh(x)
    weight += 1
    weight *= 0.5
    return np.multiply(x, weight, out=out)


def _gelu_backward(dy, y, x, out):
    # y = x (1 + t) / 2 with t = tanh(u), so dy/dx = (1 + t + x (1 - t^2) du/dx) / 2.
    t = _gelu_tanh(x)
    slope = (1 - t * t) * (GELU_LINEAR + 3 * GELU_CUBIC * (x * x))
    slope *= x
    slope += t
    slope += 1
    slope *= 0.5
    return np.multiply(dy, slope, out=out)


def _family(name, f, df, **constants):
    # partial, not lambda: an Activation can then be pickled and sent to a worker process.
    return Activation(name, partial(f, **constants), partial(df, **constants))


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        Activation("linear", _linear, _linear_backward),
        Activation("logistic", _logistic, _logistic_backward),
        Activation("loggy", _loggy, _loggy_backward),
        Activation("tanh", _tanh, _tanh_backward),
        Activation("relu", _relu, _relu_backward),
        _family("leaky", _two_slopes, _two_slopes_backward, above=1, below=0.1),
        _family("revleaky", _two_slopes, _two_slopes_backward, above=1, below=0.1),
        _family("relie", _two_slopes, _two_slopes_backward, above=1, below=0.01),
        _family("ramp", _two_slopes, _two_slopes_backward, above=1.1, below=0.1),
        _family("elu", _elu, _elu_backward, scale=1, alpha=1),
        _family("selu", _elu, _elu_backward, scale=SELU_SCALE, alpha=SELU_ALPHA),
        _family("hardtan", _clip, _clip_backward, low=-1, high=1),
        _family("relu6", _clip, _clip_backward, low=0, high=6),
        Activation("lhtan", _lhtan, _lhtan_backward),
        Activation("plse", _plse, _plse_backward),
        Activation("stair", _stair, _stair_backward),
        Activation("swish", _swish, _swish_backward, needs_input=True),
        Activation("mish", _mish, _mish_backward, needs_input=True),
        Activation("hard_mish", _hard_mish, _hard_mish_backward, needs_input=True),
        Activation("gelu", _gelu, _gelu_backward, needs_input=True),
    )
}
"""All activations by their name in a cfg file."""


def get_activation(name: str) -> Activation:
    """Return the activation that a cfg file calls `name`.

    Darknet takes ReLU for a name it does not know; here that is a KeyError, which the reader of the cfg turns into a
    message with file and line. ``ACTIVATIONS`` lists the names.
    """
    return ACTIVATIONS[name]


def activation_of(section, default: str) -> str:
    """The activation that a cfg's ``section`` names, ``default`` if it names none. Raises CfgError."""
    return section.choice("activation", default, list(ACTIVATIONS))
