"""Input that cannot be trained on: exit code 1, one line that names the cause, no traceback, nothing overwritten."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from runs import LAYERS, bytes_of, write_cfg
from runs import run as run_process

from pydarknet import load_network

HEADER = struct.pack("<3iQ", 0, 2, 0, 0)


@pytest.fixture
def here(here):
    """The folder with the results of a good run, in which the bad one then takes place."""
    assert run("train", "tiny.cfg", "text.bin", "--max-batches", 3, "--save-every", 2).code == 0
    return here


def refused(here, *arguments, says, cfg="tiny.cfg", warns=()):
    """Train with ``arguments`` and be told ``says``, in one line beside those that begin with ``warns``."""
    before = bytes_of(here / "backup")
    result = run("train", cfg, *arguments)
    assert result.code == 1 and result.out == b"", result
    told = [line for line in result.err.splitlines() if not line.startswith(tuple(warns) or "\0")]
    assert len(told) == 1 and told[-1].startswith("pydarknet: ") and says in told[-1], result.err
    assert bytes_of(here / "backup") == before


def test_the_same_from_a_shell(here):
    before = bytes_of(here / "backup")
    Path("empty").touch()
    for cfg, content, says in (
        ("tiny.cfg", "empty", "the text is empty"),
        ("none.cfg", "text.bin", "none.cfg: cannot be read"),
    ):
        result = run_process("train", cfg, content, cwd=here)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("pydarknet: ") and says in result.stderr and result.stderr.count("\n") == 1
    assert bytes_of(here / "backup") == before


# Texts


def test_an_empty_text(here):
    Path("empty").touch()
    refused(here, "empty", says="empty: the text is empty; give a text of at least two bytes")
    os.mkdir("folder")
    refused(here, "folder", says="folder: there is no text in this folder")
    refused(here, "-tokenized", "empty", says="empty: the text is empty")
    refused(here, "text.bin", "--valid", "empty", says="empty: the text is empty")


def test_one_character(here):
    Path("one").write_bytes(b"a")
    refused(here, "one", says="one: the text is only one byte: there is nothing to predict")
    refused(here, "text.bin", "--valid", "one", says="one: the text is only one byte")
    Path("token").write_text("7")
    refused(here, "-tokenized", "token", says="token: the text is only one token")


def test_a_text_shorter_than_a_window_is_a_warning(here):
    """Darknet wraps round it, and so do we; it is said, for it is seldom meant."""
    Path("short").write_bytes(b"\1\2\3")
    result = run("train", "tiny.cfg", "short", "--max-batches", 2)
    assert result.code == 0
    assert result.err.startswith(
        "pydarknet: warning: the text has 3 symbols, no more than time_steps=5: each window repeats it"
    )


def test_a_text_too_short_to_hold_a_part_out(here):
    Path("short").write_bytes(b"\1\2\3")
    refused(here, "short", "--valid-fraction", 0.1, says="cannot be split 0.9 to 0.1, as each part needs at least two")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1 2 x 4", "tokens.txt:1: 'x' is not a token (a whole number from 0 to 2147483647)"),
        ("1 2\n3 4.5", "tokens.txt:2: '4.5' is not a token"),
        ("1 2\n\n-3 4", "tokens.txt:3: '-3' is not a token"),
        ("1 99999999999 4", "tokens.txt:1: '99999999999' is not a token"),
        ("1 2 64 4", "tokens.txt: token 2: symbol 64 is out of range for a network of 64 inputs (0 to 63)"),
        ("\1\2", r"tokens.txt:1: '\x01\x02' is not a token"),
    ],
)
def test_tokens(here, content, says):
    Path("tokens.txt").write_text(content)
    refused(here, "-tokenized", "tokens.txt", says=says)


def test_symbols_beyond_the_inputs(here):
    Path("letters").write_bytes(bytes(500) + b"A")
    refused(here, "letters", says="letters: byte 500: symbol 65 is out of range for a network of 64 inputs (0 to 63); give")
    refused(here, "text.bin", "--valid", "letters", says="letters: byte 500: symbol 65 is out of range")


# Cfgs


@pytest.mark.parametrize(
    ("layers", "net", "says"),
    [
        (
            LAYERS.replace("output=64", "output=63"),
            {},
            "bad.cfg:16: [softmax] 63 outputs come in, but the network has inputs=64",
        ),
        (LAYERS.replace("[softmax]", ""), {}, "bad.cfg:13: [connected] the network must end in [softmax]"),
        (LAYERS.replace("[softmax]", "[cost]"), {}, "the network must end in [softmax]"),
        (LAYERS.replace("output=7", "output=2000000000"), {}, "bytes of memory, and"),
        (LAYERS, dict(time_steps=2147483647), "bad.cfg: training needs "),
        (LAYERS, dict(batch=2147483646), "bytes of memory, "),
        (LAYERS, dict(inputs=2147483647), "bytes of memory, and"),
        (LAYERS, dict(time_steps=2147483648), "bad.cfg:5: [net] time_steps='2147483648' is out of range"),
        (LAYERS, dict(batch=-4), "bad.cfg:3: [net] batch=-4 is too small: it must be at least 1"),
        (LAYERS, dict(batch=5), "batch=5 is not divisible by subdivisions=2"),
        (LAYERS, dict(learning_rate="fast"), "bad.cfg:6: [net] learning_rate='fast' is not a number"),
        (LAYERS, dict(policy="poly", max_batches=None), "max_batches is 0, which to Darknet means no training"),
        ("", {}, "the network must end in [softmax]"),
        ("[convolutional]", {}, "bad.cfg:10: [convolutional] is a Darknet layer not supported"),
    ],
)
def test_cfgs(here, layers, net, says):
    write_cfg(here, layers, "bad.cfg", **net)
    refused(here, "text.bin", cfg="bad.cfg", says=says)


def test_a_run_that_diverges_says_what_to_try(here):
    """With steps that blow the weights up: the good weights of the first run stay."""
    write_cfg(here, learning_rate=1e30)
    before = bytes_of(here / "backup")
    result = run("train", "tiny.cfg", "text.bin")
    last = result.err.splitlines()[-1]
    assert result.code == 1 and result.out == b""
    assert "the loss is nan: training has diverged" in last and "lower learning_rate" in last
    assert not [line for line in result.err.splitlines() if "Warning" in line or "warning" in line]
    assert bytes_of(here / "backup") == before


# Weights and checkpoints


def weights(*values):
    return HEADER + np.array(values, "<f4").tobytes()


def size():
    return load_network("tiny.cfg").parameters.values.size


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: b"", "bad.weights: too short: the header has 16 or 20 bytes, but the file ends at byte 0"),
        (lambda: HEADER, "bad.weights: too short: layer 0 [lstm]"),
        (lambda: HEADER[:13], "bad.weights: too short: the header has 20 bytes"),
        (lambda: b"\xff" * 5000, "bad.weights: version -1.-1.-1 (bytes 0 to 12) is impossible"),
        (lambda: weights(*[0] * (size() - 1)), "bad.weights: too short: layer 1 [connected] weights needs bytes"),
        (lambda: weights(*[0] * (size() + 1)), "bad.weights: too long: the layers of this cfg end at byte"),
        (lambda: weights(*[0] * 9, np.nan, *[0] * (size() - 10)), "holds nan at byte 56: not a finite number"),
        (lambda: b"Once upon a time " * 9, "bad.weights: is a text, not a weights file"),
        (lambda: b"<!DOCTYPE html>\n<html><body>404</body></html>", "bad.weights: is a saved web page, not a weights file"),
        (
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "is a git-lfs pointer, which stands for a file",
        ),
        (lambda: gzip.compress(b"x" * 100), "bad.weights: is compressed with gzip, not a weights file"),
        (lambda: b"PK\x03\x04" + bytes(99), "bad.weights: is a zip archive"),
    ],
)
def test_weights(here, content, says):
    Path("bad.weights").write_bytes(content())
    if "too long" in says and Path("bad.weights").stat().st_size < 4 * size():
        says = "bad.weights: "  # of whatever the text's first bytes say
    refused(here, "bad.weights", "text.bin", says=says)


def test_weights_that_are_text(here):
    Path("bad.weights").write_text("[net]\ninputs=256\n" * 99)
    refused(here, "bad.weights", "text.bin", says="bad.weights: is a Darknet cfg, not a weights file")


def test_checkpoints(here):
    refused(here, "none.checkpoint", "text.bin", says="none.checkpoint: cannot read the checkpoint: No such file")
    Path("bad.checkpoint").write_bytes(Path("backup/tiny_final.weights").read_bytes())
    refused(
        here, "bad.checkpoint", "text.bin", says="bad.checkpoint: is no checkpoint of pydarknet: it is a Darknet weights file"
    )
    good = Path("backup/tiny.checkpoint").read_bytes()
    Path("bad.checkpoint").write_bytes(good[:-40])
    refused(here, "bad.checkpoint", "text.bin", says="bad.checkpoint: the checkpoint is damaged: it should have")
    for name in ("tiny.checkpoint", "tiny.checkpoint.previous"):
        Path("backup", name).write_bytes(good[:500])
    refused(
        here,
        "text.bin",
        "--resume",
        says="previous: the checkpoint is damaged",
        warns=["pydarknet: warning: backup/tiny.checkpoint:"],
    )


# Folders where files are expected, and what cannot be read


def test_folders_for_files(here):
    os.mkdir("folder.weights"), os.mkdir("folder.checkpoint")
    os.mkdir("folder.cfg")
    refused(here, "text.bin", cfg="folder.cfg", says="folder.cfg: is a directory: give a cfg file inside it")
    refused(here, "folder.weights", "text.bin", says="folder.weights: cannot read the weights: a folder, pipe or device")
    refused(here, "--weights", "backup", "text.bin", says="backup: cannot read the weights: a folder")
    refused(here, "folder.checkpoint", "text.bin", says="folder.checkpoint: cannot read the checkpoint: a folder")
    refused(
        here, "text.bin", "--log", "backup", says="backup: cannot write the log: Is a directory", warns=["pydarknet: backup/"]
    )
    refused(here, "text.bin", "--backup", "text.bin", says="text.bin: cannot save weights in this folder: File exists")
    assert len(Path("text.bin").read_bytes()) == 3000


def test_a_folder_in_the_place_of_a_backup(here):
    os.mkdir("other"), os.mkdir("other/tiny.backup"), os.mkdir("other/tiny_final.weights")
    result = run("train", "tiny.cfg", "text.bin", "--backup", "other")
    assert result.code == 1
    assert result.err.startswith("pydarknet: other/tiny.backup: cannot be written: Is a directory; choose another folder")


def test_missing_files(here):
    refused(here, "text.bin", cfg="none.cfg", says="none.cfg: cannot be read (No such file or directory)")
    refused(here, "none.txt", says="none.txt: cannot read this text: No such file or directory")
    refused(here, "none.weights", "text.bin", says="none.weights: cannot read the weights: No such file or directory")
    refused(here, "text.bin", "--valid", "none.txt", says="none.txt: cannot read this text")
    refused(
        here,
        "text.bin",
        "--log",
        "none/log",
        says="none/log: cannot write the log: No such file or directory",
        warns=["pydarknet: backup/"],
    )


def test_pipes_and_devices(here):
    os.mkfifo("pipe.weights")
    refused(here, "pipe.weights", "text.bin", says="pipe.weights: cannot read the weights: a folder, pipe or device")
    refused(here, "--file", "pipe.weights", says="pipe.weights: neither a file nor a folder")
    refused(here, "/dev/zero", says="/dev/zero: neither a file nor a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files(here):
    for name, arguments, cfg in (
        ("tiny.cfg", ["text.bin"], "tiny.cfg"),
        ("text.bin", ["text.bin"], "tiny.cfg"),
        ("w.weights", ["w.weights", "text.bin"], "tiny.cfg"),
    ):
        Path(name).touch()
        os.chmod(name, 0)
        refused(here, *arguments, cfg=cfg, says=f"{name}: ")
        os.chmod(name, 0o600)


def test_whether_a_file_can_be_read_is_found_out_by_reading_it(here, monkeypatch):
    """click would ask the system before, and call it wrong usage; root, who runs tests, is never refused."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **options: mode != os.R_OK and access(path, mode, **options))
    assert run("train", "tiny.cfg", "text.bin", "--max-batches", 4, "--overwrite").code == 0
    assert run("valid", "tiny.cfg", "backup/tiny_final.weights", "text.bin").code == 0


def test_names_that_no_system_has(here):
    long = "x" * 300
    refused(here, long, says="cannot read this text: File name too long")
    refused(here, f"{long}.weights", "text.bin", says="cannot read the weights: File name too long")
    refused(here, f"{long}.checkpoint", "text.bin", says="cannot read the checkpoint: File name too long")
    refused(here, "text.bin", "--backup", long, says="cannot save weights in this folder: File name too long")
    refused(here, "text.bin", cfg=f"{long}.cfg", says="cannot be read (File name too long)")
