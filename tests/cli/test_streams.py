"""Standard input, output and error that are closed, full, gone or of a narrow encoding: never a traceback."""

import importlib.util
import io
import os
import shlex
import subprocess
import sys

import pytest
from command_line import make_network, run
from runs import environment, write_cfg, write_text

from pydarknet.cli import COMMANDS, cli, main, options
from pydarknet.cli import look as look_module

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")

LINES = {  # of every command: words, and whether it writes to standard output
    "corpus": "stdlib out.txt --max-bytes 5000",
    "new": "new.cfg --text text.bin --minutes 1e-1 --overwrite",
    "train": "tiny.cfg text.bin",
    "generate": "net.cfg net.weights -len 20",
    "generatetactic": "net.cfg net.weights proof.txt -len 20",
    "valid": "net.cfg net.weights proof.txt",
    "validtactic": "net.cfg net.weights proof.txt",
    "vec": "net.cfg net.weights proof.txt",
    "compose": "net.cfg net.weights -seed a",
    "look": "net.cfg net.weights proof.txt",
    "plot": "run.jsonl",
    "report": "run.jsonl -o page.html",
    "score": "net.cfg net.weights proof.txt",
    "average": "net.cfg out.weights net.weights net.weights",
    "convert": "net.cfg net.weights out.weights --to alexeyab",
    "denormalize": "net.cfg net.weights out.weights",
    "ops": "net.cfg",
    "partial": "net.cfg net.weights out.weights 1",
    "statistics": "net.cfg net.weights",
    "export": "net.cfg net.weights out.safetensors --overwrite",
    "import": "model.safetensors out.cfg out.weights",
    "rnn": "generate net.cfg net.weights -len 20",
    "--help": "",
    "--version": "",
}
READS_INPUT = ("generatetactic", "valid", "validtactic", "vec")


def test_no_command_is_forgotten():
    assert {*COMMANDS} <= {*LINES}


@pytest.fixture
def folder(tmp_path):
    make_network(tmp_path)
    write_cfg(tmp_path, max_batches=2), write_text(tmp_path)
    (tmp_path / "proof.txt").write_bytes(b"goal >>intros.\n")
    (tmp_path / "run.jsonl").write_text('{"iteration": 1, "loss": 2.5}\n')
    if importlib.util.find_spec("safetensors"):
        run("export", *(tmp_path / name for name in ("net.cfg", "net.weights", "model.safetensors")))
    return tmp_path


def shell(folder, line, **variables):
    """Run ``pydarknet LINE``, a shell's; the CompletedProcess, without a traceback."""
    if "safetensors" in line:
        pytest.importorskip("safetensors", reason="needs safetensors: pip install '.[safetensors]'")
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
    assert result.returncode == 1
    assert result.stderr.endswith(b"pydarknet: cannot write the output: Bad file descriptor\n"), result
    if command == "train":
        assert (folder / "backup" / "tiny_final.weights").exists()


@pytest.mark.parametrize("command", LINES)
def test_closed_standard_error(folder, command):
    result = shell(folder, f"{command} {LINES[command]} 2>&-")
    assert result.returncode == 0 and result.stdout


@pytest.mark.parametrize("command", LINES)
def test_all_three_closed(folder, command):
    assert shell(folder, f"{command} {LINES[command]} <&- >&- 2>&-").returncode == 1


@pytest.mark.parametrize("command", READS_INPUT)
def test_standard_input_that_cannot_be_read(folder, command):
    for source, why in (("<&-", b"Bad file descriptor"), ("</proc/self/mem", b"Input/output error")):
        if "proc" in source and not os.path.exists(source[1:]):
            continue
        result = shell(folder, f"{command} net.cfg net.weights {source}")
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr == b"pydarknet: standard input: cannot read this text: " + why + b"\n"


READS_WHOLE = {  # commands that hold a text in memory: what stands before its name, and how many bytes they take
    "generate": ("net.cfg net.weights --seed-file", 16 << 20),
    "generatetactic": ("net.cfg net.weights", 16 << 20),
    "look": ("net.cfg net.weights", 4 << 20),
    "score": ("net.cfg net.weights", 64 << 20),
}


