"""``plot`` and ``report``: the numbers of the log, in the terminal, as a picture and as a page."""

import json
import math
import os
import re
import subprocess
import time

import pytest
from command_line import done, run
from runs import command, environment

from pydarknet.views.chart import braille, svg, ticks, whole_ticks
from pydarknet.views.run_page import stages
from pydarknet.views.runs import curves, read_run

PLAIN = [
    {"iteration": n, "loss": 9.0, "avg_loss": (4 - n / 10) * math.log(2), "seconds": 0.5, "characters": 64 * n}
    for n in range(1, 11)
]


def write(path, records, end="\n"):
    path.write_text("\n".join(map(json.dumps, records)) + end)
    return path


def test_a_log_of_today_and_one_with_objects_of_their_own(tmp_path):
    today = read_run(write(tmp_path / "a", [*PLAIN[:-1], {**PLAIN[-1], "valid_loss": 2 * math.log(2)}]))
    assert today.points("training", "iterations")[2] == (3, pytest.approx(3.7))
    assert today.points("training", "characters")[2][0] == 192
    assert today.points("training", "time")[-1][0] == pytest.approx(5)
    assert today.points("held_out", "time") == [(pytest.approx(5), pytest.approx(2))]
    new = [
        {"version": "1", "cfg": "[net]\n", "unknown": []},
        *PLAIN[:4],
        {"iteration": 4, "valid_loss": math.log(2)},
        {"iteration": 4, "sample": "To be"},
        *PLAIN[3:],
        {"event": "x"},
    ]
    other = read_run(write(tmp_path / "b", new))
    assert other.header["cfg"] == "[net]\n" and other.samples == [(4, "To be")]
    assert other.points("held_out", "characters") == [(256, pytest.approx(1))]
    assert len(other.points("training", "iterations")) == 10
    assert [name for name, _ in curves([today, other], "iterations")][1] == f"{tmp_path}/a, held out"


def test_seconds_of_iterations_that_were_not_logged_count(tmp_path):
    run_ = read_run(write(tmp_path / "a", PLAIN[4::5]))
    assert run_.points("training", "time")[-1][0] == pytest.approx(0.5 + 5 * 0.5)


def test_measurements_in_objects_of_their_own_take_their_place_from_before(tmp_path):
    """And ten thousand of them no longer than reading does."""
    found = read_run(write(tmp_path / "a", [{"iteration": 5, "valid_loss": 1}, *PLAIN[6:8], {"iteration": 9, "valid_loss": 1}]))
    assert [n for n, _ in found.points("held_out", "characters")] == [64 * 8]
    records = [{**PLAIN[0], "iteration": n, "valid_loss": 1} for n in range(10_000)]
    begun = time.process_time()
    read_run(write(tmp_path / "a", records))
    assert time.process_time() - begun < 2


def test_a_line_that_is_being_written_is_passed_over(tmp_path):
    path = write(tmp_path / "a", PLAIN, end='\n{"iter')
    assert len(read_run(path).training) == 10


def test_braille_draws_the_corners():
    lines = braille([("x", [(0, 1), (10, 0)])], 5 + 10, 4, "iterations")
    dots = [[ord(c) - 0x2800 for c in line[5:].replace(" ", "\u2800").ljust(10, "\u2800")] for line in lines[:4]]
    assert dots[0][0] & 0x01 and dots[3][9] & 0x80  # the upper left and the lower right dot
    assert not dots[3][0] and not dots[0][9]
    assert sum(dot.bit_count() for row in dots for dot in row) == 20  # one in each column of dots
    assert lines[0].startswith("1.0 │") and lines[3].startswith("0.0 │")
    assert lines[4:7] == ["    └┴────────┴", "     0       10", "     iterations"]
    assert lines[7].endswith("━ x: 0.0000 bits, least 0.0000")


@pytest.mark.parametrize(
    "low, high, most, told",
    [
        (0, 1, 5, "0.0 0.2 0.4 0.6 0.8 1.0"),
        (1, 300, 6, "50 100 150 200 250 300"),
        (6.08, 8, 6, "6.5 7.0 7.5 8.0"),
        (-0.0019, 0.0001, 5, "-0.0015 -0.0010 -0.0005 0.0000"),
        (123, 9_990_000, 4, "5,000,000"),
    ],
)
def test_ticks_are_round(low, high, most, told):
    found = ticks(low, high, most)
    assert [text for _, text in found] == told.split() and len(found) <= most + 1
    assert all(number == pytest.approx(float(text.replace(",", "")), abs=1e-12) for number, text in found)


