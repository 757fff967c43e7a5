"""The update of the parameters: six real Darknet updates, number for number; groups, Adam, clipping, the block."""

import itertools

import numpy as np
import pytest
from places import GOLDEN as GOLDEN_ROOT

from pydarknet import load_network
from pydarknet.optim.optimizers import PIECE, SGD, Adam, clip_gradient
from pydarknet.optim.parameters import Parameter, ParameterBlock, Statistic

GOLDEN = GOLDEN_ROOT / "update" / "update_plain"

# Both programs compute in float32, whose resolution is 6e-8, and sum in different orders. Measured over the six calls:
# 8.3e-8 for weights, 9.8e-9 for biases, 4.2e-7 for momentum buffers, 1.2e-7 for losses, 3.5e-8 for rates.
TOLERANCE = 1e-5
# Element by element, where an element is not small only because larger ones cancelled in it (over a thousandth of
# the largest). Measured: 7.3e-7 for weights and biases, 1.1e-5 for momentum buffers.
ELEMENT_TOLERANCE = {"weights": 1e-5, "biases": 1e-5, "weight_updates": 5e-5, "bias_updates": 5e-5}


def agrees(name, ours, darknets, tolerance=TOLERANCE):
    """The largest difference is within ``tolerance`` of the largest value of the tensor."""
    ours, darknets = np.asarray(ours, np.float64), np.asarray(darknets, np.float64)
    assert ours.shape == darknets.shape, f"{name}: {ours.shape}, Darknet {darknets.shape}"
    difference = np.abs(ours - darknets)
    at = np.unravel_index(difference.argmax(), difference.shape)
    relative = difference[at] / np.abs(darknets).max()
    assert relative <= tolerance, (
        f"{name}: relative difference {relative:.3g} over {tolerance:g}, "
        f"the largest at {tuple(map(int, at))}: ours {ours[at]:.9g}, Darknet's {darknets[at]:.9g}"
    )


def elements_agree(name, ours, darknets, tolerance):
    large = np.abs(darknets) > 1e-3 * np.abs(darknets).max()
    agrees(f"{name}, by element", (ours[large] / darknets[large]).astype(np.float64), np.ones(large.sum()), tolerance)


def momentum_of(parameter, block, optimizer):
    """The part of the optimizer's buffer that belongs to ``parameter``."""
    start = (parameter.value.ctypes.data - block.values.ctypes.data) // block.values.itemsize
    return optimizer.buffer[start : start + parameter.value.size].reshape(parameter.value.shape)


def test_six_updates_are_darknets(tmp_path):
    golden = np.load(GOLDEN / "train.npz")
    network = load_network(GOLDEN / "train.cfg", GOLDEN / "start.weights")
    block = network.parameters
    optimizer = network.optimizer_options.make(block)
    assert isinstance(optimizer, SGD) and (network.streams, network.time_steps, network.subdivisions) == (4, 3, 1)
    n = network.streams * network.time_steps * network.subdivisions

    def compare(k):
        for number, layer in enumerate(network.layers[:2]):
            for ours, darknets in (("weights", "weight_updates"), ("biases", "bias_updates")):
                parameter = getattr(layer, ours)
                for kind, array in ((ours, parameter.value), (darknets, momentum_of(parameter, block, optimizer))):
                    name, expected = f"layer{number}.{kind} after call {k}", golden[f"layer{number}.{kind}"][k]
                    if k == 0:
                        np.testing.assert_array_equal(array, expected, name)
                        continue
                    agrees(name, array, expected)
                    elements_agree(name, array, expected, ELEMENT_TOLERANCE[kind])

    compare(0)
    for k in range(6):
        # Rows are time-major: row t * B + b is step t of stream b.
        x, y = (golden[name][k].reshape(network.time_steps, network.streams) for name in ("x_ids", "y_ids"))
        block.clear_gradients()
        loss = network.train_call(x, y)
        batch_number = network.seen // n  # seen has this call in it: the first update is of batch 1
        rate = network.schedule.rate(batch_number)
        optimizer.update(block, rate, n)
        agrees(f"loss of call {k + 1}", loss, golden["loss"][k])
        agrees(f"rate of call {k + 1}", rate, golden["rate"][k])
        assert (network.seen, batch_number) == (golden["seen"][k], golden["current_batch"][k]), f"call {k + 1}"
        compare(k + 1)

    network.save_weights(tmp_path / "end.weights")
    ours, darknets = ((path / "end.weights").read_bytes() for path in (tmp_path, GOLDEN))
    assert ours[:20] == darknets[:20], "header"
    agrees("end.weights", np.frombuffer(ours[20:], "<f4"), np.frombuffer(darknets[20:], "<f4"))


