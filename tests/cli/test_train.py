"""``pydarknet train`` as a user meets it: options, lines, files, exit codes."""

import csv
import json
import math
import os
import re
import shlex
import struct
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from command_line import run
from runs import LAYERS, bytes_of, shown_on_terminal, start, write_cfg, write_text

import pydarknet
from pydarknet import load_network
from pydarknet.views.runs import read_run

LINE = re.compile(r"(\d+): (\d+\.\d{6}), (\d+\.\d{6}) avg, (\d+\.\d{6}) rate, (\d+\.\d{6}) seconds, (\d+\.\d{6}) epochs")


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
    result = train("text.bin", "--srand", 1, "--no-sample")
    assert result.out.decode().splitlines() == [
        "Saved backup/tiny_final.weights",
        "Write text: pydarknet generate tiny.cfg backup/tiny_final.weights -len 500",
        "Train on:   pydarknet train tiny.cfg text.bin --srand 1 --no-sample --resume --max-batches 60",
    ]
    lines = result.err.splitlines()
    assert len(lines) == 30 and all(map(LINE.fullmatch, lines)), result.err
    found = steps(result)
    assert [line[0] for line in found] == list(range(1, 31))
    average = found[0][1]
    for iteration, loss, avg, rate, _, epochs in found:
        average = 0.9 * average + 0.1 * loss
        assert avg == pytest.approx(average, abs=2e-6)  # printed with six digits
        assert rate == 0.5 and epochs == pytest.approx(iteration * 20 / 3000, abs=1e-6)


def on_a_terminal(here, *arguments):
    """What a run of ``arguments`` writes to one of 80 columns."""
    code, out, shown = shown_on_terminal("train", "tiny.cfg", "text.bin", *arguments, cwd=here)
    assert code == 0 and out.startswith("Saved backup/tiny_final.weights\n")
    return shown


def test_a_bar_on_a_terminal(here):
    shown = on_a_terminal(here, "--valid-fraction", ".1", "--valid-every", "9")
    last = shown.decode().replace("\r\n", "\r").rstrip("\r").split("\r")[-1]
    bar = r"█{5,}\| 30/30 \d\d:\d\d<\d\d:\d\d, \d\.\d{3} bits, held out \d\.\d{3}, rate 0\.5, [\d.]+k?/s$"
    assert re.search(bar, last) and len(last) <= 80, last
    assert shown.endswith(b"\r\n"), "the bar has ended when the last lines are printed"
    assert not LINE.search(shown.decode())


def test_the_bar_of_a_run_that_goes_on_begins_where_it_stands(here):
    on_a_terminal(here, "--max-batches", 20)
    shown = on_a_terminal(here, "--max-batches", 30, "--resume").decode()
    assert "| 20/30 " in shown and "| 30/30 " in shown and "| 0/30 " not in shown, shown


def test_the_small_curve_of_a_run_that_goes_on_begins_with_what_was_measured(here):
    held_out = "--valid-fraction", ".1", "--valid-every", 5
    on_a_terminal(here, *held_out, "--max-batches", 20)
    shown = on_a_terminal(here, *held_out, "--max-batches", 25, "--resume").decode()
    (curve,) = re.findall(r"25  \d\.\d{3} bits  held out \d\.\d{3} [↓↑] ([▁▂▃▄▅▆▇█]+) ", shown)
    assert len(curve) == 5


def test_no_bar_of_a_run_that_has_nothing_to_do(here):
    on_a_terminal(here, "--max-batches", 5)
    code, _, shown = shown_on_terminal("train", "tiny.cfg", "text.bin", "--max-batches", 5, "--resume", cwd=here)
    assert code == 1 and b"nothing to do" in shown and b"5/5" not in shown and "█".encode() not in shown, shown


