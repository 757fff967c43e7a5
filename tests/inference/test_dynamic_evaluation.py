"""Dynamic evaluation: scored first, learned from afterwards."""

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import InputError
from pydarknet.inference.dynamic_evaluation import STEPS, Adaptation
from pydarknet.network import Network

NET = "[lstm]\noutput=12\n[dropout]\n[connected]\noutput=20\nactivation=linear\n[softmax]\n"


def network():
    return Network(parse_cfg_text("[net]\ninputs=20\n" + NET, "adapt.cfg"), srand=1)


TEXT = np.tile(np.random.default_rng(1).integers(20, size=10), 60)[:, None]


def test_what_has_not_been_learned_from_costs_what_it_costs_without_adaptation():
    plain, adapted = network(), network()
    expected = plain.nats(TEXT[:-1], TEXT[1:])
    costs = Adaptation(adapted, 0.5).nats(TEXT[:-1], TEXT[1:])
    assert costs.shape == expected.shape
    np.testing.assert_allclose(costs[:STEPS], expected[:STEPS], rtol=1e-5)  # float32 products in another order
    assert not np.allclose(costs[STEPS : 2 * STEPS], expected[STEPS : 2 * STEPS], rtol=1e-5)


def test_a_text_that_repeats_itself_is_learned():
    costs = Adaptation(network(), 0.5).nats(TEXT[:-1], TEXT[1:])
    assert costs[:STEPS].mean() > 2.9  # ln 20 is 3.0
    assert costs[-100:].mean() < 2.45  # that there are ten symbols, ln 10 = 2.3, is learned


def test_a_step_is_no_longer_than_the_rate():
    net = network()
    before = net.parameters.values.copy()
    Adaptation(net, 0.01).nats(TEXT[:STEPS], TEXT[1 : STEPS + 1])
    step = np.linalg.norm(net.parameters.values - before)
    assert 0 < step <= 0.01 * (1 + 1e-5)


def test_a_rate_that_is_not_above_zero_is_refused():
    with pytest.raises(InputError, match="above 0"):
        Adaptation(network(), 0)


def test_a_layers_own_rate_counts():
    """learning_rate=0 keeps a layer as it is, learning_rate=.5 takes half of the step."""
    steps = {}
    for factor in ("1", "0.5", "0"):
        text = NET.replace("output=12\n", f"output=12\nlearning_rate={factor}\n")
        net = Network(parse_cfg_text("[net]\ninputs=20\n" + text, "adapt.cfg"), srand=1)
        before = [parameter.value.copy() for parameter in net.layers[0].parameters]
        Adaptation(net, 0.1).nats(TEXT[:STEPS], TEXT[1 : STEPS + 1])
        steps[factor] = [parameter.value - old for parameter, old in zip(net.layers[0].parameters, before)]
    for whole, half, none in zip(steps["1"], steps["0.5"], steps["0"]):
        assert whole.any() and not none.any()
        np.testing.assert_allclose(half, whole / 2, rtol=1e-3, atol=1e-7)  # differences of float32 numbers near 1
