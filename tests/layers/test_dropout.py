"""Dropout: what it keeps, before the first layer and behind one, alone and twice."""

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import CfgError
from pydarknet.layers.dropout import Dropout
from pydarknet.layers.layer import OneHot
from pydarknet.network import Network


def two(D, p=0.5, q=0.5):
    random = np.random.default_rng(1)
    return Dropout(D, p, np.float64, random), Dropout(D, q, np.float64, random)


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.2, 0.6), (0, 0.5), (0.5, 0)])
@pytest.mark.parametrize("one_hot", [True, False])
def test_two_dropouts_keep_the_product_of_what_each_keeps(p, q, one_hot):
    first, second = two(4, p, q)
    x = OneHot(np.zeros((200, 50), int), 4) if one_hot else np.ones((200, 50, 4))
    y = second.forward(first.forward(x, train=True), train=True)
    values = y.ones if one_hot else y
    kept = values[values != 0]
    np.testing.assert_allclose(kept, 1 / ((1 - p) * (1 - q)))
    assert len(kept) / values.size == pytest.approx((1 - p) * (1 - q), abs=0.02)
    assert (y.dense(np.float64) if one_hot else y).mean() == pytest.approx(1 / 4 if one_hot else 1, rel=0.05)


def test_three_before_the_first_layer():
    random = np.random.default_rng(2)
    x = OneHot(np.zeros((300, 50), int), 4)
    for _ in range(3):
        x = Dropout(4, 0.5, np.float64, random).forward(x, train=True)
    assert set(np.unique(x.ones)) == {0, 8} and (x.ones != 0).mean() == pytest.approx(1 / 8, abs=0.01)


def test_a_part_of_the_streams_has_its_part_of_the_mask():
    whole, part = (Dropout(3, 0.5, np.float64, np.random.default_rng(3)) for _ in range(2))
    part.streams_part = slice(2, 5), 6
    x = np.ones((4, 6, 3))
    np.testing.assert_array_equal(part.forward(x[:, 2:5], train=True), whole.forward(x, train=True)[:, 2:5])
    part.streams_part = None  # as a network does behind a part: then it draws for all again
    assert part.forward(x, train=True).shape == x.shape


def of_section(options="", **others):
    network = Network(parse_cfg_text(f"[net]\ninputs=3\n[dropout]\n{options}[softmax]\n", "x.cfg"), **others)
    return network, network.layers[0]


def test_the_probability_is_a_half_or_what_the_cfg_says():
    assert of_section()[1].probability == Dropout(3).probability == 0.5
    for probability in (0, 0.2, 1):
        assert of_section(f"probability={probability}\n")[1].probability == probability
    for probability, said in (("-.1", "small"), ("1.1", "large")):
        with pytest.raises(CfgError, match=rf"^x.cfg:4: \[dropout\] probability=.* is too {said}"):
            of_section(f"probability={probability}\n")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("probability", [0, 0.5, 1])
def test_it_drops_in_training_alone_and_by_the_networks_random_numbers(dtype, probability):
    network, layer = of_section(f"probability={probability}\n", srand=1, dtype=dtype)
    x = np.ones((20, 4, 3), dtype)
    random = network.dropout_random.bit_generator.state
    assert layer.forward(x) is x and layer.backward(x) is x
    np.testing.assert_array_equal(layer.stepper(4, one_hot=False)(x[0]), x[0])
    assert network.dropout_random.bit_generator.state == random
    y = layer.forward(x, train=True)
    assert y.dtype == dtype and set(np.unique(y)) == {0: {1}, 0.5: {0, 2}, 1: {0}}[probability]
    assert (network.dropout_random.bit_generator.state == random) == (probability != 0.5)  # nothing to draw
    np.testing.assert_array_equal(layer.backward(x), y)
    layer.stop_drawing()
    assert layer.forward(x, train=True) is x