def test_ticks_of_what_is_counted_are_whole():
    assert [text for _, text in whole_ticks(1, 3, 6)] == ["1", "2", "3"]
    assert [text for _, text in whole_ticks(0.2, 0.7, 6)] == ["0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]


def test_the_page_has_ticks_where_they_belong():
    found = svg([("x", [(1, 8), (301, 6)])], "iterations", "byte")
    places = dict(re.findall(r'<text x="([\d.]+)" y="332" text-anchor="middle">([\d,]+)</text>', found))
    assert list(places.values()) == ["50", "100", "150", "200", "250", "300"]
    (first, last), (left, right) = (min(places, key=float), max(places, key=float)), re.findall(r"([\d.]+),[\d.]+", found)
    assert (float(first) - float(left)) / (float(right) - float(left)) == pytest.approx(49 / 300, abs=1e-3)
    assert float(last) < float(right)
    assert re.findall(r'text-anchor="end">([\d.]+)</text>', found) == ["6.0", "6.5", "7.0", "7.5", "8.0"]


def test_each_of_several_curves_has_a_letter():
    ends = [(f"run {n}", [(0, n), (100, 3 - n)]) for n in range(3)] + [("short", [(50, 2.9), (51, 2.9)])]
    lines = braille(ends, 80, 12, "iterations")
    drawn, legend = "\n".join(lines[:12]), lines[-4:]
    assert [line.split(":")[0].split(maxsplit=1) for line in legend] == [
        ["a", "run 0"], ["b", "run 1"], ["c", "run 2"], ["d", "short"],
    ]  # fmt: skip
    assert drawn.count("d") == 1 and all(drawn.count(letter) >= 3 for letter in "abc"), drawn
    coloured = braille(ends, 80, 12, "iterations", colours=True)
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in coloured] == lines


def test_plot_prints_every_run(tmp_path):
    a, b = write(tmp_path / "a", PLAIN), write(tmp_path / "b", PLAIN[:5])
    out = done("plot", a, b, "--over", "characters").decode()
    assert "\x1b" not in out and f"{a}, training: 3.0000 bits" in out and f"{b}, training: 3.5000 bits" in out
    assert out.count("characters") == 1 and " 600" in out and all(len(line) <= 80 for line in out.splitlines()[:-2])