def test_json_log(here):
    result = train("text.bin", "--log", "log.jsonl", "--valid-fraction", ".1", "--valid-every", 10, "--max-batches", 12)
    records = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    head, *records = records
    assert (head["pydarknet"], head["seed"]) == (pydarknet.__version__, None) and head["characters_of_text"] == 2700
    assert head["unit"] == "character"
    assert head["command"].startswith("pydarknet train tiny.cfg text.bin --log") and "[lstm]" in head["cfg"]
    assert datetime.fromisoformat(head["started"]).tzinfo and abs(records[-1]["time"] - time.time()) < 60
    usual = ["iteration", "loss", "avg_loss", "rate", "seconds", "characters", "epochs", "time"]
    measured, sample = ["iteration", "valid_loss", "time"], ["iteration", "sample", "time"]
    iterations = [record for record in records if "loss" in record]
    assert [list(record) for record in iterations] == 12 * [usual]
    assert [(list(r), r["iteration"]) for r in records if r not in iterations] == [
        (measured, 10), (sample, 10), (measured, 12), (sample, 12),
    ]  # fmt: skip
    for record, line in zip(iterations, steps(result), strict=True):
        assert (record["iteration"], record["characters"]) == (line[0], 20 * line[0])
        assert [record[key] for key in ("loss", "avg_loss", "rate", "seconds", "epochs")] == pytest.approx(line[1:], abs=1e-6)
    train("text.bin", "--log", "log.jsonl", "--max-batches", 2)  # another run is appended
    assert len(Path("log.jsonl").read_text().splitlines()) == 1 + 16 + 1 + 3


def test_a_line_that_was_cut_off_does_not_spoil_the_next(here):
    Path("log.jsonl").write_text('{"iteration": 1, "loss": 1}\n{"iterat')
    train("text.bin", "--log", "log.jsonl", "--max-batches", 1)
    lines = Path("log.jsonl").read_text().splitlines()
    assert lines[1] == '{"iterat' and "cfg" in json.loads(lines[2]) and json.loads(lines[3])["iteration"] == 1


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
        (("x.checkpoint", "text.bin", "-clear"), "a checkpoint goes on as it was"),
        (("text.bin", "--patience", 3), "need --valid or --valid-fraction"),
        (("text.bin", "--valid", "text.bin", "--valid-fraction", 0.1), "give only one of them"),
        (("text.bin", "--valid-fraction", 1), "--valid-fraction"),
        (("text.bin", "--valid", "text.bin", "--valid-parts", 2), "--valid-parts needs --valid-fraction"),
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
    assert re.findall(r"^held out: \d+\.\d{6}$", result.err, re.MULTILINE)[1:]
    found = re.fullmatch(
        r"Saved backup/tiny_final.weights\nBest on the held-out text: backup/tiny_best.weights, (\d\.\d{4}) "
        r"bits per character after iteration (\d+) \(tiny_final.weights: (\d\.\d{4})\)\n"
        r"Write text: pydarknet generate tiny.cfg backup/tiny_best.weights -len 500\n"
        r"Train on:   pydarknet train tiny.cfg text.bin --valid held.bin --valid-every 7 --resume --max-batches 32\n",
        result.out.decode(),
    )
    assert found, result.out
    measured = re.findall(r"^(\d+): .*\nheld out: (\S+)", result.err, re.MULTILINE)
    assert [int(n) for n, _ in measured] == [7, 14, 16]
    best = min(measured, key=lambda pair: float(pair[1]))
    assert (found[2], float(found[1])) == (best[0], pytest.approx(float(best[1]) / math.log(2), abs=1e-4))
    assert load_network("tiny.cfg", "backup/tiny_best.weights").seen == 20 * int(best[0])


def test_the_held_out_part_is_not_trained_on(here):
    """A text whose last tenth has symbols of its own: the network never learns them."""
    Path("text.bin").write_bytes(bytes(n % 8 for n in range(2700)) + bytes(40 + n % 8 for n in range(300)))
    write_cfg(here, batch=16, learning_rate=2, max_batches=150, clip_norm=1)
    result = train("text.bin", "--valid-fraction", 0.1, "-srand", 1)
    assert steps(result)[-1][2] < 0.5
    held_out = float(re.findall(r"held out: (\S+)", result.err)[-1])
    assert held_out > math.log(64)
    assert steps(result)[-1][5] == pytest.approx(150 * 80 / 2700, abs=1e-6)