@pytest.mark.parametrize(
    "line", [*(f"{command} {words}" for command, (words, _) in READS_WHOLE.items()), "vec net.cfg net.weights"]
)
def test_a_device_is_no_text(folder, line):
    result = shell(folder, f"{line} /dev/zero")
    assert (result.returncode, result.stdout) == (1, b"")
    says = "pydarknet: /dev/zero: cannot read this text: a device, not a regular file; save the text to a file first\n"
    assert result.stderr.decode() == says


@pytest.mark.parametrize("source", ["- < /dev/zero", "/dev/stdin < /dev/zero", "fifo"])
@pytest.mark.parametrize("command", READS_WHOLE)
def test_a_text_without_an_end_is_refused(folder, command, source):
    words, longest = READS_WHOLE[command]
    os.mkfifo(folder / "fifo")
    with subprocess.Popen(["sh", "-c", "exec cat /dev/zero > fifo"], cwd=folder) as endless:
        try:
            result = shell(folder, f"{command} {words} {source}")
        finally:
            endless.kill()
    name, what = "standard input" if source[0] == "-" else source.split()[0], "seed" if command == "generate" else "text"
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode() == f"pydarknet: {name}: more than {longest:,} bytes: give a shorter {what}\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("valid net.cfg net.weights --streams 2", "standard input: more than 67,108,864 bytes: give a shorter text\n"),
        (
            "vec net.cfg net.weights",
            "standard input: a line of more than 16,777,216 bytes: vec prints a vector for each line; give shorter ones\n",
        ),
    ],
)
def test_standard_input_without_an_end(folder, line, says):
    result = shell(folder, f"{line} < /dev/zero")
    assert (result.returncode, result.stdout, result.stderr.decode()) == (1, b"", f"pydarknet: {says}")


def test_a_text_from_a_pipe_or_standard_input_by_name_is_read(folder):
    expected = shell(folder, "score net.cfg net.weights proof.txt").stdout
    for line in ("score net.cfg net.weights /dev/stdin < proof.txt", "score net.cfg net.weights - < proof.txt"):
        assert shell(folder, line).stdout == expected
    os.mkfifo(folder / "fifo")
    with subprocess.Popen(["sh", "-c", "exec cat proof.txt > fifo"], cwd=folder):
        assert shell(folder, "score net.cfg net.weights fifo").stdout == expected
    for source in ("/dev/stdin < /dev/null", "/dev/null < proof.txt"):
        assert shell(folder, f"generate net.cfg net.weights -len 0 --seed-file {source}").returncode == 0


@pytest.mark.parametrize("more", [0, 1])
def test_a_text_of_the_greatest_length_is_read(folder, monkeypatch, more):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(look_module, "LONGEST", len("goal >>intros.\n") - more)
    result = run("look", "net.cfg", "net.weights", "proof.txt")
    assert result.code == more and ("proof.txt: more than 14 bytes" in result.err) == bool(more)


@pytest.mark.parametrize("command", READS_INPUT)
@pytest.mark.parametrize("source", ["proof.txt", "- < proof.txt"])
def test_the_output_is_not_appended_to_what_is_read(folder, command, source):
    if command in ("valid", "validtactic") and source == "proof.txt":
        source = "< proof.txt"  # a file by name they have read whole before they write
    result = shell(folder, f"{command} net.cfg net.weights {source} >> proof.txt")
    assert result.returncode == 1 and b": the output goes to the file that is read" in result.stderr
    assert (folder / "proof.txt").read_bytes() == b"goal >>intros.\n"


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
    if command not in ("train", "new", "corpus", "import", "ops", "plot", "report", "--help", "--version"):
        result = shell(folder, shlex.join([command, *words]), **variables)
        assert result.returncode == 1 and b"net.weights" in result.stderr, result