@pytest.mark.parametrize("suffix, start", [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_pictures(tmp_path, suffix, start):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `plot`)")
    done("plot", write(tmp_path / "a", PLAIN), "-o", tmp_path / f"p.{suffix}")
    assert (tmp_path / f"p.{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["$\\frac{$.jsonl", "a$b$c.jsonl", "_x.jsonl"])
def test_the_name_of_a_log_is_no_formula(tmp_path, monkeypatch, name):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `plot`)")
    monkeypatch.chdir(tmp_path)
    logs = write(tmp_path / "a.jsonl", PLAIN), write(tmp_path / name, PLAIN)
    result = run("plot", logs[0].name, name, "-o", "p.svg")
    assert (result.code, result.err) == (0, ""), result
    assert f"<!-- {name}, training -->" in (tmp_path / "p.svg").read_text()


def test_a_matplotlib_that_does_not_start_is_told(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `plot`)")
    words = command("plot", write(tmp_path / "a", PLAIN), "-o", tmp_path / "p.svg")
    result = subprocess.run(words, env={**environment(), "MPLBACKEND": "bogus"}, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.startswith("pydarknet: matplotlib does not start: ")
    assert result.stderr.endswith(": mend MPLBACKEND or its matplotlibrc\n") and result.stderr.count("\n") == 1


def test_report(tmp_path):
    log = write(
        tmp_path / "a<b",
        [
            {"cfg": "[net]\n<x>", "seed": 7},
            *PLAIN,
            {"iteration": 4, "sample": "<i>To be"},
            {"iteration": 10, "valid_loss": math.log(2)},
        ],
    )
    done("report", log, "-o", tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "&lt;i&gt;To be" in html and "&lt;x&gt;" in html and "<i>" not in html and "<td>seed<td>7" in html
    assert "1.0000 bits per character, iteration 10" in html and "3.0000 bits per character" in html
    assert html.count("<polyline") == 2 and "src=" not in html and "http-equiv" in html and "https:" not in html


@pytest.mark.parametrize("unit", ["character", "byte", "token"])
def test_the_unit_is_that_of_the_text(tmp_path, unit):
    head = {"cfg": "[net]", "unit": unit, "characters_of_text": 285000, "held_out": 7500}
    log = write(tmp_path / "a", [head, *PLAIN, {"iteration": 10, "valid_loss": math.log(2)}])
    lines = done("plot", log, "--over", "characters").decode().splitlines()
    assert lines[0] == f"bits per {unit}" and any(line.endswith(f" {unit}s") for line in lines)
    both = done("plot", log, write(tmp_path / "b", PLAIN), "--over", "characters").decode()
    mixed = "symbol" if unit != "character" else unit  # of the second nothing is known
    assert both.startswith(f"bits per {mixed}\n") and f" {mixed}s\n" in both
    done("report", log, "--over", "characters", "-o", tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert f"<h2>Loss, bits per {unit}</h2>" in html and f'aria-label="loss in bits per {unit}"' in html
    assert f"<td>{unit}s of text<td>285,000</tr>" in html and f"<td>{unit}s held out<td>7,500</tr>" in html
    assert f"<td>128 {unit}s a second" in html and f">{unit}s</text>" in html
    assert (unit == "character") is ("character" in html) and "symbol" not in html


def test_losses_that_are_as_good_as_alike(tmp_path):
    """A range that is lost in rounding has no ticks of its own."""
    for losses in ([0.0, 5e-324], [0.0, 1e-300], [3.0, 3.0 + 1e-12]):
        log = write(tmp_path / "a", [{"iteration": n, "loss": x, "avg_loss": x} for n, x in enumerate(losses, 1)])
        lines = done("plot", log).decode().splitlines()
        assert all(len(line) <= 80 for line in lines[:-1])
        done("report", log, "-o", tmp_path / "page.html")


def test_a_picture_names_the_unit(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra `plot`)")
    monkeypatch.setitem(__import__("matplotlib").rcParams, "svg.fonttype", "none")  # letters, not outlines
    log = write(tmp_path / "a", [{"cfg": "[net]", "unit": "token"}, *PLAIN])
    done("plot", log, "--over", "characters", "-o", tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert ">bits per token<" in text and ">tokens<" in text


def test_samples_are_spread_evenly():
    assert stages(list(range(101))) == [0, 20, 40, 60, 80, 100]


@pytest.mark.parametrize(
    "content, words, message",
    [
        ("no json\n", "plot a", "a:1: no JSON object"),
        ("[1]\n", "report a -o p.html", "a:1: no JSON object"),
        ("", "plot a", "no iteration"),
        ('{"iteration": 1, "loss": 1}\n', "plot a --over characters", "choose another --over"),
        ('{"iteration": 1, "loss": 1}\n', "plot a -o a.pdf", ".svg or .png"),
        ('{"iteration": 1, "loss": 1}\n', "report a -o a", "give it another name"),
        ('{"iteration": 1, "loss": 1}\n', "report missing -o p", "cannot read this log"),
        ("", "plot /dev/zero", "/dev/zero: cannot read this log: a folder, pipe or device, not a regular file"),
        ("", "plot pipe", "pipe: cannot read this log: a folder, pipe or device, not a regular file"),
        ("", "report pipe -o p", "pipe: cannot read this log: a folder, pipe or device, not a regular file"),
        ("\0" * (5 << 20), "plot a", "a: has a line of more than 4,194,304 characters"),
    ],
)
def test_mistakes_are_a_line(tmp_path, monkeypatch, content, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text(content)
    os.mkfifo("pipe")
    result = run(*words.split())
    assert result.code == 1 and message in result.err and result.err.count("\n") == 1
    assert (tmp_path / "a").read_text() == content