def test_several_parts_are_held_out(here):
    """Every stretch of the text ends in symbols of its own: the network never learns them."""
    Path("text.bin").write_bytes((bytes(n % 8 for n in range(900)) + bytes(40 + n % 8 for n in range(100))) * 3)
    write_cfg(here, batch=16, learning_rate=2, max_batches=150, clip_norm=1)
    result = train("text.bin", "--valid-fraction", 0.1, "--valid-parts", 3, "-srand", 1)
    assert steps(result)[-1][2] < 0.5
    assert float(re.findall(r"held out: (\S+)", result.err)[-1]) > math.log(64)


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


def told_for_another_text(*words):
    """The words of the command that is told when ``words`` go on with another text, as bash reads them; it is run."""
    result = run("train", *words)
    last = result.err.splitlines()[-1]
    assert result.code == 1 and "belongs to another text" in last, result
    line = last.partition("or start a run of its own from the weights: ")[2]
    split = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    told = [os.fsdecode(word) for word in split.split(b"\0")[:-1]]
    begun = run(*told[1:])
    assert told[0] == "pydarknet" and begun.code == 0, (line, begun)
    return told[1:]


def test_another_text_may_be_trained_on_by_the_command_that_is_told(here):
    words = ("--backup", "b ' c", "--name", "mine", "--set", "net.decay=0", "--max-batches", "3", "--valid-every", "2")
    held = write_text(here, 300, "held\nout.bin", seed=2)
    train("text.bin", *words, "--valid", held)
    other = write_text(here, name="other\n'one'.bin", seed=7)
    old = ("--weights", "nothing.weights", "-clear", "--overwrite", "-resume")
    told = told_for_another_text("tiny.cfg", other, *words, "--valid", held, *old)
    weights = ("--weights", "b ' c/mine_best.weights", "-clear")
    assert told == ["train", "tiny.cfg", other, *words, "--valid", held, *weights]
    assert Path("b ' c/mine.1.checkpoint").exists() or Path("b ' c/mine_3.checkpoint").exists()


@pytest.mark.parametrize("missing", [[], ["_best.weights"], ["_best.weights", ".backup"]])
def test_the_weights_of_another_text_are_the_best_that_are_there(here, missing):
    train("text.bin", "--save-every", 2, "--max-batches", 4, "--valid-fraction", ".1", "--quiet")
    for ending in missing:
        Path(f"backup/tiny{ending}").unlink()
    write_text(here, name="other.bin", seed=7)
    told = told_for_another_text("tiny.cfg", "other.bin", "text.bin", "text.bin", "text.bin", "--resume", "--max-batches", "4")
    ending = ["_best.weights", ".backup", "_final.weights"][len(missing)]
    texts = ["other.bin", "text.bin", "text.bin", "text.bin"]
    assert told == ["train", "tiny.cfg", *texts, "--max-batches", "4", "--weights", f"backup/tiny{ending}", "-clear"]


def test_the_weights_of_another_text_beside_a_link_and_beside_a_damaged_checkpoint(here):
    train("text.bin", "--save-every", 2, "--max-batches", 5, "--quiet")
    (here / "real").mkdir()
    for name in "tiny.checkpoint", "tiny.checkpoint.previous":
        Path("backup", name).rename(here / "real" / name)
    Path("backup/tiny.checkpoint").symlink_to("../real/tiny.checkpoint")
    Path("real/tiny.checkpoint").write_bytes(b"PYDNCKPT")
    write_text(here, name="other.bin", seed=7)
    told = told_for_another_text("tiny.cfg", "--resume", "--", "other.bin")
    assert told == ["train", "tiny.cfg", "--weights", "backup/tiny.backup", "-clear", "--", "other.bin"]


