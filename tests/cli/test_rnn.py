"""``pydarknet rnn ...``: command lines as they were written for Darknet."""

import os
from pathlib import Path

import pytest
from command_line import done, make_network, run
from places import GOLDEN as GOLDEN_ROOT

GOLDEN = GOLDEN_ROOT / "forward" / "pjreddie"
NET = (
    "[net]\ninputs=256\nbatch=4\ntime_steps=5\nlearning_rate=.1\nmax_batches=3\n"
    "[lstm]\noutput=6\n[connected]\noutput=256\n[softmax]\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with a cfg and two texts."""
    monkeypatch.chdir(tmp_path)
    Path("net.cfg").write_text(NET)
    Path("text.txt").write_text("to be or not to be\n" * 10)
    return tmp_path


def seen(path):
    return int.from_bytes(Path(path).read_bytes()[12:20], "little")


def test_a_run_as_in_darknets_tutorial(folder):
    done("rnn", "train", "net.cfg", "-file", "text.txt")
    assert seen("backup/net_final.weights") == 3 * 20
    text = done(
        "rnn", "generate", "net.cfg", "backup/net_final.weights", "-len", 50, "-seed", "CHAPTER", "-temp", ".8", "-srand", 0
    )
    assert text.startswith(b"CHAPTER") and len(text) == 7 + 50 + 1
    assert text == done(
        "generate",
        "net.cfg",
        "backup/net_final.weights",
        "--len",
        50,
        "--seed",
        "CHAPTER",
        "--temp",
        ".8",
        "--srand",
        0,
        "--bytes",
    )
    lines = done("rnn", "valid", "net.cfg", "backup/net_final.weights", stdin=b"to be\n").decode().splitlines()
    assert [line.split()[:2] for line in lines] == [[str(n), "BPC:"] for n in range(1, 6)]


def test_train_goes_on_from_the_weights_and_clear_counts_anew(folder):
    done("rnn", "train", "net.cfg", "-file", "text.txt")
    os.rename("backup/net_final.weights", "start")
    Path("net.cfg").write_text(NET.replace("max_batches=3", "max_batches=5"))
    done("rnn", "train", "net.cfg", "start", "-file", "text.txt", "--backup", "on")
    assert seen("on/net_final.weights") == 5 * 20
    result = run("rnn", "train", "-clear", "net.cfg", "start", "-file", "text.txt", "--backup", "anew")
    assert result.code == 0 and result.err.startswith("1: "), result.err
    assert seen("anew/net_final.weights") == 5 * 20


def test_train_reads_shakespeare_unless_told(folder):
    result = run("rnn", "train", "net.cfg")
    assert result.code == 1 and "data/shakespeare.txt: cannot read this text" in result.err
    Path("data").mkdir()
    Path("data/shakespeare.txt").write_text("to be or not to be\n" * 10)
    done("rnn", "train", "net.cfg")
    assert seen("backup/net_final.weights") == 60


def test_a_text_where_darknet_reads_weights(folder):
    result = run("rnn", "train", "net.cfg", "text.txt")
    assert result.code == 2 and "text.txt is no weights file: a text is given with -file" in result.err


def test_help_is_of_darknets_words(folder):
    """Its commands choose no network, and read standard input."""
    for command in ("train", "generate", "generatetactic", "valid", "validtactic", "vec"):
        text = done("rnn", command, "-h").decode()
        assert "TEXT is" not in text and "--minutes" not in text and "TEXT..." not in text
        assert all(len(line) <= 80 for line in text.splitlines()), command
    assert "rnn train [OPTIONS] CFG [WEIGHTS]\n" in done("rnn", "train", "-h").decode()
    result = run("rnn", "train", "net.cfg", "-file", "text.txt", "--minutes", "1", "--max-batches", "1")
    assert result.code == 0 and "'--minutes' is ignored" in result.err


def test_tokenized(folder):
    Path("text.tok").write_text("1 2 3 255 " * 20)
    done("rnn", "train", "net.cfg", "-tokenized", "-file", "text.tok")
    assert seen("backup/net_final.weights") == 60


ORDERS = [
    ["rnn", "generate", "CFG", "WEIGHTS", "-len", "20", "-seed", "ab", "-srand", "3"],
    ["rnn", "generate", "-len", "20", "CFG", "-seed", "ab", "WEIGHTS", "-srand", "3"],
    ["rnn", "-len", "20", "generate", "-seed", "ab", "CFG", "-srand", "3", "WEIGHTS"],
    ["rnn", "-seed", "ab", "-clear", "-srand", "3", "generate", "CFG", "WEIGHTS", "-len", "20"],
    ["-i", "0", "rnn", "generate", "CFG", "WEIGHTS", "-nogpu", "-len", "20", "-seed", "ab", "-srand", "3", "-i", "1"],
    [
        "-nogpu",
        "rnn",
        "-i",
        "0",
        "generate",
        "CFG",
        "WEIGHTS",
        "-len",
        "20",
        "-tokenized",
        "-seed",
        "ab",
        "-srand",
        "3",
        "-file",
        "x",
    ],
]


@pytest.mark.parametrize("order", ORDERS)
def test_options_may_stand_anywhere(tmp_path, order):
    cfg, weights, _ = make_network(tmp_path)
    order = [{"CFG": cfg, "WEIGHTS": weights}.get(word, word) for word in order]
    assert done(*order) == done("generate", cfg, weights, "-len", 20, "-seed", "ab", "-srand", 3, "--bytes")


@pytest.mark.parametrize("command", ["generate", "generatetactic", "train", "valid", "validtactic", "vec"])
def test_every_command_takes_every_option_of_darknet(tmp_path, folder, command):
    cfg, weights, _ = make_network(tmp_path, text=NET)
    options = ["-seed", "ab", "-len", 5, "-temp", ".8", "-srand", 1, "-clear", "-nogpu", "-i", 0]
    options += ["-file", "text.txt"] if command == "train" else []
    done("rnn", command, cfg, weights, *options, stdin=b"a >>b c.\n")


@pytest.mark.parametrize("command", ["valid", "validtactic", "vec", "generatetactic"])
def test_a_file_that_is_not_read_is_warned_of(tmp_path, command):
    cfg, weights, _ = make_network(tmp_path)
    result = run("rnn", command, cfg, weights, "-file", "text.txt", "-len", 5, stdin=b"a >>b c.\n")
    assert result.code == 0
    assert result.err == f"pydarknet: warning: -file text.txt is ignored, as in Darknet: `rnn {command}` reads standard input\n"
    assert run("rnn", command, cfg, weights, "-len", 5, stdin=b"a >>b c.\n").err == ""


def test_the_bytes_of_a_seed_are_tokens_to_darknet(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "vocabulary").write_text("".join(f"w{n}\n" for n in range(256)))
    common = cfg, weights, "-tokens", tmp_path / "vocabulary", "-len", 10, "-srand", 1
    assert done("rnn", "generate", *common, "-seed", "AB") == done("generate", *common, "-seed", "65 66")
    assert done("rnn", "generate", *common) == done("generate", *common, "-seed", "10 10")
    assert done("rnn", "generate", *common, "-seed", "") == done("generate", *common, "-seed", "0")


def test_the_plain_commands_are_as_they_were(tmp_path):
    """The copies do not share their defaults with the originals."""
    cfg, weights, _ = make_network(tmp_path)
    assert done("rnn", "valid", cfg, weights, stdin=b"abc").count(b"\n") == 2
    assert done("valid", cfg, weights, stdin=b"abc").count(b"\n") == 1
    assert run("train", cfg).code == 2
    assert run("vec", cfg, weights, "-clear").code == 2


def test_golden_text():
    written = done(
        "rnn",
        "generate",
        GOLDEN / "case1_lstm" / "case.cfg",
        GOLDEN / "case1_lstm" / "case.weights",
        "-seed",
        "Undor yez",
        "-len",
        120,
        "-temp",
        0.7,
        "-srand",
        5,
    )
    assert written == b"Undor yez" + (GOLDEN / "case1_lstm" / "gen_out.bin").read_bytes() + b"\n"
