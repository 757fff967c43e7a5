"""``valid`` and ``validtactic``: what they print, from where they read, and what they refuse."""

import json
import math
import os

import numpy as np
import pytest
from command_line import done, make_network, run
from places import GOLDEN as GOLDEN_ROOT

from pydarknet import load_network
from pydarknet.inference.dynamic_evaluation import Adaptation
from pydarknet.inference.valid import TacticTally, Tally, blocks_of_corpus, surprise, tactic_lines, valid_lines
from pydarknet.system import memory
from pydarknet.text.corpus import Corpus

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
    close(done("valid", cfg, weights, "--every", 10**30, stdin=TEXT).decode(), every_line[-1])


def test_the_lines_are_darknets():
    folder = FORWARD / "pjreddie" / "case4_gru"
    lines = done("rnn", "valid", folder / "case.cfg", folder / "case.weights", stdin=(FORWARD / "valid_text.txt").read_bytes())
    expected = json.loads((folder / "meta.json").read_text())["valid"]["lines"]
    assert lines.count(b"\n") == 2040
    close("\n".join(lines.decode().splitlines()[:3]), "\n".join(expected[:3]))  # test_evaluate.py has them all


def test_json(network, tmp_path):
    cfg, weights, net = network
    figures = json.loads(done("valid", cfg, weights, tmp_path / "text.txt", "--json"))
    assert list(figures)[:5] == ["characters", "bits_per_character", "nats_per_character", "perplexity", "word_perplexity"]
    line = done("valid", cfg, weights, tmp_path / "text.txt").decode().split()
    assert figures["characters"] == len(TEXT) - 1 == int(line[0])
    assert figures["bits_per_character"] == pytest.approx(float(line[2]), abs=1e-4)
    assert figures["nats_per_character"] == pytest.approx(figures["bits_per_character"] * math.log(2))
    assert figures["perplexity"] == pytest.approx(2 ** figures["bits_per_character"]) == pytest.approx(float(line[4]), abs=1e-4)
    assert figures["word_perplexity"] == pytest.approx(float(line[7]), rel=1e-6)


UTF8 = "Füße – 漢字 und 😀, dann Prosa. ".encode() * 9


@pytest.mark.parametrize("options", [[], ["--streams", 3]])
@pytest.mark.parametrize("source", ["file", "standard input"])
def test_bits_per_character_of_utf8(network, tmp_path, options, source):
    cfg, weights, _ = network
    (tmp_path / "utf8.txt").write_bytes(UTF8)
    path, stdin = ([tmp_path / "utf8.txt"], b"") if source == "file" else ([], UTF8)
    figures = json.loads(done("valid", cfg, weights, *path, "--json", *options, stdin=stdin))
    assert (figures["characters"], figures["utf8_characters"]) == (len(UTF8) - 1, len(UTF8.decode()) - 1)
    total = figures["nats_per_character"] * figures["characters"]
    assert figures["nats_per_utf8_character"] == pytest.approx(total / figures["utf8_characters"])
    assert figures["bits_per_utf8_character"] == pytest.approx(total / figures["utf8_characters"] / math.log(2))
    darknets, utf8 = done("valid", cfg, weights, *path, *options, stdin=stdin).decode().splitlines()
    assert utf8 == (
        f"UTF-8: {len(UTF8.decode()) - 1} characters, {figures['bits_per_utf8_character']:.4f} bits per character; "
        f"{len(UTF8) - 1} bytes, {figures['bits_per_character']:.4f} bits per byte"
    )
    assert darknets.split()[:2] == [str(len(UTF8) - 1), "BPC:"]
    assert b"UTF-8" not in done("rnn", "valid", cfg, weights, stdin=UTF8), "darknet rnn prints its own lines only"