def test_the_weights_of_another_text_beside_a_checkpoint_that_is_named(here):
    train("text.bin", "--save-every", 2, "--max-batches", 5, "--quiet")
    write_text(here, name="other.bin", seed=7)
    for path in "backup/tiny.checkpoint", "backup/tiny.checkpoint.previous":
        told = told_for_another_text("tiny.cfg", path, "other.bin", "--backup", "new")
        assert told == ["train", "tiny.cfg", "other.bin", "--backup", "new", "--weights", "backup/tiny.backup", "-clear"]


def test_no_command_for_another_text_without_weights_or_longer_than_a_line_may_be(here):
    train("text.bin", "--save-every", 2, "--max-batches", 5, "--quiet")
    write_text(here, name="other.bin", seed=7)
    end = "give that text to go on, or start a run of its own from the weights\n"
    assert train(*["other.bin"] * 150, "--resume", code=1).err.endswith(end)
    Path("backup/tiny.checkpoint").rename("backup/tiny_5.checkpoint")  # as a new run would keep it
    assert train("backup/tiny_5.checkpoint", "other.bin", code=1).err.endswith(end)


def test_the_command_for_another_text_of_darknets_spelling(here):
    train("text.bin", "--max-batches", 3, "--quiet")
    other = write_text(here, name="other.bin", seed=7)
    result = run("rnn", "train", "-file", other, "tiny.cfg", "old.weights", "-resume", "--max-batches", "3")
    line = result.err.rstrip("\n").partition("from the weights: ")[2]
    end = "tiny.cfg --max-batches 3 --weights backup/tiny_final.weights -clear"
    assert line == f"pydarknet rnn train -file {other} {end}"
    assert run(*shlex.split(line)[1:]).code == 0


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
        "pydarknet: backup holds files of an earlier run, which are kept: tiny.checkpoint as tiny_3.checkpoint, "
        "tiny_final.weights as tiny_final.1.weights; --overwrite replaces them, and --resume goes on with that run instead\n"
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


# What a run leaves, and what it must not touch


def test_no_run_replaces_what_another_made(here):
    """Three runs of equal length and one cfg, on other texts: all that each left is there at the end."""
    left = []
    for seed in (1, 2, 3):
        write_text(here, 900, f"{seed}.bin", seed=seed)
        result = train(f"{seed}.bin", "--valid-fraction", 0.2, "--valid-every", 5, "--max-batches", 10, "--save-every", 5)
        left.append(bytes_of("backup"))
    now = bytes_of("backup")
    for made in left:
        for name, data in made.items():
            assert name.endswith(".previous") or data in now.values(), f"{name} is lost"
    assert {"tiny_final.1.weights", "tiny_final.2.weights", "tiny_best.1.weights", "tiny_10.2.weights"} <= {*now}
    assert {"tiny_10.checkpoint", "tiny_10.1.checkpoint", "tiny.checkpoint", "tiny.1.backup"} <= {*now}
    assert "tiny_best.weights as tiny_best.2.weights" in result.err


def test_overwrite_replaces_them(here):
    for _ in range(2):
        result = train("text.bin", "--max-batches", 3, "--overwrite")
    assert "kept" not in result.err
    assert list(bytes_of("backup")) == ["tiny.checkpoint", "tiny.checkpoint.previous", "tiny_final.weights"]


def test_the_end_of_a_run_is_kept_when_it_goes_on(here):
    train("text.bin", "--max-batches", 3)
    final = Path("backup/tiny_final.weights").read_bytes()
    result = train("text.bin", "--resume", "--max-batches", 5)
    assert "tiny_final.weights as tiny_final.1.weights; --overwrite replaces them\n" in result.err
    assert Path("backup/tiny_final.1.weights").read_bytes() == final


