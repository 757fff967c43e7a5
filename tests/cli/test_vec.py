"""``vec``: a line of text, a line of numbers."""

import pytest
from command_line import done, make_network, run

from pydarknet.inference.vec import line_vectors

LINES = b"first line\n\nbytes \xff\x00\t.\r\nno line end"


@pytest.mark.parametrize(("layer", "options"), [("lstm", ""), ("gru", ""), ("rnn", "")])
def test_each_line_becomes_a_line(tmp_path, layer, options):
    cfg, weights, network = make_network(tmp_path, layer, options)
    (tmp_path / "lines.txt").write_bytes(LINES)
    expected = b"".join(
        line + "".join(f",{x:g}" for x in vector.tolist()).encode() + b"\n"
        for line, vector in line_vectors(network, LINES.splitlines(keepends=True))
    )
    assert expected.startswith(b"firstline,") and expected.count(b"\n") == 4
    assert done("vec", cfg, weights, tmp_path / "lines.txt") == expected
    assert done("vec", cfg, weights, stdin=LINES) == expected
    assert done("rnn", "vec", cfg, weights, stdin=LINES) == expected


def test_options(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    default = done("vec", cfg, weights, stdin=b"x")
    assert (
        done("vec", cfg, weights, "-seed", "\n\n", stdin=b"x") == default != done("vec", cfg, weights, "-seed", "", stdin=b"x")
    )
    assert default.count(b",") == 6
    assert done("vec", cfg, weights, "--layer", 1, stdin=b"x").count(b",") == 256
    assert run("vec", cfg, weights, "--layer", 2, stdin=b"x").code == 1


def test_a_network_over_tokens_reads_no_lines(tmp_path):
    text = "[net]\ninputs=300\n[{layer}]\noutput=6\n{options}\n[connected]\noutput=300\n[softmax]\n"
    cfg, weights, _ = make_network(tmp_path, text=text)
    result = run("vec", cfg, weights, stdin=b"12 7\n")
    assert result.code == 1 and "the network has 300 symbols, which are tokens" in result.err and result.out == b""


def test_no_lines_no_output(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    assert done("vec", cfg, weights, stdin=b"") == b""


def test_lines_of_several_files(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    (tmp_path / "b.txt").write_bytes(b"three")
    expected = done("vec", cfg, weights, stdin=b"one\ntwo\nthree")
    assert done("vec", cfg, weights, tmp_path / "a.txt", tmp_path / "b.txt") == expected
    assert run("vec", cfg, weights, tmp_path / "a.txt", tmp_path / "none.txt").out == b"", (
        "nothing is written before all are open"
    )
    assert run("vec", cfg, weights, tmp_path / "a.txt", "-").code == 2