@pytest.mark.parametrize(
    "text",
    [
        "Füße".encode("latin-1") * 9,
        UTF8[:-1] + b"\xe2\x82",  # ends inside a character
        UTF8[:600][::-1],
        b"\x80" + UTF8,
        b"\xed\xa0\x80 surrogate",
    ],
)
@pytest.mark.parametrize("options", [[], ["--streams", 2]])
def test_a_text_that_is_not_utf8_has_no_such_figure(network, tmp_path, text, options):
    cfg, weights, _ = network
    (tmp_path / "other.txt").write_bytes(text)
    for path, stdin in (([tmp_path / "other.txt"], b""), ([], text)):
        figures = json.loads(done("valid", cfg, weights, *path, "--json", *options, stdin=stdin))
        assert [figures[name] for name in figures if "utf8" in name] == [None, None, None]
        assert done("valid", cfg, weights, *path, *options, stdin=stdin).count(b"\n") == 1


def test_characters_of_ascii_are_bytes(network):
    cfg, weights, _ = network
    figures = json.loads(done("valid", cfg, weights, "--json", stdin=b"plain text"))
    assert figures["utf8_characters"] == figures["characters"] == 9
    assert figures["bits_per_utf8_character"] == figures["bits_per_character"]
    assert done("valid", cfg, weights, stdin=b"plain text").count(b"\n") == 1


def test_several_files_and_folders_are_one_text(network, tmp_path):
    cfg, weights, _ = network
    (tmp_path / "folder").mkdir()
    for name, part in (("a.txt", TEXT[:100]), ("folder/b.txt", TEXT[100:150]), ("folder/c.txt", TEXT[150:])):
        (tmp_path / name).write_bytes(part)
    expected = done("valid", cfg, weights, tmp_path / "text.txt")
    assert done("valid", cfg, weights, tmp_path / "a.txt", tmp_path / "folder") == expected
    result = run("valid", cfg, weights, tmp_path / "a.txt", "-", stdin=b"abc")
    assert result.code == 2 and "- is standard input" in result.err


def test_adapt_is_the_librarys(network, tmp_path):
    cfg, weights, _ = network
    before = weights.read_bytes()
    figures = json.loads(done("valid", cfg, weights, tmp_path / "text.txt", "--json", "--adapt", 0.5))
    net = load_network(cfg, weights, batch=1, time_steps=1)
    tally = Tally()
    adaptation = Adaptation(net, 0.5)
    for block in surprise(net, blocks_of_corpus(Corpus.from_symbols(TEXT), 256), nats=adaptation.nats):
        tally.add(*block)
    assert figures["nats_per_character"] == pytest.approx(tally.score.nats_per_character, rel=1e-6)
    static = json.loads(done("valid", cfg, weights, tmp_path / "text.txt", "--json"))
    assert figures["nats_per_character"] < static["nats_per_character"] - 0.1
    assert weights.read_bytes() == before


def test_a_tokenized_text_is_not_primed(network, tmp_path):
    """Two line ends are text; among tokens they'd be the tokens 10 and 10."""
    cfg, weights, net = network
    tokens = [5, 200, 17, 3, 3, 90]
    (tmp_path / "text.tok").write_text(" ".join(map(str, tokens)))
    found = json.loads(done("valid", cfg, weights, tmp_path / "text.tok", "-tokenized", "--json"))
    net.reset_state()
    expected = net.nats(np.array(tokens[:-1])[:, None], np.array(tokens[1:])[:, None]).mean()
    assert found["nats_per_character"] == pytest.approx(expected, rel=1e-6)
    assert found["utf8_characters"] is None
    seeded = json.loads(done("valid", cfg, weights, tmp_path / "text.tok", "-tokenized", "--json", "-seed", "\n\n"))
    assert seeded["nats_per_character"] != pytest.approx(expected, rel=1e-4)


@pytest.fixture
def overflowing(tmp_path):
    return make_network(tmp_path, name="huge", layer="connected", options="activation=linear", scale=1e30)[:2]


