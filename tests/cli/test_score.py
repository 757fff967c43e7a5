"""``score``: bits of characters and lines, colours and marks, JSON, the page, and that it finds planted mistakes."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from command_line import done, make_network, run
from runs import LAYERS, environment, write_cfg

TEXT = "A line.\n\n\tFüße, 漢字\r\nlast\x1b line"


@pytest.fixture
def network(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, newline="")
    return make_network(tmp_path)


def bits_of(network, data):
    """Of each byte of ``data`` but the first, from the probabilities themselves."""
    network.reset_state()
    p = network.predict(np.frombuffer(b"\n\n" + data, np.uint8)[:, None])[2:-1, 0]
    return -np.log2(p[np.arange(len(data) - 1), np.frombuffer(data, np.uint8)[1:]].astype(float))


def test_json_has_the_bits_of_every_character(network, tmp_path):
    cfg, weights, net = network
    found = json.loads(done("score", cfg, weights, tmp_path / "text.txt", "--json"))
    characters = [pair for line in found["lines"] for pair in line["characters"]]
    assert "".join(character for character, _ in characters) == TEXT
    costs, expected = iter([0, *bits_of(net, TEXT.encode())]), []
    for character in TEXT:
        expected.append(sum(next(costs) for _ in character.encode()))
    assert [bits for _, bits in characters] == pytest.approx(expected, abs=2e-3)
    for line in found["lines"]:
        bits = [cost for _, cost in line["characters"]]
        assert line["bits"] == pytest.approx(sum(bits), abs=1e-3)
        assert line["bits_per_character"] == pytest.approx(sum(bits) / len(bits), abs=1e-3)
        together = [sum(bits[n : n + 3]) for n in range(max(1, len(bits) - 2))]
        assert line["peak"] == pytest.approx(max(together), abs=1e-3)
    assert [line["text"] for line in found["lines"]] == ["A line.", "", "\tFüße, 漢字", "last\x1b line"]
    assert [line["line"] for line in found["lines"]] == [1, 2, 3, 4]
    assert found["characters"] == len(TEXT) - 1


def test_the_sum_is_that_of_valid(network, tmp_path):
    cfg, weights, _ = network
    found = json.loads(done("score", cfg, weights, tmp_path / "text.txt", "--json"))
    measured = json.loads(done("valid", cfg, weights, tmp_path / "text.txt", "--json"))
    assert found["bits"] == pytest.approx(measured["nats_per_character"] * measured["characters"] / math.log(2), rel=1e-6)
    last = done("score", cfg, weights, tmp_path / "text.txt").decode().splitlines()[-1]
    assert last.endswith(f"{measured['bits_per_utf8_character']:.4f} bits per character")
    assert done("score", cfg, weights, "-", stdin=TEXT.encode()) == done("score", cfg, weights, tmp_path / "text.txt")


@pytest.mark.parametrize("by", ["peak", "mean", "total"])
def test_top_gives_the_most_surprising_first(network, tmp_path, by):
    cfg, weights, _ = network
    (tmp_path / "many.txt").write_bytes(bytes(np.random.default_rng(1).integers(32, 127, 3000, np.uint8)).replace(b"e", b"\n"))
    key = {"peak": "peak", "mean": "bits_per_character", "total": "bits"}[by]
    every = json.loads(done("score", cfg, weights, tmp_path / "many.txt", "--json"))["lines"]
    expected = [line["line"] for line in sorted(every, key=lambda line: -line[key])[:5]]
    line = ["score", cfg, weights, tmp_path / "many.txt", "--top", 5, "--by", by]
    assert [line["line"] for line in json.loads(done(*line, "--json"))["lines"]] == expected
    printed = re.findall(r"^ *(\d+) +\d+\.\d +\d+\.\d\d  ", done(*line).decode(), re.MULTILINE)
    assert [int(number) for number in printed] == expected


def test_marks_stand_below_what_surprises(network, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cfg, weights, _ = network
    data = bytes(np.random.default_rng(2).integers(97, 123, 60, np.uint8))
    (tmp_path / "line.txt").write_bytes(data)
    pairs = json.loads(done("score", cfg, weights, tmp_path / "line.txt", "--json"))["lines"][0]["characters"]
    _, row, marks, _ = done("score", cfg, weights, tmp_path / "line.txt").decode().splitlines()
    at = row.index(data.decode())
    expected = "".join(" .:*#"[sum(bits >= least for least in (3, 5, 8, 12))] for _, bits in pairs)
    assert marks[at:] == expected.rstrip() and len(set(expected)) >= 3


def test_a_long_line_is_broken_with_its_marks(network, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cfg, weights, _ = network
    text = "漢字 und so weiter, " * 20
    (tmp_path / "long.txt").write_text(text)
    out = done("score", cfg, weights, tmp_path / "long.txt").decode().splitlines()
    assert len(out) > 8
    margin = re.match(r" *1 +\d+\.\d +\d+\.\d\d  ", out[1]).end()
    assert "".join(row[margin:] for row in out[1:-1] if set(row[margin:]) - {*" .:*#"}).replace(" ", "") == text.replace(
        " ", ""
    )


def test_colours(network, tmp_path, monkeypatch):
    cfg, weights, _ = network
    line = ["score", cfg, weights, tmp_path / "text.txt"]
    coloured = done(*line, "--color", "always").decode()
    assert "\033[31m" in coloured or "\033[1;37;41m" in coloured
    plain = re.sub(r"\033\[[\d;]*m", "", coloured)
    assert "\x1b" not in plain and r"last\x1b line" in plain and "Füße, 漢字" in plain
    assert "\033[" not in done(*line).decode(), "this is no terminal"
    assert done(*line, "--color", "never") == done(*line)


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal")
@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_on_a_terminal_unless_no_color(network, tmp_path, no_colour):
    import pty

    cfg, weights, _ = network
    master, slave = pty.openpty()
    variables = {**environment(), "TERM": "xterm", **({"NO_COLOR": "1"} if no_colour else {})}
    line = [sys.executable, "-m", "pydarknet", "score", cfg, weights, tmp_path / "text.txt"]
    subprocess.run(line, stdout=slave, stdin=slave, stderr=subprocess.PIPE, env=variables, check=True)
    os.close(slave)
    shown = os.read(master, 100_000)
    os.close(master)
    assert (b"\033[" in shown) is not no_colour


class Page(HTMLParser):
    """Checks that elements close, and gathers text and attributes."""

    def __init__(self, text):
        super().__init__()
        self.words, self.attributes, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_in_itself(network, tmp_path):
    cfg, weights, _ = network
    (tmp_path / "text.txt").write_text("<script>alert('x')</script> & more\n" + TEXT, newline="")
    assert done("score", cfg, weights, tmp_path / "text.txt", "--html", tmp_path / "page.html").startswith(b"Saved ")
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "<script>alert('x')</script> & more" in "".join(page.words)
    assert "Füße, 漢字" in "".join(page.words) and "\x1b" not in text
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert links and all(link.startswith("#L") for link in links), "a page that opens from disk requests nothing"
    assert {link[1:] for link in links} <= {value for name, value in page.attributes if name == "id"}
    assert "default-src 'none'" in text
    found = json.loads(done("score", cfg, weights, tmp_path / "text.txt", "--json"))
    assert f"{found['bits']:.1f} bits" in "".join(page.words)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
def test_a_browser_shows_the_page_without_complaint(network, tmp_path):
    cfg, weights, _ = network
    done("score", cfg, weights, tmp_path / "text.txt", "--html", tmp_path / "page.html")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    result = subprocess.run(
        ["chromium", *options, "--dump-dom", (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=90
    )
    assert "Füße, 漢字" in "".join(Page(result.stdout).words)
    assert "CONSOLE" not in result.stderr, result.stderr


def test_what_is_refused(network, tmp_path):
    cfg, weights, _ = network
    before = (tmp_path / "text.txt").read_bytes()
    result = run("score", cfg, weights, tmp_path / "text.txt", "--html", tmp_path / "text.txt")
    assert (result.code, result.out) == (1, b"") and (tmp_path / "text.txt").read_bytes() == before
    assert run("score", cfg, weights, tmp_path / "text.txt", "--html", "x", "--json").code == 2
    assert run("score", cfg, weights).code == 2
    for stdin, symbols in ((b"", "0 symbols"), (b"x", "1 symbol")):
        result = run("score", cfg, weights, "-", stdin=stdin)
        assert (result.code, result.out) == (1, b"")
        assert result.err == f"pydarknet: standard input: {symbols}: nothing to predict; give at least two\n"
    result = run("score", cfg, weights, tmp_path / "text.txt", "--html", tmp_path / "no" / "page.html")
    assert result.code == 1 and "cannot write the page: No such file" in result.err
    result = run("score", cfg, weights, tmp_path)
    assert result.code == 1 and "cannot read this text: Is a directory" in result.err


def test_bytes_that_are_no_characters_are_shown_as_escapes(network, tmp_path):
    cfg, weights, net = network
    data = b"caf\xe9 \xff\xe6\xbc\xa2"
    (tmp_path / "latin.txt").write_bytes(data)
    pairs = json.loads(done("score", cfg, weights, tmp_path / "latin.txt", "--json"))["lines"][0]["characters"]
    assert [character for character, _ in pairs] == ["c", "a", "f", r"\xe9", " ", r"\xff", "漢"]
    costs = [0, *bits_of(net, data)]
    assert [bits for _, bits in pairs] == pytest.approx([*costs[:6], sum(costs[6:])], abs=2e-3)


def test_planted_mistakes_are_found(tmp_path):
    """A network that has learned some lines by heart is surprised where they are changed."""
    lines = [
        f"the {a} {b} went to the {c}" for a in ("old", "red", "small") for b in ("fox", "king") for c in ("river", "castle")
    ]
    write_cfg(
        tmp_path,
        LAYERS.replace("64", "256").replace("7", "48"),
        inputs=256,
        max_batches=500,
        batch=16,
        time_steps=25,
        clip_norm=1,
    )
    (tmp_path / "train.txt").write_text("".join(line + "\n" for line in np.random.default_rng(0).choice(lines, 500)))
    done("train", tmp_path / "tiny.cfg", tmp_path / "train.txt", "--backup", tmp_path, "-srand", 1)
    text = list(np.random.default_rng(1).choice(lines, 60))
    planted = {7: ("went", "wetn"), 23: ("the ", "teh "), 41: ("to ", "too ")}
    for number, (right, wrong) in planted.items():
        text[number - 1] = text[number - 1].replace(right, wrong, 1)
    (tmp_path / "text.txt").write_text("".join(line + "\n" for line in text))
    found = json.loads(
        done("score", tmp_path / "tiny.cfg", tmp_path / "tiny_final.weights", tmp_path / "text.txt", "--top", 3, "--json")
    )
    assert {line["line"] for line in found["lines"]} == {*planted}
