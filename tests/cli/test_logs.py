"""The logs of `train`: where they go, what they leave alone, and what damaged ones are to those who read them."""

import errno
import json
import math
import os
import re
import resource
import shlex
import struct
import subprocess
import time
from pathlib import Path

import pytest
from command_line import run
from runs import LAYERS, command, environment, write_cfg, write_text

from pydarknet.cli import log
from pydarknet.system.locks import hold
from pydarknet.views.runs import read_run

NESTED = "[" * 100_000
GOOD = '{"iteration": 1, "loss": 2.5, "seconds": 1, "characters": 10}\n'


def train(*arguments, code=0):
    result = run("train", "tiny.cfg", "text.bin", *arguments)
    assert result.code == code, result
    return result


# Damaged ones


def test_a_text_of_brackets_is_a_text(here):
    write_cfg(here, LAYERS.replace("64", "256"), inputs=256)
    Path("text.bin").write_text(NESTED)
    train("--max-batches", 1)
    assert run("valid", "tiny.cfg", "backup/tiny_final.weights", "text.bin").code == 0


@pytest.mark.parametrize("value", ['"x"', "[1]", "1e999", "NaN", "{}", "true", "null"])
def test_an_iteration_that_is_none_is_not_taken_back(here, value):
    train("--max-batches", 2, "--no-sample", "--log", "log.jsonl")
    with open("log.jsonl", "a") as file:
        file.write(f'{{"iteration": {value}}}\n{NESTED}\n')
    train("--max-batches", 4, "--no-sample", "--resume", "--log", "log.jsonl")
    lines = Path("log.jsonl").read_text().splitlines()
    assert lines[4] == NESTED and [json.loads(line)["iteration"] for line in lines[5:]] == [3, 4]


@pytest.mark.parametrize("reader", ["plot", "report"])
@pytest.mark.parametrize("over", ["iterations", "characters", "time"])
def test_numbers_that_no_run_has_are_skipped(here, reader, over):
    huge = 10**400
    damaged = [
        f'{{"iteration": 2, "loss": {huge}}}',
        '{"iteration": 3, "loss": 1e308, "avg_loss": 1.7e308}',
        '{"iteration": 3, "loss": 1, "avg_loss": -1e999}',
        f'{{"iteration": {huge}, "loss": 1}}',
        '{"iteration": 4, "loss": 2.5, "seconds": NaN, "characters": 1e999}',
        f'{{"iteration": 5, "loss": 2.5, "seconds": 1e308, "characters": {huge}}}',
        f'{{"iteration": 5, "loss": 2.5, "seconds": {huge}, "characters": true}}',
        f'{{"iteration": 5, "valid_loss": {huge}}}',
        '{"iteration": 6, "loss": 2.5, "seconds": 2, "characters": 60}',
    ]
    Path("run.jsonl").write_text(GOOD + "\n".join(damaged) + "\n")
    result = run(reader, "run.jsonl", "--over", over, *(["-o", "page.html"] if reader == "report" else []))
    assert (result.code, result.err) == (0, ""), result
    found = read_run("run.jsonl")
    assert sorted(found.training) == [1, 4, 5, 6] and found.training[6] == pytest.approx(2.5 / math.log(2))
    assert found.characters == {1: 10, 6: 60} and found.time[6] == 3 and not found.held_out


@pytest.mark.parametrize("loss", ["99999999999999", "-99999999999999", "0"])
@pytest.mark.parametrize("over", ["iterations", "characters", "time"])
def test_the_largest_numbers_can_be_drawn(here, loss, over):
    Path("run.jsonl").write_text(
        f'{{"iteration": 99999999999999, "loss": {loss}, "seconds": 99999999999999, "characters": 99999999999999}}\n'
    )
    assert run("plot", "run.jsonl", "--over", over).code == 0
    assert run("report", "run.jsonl", "--over", over, "-o", "page.html").code == 0


@pytest.mark.parametrize("line", [NESTED, "iteration,loss,sample\n1,2.5," + NESTED, '{"a": ' * 50_000, "# " + NESTED])
def test_brackets_by_the_thousand_are_no_log(here, line):
    Path("run.jsonl").write_text(f"{GOOD}{line}\n")
    result = run("plot", "run.jsonl")
    assert result.code == 1 and result.err.count("\n") == 1 and "no JSON object" in result.err


# Where they go


def shell(line):
    """Run a line of bash where ``train`` is a training of a few iterations; what it wrote."""
    words = shlex.join(command("train", "tiny.cfg", "text.bin", "--no-sample", "--quiet"))
    script = f'train() {{ {words} "$@"; }}; set -o pipefail; {line}'
    result = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result
    return result


