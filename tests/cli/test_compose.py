"""``compose``: lines in, continuations and a text out."""

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from command_line import make_network, run
from runs import heard_signals

from pydarknet.cli.compose import proposals
from pydarknet.errors import InputError
from pydarknet.inference.composition import Composition


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    make_network(tmp_path)
    return tmp_path


def compose(*lines, options=("-srand", 1, "-len", 30)):
    return run("compose", "net.cfg", "net.weights", *options, stdin="".join(f"{line}\n" for line in lines).encode())


def test_a_text_is_written_in_turn_and_saved(here):
    result = compose("To be", "2", "/line", "or not", "/undo", "/undo", "/save text.txt", "/quit")
    assert result.code == 0 and result.err == ""
    text = (here / "text.txt").read_text()
    assert text.startswith("To be") and len(text) > len("To be")
    assert result.out.decode().rstrip().endswith("Saved text.txt"), "what is saved is not printed again"
    again = compose("To be", "2", "/quit")
    assert again.out.decode().endswith(text + "\n") or not text.isprintable(), "what is not saved is printed, and is the same"


def test_nothing_is_overwritten_but_its_own(here):
    (here / "mine.txt").write_text("mine")
    result = compose("a", "/save mine.txt", "/save own.txt", "b", "/save other.txt", "/save own.txt", "/quit")
    assert result.err.count("already exists") == 1
    assert "mine.txt: already exists: save under another name" in result.err
    assert (here / "mine.txt").read_text() == "mine" and (here / "own.txt").read_text() == "ab"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["1"], "there is no continuation 1 yet"),
        (["a", "9"], "there is no continuation 9: give 1 to 3"),
        (["a", "1" * 5000], "there is no continuation 111"),
        (["a", "1000000001"], "there is no continuation 1000000001: give 1 to 3"),
        (["/undo"], "there is nothing to take back"),
        (["/what"], "/what is none of /undo"),
        (["/temp warm"], "/temp needs a number, such as /temp .7; it is 0.7"),
        (["/temp -1"], "temperature is -1; it must be a number from 0"),
        (["/save"], "/save needs a name"),
        (["/save no/such/folder.txt"], "no/such/folder.txt: cannot save the text"),
    ],
)
def test_mistakes_end_nothing(here, lines, says):
    result = compose(*lines, "x", "/save out.txt")
    assert result.code == 0 and says in result.err and result.err.count("\n") == 1
    assert (here / "out.txt").read_text().endswith("x")


def test_a_slash_and_a_digit_can_be_written(here):
    compose("//path", " 1", "/save out.txt")
    assert (here / "out.txt").read_text() == "/path 1"


@pytest.mark.parametrize("line", ["²", "x²", "①", "١"])
def test_digits_of_other_kinds_are_text(here, line):
    compose("a", line, "/save out.txt")
    assert (here / "out.txt").read_text() == "a" + line


def test_zeros_before_a_number_change_nothing(here):
    compose("a", "1", "/save one.txt")
    compose("a", "0" * 5000 + "1", "/save other.txt")
    assert (here / "one.txt").read_text() == (here / "other.txt").read_text() != "a"


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_bytes_that_are_no_text_are_a_mistake(here, encoding):
    words = [sys.executable, "-m", "pydarknet", "compose", "net.cfg", "net.weights", "-len", "5"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": encoding}
    result = subprocess.run(words, input=b"a\n\xff\nb\n/save out.txt\n", capture_output=True, env=environment, timeout=60)
    assert result.returncode == 0 and b"none for '\\udcff'" in result.stderr and result.stderr.count(b"\n") == 1
    assert (here / "out.txt").read_text() == "ab"


def test_a_line_without_an_end_is_not_read_whole(here):
    result = run("compose", "net.cfg", "net.weights", stdin=b"a\n" + bytes(3 << 20))
    assert (
        result.code == 1
        and result.err == "pydarknet: standard input: a line of more than 1,048,576 characters: give shorter ones\n"
    )
    assert result.out.endswith(b"a\n"), "the text is not lost"


def test_standard_input_that_cannot_be_read(here):
    words = f"{sys.executable} -m pydarknet compose net.cfg net.weights <&-"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(words, shell=True, capture_output=True, env=environment, timeout=60)
    assert result.returncode == 1
    assert result.stderr == b"pydarknet: standard input: cannot read this text: Bad file descriptor\n"


def test_a_control_out_of_its_range_is_told_at_once(here):
    result = compose(options=("-temp", "-1"))
    assert result.code == 2 and "Invalid value for '-temp'" in result.err and result.out == b""


def test_continuations_are_those_of_the_whole_text(tmp_path):
    """The states that are kept are those of reading all of it; taking back leads to the very state before."""
    _, _, network = make_network(tmp_path, layer="gru", options="tanh=1")

    def continuations(*pieces, undone=()):
        composition = Composition(network, 1)
        for piece in pieces:
            composition.add(piece)
        for piece in undone:
            composition.add(piece)
        for _ in undone:
            assert composition.undo()
        assert composition.text == "".join(pieces)
        return composition.continuations(2, 40)

    assert (
        continuations("für ", "Élise", ".") == continuations("für Élise.") == continuations("für Élise.", undone=["x", "é y"])
    )
    assert continuations("für Élise.") != continuations("für Elise.")
    first, second = continuations("a")
    assert first != second


def test_a_symbol_that_the_network_has_not(tmp_path):
    text = "[net]\ninputs=128\n[{layer}]\noutput=6\n{options}[connected]\noutput=128\nactivation=linear\n[softmax]\n"
    _, _, network = make_network(tmp_path, text=text)
    composition = Composition(network, 1)
    with pytest.raises(InputError, match="128 symbols, and none for 'é'"):
        composition.add("é")
    assert composition.text == ""


def test_side_by_side_where_there_is_room():
    texts = ["one two three four five six seven", "eins\nzwei", "漢字" * 12]

    def plain(text, style):
        return text

    wide, narrow = list(proposals(texts, 119, plain)), list(proposals(texts, 60, plain))
    assert re.match(r"1  one two .* {3}2  eins +3  漢字", wide[0]) and re.match(r" +zwei", wide[1])
    assert [line[:3].strip() for line in narrow if line[0] != " "] == ["1", "2", "3"]


@pytest.mark.parametrize(("end", "code"), [(b"\x04", 0), (None, 130)], ids=["Ctrl-D", "Ctrl-C"])
def test_in_a_terminal_without_prompt_toolkit(here, end, code):
    (here / "prompt_toolkit.py").write_text("raise ImportError\n")
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "pydarknet", "compose", "net.cfg", "net.weights", "-srand", "1", "-len", "20"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path]), "TERM": "dumb"}
    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, cwd=here, env=environment, preexec_fn=heard_signals
    )
    os.close(slave)
    shown = b""
    try:
        for typed in (b"Hello\r", end):
            while not shown.endswith(b"> "):
                shown += os.read(master, 4096)
            if typed:
                os.write(master, typed)
            while (
                not typed and process.poll() is None
            ):  # one that comes just before Python reads is not heard until it has read
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2)
            shown += b"|"
        while block := os.read(master, 4096):
            shown += block
    except OSError:
        pass
    os.close(master)
    assert process.wait(60) == code
    assert b"pip install prompt_toolkit" in shown and b"\x1b[36m1\x1b[0m" in shown and b"Traceback" not in shown
    assert shown.rstrip().endswith(b"Hello" if end else b"Hello\r\n\r\npydarknet: interrupted")
