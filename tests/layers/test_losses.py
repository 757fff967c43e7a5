"""The end of a network beside its equations, and the keys of [softmax] and [cost]."""

import warnings

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import CfgError
from pydarknet.layers.losses import SoftmaxLoss, softmax
from pydarknet.network import Network

T, B, V = 4, 3, 5
OF_EVERY_LAYER = "".join(
    f"{key}=1\n" for key in "learning_rate dontload dontsave stopbackward clip onlyforward smooth truth".split()
)


def loss_of(softmax="", cost=None):
    end = f"[softmax]\n{softmax}" + ("" if cost is None else f"[cost]\n{cost}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # every key is one that is read or ignored
        return Network(parse_cfg_text(f"[net]\ninputs={V}\n{end}", "x.cfg")).loss


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("temperature", "scale"), [(1, 1), (0.5, 1), (1, 2), (0.5, 0.5), (2, 0)])
def test_loss_and_gradient_are_those_of_the_equations(temperature, scale, dtype):
    """p = exp(x/τ) / Σ exp(x/τ), L = -ln p[y], and scale (p - onehot(y)) / τ."""
    random = np.random.default_rng(1)
    x, y = 3 * random.standard_normal((T, B, V)).astype(dtype), random.integers(V, size=(T, B))
    p = np.exp(x / temperature) / np.exp(x / temperature).sum(axis=-1, keepdims=True)
    nats = -np.log(np.take_along_axis(p, y[..., None], -1)[..., 0])
    gradient = scale * (p - np.eye(V)[y]) / temperature
    loss = SoftmaxLoss(V, temperature, scale, dtype)
    near = {"rtol": 100 * np.finfo(dtype).eps, "atol": 10 * np.finfo(dtype).eps}
    np.testing.assert_allclose(loss.probabilities(x), p, **near)
    np.testing.assert_allclose(loss.nats(x, y), nats, **near)
    for steps in (T, 2, T):  # what is kept of a call is no place for a longer one
        found, slope = loss.nats_and_gradient(x[:steps], y[:steps])
        np.testing.assert_allclose(found, nats[:steps], **near)
        np.testing.assert_allclose(slope, gradient[:steps], **near)
        assert found.dtype == np.float64 and slope.dtype == loss.probabilities(x).dtype == dtype


def test_the_softmax_of_great_numbers_is_finite_and_leaves_them_as_they_are():
    """In each row the greatest is taken off, not the greatest of all."""
    x = np.array([[1e4, 1e4, -1e4], [-1e30, 0, -1e30]], np.float32)
    before, out = x.copy(), np.empty_like(x)
    np.testing.assert_array_equal(softmax(x), [[0.5, 0.5, 0], [0, 1, 0]])
    assert softmax(x, 0.5, out=out) is out
    np.testing.assert_array_equal(out, [[0.5, 0.5, 0], [0, 1, 0]])
    np.testing.assert_array_equal(x, before)
    loss, call = SoftmaxLoss(3), (x[None], np.array([[0, 1]]))
    for nats in (loss.nats(*call), loss.nats_and_gradient(*call)[0]):
        np.testing.assert_allclose(nats, [[np.log(2), 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("sections", "temperature", "scale"),
    [
        (("",), 1, 1),
        (("temperature=.5\n",), 0.5, 1),
        (("groups=1\nspatial=1\n" + OF_EVERY_LAYER,), 1, 1),
        (("noloss=1\n",), 1, 0),
        (("", ""), 1, 2),
        (("", "scale=3\ntype=smooth\n"), 1, 4),
        (("noloss=1\n", "scale=3\ntype=masked\n"), 1, 3),
        (("noloss=0\n", "type=sse\nratio=.1\nnoobj=1\nthresh=.2\n" + OF_EVERY_LAYER), 1, 2),
    ],
)
def test_the_keys_of_softmax_and_cost(sections, temperature, scale):
    loss = loss_of(*sections)
    assert (loss.inputs, loss.temperature, loss.scale, loss.dtype) == (V, temperature, scale, np.float32)


def test_the_constructor_has_the_defaults_of_the_keys():
    assert vars(SoftmaxLoss(V)).keys() == vars(loss_of()).keys()
    for name in ("inputs", "temperature", "scale", "dtype"):
        assert getattr(SoftmaxLoss(V), name) == getattr(loss_of(), name)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (("groups=2\n",), r"x.cfg:4: \[softmax\] groups of symbols have no meaning"),
        (("temperature=0\n",), r"x.cfg:4: \[softmax\] temperature must be above 0"),
        (("\ntemperature=-1\n",), r"x.cfg:5: \[softmax\] temperature must be above 0"),
        (("", "type=l1\n"), r"x.cfg:5: \[cost\] type='l1' is not one of sse, masked, smooth"),
    ],
)
def test_what_softmax_and_cost_may_not_say(sections, said):
    with pytest.raises(CfgError, match="^" + said):
        loss_of(*sections)