def logged(text):
    """The iterations of a log's lines, "head" for a header, or the first word of a line of another kind."""
    records = [json.loads(line) if line.startswith("{") else {"iteration": line.split()[0]} for line in text.splitlines()]
    return [record.get("iteration", "head") for record in records]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_log_that_is_a_pipe(here, name):
    if not os.path.exists(name):
        pytest.skip("no such name on this system")
    assert logged(shell(f"train --max-batches 2 --log {name} | cat").stdout) == ["head", 1, 2, "Saved"]
    assert logged(shell(f"train --max-batches 4 --resume --log {name} | cat").stdout) == ["head", 3, 4, "Saved"]


@pytest.mark.parametrize("name", ["/dev/stdout", "out.txt", "link"])
def test_a_log_in_the_file_that_standard_output_goes_to(here, name):
    """Nothing is written over: the lines of both stand one after the other, also where the shell appends."""
    os.symlink("out.txt", "link")
    shell(f"train --max-batches 2 --log {name} > out.txt")
    assert logged(Path("out.txt").read_text()) == ["head", 1, 2, "Saved"]
    shell(f"train --max-batches 4 --resume --log {name} >> out.txt")
    assert logged(Path("out.txt").read_text()) == ["head", 1, 2, "Saved", "head", 3, 4, "Saved"]
    Path("out.txt").write_text("my own notes\n")
    shell(f"train --max-batches 6 --resume --log {name} >> out.txt")
    assert logged(Path("out.txt").read_text()) == ["my", "head", 5, 6, "Saved"]
    shell(f"train --max-batches 8 --resume --log {name} > out.txt")
    assert logged(Path("out.txt").read_text()) == ["head", 7, 8, "Saved"]


@pytest.mark.parametrize("name", ["/dev/stderr", "err.txt"])
def test_a_log_in_the_file_that_standard_error_goes_to(here, name):
    train = shlex.join(command("train", "tiny.cfg", "text.bin", "--no-sample"))
    shell(f"{train} --max-batches 2 --log {name} 2> err.txt")
    assert logged(Path("err.txt").read_text()) == ["head", 1, "1:", 2, "2:"]
    shell(f"{train} --max-batches 3 --resume --log {name} 2> err.txt")
    assert logged(Path("err.txt").read_text()) == ["head", "pydarknet:", "pydarknet:", 3, "3:"]


def test_a_log_that_another_program_reads(here):
    shell("train --max-batches 2 --log >(cat > log; touch done); while [ ! -e done ]; do sleep .1; done")
    assert logged(Path("log").read_text()) == ["head", 1, 2]
    shell("rm done; train --max-batches 4 --resume --log >(cat > log; touch done); while [ ! -e done ]; do sleep .1; done")
    assert logged(Path("log").read_text()) == ["head", 3, 4]


# What they leave alone


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
@pytest.mark.parametrize("every", [1, 2])
def test_the_log_of_another_run_keeps_all_its_lines(here, name, every):
    """Of the same cfg and text, but other random numbers: the average after that iteration tells."""
    train("--max-batches", 9, "--no-sample", "--srand", 1, "--log", name)
    before = Path(name).read_bytes()
    there = ("--no-sample", "--srand", 2, "--backup", "b", "--log-every", every)
    train(*there, "--max-batches", 6)
    train(*there, "--max-batches", 8, "--resume", "--log", name)
    assert Path(name).read_bytes().startswith(before)
    assert sorted(read_run(name).training) == ([7, 8] if every == 1 else [8])


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
@pytest.mark.parametrize("other", ["cfg", "text"])
def test_the_log_of_another_network_or_text_keeps_all_its_lines(here, name, other):
    train("--max-batches", 9, "--no-sample", "--log", name)
    before = Path(name).read_bytes()
    if other == "cfg":
        write_cfg(here, momentum=0.5)
    else:
        write_text(here, seed=5)
    train("--max-batches", 6, "--no-sample", "--backup", "b")
    train("--max-batches", 8, "--no-sample", "--backup", "b", "--resume", "--log", name)
    assert Path(name).read_bytes().startswith(before) and sorted(read_run(name).training) == [7, 8]


def test_a_run_goes_on_in_its_log_after_changes_that_make_no_other(here):
    train("--max-batches", 6, "--no-sample", "--log", "log.jsonl", "--log-every", 4)
    os.rename("log.jsonl", "moved.jsonl")
    os.rename("backup", "b")
    write_cfg(here, max_batches=99)
    with open("moved.jsonl", "a") as file:
        file.write('{"iterat')
    train("--max-batches", 9, "--no-sample", "--backup", "b", "--resume", "--log", "moved.jsonl", "--log-every", 4)
    assert logged(Path("moved.jsonl").read_text()) == ["head", 4, 8]


