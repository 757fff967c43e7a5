"""``valid`` and ``validtactic``: what they print, from where they read, and what they refuse."""

import json
import math

import numpy as np
import pytest
from command_line import done, make_network, run
from places import GOLDEN as GOLDEN_ROOT

from pydarknet.inference.score import TacticTally, Tally, surprise, tactic_lines, valid_lines

FORWARD = GOLDEN_ROOT / "forward"
TEXT = b"The quick brown fox\njumps over\tthe lazy dog. " * 20 + b"\xff\0\xfe end"
PROOF = b"Goal a. >>intros.\n more >> apply x.y.\nQed. >>auto"


@pytest.fixture
def network(tmp_path):
    (tmp_path / "text.txt").write_bytes(TEXT)
    return make_network(tmp_path)


def lines_of(network, text, tally, lines, seed=b"\n\n"):
    """Of one block: all that Darknet would print."""
    symbols = np.frombuffer(text, np.uint8).astype(int)[:, None]
    (block,) = surprise(network, [(symbols[:-1], symbols[1:], ...)], seed)
    return "".join(lines(*tally.add(*block)))


def close(found, expected):
    """The same numbers: how the text is cut into calls may change the last decimal that is printed."""
    for ours, theirs in zip(found.splitlines(), expected.splitlines(), strict=True):
        for a, b in zip(ours.split(), theirs.split(), strict=True):
            assert a == b or float(a) == pytest.approx(float(b), rel=1e-5, abs=2e-4), (ours, theirs)


def test_the_last_line_is_printed_and_nothing_else(network, tmp_path):
    cfg, weights, net = network
    result = run("valid", cfg, weights, tmp_path / "text.txt")
    assert (result.code, result.err) == (0, "")
    assert result.out.count(b"\n") == 1
    close(result.out.decode(), lines_of(net, TEXT, Tally(), valid_lines).splitlines()[-1])


