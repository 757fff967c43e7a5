"""The vectors of lines: what the network puts out, step by step, when it has read them."""

import numpy as np
import pytest
from command_line import make_network

from pydarknet.errors import InputError, WeightsError
from pydarknet.inference.vec import BLOCK, line_vectors


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return make_network(tmp_path_factory.mktemp("network"))[2]


@pytest.mark.parametrize(("layer", "options"), [("lstm", ""), ("gru", ""), ("rnn", "hidden=4"), ("connected", "")])
@pytest.mark.parametrize("number", [0, 1])
def test_a_vector_is_the_output_behind_the_line_and_a_blank(tmp_path, layer, options, number):
    _, _, network = make_network(tmp_path, layer, options)
    lines = [b"a line\twith blanks \r\n", b"\n", b"bytes \xff\x00\x80", b"a line\twith blanks\n"]
    found = list(line_vectors(network, iter(lines), b"\n\n", number))
    assert [line for line, _ in found] == [b"alinewithblanks", b"", b"bytes\xff\x00\x80", b"alinewithblanks"]
    for line, vector in found:
        network.reset_state()
        for symbol in b"\n\n" + line + b" ":
            expected = network.layer_output(number, np.array([[symbol]]))[0, 0]
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6, err_msg=repr(line))
        assert vector.shape == ((6,), (256,))[number]
    assert np.array_equal(found[0][1], found[3][1])


def test_a_layers_output_is_what_the_next_reads(network):
    """Layer 0 alone, through the last layer's weights, gives the probabilities."""
    symbols = np.arange(20)[:, None]
    network.reset_state()
    expected = network.predict(symbols)
    network.reset_state()
    h = network.layer_output(0, symbols)
    last = network.layers[1].matrices["connected"]
    x = h @ last.weights.T + last.biases
    p = np.exp(x - x.max(axis=2, keepdims=True))
    np.testing.assert_allclose(p / p.sum(axis=2, keepdims=True), expected, rtol=1e-4, atol=1e-7)


def test_a_line_longer_than_a_block(network):
    line = bytes(np.random.default_rng(0).integers(97, 123, 2 * BLOCK + 5, np.uint8))
    ((_, vector),), ((_, again),) = (line_vectors(network, [b""], *seed) for seed in ((), (b"\n\n", 0)))
    np.testing.assert_array_equal(vector, again)  # Darknet's seed
    ((_, vector),) = line_vectors(network, [line], b"")
    network.reset_state()
    np.testing.assert_allclose(vector, network.layer_output(0, np.frombuffer(line + b" ", np.uint8)[:, None])[-1, 0], rtol=1e-5)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_layer_that_the_network_has_not_got(network, number):
    with pytest.raises(InputError, match=f"layer {number}: this network has the layers 0 to 1"):
        next(line_vectors(network, [b"x"], layer=number))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [3e38, np.nan])
def test_an_output_that_overflows_is_told_once(tmp_path, value):
    _, _, network = make_network(tmp_path)
    network.parameters.values[:] = np.where(np.arange(network.parameters.values.size) % 3, value, -value)
    with pytest.raises(WeightsError, match="not a finite number"):
        list(line_vectors(network, [b"abc"], layer=1))