@pytest.mark.parametrize("resume", [False, True])
def test_a_log_that_another_run_is_writing_is_left_to_it(here, resume):
    train("--max-batches", 2, "--no-sample", "--log", "log.jsonl")
    with open("log.jsonl", "a") as other:
        hold(other)
        other.write('{"iterat')
        other.flush()
        before = Path("log.jsonl").read_bytes()
        result = train("--max-batches", 3, "--log", "log.jsonl", *["--resume"] * resume, code=1)
        assert result.err.endswith("pydarknet: log.jsonl: another run is writing this log: give the log another name\n")
        assert Path("log.jsonl").read_bytes() == before
    train("--max-batches", 3, "--log", "log.jsonl", *["--resume"] * resume)


def test_a_line_that_comes_while_a_log_is_looked_into_is_not_cut_off(here, monkeypatch):
    """On a network drive without locks."""
    train("--max-batches", 2, "--no-sample", "--log", "log.jsonl")
    monkeypatch.setattr("pydarknet.cli.log.hold", lambda _: None)

    def place(*arguments):
        with open("log.jsonl", "a") as other:
            other.write(GOOD)
        return real(*arguments)

    real = log._place
    monkeypatch.setattr(log, "_place", place)
    train("--max-batches", 2, "--no-sample", "--log", "log.jsonl")
    assert logged(Path("log.jsonl").read_text()) == ["head", 1, 2, 1, "head", 1, 2]


def test_nothing_is_cut_off_where_it_is_not_known_whose_it_is(here):
    """The line of the iteration that the run goes on after is missing, which only --log-every does."""
    train("--max-batches", 6, "--no-sample", "--log", "log.jsonl")
    lines = Path("log.jsonl").read_text().splitlines(keepends=True)
    Path("log.jsonl").write_text("".join(lines[:6]) + lines[6].replace('"iteration": 6', '"iteration": 7'))
    train("--max-batches", 8, "--no-sample", "--resume", "--log", "log.jsonl")
    assert logged(Path("log.jsonl").read_text()) == ["head", 1, 2, 3, 4, 5, 7, 7, 8]


def test_a_log_from_before_there_were_headers_that_name_the_run(here):
    train("--max-batches", 6, "--no-sample")
    before = "".join(f'{{"iteration": {n}, "loss": 1}}\n' for n in range(1, 9))
    for head in ("", '{"pydarknet": "0.0.1", "cfg": ""}\n'):
        Path("log.jsonl").write_text(head + before)
        train("--max-batches", 7, "--no-sample", "--resume", "--log", "log.jsonl", "--backup", "backup")
        assert Path("log.jsonl").read_text().startswith(head + before)
        assert logged(Path("log.jsonl").read_text())[-2:] == ["head", 7]
        train("--max-batches", 6, "--no-sample", "--overwrite")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("kind", ["text", "records", "table", "weights", "checkpoint", "picture"])
def test_a_file_that_is_no_log_is_left_alone(here, kind, resume):
    train("--max-batches", 2, "--no-sample", "--log", "log.jsonl")
    content = {
        "text": b"Bought milk.\nCalled Ann, 5 o'clock",
        "records": b'{"name": "Ann"}\n{"iteration": 9}\n',
        "table": b"name,age\nAnn,41\n",
        "weights": Path("backup/tiny_final.weights").read_bytes(),
        "checkpoint": Path("backup/tiny.checkpoint").read_bytes(),
        "picture": b"<?xml version='1.0'?><svg/>\n",
    }[kind]
    for name in ("mine", "mine.csv"):
        Path(name).write_bytes(content)
        result = train("--max-batches", 4, "--log", name, "--backup", "b" if not resume else "backup",
                       *["--resume"] * resume, code=1)  # fmt: skip
        assert result.err.endswith(
            f"{name}: is not a log of pydarknet, to which one could be appended: give the log another name\n"
        ), result
        assert Path(name).read_bytes() == content and not Path("b").exists() and not re.search(r"^\d+: ", result.err, re.M)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv"])
def test_a_log_with_a_long_header_and_an_empty_file_are_appended_to(here, name):
    """A header names every text, and a shell may find thousands."""
    Path(name).touch()
    train("--max-batches", 1, "--no-sample", "--log", name)
    text = Path(name).read_text().replace('"command": "', f'"command": "{"x" * 100_000}', 1)
    Path(name).write_text(text)
    train("--max-batches", 2, "--no-sample", "--resume", "--log", name)
    assert Path(name).read_text().startswith(text) and sorted(read_run(name).training) == [1, 2]
    assert Path(name).read_text().count('"cfg": ') == 1


