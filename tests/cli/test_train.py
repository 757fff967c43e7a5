"""``pydarknet train`` as a user meets it: options, lines, files, exit codes."""

import json
import math
import os
import pty
import re
import struct
from pathlib import Path

import pytest
from command_line import run
from runs import LAYERS, bytes_of, start, write_cfg, write_text

from pydarknet import load_network

LINE = re.compile(r"(\d+): (\d+\.\d{6}), (\d+\.\d{6}) avg, (\d+\.\d{6}) rate, (\d+\.\d{6}) seconds, (\d+\.\d{6}) epochs")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with tiny.cfg and text.bin, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write_cfg(tmp_path)
    write_text(tmp_path)
    return tmp_path


def train(*arguments, code=0):
    result = run("train", "tiny.cfg", *arguments)
    assert result.code == code, result
    return result


def steps(result):
    """(iteration, loss, avg, rate, seconds, epochs) of every line that Darknet would have printed."""
    return [tuple(map(float, match.groups())) for match in map(LINE.fullmatch, result.err.splitlines()) if match]


def parameters(path):
    return load_network("tiny.cfg", path).parameters.values.tobytes()


# Lines and logs


def test_darknets_lines_when_there_is_no_terminal(here):
    result = train("text.bin", "--srand", 1)
    assert result.out == b"Saved backup/tiny_final.weights\n"
    lines = result.err.splitlines()
    assert len(lines) == 30 and all(map(LINE.fullmatch, lines)), result.err
    found = steps(result)
    assert [line[0] for line in found] == list(range(1, 31))
    average = found[0][1]
    for iteration, loss, avg, rate, _, epochs in found:
        average = 0.9 * average + 0.1 * loss
        assert avg == pytest.approx(average, abs=2e-6)  # printed with six digits
        assert rate == 0.5 and epochs == pytest.approx(iteration * 20 / 3000, abs=1e-6)


def test_a_bar_on_a_terminal(here):
    master, slave = pty.openpty()
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 150, 0, 0))
    process = start("train", "tiny.cfg", "text.bin", "--valid-fraction", ".1", "--valid-every", "9", cwd=here, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while block := os.read(master, 4096):
            shown += block
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(master)
    assert process.wait(60) == 0 and process.stdout.read().startswith("Saved backup/tiny_final.weights\n")
    last = shown.decode().replace("\r\n", "\r").rstrip("\r").split("\r")[-1]
    assert re.search(
        r"100%\|.*\| 30/30 \[\d\d:\d\d<\d\d:\d\d, loss \d\.\d{4}, \d\.\d{3} bits/char, held out \d\.\d{3}, "
        r"rate 0\.5, [\d,]+ chars/s\]",
        last,
    ), last
    assert not LINE.search(shown.decode())


def test_json_log(here):
    result = train("text.bin", "--log", "log.jsonl", "--valid-fraction", ".1", "--valid-every", 10, "--max-batches", 12)
    records = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    usual = ["iteration", "loss", "avg_loss", "rate", "seconds", "characters", "epochs"]
    assert [list(record) for record in records] == 9 * [usual] + [[*usual, "valid_loss"], usual, [*usual, "valid_loss"]]
    for record, line in zip(records, steps(result), strict=True):
        assert (record["iteration"], record["characters"]) == (line[0], 20 * line[0])
        assert [record[key] for key in ("loss", "avg_loss", "rate", "seconds", "epochs")] == pytest.approx(line[1:], abs=1e-6)
    train("text.bin", "--log", "log.jsonl", "--max-batches", 2)  # another run is appended
    assert len(Path("log.jsonl").read_text().splitlines()) == 14


def test_a_line_that_was_cut_off_does_not_spoil_the_next(here):
    Path("log.jsonl").write_text('{"iteration": 1}\n{"iterat')
    train("text.bin", "--log", "log.jsonl", "--max-batches", 1)
    lines = Path("log.jsonl").read_text().splitlines()
    assert lines[1] == '{"iterat' and json.loads(lines[2])["iteration"] == 1


# Files and options


def test_save_every_names_files_as_darknet_does(here):
    train("text.bin", "--save-every", 8, "--backup", "some/folder")
    assert list(bytes_of("some/folder")) == [
        "tiny.backup",
        "tiny.checkpoint",
        "tiny.checkpoint.previous",
        "tiny_16.weights",
        "tiny_24.weights",
        "tiny_8.weights",
        "tiny_final.weights",
    ]
    assert load_network("tiny.cfg", "some/folder/tiny_16.weights").seen == 16 * 20
    assert not os.path.exists("backup")


def test_max_batches(here):
    assert len(steps(train("text.bin", "--max-batches", 3))) == 3
    assert train("text.bin", "--max-batches", 0, code=2).err.count("max-batches") == 1


def test_max_batches_0_of_the_cfg_is_said_aloud(here):
    write_cfg(here, max_batches=0)
    result = train("text.bin", code=1)
    assert result.err == (
        "pydarknet: max_batches is 0, which to Darknet means no training: set it in [net] of the cfg, or give --max-batches\n"
    )
    assert not os.path.exists("backup")


def test_srand_makes_the_very_same_files(here):
    for folder, srand in (("a", 5), ("b", 5), ("c", 6)):
        train("text.bin", "-srand", srand, "--backup", folder, "--max-batches", 4)
    assert bytes_of("a") == bytes_of("b")
    assert bytes_of("a")["tiny_final.weights"] != bytes_of("c")["tiny_final.weights"]


@pytest.mark.parametrize(
    "how",
    [
        ("w.weights", "text.bin"),
        ("w.backup", "text.bin"),
        ("--weights", "odd.name", "text.bin"),
        ("-file", "text.bin", "odd.name"),
        ("odd.name", "--file", "text.bin"),
        ("-file", "text.bin", "--weights", "odd.name"),
    ],
)
def test_weights_to_start_from(here, how):
    train("text.bin", "--max-batches", 3)
    for name in ("w.weights", "w.backup", "odd.name"):
        os.link("backup/tiny_final.weights", name)
    assert [line[0] for line in steps(train(*how, "--max-batches", 5))] == [4, 5]
    assert [line[0] for line in steps(train(*how, "--max-batches", 5, "-clear"))] == [1, 2, 3, 4, 5]


def test_several_texts_and_folders_and_tokens(here):
    os.mkdir("folder")
    for number in range(3):
        write_text(here / "folder", 500, f"{number}.txt", seed=number)
    found = steps(train("folder", "text.bin", "--max-batches", 1))
    assert found[0][5] == pytest.approx(20 / 4500, abs=1e-6)
    Path("tokens.txt").write_text(" ".join(str(n % 64) for n in range(200)))
    found = steps(train("-tokenized", "tokens.txt", "--max-batches", 1))
    assert found[0][5] == pytest.approx(20 / 200, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'TEXT'"),
        (("w.weights",), "Missing argument 'TEXT'"),
        (("-file", "text.bin", "a", "b"), "with -file, at most one more path is allowed"),
        (("w.weights", "text.bin", "--resume"), "--resume goes on from the checkpoint"),
        (("text.bin", "--resume", "-clear"), "a checkpoint goes on as it was"),
        (("text.bin", "--resume", "--dialect", "alexeyab"), "a checkpoint goes on as it was"),
        (("x.checkpoint", "text.bin", "-clear"), "a checkpoint goes on as it was"),
        (("text.bin", "--patience", 3), "need --valid or --valid-fraction"),
        (("text.bin", "--valid", "text.bin", "--valid-fraction", 0.1), "give one of them"),
        (("text.bin", "--valid-fraction", 1), "--valid-fraction"),
        (("text.bin", "--save-every", 0), "--save-every"),
    ],
)
def test_usage(here, arguments, message):
    result = train(*arguments, code=2)
    assert message in result.err and "Traceback" not in result.err
    assert not os.path.exists("backup")


