"""Standard input, output and error that are closed, full, gone or of a narrow encoding: never a traceback."""

import os
import shlex
import subprocess
import sys

import pytest
from command_line import make_network, run
from runs import environment, write_cfg, write_text

from pydarknet.cli import COMMANDS, cli

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")

LINES = {  # of every command: words, and whether it writes to standard output
    "train": "tiny.cfg text.bin",
    "generate": "net.cfg net.weights -len 20",
    "generatetactic": "net.cfg net.weights proof.txt -len 20",
    "valid": "net.cfg net.weights proof.txt",
    "validtactic": "net.cfg net.weights proof.txt",
    "vec": "net.cfg net.weights proof.txt",
    "score": "net.cfg net.weights proof.txt",
    "average": "net.cfg out.weights net.weights net.weights",
    "convert": "net.cfg net.weights out.weights --to alexeyab",
    "denormalize": "net.cfg net.weights out.weights",
    "ops": "net.cfg",
    "partial": "net.cfg net.weights out.weights 1",
    "statistics": "net.cfg net.weights",
    "rnn": "generate net.cfg net.weights -len 20",
    "--help": "",
    "--version": "",
}
WRITES_NO_OUTPUT = {"average", "convert", "denormalize", "partial"}
READS_INPUT = ("generatetactic", "valid", "validtactic", "vec")


def test_no_command_is_forgotten():
    assert {*COMMANDS} <= {*LINES}


@pytest.fixture
def folder(tmp_path):
    make_network(tmp_path)
    write_cfg(tmp_path, max_batches=2), write_text(tmp_path)
    (tmp_path / "proof.txt").write_bytes(b"goal >>intros.\n")
    return tmp_path


def shell(folder, line, **variables):
    """Run ``pydarknet LINE``, a shell's; the CompletedProcess, without a traceback."""
    result = subprocess.run(
        f"{shlex.quote(sys.executable)} -m pydarknet {line}",
        shell=True,
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        timeout=120,
    )
    assert b"Traceback" not in result.stderr + result.stdout and b"Exception ignored" not in result.stderr, result
    return result


@pytest.mark.parametrize("command", LINES)
def test_closed_standard_output(folder, command):
    result = shell(folder, f"{command} {LINES[command]} >&-")
    if command in WRITES_NO_OUTPUT:
        assert (result.returncode, result.stderr) == (0, b"")
    else:
        assert result.returncode == 1
        assert result.stderr.endswith(b"pydarknet: cannot write the output: Bad file descriptor\n"), result
    if command == "train":
        assert (folder / "backup" / "tiny_final.weights").exists()


@pytest.mark.parametrize("command", LINES)
def test_closed_standard_error(folder, command):
    result = shell(folder, f"{command} {LINES[command]} 2>&-")
    assert result.returncode == 0 and (result.stdout == b"") is (command in WRITES_NO_OUTPUT)


@pytest.mark.parametrize("command", LINES)
def test_all_three_closed(folder, command):
    assert shell(folder, f"{command} {LINES[command]} <&- >&- 2>&-").returncode == (0 if command in WRITES_NO_OUTPUT else 1)


@pytest.mark.parametrize("command", READS_INPUT)
def test_standard_input_that_cannot_be_read(folder, command):
    for source, why in (("<&-", b"Bad file descriptor"), ("</proc/self/mem", b"Input/output error")):
        if "proc" in source and not os.path.exists(source[1:]):
            continue
        result = shell(folder, f"{command} net.cfg net.weights {source}")
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr == b"pydarknet: standard input: cannot read this text: " + why + b"\n"


@pytest.mark.parametrize("line", ["generate none.cfg x", "ops net.cfg", "train net.cfg none", "vlaid", "--help"])
def test_a_closed_or_full_stream_does_not_hide_the_exit_code(folder, line):
    (folder / "net.cfg").write_text((folder / "net.cfg").read_text() + "unknown=1\n")  # a warning
    expected = shell(folder, line).returncode
    assert shell(folder, line + " 2>&-").returncode == expected
    if os.path.exists("/dev/full"):
        assert shell(folder, line + " 2>/dev/full").returncode == expected
        assert shell(folder, line + " >/dev/full").returncode == (expected or 1)


@pytest.mark.parametrize("command", LINES)
def test_names_that_the_encoding_has_no_room_for(folder, command):
    variables = dict(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", PYTHONIOENCODING="latin-1", PYTHONWARNINGS="error")
    for path in [*folder.iterdir()]:
        path.rename(folder / ("漢字" + path.name))
    words = [("漢字" if "." in word and not word.startswith("-") else "") + word for word in LINES[command].split()]
    result = shell(folder, shlex.join([command, *words]), **variables)
    assert result.returncode == 0, result
    (folder / "漢字net.weights").write_bytes(b"")
    if command not in ("train", "ops", "--help", "--version"):
        result = shell(folder, shlex.join([command, *words]), **variables)
        assert result.returncode == 1 and b"net.weights" in result.stderr, result


def test_python_warnings_are_lines_even_where_they_are_made_errors(folder):
    (folder / "short.bin").write_bytes(b"\1\2\3")
    for arguments in ("", "--processes 2"):
        result = shell(folder, f"train tiny.cfg short.bin --backup b{arguments[-1:]} {arguments}", PYTHONWARNINGS="error")
        assert result.returncode == 0
        assert result.stderr.startswith(b"pydarknet: warning: the text has 3 symbols"), result


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 3 GiB")])
def test_out_of_memory_is_a_line_that_says_what_to_do(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "invoke", fail)
    result = run("ops", "x")
    assert result.code == 1 and result.err.startswith("pydarknet: out of memory") and result.err.count("\n") == 1
    assert str(error) in result.err and "a smaller batch" in result.err
