"""The tools for weights files: what they keep must compute the same, and what they average must be the mean."""

import io
import struct

import numpy as np
import pytest
from command_line import make_network

from pydarknet.darknet.cfg import parse_cfg
from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.darknet.weights import read_header
from pydarknet.errors import InputError, WeightsError
from pydarknet.inference.valid import Tally, blocks_of_file, surprise
from pydarknet.network import load_network
from pydarknet.weight_tools import (
    average,
    check_complete,
    convert,
    denormalized,
    differences,
    operations,
    statistics,
    write_denormalized_cfg,
    write_partial,
)

TEXT = bytes(np.random.default_rng(0).integers(0, 256, 1200, np.uint8))
BOTH = pytest.mark.parametrize("dialect", [PJREDDIE, ALEXEYAB], ids=lambda dialect: dialect.value)
LAYERS = [
    ("lstm", ""),
    ("gru", ""),
    ("gru", "tanh=1"),
    ("rnn", "hidden=4\nactivation=tanh"),
    ("rnn", "hidden=6\nshortcut=1"),
    ("crnn", "size=1\npad=1\nhidden=5\nactivation=leaky"),
    ("connected", "activation=tanh"),
]
EVERY_LAYER = pytest.mark.parametrize(("layer", "options"), LAYERS)
WITH_BATCHNORM = """[net]
inputs=256
[{layer}]
output=6
{options}
[batchnorm]
[connected]
output=256
batch_normalize=1
activation=linear
[softmax]
"""


def bits(network):
    tally = Tally()
    for block in surprise(network, blocks_of_file(io.BytesIO(TEXT))):
        tally.add(*block)
    return tally.score.bits_per_character


# average


@BOTH
@EVERY_LAYER
def test_the_average_of_a_file_with_itself_is_that_file(tmp_path, layer, options, dialect):
    cfg, weights, network = make_network(tmp_path, layer, options + "\nbatch_normalize=1", dialect=dialect.value)
    network.parameters.values[::7] = -0.0
    network.parameters.values[3::7] = 1e-42  # too small for a float32's full precision
    if dialect is PJREDDIE:
        network.parameters.values[5::7] = 3e38  # the sum of two is more than a float32 holds
    network.save_weights(weights)
    for count in (1, 2, 3, 7):
        network = load_network(cfg, weights)
        average(network, [weights] * count)
        network.save_weights(tmp_path / "mean.weights")
        assert (tmp_path / "mean.weights").read_bytes() == weights.read_bytes(), count


def test_the_average_is_the_mean_of_every_number(tmp_path):
    paths, stored = [], []
    for n in range(3):
        cfg, weights, network = make_network(
            tmp_path, "lstm", "batch_normalize=1", name=f"net{n}", srand=n + 1, seen=100 * n + 5
        )
        paths.append(weights)
        stored.append([array.astype(np.float64) for layer in network.layers for _, array in layer.stored(PJREDDIE)])
    network = load_network(cfg, paths[0])
    average(network, paths)
    assert network.seen == 5
    named = [(f"layer {n} {name}", array) for n, layer in enumerate(network.layers) for name, array in layer.stored(PJREDDIE)]
    for (name, mean), *arrays in zip(named, *stored):
        np.testing.assert_allclose(mean, sum(arrays) / 3, rtol=1e-6, atol=1e-7, err_msg=name)  # float32's rounding