def test_an_encoding_without_escapes_becomes_utf_8(folder):
    assert b"Floating Point Operations: " in shell(folder, "ops tiny.cfg", PYTHONIOENCODING="idna").stdout
    result = shell(folder, "ops ä.cfg", PYTHONIOENCODING="idna")
    assert result.stderr.decode().startswith("pydarknet: ä.cfg: cannot be read") and result.stderr.count(b"\n") == 1


def test_python_warnings_are_lines_even_where_they_are_made_errors(folder):
    (folder / "short.bin").write_bytes(b"\1\2\3")
    for arguments in ("", "--processes 2"):
        result = shell(folder, f"train tiny.cfg short.bin --backup b{arguments[-1:]} {arguments}", PYTHONWARNINGS="error")
        assert result.returncode == 0
        assert result.stderr.startswith(b"pydarknet: warning: the text has 3 symbols"), result


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 3 GiB")])
@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("train net.cfg", "a smaller batch, time_steps or output needs less"),
        ("-i 0 train net.cfg", "a smaller batch, time_steps or output needs less"),
        ("rnn train net.cfg", "a smaller batch, time_steps or output needs less"),
        ("score net.cfg net.weights train", "a shorter text or a smaller network needs less"),
        ("rnn generate net.cfg -seed train", "a shorter text or a smaller network needs less"),
        ("ops net.cfg", "a shorter text or a smaller network needs less"),
    ],
)
def test_out_of_memory_is_a_line_that_says_what_to_do(monkeypatch, error, line, advice):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "invoke", fail)
    result = run(*line.split())
    assert result.code == 1 and result.err.startswith("pydarknet: out of memory") and result.err.count("\n") == 1
    assert str(error) in result.err and result.err.endswith(f"; {advice}\n")


def on_terminal(folder, line):
    """What ``pydarknet LINE`` shows on a terminal."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        f"{shlex.quote(sys.executable)} -m pydarknet {line}",
        shell=True,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:  # EIO: all who could write have ended
            break
        if not block:
            break
        shown += block
    os.close(master)
    assert process.wait(timeout=60) == 0, shown
    return shown.replace(b"\r\n", b"\n")


def test_a_terminal_is_sent_no_control_characters(folder):
    (folder / "escape.txt").write_bytes(b"\x1b[2J\x9b\tf\xc3\xbc\xff\xe2\x80\xae\xe2\x81\xa6\xe2\x80\xa8\n")
    for line in ("vec net.cfg net.weights escape.txt", "generate net.cfg net.weights -len 0 --bytes --seed-file escape.txt"):
        if line.startswith("vec"):
            assert on_terminal(folder, line).startswith(rb"\x1b[2J\x9bf" + "ü".encode() + rb"\xff\u202e\u2066\u2028,")
        raw = on_terminal(folder, line + (" --bytes" if line.startswith("vec") else ""))
        assert raw.startswith(b"\x1b[2J\x9b")
    assert b"\x1b[2J" in shell(folder, "vec net.cfg net.weights escape.txt").stdout, "a pipe gets the bytes"
    seen = on_terminal(folder, "generatetactic net.cfg net.weights proof.txt -len 300 -srand 1 -temp 3")
    assert not [byte for byte in seen if byte < 32 and byte not in b"\t\n"] and b"\\x" in seen


@pytest.mark.parametrize(
    "line", ["valid {} {} long.txt", "valid {} {} -", "validtactic {} {} long.txt", "score {} {} long.txt --top 1"]
)
def test_progress_is_shown_on_a_terminal_when_it_takes_long(folder, monkeypatch, line):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.chdir(folder)
    (folder / "long.txt").write_bytes(b"some text >>and more. \n" * 2000)
    words = line.format("net.cfg", "net.weights").split()
    shown = {}
    for slow in (0, 60):
        monkeypatch.setattr(options, "SLOW", slow)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "long.txt").read_bytes())))
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert main(words) == 0
        shown[slow] = sys.stderr.getvalue()
    assert ("characters" if "-" in words else "%|") in shown[0] and shown[60] == ""
