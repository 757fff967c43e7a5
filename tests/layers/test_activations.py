"""The activations against Darknet's definitions, written out here one number at a time in plain Python."""

import copy
import math
import pickle

import numpy as np
import pytest

from pydarknet.layers.activations import ACTIVATIONS, get_activation

pytestmark = pytest.mark.filterwarnings("error")  # an overflow or an invalid operation anywhere fails the test

NAMES = sorted(ACTIVATIONS)
DTYPES = [np.float32, np.float64]


# --- Darknet's definitions (src/activations.h and activations.c of both forks), in scalar Python ---


def c_exp(x):
    """exp as in C: infinite where Python raises OverflowError."""
    return math.exp(x) if x < 709 else math.inf


def logistic(x):
    return 1 / (1 + c_exp(-x))


def two_slopes(above, below):
    return lambda x: above * x if x > 0 else below * x


def held_between(low, high):
    return lambda x: low if x < low else high if x > high else x


def elu(x):
    return x if x >= 0 else math.exp(x) - 1


def selu(x):
    return 1.0507 * x if x >= 0 else 1.0507 * 1.6732 * (math.exp(x) - 1)


def lhtan(x):
    if x < 0:
        return 0.001 * x
    if x > 1:
        return 1 + 0.001 * (x - 1)
    return x


def plse(x):
    if x < -4:
        return 0.01 * (x + 4)
    if x > 4:
        return 1 + 0.01 * (x - 4)
    return x / 8 + 0.5


def stair(x):
    whole = math.floor(x)
    step = math.floor(x / 2)
    return step if whole % 2 == 0 else (x - whole) + step


def softplus(x, threshold=20):
    if x > threshold:
        return x
    if x < -threshold:
        return math.exp(x)
    return math.log(math.exp(x) + 1)


def hard_mish(x):
    if x > 0:
        return x
    if x > -2:
        return x * x / 2 + x
    return 0


DARKNET = {
    "linear": lambda x: x,
    "logistic": logistic,
    "loggy": lambda x: 2 * logistic(x) - 1,
    "tanh": math.tanh,
    "relu": two_slopes(1, 0),
    "leaky": two_slopes(1, 0.1),
    "revleaky": two_slopes(1, 0.1),
    "relie": two_slopes(1, 0.01),
    "ramp": two_slopes(1.1, 0.1),
    "elu": elu,
    "selu": selu,
    "hardtan": held_between(-1, 1),
    "relu6": held_between(0, 6),
    "lhtan": lhtan,
    "plse": plse,
    "stair": stair,
    "swish": lambda x: x * logistic(x),
    "mish": lambda x: x * math.tanh(softplus(x)),
    "hard_mish": hard_mish,
    "gelu": lambda x: 0.5 * x * (1 + math.tanh(0.797885 * x + 0.035677 * x**3)),
}

# The points where a derivative jumps, and the derivative that Darknet takes there.
KINKS = {
    "relu": {0: 0},
    "leaky": {0: 0.1},
    "revleaky": {0: 0.1},
    "relie": {0: 0.01},
    "ramp": {0: 0.1},
    "elu": {0: 1},
    "selu": {0: 1.0507},
    "hardtan": {-1: 0, 1: 0},
    "relu6": {0: 0, 6: 0},
    "lhtan": {0: 0.001, 1: 0.001},
    "plse": {-4: 0.125, 4: 0.125},
    "stair": dict.fromkeys(range(-9, 10), 0),
    "hard_mish": {-2: 0, 0: 1},
}


def points(dtype):
    """Whole and half numbers (all kinks are among them), their neighbours, far points, and random ones."""
    grid = np.arange(-12, 12.5, 0.5).astype(dtype)
    neighbours = [np.nextafter(grid, dtype(end)) for end in (-np.inf, np.inf)]
    far = np.array([20, 21, 40, 79, 81, 88, 90, 100, 355, 709, 711, 1e3, 1e4], dtype)
    random = np.random.default_rng(1).normal(scale=4, size=500).astype(dtype)
    x = np.concatenate([grid, *neighbours, far, -far, random])
    return x[(x == 0) | (abs(x) >= np.finfo(dtype).tiny)]  # no subnormal numbers: Darknet's -Ofast has none