@pytest.mark.parametrize("content", [b"", b"PYDNCKPT damaged", b"PYDNCKPT\x02\0\0\0\0\0\0\0 of a newer version"])
def test_a_checkpoint_that_cannot_be_read_is_kept_too(here, content):
    os.mkdir("backup")
    Path("backup/tiny.checkpoint").write_bytes(content)
    result = train("text.bin", "--max-batches", 2)
    assert "tiny.checkpoint as tiny_unreadable.checkpoint" in result.err
    assert Path("backup/tiny_unreadable.checkpoint").read_bytes() == content


@pytest.mark.parametrize(
    "name", ["tiny_final.weights", "tiny.backup", "tiny.checkpoint", "tiny_best.weights", "tiny_20.weights"]
)
@pytest.mark.parametrize("spoil", ["read-only", "a folder"])
def test_what_could_not_be_written_is_told_at_the_start(here, name, spoil):
    path = Path("backup", name)
    if spoil == "a folder":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_bytes(b"mine")
        path.chmod(0o444)
    result = train("text.bin", "--overwrite", "--valid-fraction", 0.1, "--save-every", 10, code=1)
    assert re.fullmatch(
        rf"pydarknet: backup/{name}: cannot be written: .*; choose another folder with --backup DIR\n", result.err
    )
    assert not steps(result)


def test_the_checkpoint_is_written_though_the_weights_cannot_be(here, monkeypatch):
    """A disk that turns full, a folder taken away: what can be saved is saved."""
    from pydarknet.errors import WeightsError
    from pydarknet.network import Network
    from pydarknet.training.checkpoint import read_checkpoint

    def refuse(self, path):
        raise WeightsError(f"{path}: cannot save the weights: No space left on device")

    monkeypatch.setattr(Network, "save_weights", refuse)
    result = train("text.bin", "--max-batches", 4, code=1)
    assert (
        result.err.splitlines()[-1] == "pydarknet: backup/tiny_final.weights: cannot save the weights: No space left on device"
    )
    assert read_checkpoint("backup/tiny.checkpoint").facts["iteration"] == 4


def test_a_lock_that_cannot_be_opened_is_named(here):
    Path("backup/.tiny.lock").mkdir(parents=True)  # of another user, it would be a file; but root can open any
    result = train("text.bin", code=1)
    assert result.err.startswith("pydarknet: backup/.tiny.lock: cannot save weights in this folder: ")


@pytest.mark.parametrize("output", ["text.bin", "tiny.cfg", "link", "./text.bin", "hard"])
def test_a_log_is_no_input(here, output):
    os.symlink("text.bin", "link")
    os.link("text.bin", "hard")
    before = bytes_of(".")
    result = train("text.bin", "--log", output, code=1)
    assert "the output is " in result.err and result.err.count("\n") == 1
    assert bytes_of(".") == before and not os.path.exists("backup")


def test_a_text_that_the_run_would_replace(here):
    os.mkdir("backup")
    os.link("text.bin", "backup/tiny_final.weights")
    result = train("text.bin", code=1)
    assert "backup/tiny_final.weights: the output is " in result.err and not steps(result)


# Words and lines


def test_quiet_and_every_so_many_lines(here):
    assert train("text.bin", "--quiet", "--max-batches", 5).err == ""
    result = train("text.bin", "--overwrite", "--print-every", 10, "--log", "log.jsonl", "--log-every", 15)
    assert [line[0] for line in steps(result)] == [10, 20, 30]
    assert [json.loads(line)["iteration"] for line in Path("log.jsonl").read_text().splitlines()[1:]] == [15, 30, 30]


def test_a_run_that_goes_on_logs_no_iteration_twice(here):
    """As after kill -9: the log is ahead of the checkpoint, and its last line is cut."""
    train("text.bin", "--max-batches", 9, "--no-sample", "--log", "log.jsonl")
    train("text.bin", "--max-batches", 6, "--no-sample", "--overwrite", "--log", "log.jsonl")
    lines = Path("log.jsonl").read_text().splitlines()
    ahead = [{"iteration": 7, "loss": 1}, {"iteration": 7, "valid_loss": 1}, {"iteration": 7, "sample": "x"}, {"iteration": 8}]
    Path("log.jsonl").write_text("\n".join([*lines, *map(json.dumps, ahead), '{"iter']))
    train("text.bin", "--resume", "--max-batches", 10, "--no-sample", "--log", "log.jsonl")
    found = [json.loads(line).get("iteration") for line in Path("log.jsonl").read_text().splitlines()]
    assert found == [None, *range(1, 10), None, *range(1, 11)]
    assert len(read_run("log.jsonl").training) == 10


