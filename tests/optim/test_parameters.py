"""The block of all parameters: what it does besides holding them, which the tests of networks see."""

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import CfgError
from pydarknet.network import Network

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
