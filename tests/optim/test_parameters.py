"""The block of all parameters: what it does besides holding them, which the tests of networks see."""

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import CfgError
from pydarknet.layers.connected import Connected
from pydarknet.network import Network
from pydarknet.optim.parameters import Group, Parameter, ParameterBlock, Statistic

END = "[connected]\noutput=8\nactivation=linear\n[softmax]\n"
STATE_WEIGHTS = {"lstm": "W", "gru": "W", "rnn": "self.weights", "crnn": "self.weights"}


def build(section, dtype="float64", dropout=0.4):
    options = {"crnn": "size=1\nhidden=20\n", "rnn": "hidden=20\n"}.get(section, "")
    text = f"[net]\ninputs=8\nbatch=3\ntime_steps=4\n[{section}]\noutput=20\n{options}weight_dropout={dropout}\n{END}"
    return Network(parse_cfg_text(text, "x.cfg"), srand=1, dtype=dtype)


def calls(network):
    """Compute the gradients of a call."""
    symbols = np.arange(15).reshape(5, 3) % 8
    network.parameters.clear_gradients()
    network.reset_state()
    network.train_call(symbols[:-1], symbols[1:])


@pytest.mark.parametrize("section", STATE_WEIGHTS)
def test_weights_that_are_dropped(section):
    """The weights of the state alone: some are zero, the others larger, and in the end all are as they were."""
    network, name = build(section), STATE_WEIGHTS[section]
    weights = next(p for p in network.layers[0].parameters if p.name == name)
    before, before_all = weights.value.copy(), network.parameters.values.copy()
    with network.parameters.thinned(np.random.default_rng(5)):
        mask = weights.value != 0
        assert 0.5 < mask.mean() < 0.7
        np.testing.assert_allclose(weights.value, before * mask / 0.6, rtol=1e-12)
        assert (network.parameters.values != before_all).sum() == weights.size, "no other number"
        calls(network)
    np.testing.assert_array_equal(network.parameters.values, before_all)


def test_the_gradient_is_that_of_the_weights_that_were_kept():
    network = build("lstm")
    W = network.layers[0].W
    with network.parameters.thinned(np.random.default_rng(5)):
        mask = W.value != 0
        calls(network)
        inside = W.gradient.copy()
    np.testing.assert_allclose(W.gradient, inside * mask / 0.6)
    assert (W.gradient[~mask] == 0).all() and (inside[~mask] != 0).any()


def test_after_an_error_the_weights_are_as_they_were():
    network = build("gru")
    before = network.parameters.values.copy()
    with pytest.raises(KeyboardInterrupt), network.parameters.thinned(np.random.default_rng(5)):
        network.parameters.move_values(np.empty_like(before))  # as processes do at their first call
        raise KeyboardInterrupt
    np.testing.assert_array_equal(network.parameters.values, before)


def test_without_dropout_nothing_is_drawn():
    network, random = build("lstm", dropout=0), np.random.default_rng(5)
    with network.parameters.thinned(random):
        pass
    assert random.random() == np.random.default_rng(5).random()


@pytest.mark.parametrize("wrong", ["-0.1", "1", "nan", "x"])
def test_a_share_that_is_none(wrong):
    with pytest.raises(CfgError, match="x.cfg:7: .*weight_dropout"):
        build("lstm", dropout=wrong)


# Holding them


def connected(inputs, outputs, learning_rate=1.0, input_rate=1.0):
    layer = Connected(inputs, outputs, batch_normalize=True, random=np.random.default_rng(1))
    layer.learning_rate, layer.weights.rate = learning_rate, input_rate
    return layer


def test_a_parameter_of_no_block_has_memory_of_its_own():
    parameter = Parameter("w", (2, 3), decayed=True, initial=4)
    assert (parameter.value == 4).all() and not parameter.gradient.any()
    assert parameter.value.dtype == parameter.gradient.dtype == np.float32
    assert not Parameter("w", (2, 3), decayed=True).value.any() and not Statistic("mean", (3,)).value.any()
    assert repr(parameter) == "Parameter('w', (2, 3))"


def test_the_arrays_of_the_layers_are_parts_of_the_block_and_are_as_they_were():
    layers = [connected(3, 2), connected(2, 4)]
    layers[0].weights.gradient = 7
    layers[0].norm.rolling_mean.value = 5
    parameters = [p for layer in layers for p in layer.parameters]
    statistics = [s for layer in layers for s in layer.statistics]
    before = [owner.value.copy() for owner in (*parameters, *statistics)]
    block = ParameterBlock(layers, np.float32)
    for owner, value in zip((*parameters, *statistics), before):
        np.testing.assert_array_equal(owner.value, value)
    assert block.gradients.sum() == layers[0].weights.gradient.sum() == 6 * 7
    for memory, arrays in (
        (block.values, [p.value for p in parameters]),
        (block.gradients, [p.gradient for p in parameters]),
        (block.statistics, [s.value for s in statistics]),
    ):
        assert memory.dtype == np.float32 and memory.size == sum(array.size for array in arrays)
        assert all(np.shares_memory(array, memory) for array in arrays)
        memory[:] = np.arange(len(memory))
        assert np.unique(np.concatenate([array.reshape(-1) for array in arrays])).size == len(memory), "no place is for two"


def test_a_group_is_all_that_is_updated_alike():
    """The rate is the layer's times the parameter's; weights decay, and biases and scales do not."""
    block = ParameterBlock([connected(3, 2), connected(2, 4)], np.float32)
    assert block.groups == [Group(slice(0, 14), True, 1.0), Group(slice(14, 26), False, 1.0)]
    block = ParameterBlock([connected(3, 2, learning_rate=2.0), connected(2, 4, input_rate=0.5)], np.float32)
    assert block.groups == [
        Group(slice(0, 8), True, 0.5),
        Group(slice(8, 14), True, 2.0),
        Group(slice(14, 22), False, 1.0),
        Group(slice(22, 26), False, 2.0),
    ]


def test_gradients_are_found_by_their_values_and_cleared():
    layer = connected(3, 2)
    block = ParameterBlock([layer], np.float32)
    block.gradients[:] = np.arange(len(block.gradients))
    for parameter in layer.parameters:
        np.testing.assert_array_equal(block.gradient_of(parameter.value), parameter.gradient)
        np.testing.assert_array_equal(block.gradient_of(parameter.value[1:]), parameter.gradient[1:])
    for count in (1, 2):
        block.clear_gradients()
        assert not block.gradients.any() and block.begun == count
        block.gradients[:] = 1
