"""Dynamic evaluation: scored first, learned from afterwards."""

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import InputError, WeightsError
from pydarknet.inference.dynamic_evaluation import STEPS, Adaptation
from pydarknet.network import Network

NET = "[lstm]\noutput=12\n[dropout]\n[connected]\noutput=20\nactivation=linear\n[softmax]\n"


def network(**options):
    return Network(parse_cfg_text("[net]\ninputs=20\n" + NET, "adapt.cfg"), srand=1, **options)


TEXT = np.tile(np.random.default_rng(1).integers(20, size=10), 60)[:, None]
ABSENT = min({*range(20)} - {*TEXT[:, 0]})


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


@pytest.mark.parametrize("bias", [0, 30])  # the gradient's norm is below 1, or above
def test_after_every_few_steps_the_parameters_move_as_the_equation_says(bias):
    """w -= rate g min(1, 1 / |g|) with the gradient g of the mean loss of these steps."""
    nets = [network(dtype="float64") for _ in range(2)]
    for net in nets:
        net.layers[-1].biases.value[ABSENT] = bias
        for layer in net.layers:
            layer.stop_drawing()
    by_hand, adapted = nets
    w, g, costs = by_hand.parameters.values, by_hand.parameters.gradients, []
    for t in (0, 3, 6):
        by_hand.parameters.clear_gradients()
        costs += [by_hand.train_call(TEXT[t : t + 3], TEXT[t + 1 : t + 4], each=True)]
        norm = np.linalg.norm(g) / 3
        assert (norm > 1) == (bias > 0)
        w -= 0.1 * g / 3 * min(1, 1 / norm)
    found = Adaptation(adapted, 0.1, steps=3).nats(TEXT[:9], TEXT[1:10])
    np.testing.assert_allclose(found, np.concatenate(costs), rtol=1e-9)
    np.testing.assert_allclose(adapted.parameters.values, w, rtol=1e-9)


def test_a_network_that_overflows_says_whether_it_was_the_rate():
    with np.errstate(all="ignore"):
        with pytest.raises(InputError, match=r"^adapting at a rate of 1e\+39 has diverged: give a lower one$"):
            Adaptation(network(), 1e39).nats(TEXT[:-1], TEXT[1:])
        net = network()
        net.parameters.values[:] = np.nan
        with pytest.raises(WeightsError, match="not a finite number"):
            Adaptation(net, 0.1).nats(TEXT[:-1], TEXT[1:])


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