def test_a_table_in_place_of_json(here):
    usual = ("text.bin", "-srand", 1, "--valid-fraction", ".1", "--valid-every", 4, "--sample-every", 3)
    train(*usual, "--max-batches", 9, "--log", "log.csv", "--log-every", 2)
    text = Path("log.csv").read_text()
    assert text.startswith('# {"pydarknet": ')
    rows = list(csv.DictReader(text.splitlines()[1:]))
    assert [row["iteration"] for row in rows] == ["2", "3", "4", "6", "8", "9"]
    assert [bool(row["valid_loss"]) for row in rows] == [False, False, True, False, True, True]
    assert [bool(row["sample"]) for row in rows] == [False, True, False, True, False, True]
    Path("log.csv").write_text(text + "10,2.5,2.5,0.5,0.1,200,0.1,,1.0,\n11,2.")
    train(*usual, "--resume", "--max-batches", 12, "--log", "log.csv", "--log-every", 2)
    assert [line.split(",")[0] for line in Path("log.csv").read_text().splitlines()[2:]] == "2 3 4 6 8 9 10 12".split()
    run_ = read_run("log.csv")
    assert run_.header["seed"] == 1 and sorted(run_.held_out) == [4, 8, 9, 12] and len(run_.samples) == 4
    assert len(run_.samples[0][1]) == 200


def test_samples_and_a_plot_leave_the_training_as_it_is(here):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install '.[plot]'")
    layers = "\n[gru]\noutput=9\ntanh=1\n[dropout]\n[lstm]\noutput=7\n[connected]\noutput=64\nactivation=linear\n[softmax]\n"
    write_cfg(here, layers)
    usual = ("text.bin", "-srand", 1, "--valid-fraction", ".1", "--valid-every", 5)
    train(*usual, "--no-sample", "--backup", "plain")
    train(*usual, "--sample-every", 2, "--plot", "run.svg", "--log", "run.jsonl", "--backup", "shown")
    for name in ("tiny_final.weights", "tiny_best.weights", "tiny.checkpoint"):
        assert Path("plain", name).read_bytes() == Path("shown", name).read_bytes(), name
    assert b"<svg" in Path("run.svg").read_bytes() and [n for n, _ in read_run("run.jsonl").samples] == list(range(2, 31, 2))


def test_what_cannot_be_drawn(here, monkeypatch):
    assert "the picture's name must end in .svg or .png" in train("text.bin", "--plot", "run.gif", code=1).err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "a picture needs matplotlib" in train("text.bin", "--plot", "run.svg", code=1).err
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "--tensorboard needs tensorboardX: pip install" in train("text.bin", "--tensorboard", "board", code=1).err
    assert not Path("backup/tiny_final.weights").exists()


def test_samples_of_any_network_are_one_line_away_from_a_terminal(here):
    result = train("text.bin", "--max-batches", 4, "--sample-every", 2, "--print-every", 10, "--valid-fraction", ".5")
    lines = result.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["2", "sample", "4", "held out", "sample"]
    assert all(line.isprintable() for line in lines)


def test_what_to_type_to_go_on(here):
    train("text.bin", "--max-batches", 2)
    result = train("backup/tiny_final.weights", "text.bin", "-clear", "--max-batches=3", "--overwrite", "--name", "it's")
    words = shlex.split(result.out.decode().splitlines()[-1].partition(":")[2])
    assert words == ["pydarknet", "train", "tiny.cfg", "text.bin", "--name", "it's", "--resume", "--max-batches", "6"]
    again = run(*words[1:])
    assert again.code == 0 and "after iteration 3" in again.err
    write = shlex.split(again.out.decode().splitlines()[1].partition(":")[2])
    assert write[:4] == ["pydarknet", "generate", "tiny.cfg", "backup/it's_final.weights"]
    assert "--resume" not in train("text.bin", "--max-batches", 2, "--quiet", "--overwrite").out.decode()


