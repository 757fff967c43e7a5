"""``pydarknet plot`` and ``report``: the curves of runs in the terminal, as a picture, and as a page."""

import os
import shutil
import sys
import time

import click

from pydarknet.cli.commands import Choice, command
from pydarknet.cli.options import PATH
from pydarknet.cli.streams import in_colour
from pydarknet.errors import TextError
from pydarknet.system.files import check_output, reported, show, write_atomically
from pydarknet.views.chart import braille
from pydarknet.views.picture import check_picture, picture
from pydarknet.views.run_page import page
from pydarknet.views.runs import AXES, common_unit, curves, label_of, read_run

PAUSE = 1.0  # seconds between two looks at a log that is followed

over_option = click.option(
    "--over", type=Choice(AXES), default="iterations", show_default=True, help="What the axis from left to right counts."
)


@command()
@click.argument("logs", nargs=-1, required=True, type=PATH)
@over_option
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write an .svg or .png, which is replaced; needs matplotlib.")
@click.option("--follow", is_flag=True, help="Draw again whenever a log has grown, until Ctrl-C.")
def plot(logs, over, output, follow):
    """Show the training and the held-out loss of one or several runs.

    LOGS are files that `train --log` has written. Losses are in bits per character of an ASCII text, per byte of any other,
    and per token of a tokenized one; the training loss is the average that Darknet prints. The chart is drawn in the terminal,
    in colours unless NO_COLOR is set; where there are several curves, each has a letter.

    Example: pydarknet plot run.jsonl other.jsonl --over time
    """
    if output:
        check_picture(output)
        check_output(output, logs)
    seen = None
    while True:
        now = [_stamp(path) for path in logs]
        if now != seen:
            runs = [read_run(path) for path in logs]
            drawn, unit = _points(runs, over), common_unit(runs)
            if output:
                _write(output, picture(output, drawn, label_of(over, unit), unit), "picture")
                click.echo(f"Saved {show(output)}")
            else:
                _print(drawn, label_of(over, unit), unit, follow)
            seen = now
        if not follow:
            return
        time.sleep(PAUSE)


@command()
@click.argument("log", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="The page to write; it is replaced.")
@over_option
def report(log, output, over):
    """Write a page of a run: curves, figures, samples and cfg.

    LOG is a file that `train --log` has written. The page is self-contained and opens from disk; samples and the cfg
    are in it where the log has them.

    Example: pydarknet report run.jsonl -o run.html
    """
    check_output(output, [log])
    run = read_run(log)
    _points([run], over)
    _write(output, page(run, over).encode("utf-8", "backslashreplace"), "page")
    click.echo(f"Saved {show(output)}")


def _points(runs, over):
    found = curves(runs, over)
    if not found:
        raise TextError(f"{runs[0].name}: this log does not record {over}: choose another --over")
    return found


def _stamp(path):
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None  # reading it says why
    return stat.st_size, stat.st_mtime_ns


def _print(drawn, label, unit, follow):
    terminal = sys.stdout.isatty()
    size = shutil.get_terminal_size()
    height = max(6, min(20, size.lines - len(drawn) - 5))
    lines = braille(drawn, size.columns - 1, height, label, in_colour())
    sys.stdout.write(("\033[H\033[2J" if follow and terminal else "") + "\n".join([f"bits per {unit}", *lines]) + "\n")
    sys.stdout.flush()


def _write(path, data, what):
    with reported(TextError, path, f"cannot write the {what}"):
        write_atomically(path, [data])
