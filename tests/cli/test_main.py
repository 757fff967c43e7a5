"""The command line as a whole: help, exit codes, pipes and signals."""

import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import done, make_network, run
from runs import start

import pydarknet.__main__
from pydarknet import __version__
from pydarknet.cli import COMMANDS

PYDARKNET = [sys.executable, "-m", "pydarknet"]
posix = pytest.mark.skipif(os.name != "posix", reason="needs pipes and signals")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command):
    text = done(command, "--help").decode()
    assert f"Example: pydarknet {command} " in text
    assert done(command, "-h").decode() == text


def test_version_and_help_wait_for_no_numpy():
    code = (
        "import sys\nfrom pydarknet.cli import main\nmain(['--version'])\nprint('numpy' in sys.modules, 'tqdm' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == f"pydarknet {__version__}\nFalse False\n"


def test_generate_waits_for_no_progress_bar():
    code = "import sys\nimport pydarknet.cli.generate\nprint('tqdm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["generate"],
        ["generate", "a"],
        ["generate", "a", "b", "-len", "x"],
        ["valid", "a", "b", "--nothing"],
        ["average", "a", "b"],
        ["rnn", "nothing"],
        [],
        ["rnn"],
    ],
)
def test_a_line_that_cannot_be_understood_is_exit_code_2(arguments):
    result = run(*arguments)
    assert (result.code, result.out) == (2, b"") and "Usage: pydarknet" in result.err, result


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_command_that_a_signal_ends_leaves_nothing_half_written(tmp_path, number, code):
    cfg, weights, _ = make_network(tmp_path)
    words = "valid", cfg, weights, "--per-character", tmp_path / "each.txt"
    process = start(*words, stdin=subprocess.PIPE)
    process.stdin.write("text" * 5000)
    process.stdin.flush()
    until = time.monotonic() + 30
    while not [*tmp_path.glob(".pydarknet-*")] and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (code, "pydarknet: interrupted")
    assert {*tmp_path.iterdir()} == {cfg, weights}


def test_an_error_is_one_line_and_exit_code_1(tmp_path):
    result = run("generate", tmp_path / "none.cfg", "none.weights")
    assert result.code == 1 and result.out == b""
    assert result.err.startswith("pydarknet: ") and result.err.count("\n") == 1 and "none" in result.err, result.err


def test_an_error_with_a_click_that_has_no_error_for_help(tmp_path, monkeypatch):
    """click before 8.2."""
    monkeypatch.delattr("click.exceptions.NoArgsIsHelpError", raising=False)
    assert run("ops", tmp_path / "none.cfg").code == 1


def test_warnings_are_lines_on_standard_error(tmp_path):
    cfg, *_ = make_network(tmp_path)
    cfg.write_text(cfg.read_text().replace("output=6", "output=6\noutptu=3"))
    result = run("ops", cfg)
    assert result.code == 0
    assert result.err.startswith(f"pydarknet: warning: {cfg}:5: [lstm] Unused field"), result.err


@posix
def test_a_closed_pipe_ends_it_quietly(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    process = start("generate", cfg, weights, "-len", 10**7, "-seed", "abcdefghij", text=False)
    assert process.stdout.read(10) == b"abcdefghij"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141
    process.stderr.close()


@posix
def test_a_full_disk_is_one_line(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    cfg, weights, _ = make_network(tmp_path)
    with open("/dev/full", "wb") as full:
        result = subprocess.run([*PYDARKNET, "generate", cfg, weights], stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr == b"pydarknet: cannot write the output: No space left on device\n"


def test_ctrl_c_while_modules_are_imported(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("pydarknet.cli.main", interrupted)
    with pytest.raises(SystemExit, match="^130$"):
        pydarknet.__main__.run()
    assert capsys.readouterr().err == "pydarknet: interrupted\n"


@posix
def test_ctrl_c_is_exit_code_130(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    with open(tmp_path / "out", "wb") as out:
        process = start("generate", cfg, weights, "-len", 10**8, "-seed", "A" * 100, stdout=out)
        until = time.monotonic() + 30
        while os.path.getsize(tmp_path / "out") == 0 and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.strip() == "pydarknet: interrupted"
    assert (tmp_path / "out").read_bytes().startswith(b"A" * 100)