def test_files_of_two_dialects_have_no_average(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    network.save_weights(tmp_path / "other.weights", "alexeyab")
    with pytest.raises(WeightsError, match="other.weights: is of another dialect than .*net.weights: convert one"):
        average(network, [weights, tmp_path / "other.weights"])
    average(network, [weights, tmp_path / "other.weights"], "pjreddie")  # he who says so may


def test_no_weights_have_no_mean(tmp_path):
    _, _, network = make_network(tmp_path, "gru")
    with pytest.raises(InputError, match="^no weights files to average: give at least one$"):
        average(network, [])


# denormalize


@BOTH
@EVERY_LAYER
def test_denormalized_computes_the_same(tmp_path, layer, options, dialect):
    cfg, weights, network = make_network(
        tmp_path, layer, options + "\nbatch_normalize=1", text=WITH_BATCHNORM, dialect=dialect.value, scale=1.0
    )
    for one in network.layers[:3]:
        # Some units with a tiny variance, where the epsilons differ.
        for statistic in [s for s in one.statistics if "variance" in s.name]:
            statistic.value[::3] = 1e-6
        for parameter in [p for p in one.parameters if "scales" in p.name]:
            parameter.value[::3] *= 1e-3
    network.save_weights(weights)
    network = load_network(cfg, weights, batch=1, time_steps=1)
    plain = denormalized(network)
    plain.save_weights(tmp_path / "plain.weights")
    write_denormalized_cfg(network, tmp_path / "plain.cfg")
    reread = load_network(tmp_path / "plain.cfg", tmp_path / "plain.weights", batch=1, time_steps=1)
    assert reread.dialect is dialect and reread.seen == 7
    left = [
        name for number, one in enumerate(reread.layers) for name, _ in one.stored(dialect) if "scales" in name and number != 1
    ]
    assert left == [], "batch norm is left"
    assert bits(reread) == pytest.approx(bits(network), abs=1e-5)
    for one in network.layers:
        for norm in [s for s in one.statistics if "mean" in s.name]:
            norm.value += 0.5
    assert bits(reread) != pytest.approx(bits(network), abs=1e-3), "batch norm does nothing in this test"


def test_denormalized_with_settings(tmp_path):
    """What was set, not what stands in the file."""
    cfg, weights, _ = make_network(tmp_path, "rnn", "hidden=6")
    network = load_network(cfg, settings=["rnn.batch_normalize=1", "rnn.hidden=5"], batch=1, time_steps=1)
    plain = denormalized(network)
    plain.save_weights(weights)
    write_denormalized_cfg(network, tmp_path / "plain.cfg")
    reread = load_network(tmp_path / "plain.cfg", weights, batch=1, time_steps=1)
    assert reread.layers[0].state_size == 5 and reread.layers[0].input_layer.norm is None
    assert bits(reread) == pytest.approx(bits(network), abs=1e-5)


def test_denormalized_is_the_formula(tmp_path):
    _, _, network = make_network(tmp_path, "connected", "batch_normalize=1\nactivation=tanh")
    layer = network.layers[0]
    d = np.sqrt(layer.norm.rolling_variance.value) + 1e-6
    scale = layer.norm.scales.value / d
    plain = denormalized(network).layers[0]
    np.testing.assert_allclose(plain.weights.value, layer.weights.value * scale[:, None], rtol=1e-5)
    np.testing.assert_allclose(
        plain.biases.value, layer.biases.value - scale * layer.norm.rolling_mean.value, rtol=1e-4, atol=1e-5
    )


def test_a_network_without_batch_norm_stays_as_it_is(tmp_path):
    cfg, weights, network = make_network(tmp_path, "gru")
    denormalized(network).save_weights(tmp_path / "same.weights")
    assert (tmp_path / "same.weights").read_bytes() == weights.read_bytes()


def test_the_cfg_changes_in_those_lines_alone(tmp_path):
    text = (
        "\ufeff# umlaut: ü\r\n[net]\r\ninputs = 256\r\n[lstm]\r\noutput=6\r\nbatch_normalize = 1\r\nbatch_normalize=1\r\n"
        "[connected]\noutput=256\n; batch_normalize=1\nbatch_normalize=1\n[softmax]"
    )
    path = tmp_path / "bn.cfg"
    path.write_bytes(text.encode())
    with pytest.warns(match="no effect"):
        network = load_network(path)
    write_denormalized_cfg(network, tmp_path / "plain.cfg")
    expected = text.replace("batch_normalize = 1", "batch_normalize=0").replace(
        "\nbatch_normalize=1\n[soft", "\nbatch_normalize=0\n[soft"
    )
    assert (tmp_path / "plain.cfg").read_bytes() == expected.encode()
    with pytest.warns(match="no effect"):
        assert not any(section.flag("batch_normalize") for section in parse_cfg(tmp_path / "plain.cfg").layers)


def test_a_cfg_that_cannot_be_written(tmp_path):
    _, _, network = make_network(tmp_path)
    with pytest.raises(WeightsError, match="nowhere/x.cfg: cannot write the cfg: No such file"):
        write_denormalized_cfg(network, tmp_path / "nowhere" / "x.cfg")


# partial


@BOTH
def test_partial_is_the_beginning_of_the_file(tmp_path, dialect):
    cfg, weights, network = make_network(tmp_path, text=WITH_BATCHNORM, dialect=dialect.value)
    whole = weights.read_bytes()
    for count in range(1, 5):
        write_partial(network, tmp_path / "part.weights", count)
        part = (tmp_path / "part.weights").read_bytes()
        size = 20 + 4 * sum(array.size for layer in network.layers[:count] for _, array in layer.stored(dialect))
        assert len(part) == size and part[20:] == whole[20:size], count
        assert read_header(tmp_path / "part.weights").seen == 0 and part[:12] == whole[:12]
    assert size == len(whole)


@pytest.mark.parametrize("count", [0, 4])
def test_partial_of_layers_that_are_not_there(tmp_path, count):
    _, _, network = make_network(tmp_path)
    with pytest.raises(InputError, match=f"{count} layers: the network has from 1 to 3"):
        write_partial(network, tmp_path / "part.weights", count)


def test_another_network_begins_with_the_part(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    write_partial(network, tmp_path / "part.weights", 1)
    cfg.write_text(cfg.read_text().replace("[connected]\n", "[connected]\ndontload=1\n"))
    other = load_network(cfg, tmp_path / "part.weights", srand=9)
    assert np.array_equal(other.layers[0].W.value, network.layers[0].W.value)
    assert not np.array_equal(other.layers[1].weights.value, network.layers[1].weights.value)


# convert


@EVERY_LAYER
@pytest.mark.parametrize("batch_normalize", [0, 1])
def test_there_and_back_is_the_same_file(tmp_path, layer, options, batch_normalize):
    cfg, weights, network = make_network(
        tmp_path, layer, f"{options}\nbatch_normalize={batch_normalize}", text=WITH_BATCHNORM, seen=2**40 + 3
    )
    there, back = tmp_path / "there.weights", tmp_path / "back.weights"
    list(convert(load_network(cfg, weights), there, ALEXEYAB))
    assert (read_header(there).revision, read_header(there).seen) == (5, 2**40 + 3)
    list(convert(load_network(cfg, there), back, PJREDDIE))
    assert back.read_bytes() == weights.read_bytes()
    assert there.read_bytes()[20:] != weights.read_bytes()[20:], "the orders are not told apart"


def test_the_matrices_keep_their_names(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    list(convert(network, tmp_path / "there.weights", ALEXEYAB))
    there = load_network(cfg, tmp_path / "there.weights").layers[0]
    for name in "wi wf wo wg ui uf uo ug".split():
        assert np.array_equal(there.matrices[name].weights, network.layers[0].matrices[name].weights), name
    # In AlexeyAB's file wf comes first.
    first = struct.unpack("<6f", (tmp_path / "there.weights").read_bytes()[20:44])
    assert first == tuple(network.layers[0].matrices["wf"].biases)


def test_biases_of_a_batchnorm_have_no_place_in_a_file_of_pjreddie(tmp_path):
    cfg, weights, network = make_network(tmp_path, text=WITH_BATCHNORM, dialect="alexeyab")
    with pytest.raises(WeightsError, match=r"layer 1 \[batchnorm\]: biases has no place in a file of pjreddie"):
        convert(network, tmp_path / "there.weights", PJREDDIE)
    assert not (tmp_path / "there.weights").exists()
    network.layers[1].biases.value[:] = 0
    list(convert(network, tmp_path / "there.weights", PJREDDIE))


@pytest.mark.parametrize(
    ("layer", "options", "expected"),
    [
        ("lstm", "", []),
        ("gru", "", []),
        ("gru", "tanh=1", ["layer 0 [gru]: tanh=1 is ignored by alexeyab"]),
        ("rnn", "", ["layer 0 [rnn]: without `hidden` the forks disagree about its size: write hidden=6 into the cfg"]),
        ("rnn", "hidden=6", []),
        ("lstm", "batch_normalize=1", ["layer 0 [lstm]: the epsilon of batch norm differs"]),
    ],
)
def test_the_ways_in_which_the_forks_differ(tmp_path, layer, options, expected):
    cfg, weights, network = make_network(tmp_path, layer, options)
    assert list(differences(network, PJREDDIE)) == []
    found = list(differences(network, ALEXEYAB))
    assert len(found) == len(expected) and all(map(str.startswith, found, expected)), found
    # What is warned of does change the outputs, and what is not does not.
    if "hidden" not in "".join(expected):
        before = bits(network)
        list(convert(network, tmp_path / "there.weights", ALEXEYAB))
        assert (bits(load_network(cfg, tmp_path / "there.weights", batch=1)) == before) == (not expected)


# the files


def test_weights_that_were_not_read_are_not_written(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    check_complete(network)
    text = cfg.read_text()
    cfg.write_text(text.replace("[lstm]", "[lstm]\ndontload=1"))
    with pytest.raises(WeightsError, match=r"net.cfg:3: \[lstm\] dontload=1: these weights are not read"):
        check_complete(load_network(cfg))
    for harmless in (
        text.replace("[lstm]", "[lstm]\ndontload=1\ndontsave=1"),
        text.replace("[softmax]", "[softmax]\ndontload=1"),
    ):
        cfg.write_text(harmless)
        check_complete(load_network(cfg))


# statistics and ops


def test_statistics_are_those_of_the_numbers(tmp_path):
    _, _, network = make_network(tmp_path, "gru", "batch_normalize=1")
    rows = list(statistics(network))
    assert [row.name for row in rows[:6]] == [
        "wz.biases",
        "wz.weights",
        "wz.scales",
        "wz.rolling_mean",
        "wz.rolling_variance",
        "wr.biases",
    ]
    assert [(row.layer, row.type, row.name, row.size) for row in rows[-2:]] == [
        (1, "connected", "biases", 256),
        (1, "connected", "weights", 1536),
    ]
    network.layers[0].matrices["wz"].biases[:] = [1, -2, 3, 0, 0, 4]
    assert next(iter(statistics(network))) == (
        0,
        "gru",
        "wz.biases",
        6,
        pytest.approx(5**0.5),
        1.0,
        pytest.approx(2.0),
        -2.0,
        4.0,
    )


@pytest.mark.parametrize(
    ("layer", "options", "parameters", "multiply_adds"),
    [
        # H=6, V=256: U and W are H*V and H*H, each with H biases, and with H scales when normalised.
        ("lstm", "", 4 * (6 * 256 + 6 * 6 + 2 * 6), 4 * (6 * 256 + 6 * 6)),
        ("lstm", "batch_normalize=1", 4 * (6 * 256 + 6 * 6 + 4 * 6), 4 * (6 * 256 + 6 * 6)),
        ("gru", "", 3 * (6 * 256 + 6 * 6 + 2 * 6), 3 * (6 * 256 + 6 * 6)),
        ("rnn", "hidden=4", 4 * 256 + 4 * 4 + 6 * 4 + 4 + 4 + 6, 4 * 256 + 4 * 4 + 6 * 4),
        ("crnn", "size=1\nhidden=4", 4 * 256 + 4 * 4 + 6 * 4 + 4 + 4 + 6, 4 * 256 + 4 * 4 + 6 * 4),
        ("connected", "", 6 * 256 + 6, 6 * 256),
    ],
)
def test_operations(tmp_path, layer, options, parameters, multiply_adds):
    text = WITH_BATCHNORM.replace("inputs=256", "inputs=256\nbatch=8\nsubdivisions=2\ntime_steps=5")
    cfg, _, network = make_network(tmp_path, layer, options, text=text)
    first, norm, last, softmax = operations(network)
    assert first == (0, layer, (5, 4, 6), parameters, multiply_adds)
    assert norm == (1, "batchnorm", (5, 4, 6), 6, 0)  # pjreddie's has no biases
    assert last == (2, "connected", (5, 4, 256), 6 * 256 + 2 * 256, 6 * 256)
    assert softmax == (3, "softmax", (5, 4, 256), 0, 0)
