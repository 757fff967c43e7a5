"""The optimizers beside their formulas, and gradients that are too large or too small for float32's squares."""

from dataclasses import replace

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import CfgError
from pydarknet.layers.connected import Connected
from pydarknet.optim.optimizers import SGD, Adam, OptimizerOptions, clip_gradient
from pydarknet.optim.parameters import ParameterBlock


def block_of(gradient, dtype=np.float32):
    """A block of one layer whose gradients are all ``gradient``."""
    layer = Connected(3, 2, dtype=dtype, random=np.random.default_rng(1))
    block = ParameterBlock([layer], dtype)
    block.gradients[:] = gradient
    return block


@pytest.mark.parametrize("size", [1e25, 1e19, 1e18, 1.0, 1e-18])
def test_clipping_scales_the_gradient_and_never_loses_it(size):
    block = block_of(np.linspace(-size, size, 8))
    before = block.gradients.astype(np.float64)
    norm = clip_gradient(block, 0.5)
    np.testing.assert_allclose(norm, np.linalg.norm(before), rtol=1e-6)
    expected = before * min(1, 0.5 / np.linalg.norm(before))
    np.testing.assert_allclose(block.gradients, expected, rtol=1e-5)
    assert block.gradients.any()


@pytest.mark.parametrize(("key", "value"), [("B1", 1), ("B2", 1), ("B1", 1.5), ("B2", "1.0")])
def test_adams_averages_must_take_something_new_in(key, value):
    cfg = parse_cfg_text(f"[net]\nadam=1\n{key}={value}\n", "a.cfg")
    with pytest.raises(CfgError, match=rf"a.cfg:3: \[net\] {key}={float(value):g} must be below 1"):
        OptimizerOptions.from_section(cfg.net)


def test_b1_means_nothing_without_adam():
    assert OptimizerOptions.from_section(parse_cfg_text("[net]\nB1=1\n", "a.cfg").net).B1 == 0.9


def options_of(*lines):
    return OptimizerOptions.from_section(parse_cfg_text("\n".join(["[net]", *lines]) + "\n", "a.cfg").net)


def test_the_keys_have_darknets_defaults():
    defaults = OptimizerOptions(momentum=0.9, decay=0.0001, adam=False, B1=0.9, B2=0.999, eps=1e-7, clip_norm=0.0)
    assert options_of() == OptimizerOptions() == defaults
    assert options_of("adam=1") == replace(defaults, adam=True)
    assert options_of("B2=.5", "eps=.5") == defaults  # which only Adam has


@pytest.mark.parametrize("key", ["momentum", "decay", "eps", "clip_norm", "B1", "B2"])
def test_a_key_is_read_and_may_be_zero_but_not_less(key):
    for value in (0.25, 0.0):
        assert options_of("adam=1", f"{key}={value}") == replace(OptimizerOptions(adam=True), **{key: value})
    with pytest.raises(CfgError, match=rf"a.cfg:3: \[net\] {key}='?-0.1"):
        options_of("adam=1", f"{key}=-0.1")


def test_the_optimizer_is_made_as_the_options_say():
    adam = options_of("adam=1", "decay=.1", "B1=.2", "B2=.3", "eps=.4").make(block_of(0))
    assert (type(adam), adam.decay, adam.B1, adam.B2, adam.eps) == (Adam, 0.1, 0.2, 0.3, 0.4)
    sgd = options_of("momentum=.5", "decay=.6").make(block_of(0))
    assert (type(sgd), sgd.momentum, sgd.decay) == (SGD, 0.5, 0.6)


@pytest.mark.parametrize("t", [-1, 3])
def test_adams_count_of_updates_is_one_that_the_run_can_have(t):
    optimizer = Adam(block_of(0))
    for iteration, v in ((2, -1e-30), (2, np.nan)):
        with pytest.raises(ValueError, match="no usable memory of the optimizer"):
            optimizer.check({"iteration": iteration}, {"adam.t": np.array([1]), "adam.v": np.array([0, v])})
    optimizer.check({"iteration": 2}, {"adam.t": np.array([2]), "adam.v": np.zeros(2)})
    optimizer.check({"iteration": 2}, {"adam.t": np.array([0]), "adam.v": np.zeros(2)})
    with pytest.raises(ValueError, match="no usable memory of the optimizer"):
        optimizer.check({"iteration": 2}, {"adam.t": np.array([t]), "adam.v": np.zeros(2)})


def test_sgd_is_darknets_rule():
    """u -= dw; u -= decay n w (weights only); w += rate / n u; u *= momentum, twice."""
    block = block_of(np.arange(8.0), np.float64)
    w, u = block.values.copy(), np.zeros(8)
    decayed = np.arange(8) < 6  # the matrix comes first
    optimizer = SGD(block, momentum=0.8, decay=0.1)
    for _ in range(2):
        optimizer.update(block, rate=0.5, n=4)
        u = u - np.arange(8.0) - 0.1 * 4 * w * decayed
        w = w + 0.5 / 4 * u
        u = 0.8 * u
    np.testing.assert_allclose(block.values, w, rtol=1e-14)
    np.testing.assert_allclose(optimizer.buffer, u, rtol=1e-14)


def test_adam_is_darknets_rule():
    block = block_of(np.arange(8.0), np.float64)
    w, m, v = block.values.copy(), np.zeros(8), np.zeros(8)
    optimizer = Adam(block, decay=0.1, B1=0.8, B2=0.9, eps=1e-3)
    for t in (1, 2, 3):
        optimizer.update(block, rate=0.5, n=4)
        d = -np.arange(8.0) - 0.1 * 4 * w
        m, v = 0.8 * m + 0.2 * d, 0.9 * v + 0.1 * d * d
        w = w + 0.5 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
    np.testing.assert_allclose(block.values, w, rtol=1e-13)


def test_the_memory_has_the_names_and_kinds_that_older_checkpoints_have():
    kinds = {name: array.dtype for name, array in (Adam(block_of(0)).arrays() | SGD(block_of(0)).arrays()).items()}
    assert kinds == {"adam.m": np.float32, "adam.v": np.float32, "adam.t": np.int64, "sgd.momentum": np.float32}


def test_the_constructors_have_the_defaults_of_the_keys():
    options, adam, sgd = OptimizerOptions(), Adam(block_of(0)), SGD(block_of(0))
    assert (adam.decay, adam.B1, adam.B2, adam.eps) == (options.decay, options.B1, options.B2, options.eps)
    assert (sgd.momentum, sgd.decay) == (options.momentum, options.decay)