def test_a_finished_run_says_how_to_go_on(here):
    train("text.bin", "--max-batches", 3)
    result = train("text.bin", "--resume", "--max-batches", 3, code=1)
    assert result.err.splitlines()[-1] == (
        "pydarknet: 3 iterations are done already and max_batches is 3: nothing to do; "
        "to go on, raise max_batches (--max-batches N)"
    )


def test_another_text_prints_the_command_that_helps(here):
    train("text.bin", "--max-batches", 100)
    write_text(here, name="other text.bin", seed=7)
    result = train("other text.bin", "--resume", code=1)
    assert result.err.endswith(": pydarknet train tiny.cfg 'other text.bin' --weights backup/tiny.backup -clear\n")
    result = run("train", "tiny.cfg", "backup/tiny.backup", "other text.bin", "-clear", "--max-batches", 2)
    assert result.code == 0 and [line[0] for line in steps(result)] == [1, 2]
    train("text.bin", "--valid-fraction", 0.1, "--max-batches", 3, "--overwrite")
    result = train("other text.bin", "--valid-fraction", 0.1, "--resume", code=1)
    assert "train tiny.cfg 'other text.bin' --valid-fraction 0.1 --weights backup/tiny_best.weights -clear\n" in result.err


def test_a_text_that_is_not_utf8_is_told_and_written_as_bytes(here):
    Path("latin.txt").write_bytes(("ça coûte où? " * 400).encode("latin-1"))
    write_cfg(
        here,
        "[lstm]\noutput=30\n[connected]\noutput=256\nactivation=linear\n[softmax]\n",
        inputs=256,
        adam=1,
        learning_rate=0.02,
    )
    result = train("latin.txt", "--max-batches", 150, "--sample-every", 150, "--log", "log.jsonl")
    assert "latin.txt: not UTF-8: the network learns its bytes, and `generate --bytes` writes them\n" in result.err
    line = next(line for line in result.out.decode().splitlines() if line.startswith("Write text: "))
    assert line.endswith(" -len 500 --bytes")
    assert "ça coûte où?" in run(*shlex.split(line)[3:]).out.decode("latin-1")
    assert r"co\\xfbte" in Path("log.jsonl").read_text()
    Path("utf8.txt").write_text("ça coûte où? " * 400)
    result = train("utf8.txt", "--max-batches", 1)
    assert "UTF-8" not in result.err and b"--bytes" not in result.out


def test_the_same_command_with_resume_goes_on(here):
    """What was about the beginning is told to count no longer: weights, -clear, and --minutes (test_recipe.py)."""
    train("text.bin", "--max-batches", 3)
    os.rename("backup/tiny_final.weights", "old.weights")
    words = "old.weights", "text.bin", "-clear", "--dialect", "pjreddie"
    assert [line[0] for line in steps(train(*words, "--max-batches", 2, "--backup", "new"))] == [1, 2]
    os.remove("old.weights")
    result = train(*words, "--max-batches", 4, "--backup", "new", "--resume")
    told = "pydarknet: old.weights and -clear count when a run begins, and this one goes on from its checkpoint\n"
    assert told in result.err and [line[0] for line in steps(result)] == [3, 4]
    result = train(*words[:-1], "alexeyab", "--max-batches", 5, "--backup", "new", "--resume", code=1)
    assert "new/tiny.checkpoint: goes on as it was, of pjreddie: leave --dialect alexeyab out\n" in result.err


def test_a_warm_up_that_never_ends(here):
    write_cfg(here, burn_in=1000)
    assert "warning: max_batches=30 is below burn_in=1000: the learning rate never gets to 0.5" in train("text.bin").err