@pytest.mark.parametrize("source", ["file", "standard input", "-", "folder"])
def test_where_the_text_comes_from(network, tmp_path, source):
    cfg, weights, _ = network
    expected = done("valid", cfg, weights, tmp_path / "text.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_bytes(TEXT)
    path = {"file": [tmp_path / "text.txt"], "standard input": [], "-": ["-"], "folder": [tmp_path / "folder"]}[source]
    assert done("valid", cfg, weights, *path, stdin=TEXT if source in ("standard input", "-") else b"") == expected


def test_every_prints_the_lines_between(network):
    cfg, weights, net = network
    every_line = lines_of(net, TEXT, Tally(), valid_lines).splitlines()
    close(done("valid", cfg, weights, "--every", 1, stdin=TEXT).decode(), "\n".join(every_line))
    close(done("valid", cfg, weights, "--every", 100, stdin=TEXT).decode(), "\n".join(every_line[99::100] + every_line[-1:]))
    assert len(every_line) % 6 == 0, "the last line is to be printed once only"
    close(done("valid", cfg, weights, "--every", 6, stdin=TEXT).decode(), "\n".join(every_line[5::6]))


def test_the_lines_are_darknets():
    folder = FORWARD / "pjreddie" / "case4_gru"
    lines = done("rnn", "valid", folder / "case.cfg", folder / "case.weights", stdin=(FORWARD / "valid_text.txt").read_bytes())
    expected = json.loads((folder / "meta.json").read_text())["valid"]["lines"]
    assert lines.count(b"\n") == 2040
    close("\n".join(lines.decode().splitlines()[:3]), "\n".join(expected[:3]))  # test_evaluate.py has them all


def test_json(network, tmp_path):
    cfg, weights, net = network
    figures = json.loads(done("valid", cfg, weights, tmp_path / "text.txt", "--json"))
    assert list(figures) == ["characters", "bits_per_character", "nats_per_character", "perplexity", "word_perplexity"]
    line = done("valid", cfg, weights, tmp_path / "text.txt").decode().split()
    assert figures["characters"] == len(TEXT) - 1 == int(line[0])
    assert figures["bits_per_character"] == pytest.approx(float(line[2]), abs=1e-4)
    assert figures["nats_per_character"] == pytest.approx(figures["bits_per_character"] * math.log(2))
    assert figures["perplexity"] == pytest.approx(2 ** figures["bits_per_character"]) == pytest.approx(float(line[4]), abs=1e-4)
    assert figures["word_perplexity"] == pytest.approx(float(line[7]), rel=1e-6)


def test_json_of_an_infinite_word_perplexity_is_null(network):
    cfg, weights, _ = network
    figures = done("valid", cfg, weights, "--json", stdin=b"a" + b"bc" * 500).decode()
    assert '"word_perplexity": null' in figures
    assert json.loads(figures)["perplexity"] > 0


def test_per_character_lists_position_byte_and_nats(network, tmp_path):
    cfg, weights, net = network
    out = done("valid", cfg, weights, tmp_path / "text.txt", "--per-character", tmp_path / "each.txt", "--json")
    rows = [line.split() for line in (tmp_path / "each.txt").read_text().splitlines()]
    assert [int(position) for position, _, _ in rows] == list(range(1, len(TEXT)))
    assert bytes(int(byte) for _, byte, _ in rows) == TEXT[1:]
    nats = [float(cost) for *_, cost in rows]
    assert sum(nats) / len(nats) == pytest.approx(json.loads(out)["nats_per_character"], abs=1e-6)
    net.reset_state()
    p = net.predict(np.frombuffer(b"\n\n" + TEXT[:1], np.uint8)[:, None])[-1, 0, TEXT[1]]
    assert nats[0] == pytest.approx(-math.log(p), abs=2e-6)


def test_the_seed(network):
    cfg, weights, net = network
    outputs = {seed: done("valid", cfg, weights, "-seed", seed, stdin=TEXT) for seed in ("\n\n", "", "CHAPTER")}
    assert len(set(outputs.values())) == 3
    assert done("valid", cfg, weights, stdin=TEXT) == outputs["\n\n"]
    close(outputs["CHAPTER"].decode(), lines_of(net, TEXT, Tally(), valid_lines, b"CHAPTER").splitlines()[-1])


def test_streams(network, tmp_path):
    cfg, weights, _ = network
    one = json.loads(done("valid", cfg, weights, tmp_path / "text.txt", "--json"))
    four = json.loads(done("valid", cfg, weights, tmp_path / "text.txt", "--json", "--streams", 4))
    assert done("valid", cfg, weights, "--json", "--streams", 4, stdin=TEXT) == json.dumps(four).encode() + b"\n"
    assert four["characters"] == one["characters"]
    assert four["bits_per_character"] == pytest.approx(one["bits_per_character"], abs=0.05)


@pytest.mark.parametrize(
    "arguments", [["--streams", "2", "--every", "5"], ["--streams", "2", "--per-character", "x"], ["-tokenized"]]
)
def test_options_that_do_not_go_together(network, arguments):
    cfg, weights, _ = network
    result = run("valid", cfg, weights, *arguments, stdin=TEXT)
    assert result.code == 2 and "Usage" in result.err and "need" in result.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], b"", "nothing to score: the text needs at least two characters"),
        ([], b"x", "nothing to score: the text needs at least two characters"),
        (["none.txt"], b"", "none.txt: cannot read this text: No such file"),
        (["--streams", "5"], b"abc", "5 streams: from 1 to 2 are possible"),
        (["--per-character", "no/such/folder"], TEXT, "no/such/folder: cannot write the characters: No such file"),
    ],
)
def test_what_cannot_be_measured(network, arguments, stdin, message):
    cfg, weights, _ = network
    result = run("valid", cfg, weights, *arguments, stdin=stdin)
    assert (result.code, result.out) == (1, b"") and message in result.err and result.err.count("\n") == 1, result


def test_validtactic(network):
    cfg, weights, net = network
    every_line = lines_of(net, PROOF, TacticTally(), tactic_lines)
    counted = len("intros.") + len(" apply x.y.") + len("auto")
    last = every_line.splitlines()[-1]
    assert last.startswith(f"{counted} 4 Perplexity: ")
    close(done("validtactic", cfg, weights, stdin=PROOF).decode(), last)
    close(done("validtactic", cfg, weights, "--every", 1, stdin=PROOF).decode(), every_line)
    close(done("rnn", "validtactic", cfg, weights, stdin=PROOF).decode(), every_line)
    figures = json.loads(done("validtactic", cfg, weights, "--json", stdin=PROOF))
    assert figures["characters"] == counted
    assert figures["word_perplexity"] == pytest.approx(float(last.split()[-1]), rel=1e-4)


def test_validtactic_without_a_tactic(network):
    cfg, weights, _ = network
    result = run("validtactic", cfg, weights, stdin=b"no tactic here.\n")
    assert result.code == 1 and "the text holds no tactic" in result.err