def test_the_comparison_sees_a_small_error():
    values = np.linspace(-1, 1, 7)
    agrees("x", values * (1 + 9e-6), values)
    with pytest.raises(AssertionError, match=r"x: relative difference 2e-05 .* at \(0,\): ours -1.00002, Darknet's -1"):
        agrees("x", values * (1 + 2e-5), values)


# The block


class TwoLayers:
    """What ParameterBlock needs of layers, with a learning_rate each."""

    def __init__(self, random, *rates):
        self.layers = []
        for number, rate in enumerate(rates):
            layer = type("Layer", (), {})()
            layer.learning_rate = rate
            layer.parameters = [
                Parameter("weights", (3, 4 + number), decayed=True),
                Parameter("biases", (3,), decayed=False),
                Parameter("self", (2, 2), decayed=True),
            ]
            layer.statistics = [Statistic("mean", (5,))]
            for owned in layer.parameters + layer.statistics:
                owned.value[...] = random.standard_normal(owned.value.shape)
            self.layers.append(layer)

    def parameters(self):
        return [(p, layer.learning_rate) for layer in self.layers for p in layer.parameters]


@pytest.mark.parametrize("rates", [(1.0,), (1.0, 1.0), (1.0, 0.1, 1.0), (0.0, 3.0)])
def test_block_keeps_values_and_shares_memory(rates):
    model = TwoLayers(np.random.default_rng(0), *rates)
    owned = [p for p, _ in model.parameters()]
    statistics = [s for layer in model.layers for s in layer.statistics]
    before = [p.value.copy() for p in owned + statistics]
    block = ParameterBlock(model.layers, np.float32)
    for p, value in zip(owned + statistics, before, strict=True):
        np.testing.assert_array_equal(p.value, value)
        assert np.shares_memory(p.value, block.values if p in owned else block.statistics)
    assert block.values.size == block.gradients.size == sum(p.value.size for p in owned)
    assert block.statistics.size == 5 * len(rates)
    # Each element of the block has one owner, and value and gradient stand at the same place.
    block.values[:] = block.gradients[:] = np.arange(block.values.size)
    np.testing.assert_array_equal(np.sort(np.concatenate([p.value.ravel() for p in owned])), block.values)
    for p in owned:
        np.testing.assert_array_equal(p.value, p.gradient)
    block.clear_gradients()
    assert all(not p.gradient.any() for p in owned) and block.values.any()


@pytest.mark.parametrize("rates", [(1.0,), (1.0, 1.0), (1.0, 0.1, 1.0), (0.0, 3.0)])
def test_groups_cover_every_element_once(rates):
    model = TwoLayers(np.random.default_rng(0), *rates)
    block = ParameterBlock(model.layers, np.float32)
    assert block.groups[0].run.start == 0 and block.groups[-1].run.stop == block.values.size
    for group, following in itertools.pairwise(block.groups):
        assert group.run.stop == following.run.start
    assert len(block.groups) == 2 * len(set(rates))  # alike ones are one run
    for group in block.groups:
        block.values[group.run] = 1000 * group.decayed + group.learning_rate
    for p, rate in model.parameters():
        assert (p.value == np.float32(1000 * p.decayed + rate)).all(), p


def test_an_empty_block():
    block = ParameterBlock([], np.float32)
    assert block.groups == [] and block.gradient_norm() == 0
    SGD(block).update(block, 0.1, 5)


# The rules