@pytest.mark.parametrize(
    "line",
    [
        ["valid"],
        ["valid", "--json"],
        ["valid", "--every", 1],
        ["valid", "--streams", 2],
        ["valid", "--adapt", 0.5],
        ["validtactic"],
        ["validtactic", "--json"],
        ["rnn", "valid"],
        ["generate", "-temp", 0],
        ["generate"],
        ["rnn", "generate"],
    ],
    ids=lambda line: " ".join(map(str, line)),
)
def test_a_network_that_overflows_is_an_error(overflowing, line):
    words = [word for word in line if word not in ("valid", "validtactic", "generate", "rnn")]
    names = [word for word in line if word not in words]
    result = run(*names, *overflowing, *words, stdin=PROOF)
    assert result.code == 1 and "the network's output is not a finite number: its weights overflow" in result.err, result
    assert b"nan" not in result.out.lower() and result.err.count("\n") == 1


def test_vec_of_a_network_that_overflows_is_an_error(overflowing):
    result = run("vec", *overflowing, "--layer", 1, stdin=b"line\n")
    assert (result.code, result.out) == (1, b"") and "is not a finite number" in result.err


def test_adapting_too_fast_is_an_error_that_says_so(network, tmp_path):
    cfg, weights, _ = make_network(tmp_path, name="linear", layer="connected", options="activation=linear")
    result = run("valid", cfg, weights, tmp_path / "text.txt", "--adapt", "1e30")
    assert (result.code, result.out) == (1, b"") and "has diverged: give a lower one" in result.err, result


@pytest.mark.parametrize("name", ["net.cfg", "net.weights", "text.txt", "link", "folder/part.txt"])
def test_an_output_is_no_input(network, tmp_path, name):
    cfg, weights, _ = network
    (tmp_path / "link").symlink_to(tmp_path / "text.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part.txt").write_bytes(TEXT)
    before = (tmp_path / name).read_bytes()
    result = run("valid", cfg, weights, tmp_path / "text.txt", tmp_path / "folder", "--per-character", tmp_path / name)
    assert (result.code, result.out) == (1, b"") and result.err.count("\n") == 1 and name in result.err, result
    assert (tmp_path / name).read_bytes() == before


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


def test_characters_are_written_whole_or_not_at_all(network, tmp_path, overflowing):
    cfg, weights, _ = network
    (tmp_path / "each.txt").write_text("of an earlier run")
    result = run("valid", *overflowing, tmp_path / "text.txt", "--per-character", tmp_path / "each.txt")
    assert result.code == 1 and (tmp_path / "each.txt").read_text() == "of an earlier run"
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    done("valid", cfg, weights, tmp_path / "text.txt", "--per-character", tmp_path / "each.txt")
    assert (tmp_path / "each.txt").read_bytes().count(b"\n") == len(TEXT) - 1
    done("valid", cfg, weights, tmp_path / "text.txt", "--per-character", os.devnull)
    assert not os.path.isfile(os.devnull)


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


def test_streams_that_the_memory_has_no_room_for(network, monkeypatch):
    cfg, weights, _ = network
    monkeypatch.setattr(memory, "memory_at_hand", lambda: 1_000_000)
    result = run("valid", cfg, weights, "--streams", 500, stdin=TEXT)
    assert result.code == 1 and "500 streams: this needs" in result.err and "and 1,000,000 can be had: give fewer" in result.err


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


def test_validtactic_of_several_files_and_folders(network, tmp_path):
    cfg, weights, _ = network
    (tmp_path / "folder").mkdir()
    for name, part in (("a.txt", PROOF[:12]), ("folder/b.txt", PROOF[12:20]), ("folder/c.txt", PROOF[20:])):
        (tmp_path / name).write_bytes(part)
    expected = done("validtactic", cfg, weights, stdin=PROOF)
    assert done("validtactic", cfg, weights, tmp_path / "a.txt", tmp_path / "folder") == expected
    assert run("validtactic", cfg, weights, tmp_path / "a.txt", "-", stdin=b"").code == 2