NAMES = [
    "tiny_final.weights",
    "tiny.backup",
    "tiny_2.weights",
    "tiny.checkpoint",
    "tiny.checkpoint.previous",
    "tiny_best.weights",
]


@pytest.mark.parametrize("name", [*(f"backup/{name}" for name in NAMES), "./backup/../backup/tiny_final.weights", "link"])
def test_a_log_is_no_file_that_the_run_saves(here, name):
    os.symlink("backup/tiny_final.1.weights", "link")
    result = train("--max-batches", 4, "--save-every", 2, "--log", name, "--valid-fraction", ".1", code=1)
    assert result.err.count("\n") == 1 and "give it another name" in result.err and not os.path.exists(name)
    assert not list(Path("backup").glob("tiny*"))


@pytest.mark.parametrize("name", ["backup/tiny.jsonl", "backup/tiny_log.csv", "backup/other.weights", "tiny.weights"])
def test_a_log_may_stand_beside_the_files_that_the_run_saves(here, name):
    train("--max-batches", 2, "--log", name)
    assert sorted(read_run(name).training) == [1, 2]


@pytest.mark.parametrize("plot", ["same.svg", "./same.svg"])
def test_the_log_and_the_picture_are_two_files(here, plot):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install '.[plot]'")
    result = train("--max-batches", 2, "--log", "same.svg", "--plot", plot, code=1)
    assert result.err == f"pydarknet: {plot}: the output is another file of the same command: give it another name\n"
    assert not os.path.exists("same.svg")


# TensorBoard's


def events(folder):
    """The events of TensorBoard's files in a folder, oldest first; each is a record: length, its check, content, its check."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX: pip install '.[tensorboard]'")
    for path in sorted(Path(folder).iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            yield event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16


def test_tensorboard_gets_what_the_log_gets_also_from_a_run_that_goes_on_at_once(here):
    pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install '.[tensorboard]'")
    usual = ("--tensorboard", "board", "--log", "log.jsonl", "--valid-fraction", ".1", "--valid-every", 2, "--sample-every", 4)
    train("--max-batches", 3, *usual)
    words = command("train", "tiny.cfg", "text.bin", "--max-batches", 5, "--resume", *usual)
    subprocess.run(words, cwd=here, env=environment(), check=True, capture_output=True, timeout=120)
    found = list(events("board"))
    values = {(value.tag, event.step): value for event in found for value in event.summary.value}
    records = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()[1:]]
    expected = {}
    for record in records:
        for name, tag in (("loss", "loss/training"), ("rate", "rate"), ("valid_loss", "loss/held_out")):
            if name in record:
                expected[tag, record["iteration"]] = pytest.approx(record[name], rel=1e-6)  # float32
    samples = {key: value for key, value in values.items() if key[0] == "sample/text_summary"}
    assert {key: value.simple_value for key, value in values.items() if key not in samples} == expected
    told = [(record["iteration"], record["sample"]) for record in records if "sample" in record]
    assert [(step, value.tensor.string_val[0].decode()) for (_, step), value in samples.items()] == [
        (step, f"    {sample}".replace("\n", "\n    ")) for step, sample in told
    ]
    assert [event.step for event in found if event.session_log.status == 1] == [4]  # START: what came after 3 is forgotten
    assert all(abs(event.wall_time - time.time()) < 300 for event in found)


def test_a_full_disk_ends_a_run_that_logs_for_tensorboard(here):
    """Not in a thread that nobody hears of, while the run waits for ever; what was trained is saved."""
    pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install '.[tensorboard]'")
    limit = 1 << 15
    result = subprocess.run(
        command("train", "tiny.cfg", "text.bin", "--max-batches", 100_000, "--tensorboard", "board", "--quiet", "--no-sample"),
        env=environment(), cwd=here, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    saved, told = result.stderr.splitlines()
    assert (result.returncode, told) == (1, "pydarknet: board: cannot write the progress: File too large"), result
    assert re.fullmatch(r"pydarknet: saved backup/tiny.backup after iteration \d+; --resume goes on", saved)


def test_a_disk_that_is_full_at_the_end(here, monkeypatch):
    writer = pytest.importorskip("tensorboardX.event_file_writer", reason="needs tensorboardX: pip install '.[tensorboard]'")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer.EventsWriter, "close", full)
    result = train("--max-batches", 1, "--quiet", "--tensorboard", "board", code=1)
    assert result.err == "pydarknet: board: cannot write the log: No space left on device\n"
    assert Path("backup/tiny_final.weights").exists()