def test_steps_out_of_order(here):
    write_cfg(here, policy="steps", steps="20,10", scales=".1,.1")
    assert re.search(r"warning: tiny.cfg:\d+: \[net\] steps are not in ascending order", train("text.bin").err)


def test_batch_norm_of_one_stream_is_warned_about_once(here):
    write_cfg(here, LAYERS.replace("output=7", "output=7\nbatch_normalize=1"), batch=1, subdivisions=1)
    process = start("train", "tiny.cfg", "text.bin", "--max-batches", 3, cwd=here)
    assert process.communicate(timeout=60)[1].count("batch norm over a single stream") == 1


def test_who_shares_out_the_work(here):
    assert "pydarknet: one thread\n" in train("text.bin", "--verbose", "--max-batches", 1).err
    result = train("text.bin", "--verbose", "--max-batches", 1, "--processes", 2, "--overwrite")
    assert "pydarknet: 2 processes share out the streams\n" in result.err


# An error on the way


@pytest.mark.parametrize("error", ["TextError", "TrainingError", "MemoryError"])
def test_an_error_on_the_way_loses_nothing(here, monkeypatch, error):
    """A text that shrinks, a process that is killed, memory that runs out: the last whole iteration is saved."""
    import builtins

    from pydarknet import errors
    from pydarknet.text.corpus import Corpus

    train("text.bin", "--srand", 3, "--backup", "whole", "--quiet")
    gather, calls = Corpus.gather, []

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 20:
            raise getattr(errors, error, getattr(builtins, error, None))("gone")
        return gather(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "gather", failing)
        result = train("text.bin", "--srand", 3, "--quiet", code=1)
    said, last = result.err.splitlines()
    assert said == "pydarknet: saved backup/tiny.backup after iteration 9; --resume goes on"
    assert last.startswith("pydarknet: ") and "gone" in last
    train("text.bin", "--resume", "--quiet")
    assert bytes_of("backup")["tiny_final.weights"] == bytes_of("whole")["tiny_final.weights"]


@pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")
def test_a_process_that_has_too_little_memory_gets_the_advice_that_one_alone_gets(here, monkeypatch):
    from pydarknet.network import Network

    call, alone = Network.train_call, os.getpid()

    def fails_elsewhere(network, *pair):
        if os.getpid() != alone:
            raise MemoryError("Unable to allocate 4 MiB")
        return call(network, *pair)

    monkeypatch.setattr(Network, "train_call", fails_elsewhere)
    result = train("text.bin", "--quiet", "--processes", 2, code=1)
    assert result.err == (
        "pydarknet: out of memory: Unable to allocate 4 MiB; a smaller batch, time_steps or output needs less\n"
    )


def test_a_mistake_in_the_program_loses_nothing_either(here, monkeypatch):
    from pydarknet.training.checkpoint import read_checkpoint
    from pydarknet.training.trainer import Trainer

    iterate = Trainer._iterate

    def failing(self):
        if self.iteration == 5:
            raise RuntimeError("can't start new thread")
        return iterate(self)

    monkeypatch.setattr(Trainer, "_iterate", failing)
    with pytest.raises(RuntimeError, match="new thread"):
        train("text.bin", "--quiet")
    assert read_checkpoint("backup/tiny.checkpoint").facts["iteration"] == 5


def test_processes_that_cannot_be_started_are_done_without(here, monkeypatch):
    """As under `ulimit -u`: a warning, and the weights of one process."""
    import errno
    import multiprocessing.process

    def refuse(self):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    train("text.bin", "--srand", 3, "--backup", "one", "--processes", 1, "--quiet")
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    result = train("text.bin", "--srand", 3, "--processes", 2, "--quiet")
    assert result.err == (
        "pydarknet: warning: cannot start a process to share the work: Resource temporarily unavailable: "
        "training goes on in one process\n"
    )
    assert bytes_of("backup")["tiny_final.weights"] == bytes_of("one")["tiny_final.weights"]