# Validation


def test_the_report_names_the_best(here):
    write_text(here, 600, "held.bin", seed=9)
    result = train("text.bin", "--valid", "held.bin", "--valid-every", 7, "--max-batches", 16)
    assert re.findall(r"^held out: \d+\.\d{6}, (\d+\.\d{6}) bits per character$", result.err, re.MULTILINE)[1:]
    found = re.fullmatch(
        r"Saved backup/tiny_final.weights\nBest on the held-out text: backup/tiny_best.weights, (\d\.\d{4}) "
        r"bits per character after iteration (\d+) \(tiny_final.weights: (\d\.\d{4})\)\n",
        result.out.decode(),
    )
    assert found, result.out
    measured = re.findall(r"^(\d+): .*\nheld out: .*, (\S+) bits", result.err, re.MULTILINE)
    assert [int(n) for n, _ in measured] == [7, 14, 16]
    best = min(measured, key=lambda pair: float(pair[1]))
    assert (found[2], float(found[1])) == (best[0], pytest.approx(float(best[1]), abs=1e-4))
    assert load_network("tiny.cfg", "backup/tiny_best.weights").seen == 20 * int(best[0])


def test_the_held_out_part_is_not_trained_on(here):
    """A text whose last tenth has symbols of its own: the network never learns them."""
    Path("text.bin").write_bytes(bytes(n % 8 for n in range(2700)) + bytes(40 + n % 8 for n in range(300)))
    write_cfg(here, batch=16, learning_rate=2, max_batches=150, clip_norm=1)
    result = train("text.bin", "--valid-fraction", 0.1, "-srand", 1)
    assert steps(result)[-1][2] < 0.5
    held_out = float(re.findall(r"held out: (\S+),", result.err)[-1])
    assert held_out > math.log(64)
    assert steps(result)[-1][5] == pytest.approx(150 * 80 / 2700, abs=1e-6)