def test_sgd_decays_weights_alone_and_takes_the_layers_rates():
    model = TwoLayers(np.random.default_rng(0), 1.0, 0.25)
    block = ParameterBlock(model.layers, np.float32)
    block.gradients[:] = np.random.default_rng(1).standard_normal(block.gradients.size)
    optimizer = SGD(block, momentum=0.5, decay=0.125)
    wanted = []
    for p, factor in model.parameters():
        w, dw, u = p.value.astype(np.float64), p.gradient.astype(np.float64), np.zeros(p.value.shape)
        for _ in range(3):
            u = u - dw - (0.125 * 6 * w if p.decayed else 0)
            w = w + 0.75 * factor / 6 * u
            u = 0.5 * u
        wanted.append((p, w, u))
    for _ in range(3):
        optimizer.update(block, 0.75, 6)
    for p, w, u in wanted:
        agrees(f"{p}", p.value, w, 1e-6)  # float32 against float64
        agrees(f"momentum of {p}", momentum_of(p, block, optimizer), u, 1e-6)


class OneParameter:
    """A network of one parameter with ``size`` elements, longer than a piece."""

    learning_rate = 1.0
    statistics = ()

    def __init__(self, size, dtype, random):
        self.parameter = Parameter("weights", (size,), decayed=True, dtype=dtype)
        self.parameters = [self.parameter]
        self.parameter.value[:] = random.standard_normal(size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, PIECE, 2 * PIECE + 3])
def test_pieces_cover_a_long_run_once(dtype, size):
    random = np.random.default_rng(0)
    block = ParameterBlock([OneParameter(size, dtype, random)], dtype)
    block.gradients[:] = random.standard_normal(size)
    w = block.values - dtype(0.5) * (block.gradients + dtype(0.25) * block.values)
    optimizer = SGD(block, momentum=1.0, decay=0.125)
    optimizer.update(block, 1.0, 2)
    np.testing.assert_allclose(block.values, w, rtol=0, atol=1e-6 if dtype is np.float32 else 1e-15)  # rounding
    assert block.values.dtype == optimizer.buffer.dtype == dtype


def darknets_adam(w, dw, m, v, t, rate, decay, n, B1, B2, eps):
    """adam_update_gpu, axpy_kernel and adam_kernel in src/blas_kernels.cu, element by element; dw is ours (descent)."""
    for i in range(len(w)):
        d = -dw[i]
        d += -decay * n * w[i]
        m[i] *= B1
        v[i] *= B2
        m[i] += (1 - B1) * d
        v[i] += (1 - B2) * (d * d)
        mhat = m[i] / (1 - B1**t)
        vhat = v[i] / (1 - B2**t)
        w[i] = w[i] + rate * mhat / (vhat**0.5 + eps)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adam_against_a_literal_transcription(decay):
    random = np.random.default_rng(0)
    model = TwoLayers(random, 1.0, 0.25)
    block = ParameterBlock(model.layers, np.float64)
    optimizer = Adam(block, decay, B1=0.8, B2=0.99, eps=1e-3)
    slow = [
        (p, p.value.ravel().tolist(), [0.0] * p.value.size, [0.0] * p.value.size, factor) for p, factor in model.parameters()
    ]
    for t in range(1, 6):
        block.gradients[:] = random.standard_normal(block.gradients.size)
        for p, w, m, v, factor in slow:
            darknets_adam(w, p.gradient.ravel().tolist(), m, v, t, 0.05 * factor, decay, 6, 0.8, 0.99, 1e-3)
        optimizer.update(block, 0.05, 6)
    assert optimizer.arrays()["adam.t"].tolist() == [5]
    for p, w, *_ in slow:
        agrees(f"{p}", p.value, np.reshape(w, p.value.shape), 1e-13)  # float64, another order of operations


def test_clip_gradient():
    block = ParameterBlock([OneParameter(4, np.float32, np.random.default_rng(0))], np.float32)
    block.gradients[:] = [3, 0, -4, 0]
    assert clip_gradient(block, 5.0) == 5 and block.gradients.tolist() == [3, 0, -4, 0]
    assert clip_gradient(block, 2.5) == 5
    np.testing.assert_allclose(block.gradients, [1.5, 0, -2, 0], rtol=1e-7)
    assert block.gradients.dtype == np.float32
    block.clear_gradients()
    assert clip_gradient(block, 1.0) == 0 and not block.gradients.any()