def forward_and_backward(name, x, dy):
    activation = get_activation(name)
    y = activation.forward(x)
    return y, activation.backward(dy, y, x if activation.needs_input else None)


def assert_close(name, actual, expected, x, rtol, atol):
    wrong = ~np.isclose(actual, expected, rtol=rtol, atol=atol)
    rows = [f"x={a!r}: {b!r}, expected {c!r}" for a, b, c in zip(x[wrong], actual[wrong], expected[wrong])]
    assert not rows, f"{name}:\n" + "\n".join(rows[:10])


# --- forward ---


def test_every_elementwise_name_of_both_forks_is_there():
    assert set(ACTIVATIONS) == set(DARKNET)
    assert all(get_activation(name).name == name for name in NAMES)


def test_unknown_name_is_a_key_error():
    with pytest.raises(KeyError, match="sigmoidal"):
        get_activation("sigmoidal")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_is_darknets(name, dtype):
    x = points(dtype)
    y = get_activation(name).forward(x)
    expected = np.array([DARKNET[name](float(a)) for a in x])
    # Ours: two or three roundings, of half a unit each in the last place of y or of 1 (of x, for gelu, where 1 + tanh
    # cancels). Darknet's own softplus, log(e^x + 1), loses six units at x = -20 in float64.
    eps = np.finfo(dtype).eps
    assert_close(name, y, expected, x, rtol=4 * eps, atol=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_saturates_where_pjreddies_is_nan(dtype):
    assert get_activation("tanh").forward(np.array([354, 355, 1e4], dtype)).tolist() == [1, 1, 1]


# --- backward ---


def far_from_kinks(name, x):
    distance = [min((abs(a - kink) for kink in KINKS.get(name, ())), default=1) for a in x]
    return x[np.array(distance) > 1e-3]


def derivative_error(name, derivative):
    """The largest error of derivative(x) against central differences, as a multiple of what is allowed."""
    x = far_from_kinks(name, np.random.default_rng(2).uniform(-8, 8, 2000))
    f = get_activation(name).forward
    h = 2e-5
    numeric = (f(x + h) - f(x - h)) / (2 * h)
    # Relative 1e-7 leaves room for the difference's own truncation, h^2/6 f''' < 1e-9. The absolute part covers its
    # rounding, 2^-53 |f| / h < 1e-10, which is all that is left where f' itself goes to 0.
    return np.max(np.abs(derivative(x) - numeric) / (1e-7 * np.abs(numeric) + 1e-9))


@pytest.mark.parametrize("name", NAMES)
def test_backward_is_the_derivative_of_forward(name):
    assert derivative_error(name, lambda x: forward_and_backward(name, x, np.ones_like(x))[1]) < 1


@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_check_sees_a_tenth_of_a_percent(name):
    assert derivative_error(name, lambda x: 1.001 * forward_and_backward(name, x, np.ones_like(x))[1]) > 1000


@pytest.mark.parametrize("name", sorted(KINKS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_at_a_kink_the_derivative_is_darknets_choice(name, dtype):
    x = np.array(list(KINKS[name]), dtype)
    _, dx = forward_and_backward(name, x, np.ones_like(x))
    expected = np.array(list(KINKS[name].values()), float)
    assert_close(name, dx, expected, x, rtol=2 * np.finfo(dtype).eps, atol=0)  # the constant, rounded once or twice


@pytest.mark.parametrize("name", NAMES)
def test_float32_backward_is_the_float64_one_rounded(name):
    # Not beside a kink: 4.0000005 is past plse's, but its output rounds to 1, which is on it. So it is in Darknet.
    x = far_from_kinks(name, points(np.float32))
    dy = np.random.default_rng(3).uniform(-1, 1, x.shape).astype(np.float32)
    _, dx = forward_and_backward(name, x, dy)
    _, exact = forward_and_backward(name, x.astype(float), dy.astype(float))
    # Units of a slope of about 1. Most is lost where gelu multiplies the rounding of tanh near -1 by x du/dx.
    assert_close(name, dx, exact, x, rtol=0, atol=8 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", NAMES)
def test_backward_multiplies_the_upstream_gradient(name):
    x = points(np.float64)
    dy = np.random.default_rng(4).normal(size=x.shape)
    _, dx = forward_and_backward(name, x, dy)
    _, slope = forward_and_backward(name, x, np.ones_like(x))
    assert_close(name, dx, dy * slope, x, rtol=1e-15, atol=1e-15)  # tanh subtracts before it multiplies: one rounding


@pytest.mark.parametrize("name", [name for name in NAMES if ACTIVATIONS[name].needs_input])
def test_a_missing_input_is_named(name):
    with pytest.raises(TypeError, match=f"{name} needs the input x"):
        get_activation(name).backward(np.ones(3), np.ones(3))


# --- arrays ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
def test_dtype_and_shape_are_kept(name, dtype, shape):
    x = np.full(shape, 0.3, dtype)
    y, dx = forward_and_backward(name, x, x.copy())
    assert (y.dtype, y.shape, dx.dtype, dx.shape) == (dtype, shape, dtype, shape)


class Watched(np.ndarray):
    """An array that refuses any float64 result, temporary ones too."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [a.view(np.ndarray) if isinstance(a, Watched) else a for a in inputs]
        if out is not None:
            options["out"] = tuple(a.view(np.ndarray) for a in out)
        result = getattr(ufunc, method)(*plain, **options)
        assert result.dtype != np.float64, f"{ufunc.__name__} made float64"
        return result.view(Watched)


@pytest.mark.parametrize("name", NAMES)
def test_float32_makes_no_float64_on_the_way(name):
    x = points(np.float32).view(Watched)
    y, dx = forward_and_backward(name, x, x)
    assert type(y) is type(dx) is Watched


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place_equals_out_of_place(name, dtype):
    activation = get_activation(name)
    x = points(dtype)
    dy = np.random.default_rng(5).normal(size=x.shape).astype(dtype)
    x_before, dy_before = x.copy(), dy.copy()
    y, dx = forward_and_backward(name, x, dy)
    assert y is not x and dx is not dy
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(dy, dy_before)

    in_place = x.copy()
    assert activation.forward(in_place, out=in_place) is in_place
    np.testing.assert_array_equal(in_place, y)
    in_place = dy.copy()
    assert activation.backward(in_place, y, x, out=in_place) is in_place
    np.testing.assert_array_equal(in_place, dx)


@pytest.mark.parametrize("name", NAMES)
def test_out_may_be_a_strided_view(name):
    activation = get_activation(name)
    x = np.random.default_rng(6).normal(size=(7, 5)).astype(np.float32)
    y, dx = forward_and_backward(name, x, x)
    room = np.zeros((5, 14), np.float32)
    view = room.T[::2]
    activation.forward(x, out=view)
    np.testing.assert_allclose(view, y, rtol=1e-6, atol=1e-6)  # numpy's strided loops round their own way
    activation.backward(x, y, x, out=view)
    np.testing.assert_allclose(view, dx, rtol=1e-6, atol=1e-6)
    assert not room[:, 1::2].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan_and_alone(name, dtype):
    y = get_activation(name).forward(np.array([1, np.nan, -1], dtype))
    assert np.isnan(y).tolist() == [False, True, False]


@pytest.mark.parametrize("name", NAMES)
def test_pickles_and_copies(name):
    activation = get_activation(name)
    x = np.linspace(-3, 3, 7)
    for twin in (pickle.loads(pickle.dumps(activation)), copy.deepcopy(activation)):
        np.testing.assert_array_equal(twin.forward(x), activation.forward(x))