def test_patience_and_plateau(here):
    write_cfg(here, max_batches=3000, learning_rate=0)
    Path("held.bin").write_bytes(bytes(300))
    # Nothing moves: no measurement is better than the first.
    result = train("text.bin", "--valid", "held.bin", "--valid-every", 2, "--patience", 5, "--plateau", 2, "--max-batches", 999)
    assert [line[0] for line in steps(result)][-1] == 12
    assert "pydarknet: stopped after iteration 12: 5 measurements without a new best\n" in result.err
    assert os.path.exists("backup/tiny_final.weights")
    again = run("train", "tiny.cfg", "text.bin", "--resume", "--valid", "held.bin", "--valid-every", 2, "--patience", 5)
    assert again.code == 1 and "nothing to do; raise --patience" in again.err


# Going on


@pytest.mark.parametrize(
    "options", [(), ("--valid-fraction", ".1", "--valid-every", "7", "--plateau", "1")], ids=["plain", "validation"]
)
def test_resume_is_exact(here, options):
    layers = LAYERS.replace("[connected]", "[dropout]\nprobability=.3\n[connected]").replace(
        "output=7", "output=7\nbatch_normalize=1"
    )
    write_cfg(here, layers, adam=1, learning_rate=0.01)
    write_text(here, 900, "more.bin", seed=4)
    texts = ("text.bin", "more.bin", "--srand", 2, *options)
    whole = train(*texts, "--backup", "whole")
    first = train(*texts, "--backup", "parts", "--max-batches", 13)
    second = train(*texts, "--backup", "parts", "--resume")
    assert "pydarknet: going on from parts/tiny.checkpoint after iteration 13\n" in second.err

    def told(result):  # all but the seconds, which no two runs share
        return [line[:4] + line[5:] for line in steps(result)]

    assert told(first) + told(second) == told(whole)
    a, b = bytes_of("whole"), bytes_of("parts")
    assert a["tiny_final.weights"] == b["tiny_final.weights"]
    if not options:  # the shorter run has measured its own end, and remembers it
        assert a["tiny.checkpoint"] == b["tiny.checkpoint"]


def test_resume_without_a_checkpoint(here):
    result = train("text.bin", "--resume", code=1)
    assert result.err == (
        "pydarknet: backup/tiny.checkpoint: there is no checkpoint to go on from; leave --resume out to begin a run\n"
    )


def test_resume_of_another_cfg_or_text(here):
    train("text.bin", "--max-batches", 3)
    before = bytes_of("backup")
    write_text(here, name="other.bin", seed=7)
    result = train("other.bin", "--resume", code=1)
    assert "backup/tiny.checkpoint: belongs to another text" in result.err and result.err.count("\n") == 1
    write_cfg(here, momentum=0.8)
    result = train("text.bin", "--resume", code=1)
    assert "backup/tiny.checkpoint: belongs to another cfg: [net] momentum was 0.9, and is 0.8" in result.err
    assert result.err.count("\n") == 1
    assert bytes_of("backup") == before


def test_a_damaged_checkpoint_falls_back_aloud(here):
    train("text.bin", "--save-every", 10, "--max-batches", 25)
    checkpoint = Path("backup/tiny.checkpoint")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    result = train("text.bin", "--resume")
    assert result.err.startswith("pydarknet: warning: backup/tiny.checkpoint: the checkpoint is damaged: ")
    assert "pydarknet: going on from backup/tiny.checkpoint.previous after iteration 20\n" in result.err
    assert [line[0] for line in steps(result)] == list(range(21, 31))


def test_a_new_run_says_what_becomes_of_an_earlier_one(here):
    train("text.bin", "--max-batches", 3)
    result = train("text.bin", "--max-batches", 2)
    assert (
        "pydarknet: backup/tiny.checkpoint is of an earlier run, and will be kept as backup/tiny_3.checkpoint; "
        "to go on with that run instead, add --resume\n"
    ) in result.err
    # A checkpoint can be named like weights.
    result = train("backup/tiny_3.checkpoint", "text.bin", "--max-batches", 5, "--backup", "elsewhere")
    assert [line[0] for line in steps(result)] == [4, 5]


def test_another_dialect_is_resumed_as_it_was(here):
    write_cfg(here, LAYERS.replace("lstm", "gru").replace("[connected]", "[dropout]\n[connected]"))
    train("text.bin", "--dialect", "alexeyab", "--max-batches", 2)
    train("text.bin", "--resume", "--max-batches", 3)
    assert Path("backup/tiny_final.weights").read_bytes()[:12] == struct.pack("<3i", 0, 2, 5)


def test_a_cfg_whose_name_is_no_text(here):
    """Standard output may be strict about what it encodes; the name of a file is any bytes."""
    name = os.fsdecode(b"\xff.cfg")
    try:
        Path(name).write_bytes(Path("tiny.cfg").read_bytes())
    except OSError:
        pytest.skip("this file system takes text only")
    result = run("train", name, "text.bin", "--max-batches", 2, "--valid-fraction", 0.1)
    assert result.code == 0 and b"Saved " in result.out and Path(os.fsdecode(b"backup/\xff_final.weights")).exists()
