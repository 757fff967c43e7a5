"""The logs of `train`: where they go, what they leave alone, and what damaged ones are to those who read them."""

import json
import math
from pathlib import Path

import pytest
from command_line import run
from runs import LAYERS, write_cfg

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


@pytest.mark.parametrize("command", ["plot", "report"])
@pytest.mark.parametrize("over", ["iterations", "characters", "time"])
def test_numbers_that_no_run_has_are_skipped(here, command, over):
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
    result = run(command, "run.jsonl", "--over", over, *(["-o", "page.html"] if command == "report" else []))
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
