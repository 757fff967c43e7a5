"""The commands for weights files: the files they write, the tables they print, what they refuse."""

import json

import numpy as np
import pytest
from command_line import done, make_network, run
from places import ROOT

from pydarknet.network import load_network

TEXT = bytes(np.random.default_rng(0).integers(0, 256, 600, np.uint8))


def bits(cfg, weights):
    return json.loads(done("valid", cfg, weights, "--json", stdin=TEXT))["bits_per_character"]


def test_average(tmp_path):
    cfg, one, first = make_network(tmp_path, name="one", seen=3)
    _, two, second = make_network(tmp_path, name="two", srand=2, seen=4)
    assert done("average", cfg, tmp_path / "mean.weights", one, two).decode() == f"Saved {tmp_path / 'mean.weights'}\n"
    mean = load_network(cfg, tmp_path / "mean.weights")
    assert mean.seen == 3
    np.testing.assert_allclose(
        mean.parameters.values, (first.parameters.values + second.parameters.values) / 2, rtol=1e-6, atol=1e-7
    )
    done("average", cfg, tmp_path / "same.weights", one, one, one)
    assert (tmp_path / "same.weights").read_bytes() == one.read_bytes()


@pytest.mark.parametrize("layer", ["lstm", "gru", "rnn", "connected"])
@pytest.mark.parametrize("dialect", ["pjreddie", "alexeyab"])
def test_denormalize_then_valid(tmp_path, layer, dialect):
    options = "batch_normalize=1" + "\nhidden=5" * (layer == "rnn")
    cfg, weights, _ = make_network(tmp_path, layer, options, scale=0.5, dialect=dialect)
    out = done("denormalize", cfg, weights, tmp_path / "plain.weights", "--cfg-out", tmp_path / "plain.cfg").decode()
    assert out == f"Saved {tmp_path / 'plain.weights'} and {tmp_path / 'plain.cfg'}\n"
    assert bits(tmp_path / "plain.cfg", tmp_path / "plain.weights") == pytest.approx(bits(cfg, weights), abs=1e-5)
    result = run("valid", cfg, tmp_path / "plain.weights", stdin=TEXT)
    assert result.code == 1 and "too short" in result.err  # it is for the other cfg


def test_partial(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    assert done("partial", cfg, weights, tmp_path / "part.weights", 1).decode() == f"Saved {tmp_path / 'part.weights'}\n"
    part = (tmp_path / "part.weights").read_bytes()
    assert part[20:] == weights.read_bytes()[20 : len(part)] and part[12:20] == bytes(8)
    result = run("partial", cfg, weights, tmp_path / "part.weights", 9)
    assert result.code == 1 and "9 layers: the network has from 1 to 3" in result.err


def test_convert_there_and_back(tmp_path):
    cfg, weights, _ = make_network(tmp_path, "gru", "tanh=1")
    result = run("convert", cfg, weights, tmp_path / "there.weights", "--to", "alexeyab")
    assert result.code == 0 and result.out.startswith(b"Saved ")
    assert result.err == (
        "pydarknet: warning: layer 0 [gru]: tanh=1 is ignored by alexeyab, whose candidate is always "
        "logistic: the outputs change\n"
    )
    assert run("convert", cfg, tmp_path / "there.weights", tmp_path / "back.weights", "--to", "pjreddie").code == 0
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    out = done("convert", cfg, weights, tmp_path / "same.weights", "--to", "pjreddie").decode()
    assert out == f"Saved {tmp_path / 'same.weights'}: a copy, as {weights} is of pjreddie already\n"


def test_convert_takes_a_dialect_that_the_header_does_not_tell(tmp_path):
    """A file in AlexeyAB's order, under the header of his older programs."""
    cfg, weights, _ = make_network(tmp_path)
    done("convert", cfg, weights, tmp_path / "a.weights", "--to", "alexeyab")
    old = tmp_path / "a.weights"
    old.write_bytes(weights.read_bytes()[:20] + old.read_bytes()[20:])
    done("convert", cfg, old, tmp_path / "p.weights", "--to", "pjreddie", "--dialect", "alexeyab")
    assert (tmp_path / "p.weights").read_bytes() == weights.read_bytes()


def test_statistics(tmp_path):
    cfg, weights, network = make_network(tmp_path, "connected")
    lines = done("statistics", cfg, weights).decode().splitlines()
    assert lines[0].split() == ["layer", "type", "array", "numbers", "rms", "mean", "deviation", "least", "greatest"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["0", "connected", "biases", "6"],
        ["0", "connected", "weights", "1,536"],
        ["1", "connected", "biases", "256"],
        ["1", "connected", "weights", "1,536"],
    ]
    x = network.layers[0].weights.value
    assert [float(cell) for cell in lines[2].split()[4:]] == pytest.approx(
        [np.sqrt((x * x).mean()), x.mean(), x.std(), x.min(), x.max()], abs=1e-6
    )


def test_statistics_fit_a_terminal():
    lines = done("statistics", ROOT / "cfg/rnn.cfg", ROOT / "weights/rnn.weights").decode().splitlines()
    assert len(lines) == 19 and max(map(len, lines)) <= 80


def test_ops(tmp_path):
    cfg, _, _ = make_network(tmp_path)
    lines = done("ops", cfg).decode().splitlines()
    assert lines == [
        "layer  type            output  parameters  multiply-adds",
        "0      lstm         1 x 1 x 6       6,336          6,288",
        "1      connected  1 x 1 x 256       1,792          1,536",
        "2      softmax    1 x 1 x 256           0              0",
        "total                               8,128          7,824",
        "Floating Point Operations: 15648",
    ]


@pytest.mark.parametrize(
    "command",
    [
        "average CFG WEIGHTS WEIGHTS",
        "average CFG CFG WEIGHTS",
        "convert CFG WEIGHTS WEIGHTS --to alexeyab",
        "denormalize CFG WEIGHTS WEIGHTS",
        "denormalize CFG WEIGHTS new --cfg-out CFG",
        "denormalize CFG WEIGHTS new --cfg-out new",
        "partial CFG WEIGHTS CFG 1",
    ],
)
def test_nothing_is_written_over_what_is_read(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg, weights, _ = make_network(tmp_path)
    before = cfg.read_bytes(), weights.read_bytes()
    result = run(*command.replace("CFG", str(cfg)).replace("WEIGHTS", str(weights)).split())
    assert result.code == 1 and "the output is another file of the same command" in result.err
    assert (cfg.read_bytes(), weights.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.cfg", "net.weights"]


def test_weights_that_were_not_read_are_not_written(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    assert done("partial", cfg, weights, tmp_path / "part.weights", 1).decode() == f"Saved {tmp_path / 'part.weights'}\n"
    cfg.write_text(cfg.read_text().replace("[connected]", "[connected]\ndontload=1"))
    for command in (
        "convert CFG PART OUT --to alexeyab",
        "average CFG OUT PART PART",
        "denormalize CFG PART OUT",
        "partial CFG PART OUT 3",
    ):
        words = {"CFG": cfg, "PART": tmp_path / "part.weights", "OUT": tmp_path / "out.weights"}
        result = run(*(words.get(word, word) for word in command.split()))
        assert result.code == 1 and "dontload=1: these weights are not read" in result.err, command
        assert not (tmp_path / "out.weights").exists()
