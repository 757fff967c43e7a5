"""The logs of a training run: JSON lines, CSV, and a picture of the curves.

Each is a :class:`~pydarknet.cli.progress.Report`, called with every step and the sample after it, if there is one.
"""

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import platform
import re
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np

from pydarknet import __version__
from pydarknet.cli.progress import Report
from pydarknet.errors import InputError, TrainingError
from pydarknet.system.files import check_output, reported, show, write_atomically
from pydarknet.system.kinds import LOG, LOG_HEADERS, json_object, kind_of_file
from pydarknet.system.locks import hold
from pydarknet.text.utf8 import unit_of
from pydarknet.training.run_state import meaning
from pydarknet.views.picture import check_picture, picture
from pydarknet.views.runs import Run, curves

PICTURE_TAKES = 0.01  # of the time, at most


def header(trainer, command, srand):
    """What the first line of a log says of the run of ``trainer``; ``run`` is the same when it goes on."""
    held_out = trainer.validation.corpus if trainer.validation else None
    return {
        "pydarknet": __version__,
        "command": command,
        "seed": srand,
        "text": ", ".join(show(name) for name in trainer.corpus.names[:20]),
        "unit": unit_of(trainer.corpus),
        "characters_of_text": len(trainer.corpus),
        "digest_of_text": trainer.text_digest,
        "run": _digest([meaning(trainer.network), trainer.text_digest]),
        "held_out": len(held_out) if held_out else 0,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "cfg": trainer.network.cfg.as_text(),
    }


def _digest(what):
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()


def check_log(path):
    """Raise InputError if a log would be appended to a file that is none, TrainingError if another run is writing it."""
    with reported(InputError, path, "cannot read this log"):
        if not os.path.isfile(path) or _stream_at(path):
            return
        with open(path, "rb") as file:
            _hold(file, show(path))
        if not os.path.getsize(path) or kind_of_file(path) is LOG:
            return
    raise InputError(f"{show(path)}: is not a log of pydarknet, to which one could be appended: give the log another name")


def check_names(outputs, backups):
    """Raise InputError if one of the ``outputs`` of a run is another of them, or may be written by its ``backups``."""
    own = re.compile(rf"\.?{re.escape(backups.base)}[._](.*[._])?(weights|backup|checkpoint|new|previous|lock)")
    for number, path in enumerate(outputs):
        check_output(path, [*outputs[:number], *backups.planned()])
        folder, name = os.path.split(os.path.realpath(path))
        if folder == os.path.realpath(backups.folder) and own.fullmatch(name):
            raise InputError(f"{show(path)}: the run saves its weights under such names in this folder: give it another name")


class FileLog(Report):
    """Appends to the file at ``path``, whole lines at once.

    A run that begins writes ``header`` first. One that goes on ``after`` an iteration, with this ``average`` of the loss, takes
    back what it logged of later ones, and of that one if it is ``unfinished``: it was killed after its last checkpoint, and
    comes to them again. With ``every`` it logs every so many iterations, and those with a measurement or a sample. What
    standard output or standard error goes to is written through these: each writer of a file has a place in it of its own,
    where it would write over the other. Only a file is looked into, no pipe, and no other run logs to it meanwhile. Raises
    TrainingError if the file cannot be written, or another run is writing it.
    """

    def __init__(self, path, header, after=None, average=None, unfinished=False, every=1):
        self.name, self._every = show(path), every
        head = self.head(header)
        with reported(TrainingError, path, "cannot write the log"):
            stream, goes_on = _stream_at(path), False
            self._file = open(path, "a", encoding="utf-8") if stream is None else open(os.dup(stream), "w", encoding="utf-8")
            if stream is None and os.path.isfile(path):
                _hold(self._file, self.name)
                goes_on = _take_back(path, head[0], after, average, unfinished)
            if not goes_on:
                self._put(head)

    def __exit__(self, *_):
        with suppress(OSError):  # what could not be written has been told
            self._file.close()

    def fileno(self):
        return self._file.fileno()

    def write(self, step, sample=None):
        if step.iteration % self._every and step.valid_loss is None and sample is None:
            return
        self._put(self.lines(step, sample, round(time.time(), 3)))

    def _put(self, lines):
        self._file.write("".join(lines))
        self._file.flush()

    def head(self, header):
        """The lines of the ``header``."""
        raise NotImplementedError

    def lines(self, step, sample, now):
        """The lines of a step; ``now`` is its time, in seconds of the Unix clock."""
        raise NotImplementedError


class JsonLog(FileLog):
    """One JSON object a line: the header, then iterations, and measurements and samples as objects of their own."""

    def head(self, header):
        return [json.dumps(header) + "\n"]

    def lines(self, step, sample, now):
        records = [{name: value for name, value in dataclasses.asdict(step).items() if name != "valid_loss"}]
        if step.valid_loss is not None:
            records.append({"iteration": step.iteration, "valid_loss": step.valid_loss})
        if sample is not None:
            records.append({"iteration": step.iteration, "sample": sample})
        return [json.dumps({**record, "time": now}) + "\n" for record in records]


class CsvLog(FileLog):
    """A table: the header as a comment, a line of names, then a row an iteration; a sample is written as JSON writes it."""

    COLUMNS = (*"iteration loss avg_loss rate seconds characters epochs valid_loss".split(), "time", "sample")

    def head(self, header):
        return [f"# {json.dumps(header)}\n", ",".join(self.COLUMNS) + "\n"]

    def lines(self, step, sample, now):
        found = {**dataclasses.asdict(step), "time": now, "sample": None if sample is None else json.dumps(sample)}
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(["" if found[name] is None else found[name] for name in self.COLUMNS])
        return [line.getvalue()]


def open_log(path, *arguments):
    """The log of the kind that its name asks for: ``.csv`` or, whatever else it ends in, JSON lines."""
    return (CsvLog if os.fsdecode(path).lower().endswith(".csv") else JsonLog)(path, *arguments)


def _stream_at(path):
    """The number of standard output or error if ``path`` is what it goes to, None for any other and for a device."""
    with suppress(OSError, ValueError):  # there is no such file yet
        status = os.stat(path)
        if not stat.S_ISCHR(status.st_mode):  # a device has no places, and the stream may be the null device, to be read only
            for number in (1, 2):
                if os.path.samestat(status, os.fstat(number)):
                    return number
    return None


def _take_back(path, head, after, average, unfinished=False):
    """Cut off what the run of the header ``head`` logged beyond ``after``; return whether it goes on in this log.

    If that iteration is ``unfinished``, what was logged of it goes too. Of any other log all is kept. A line that was cut in
    the middle is ended.
    """
    with open(path, "rb+") as file:
        lines = file.readlines()
        goes_on, end = _place(lines, head, after, average)
        while goes_on and unfinished and end and _figures(lines[end - 1])[0] == after:
            end -= 1
        if end < len(lines):
            file.truncate(sum(map(len, lines[:end])))
        if end and not lines[end - 1].endswith(b"\n"):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
    return goes_on


def _hold(file, name):
    try:
        hold(file)
    except BlockingIOError:
        file.close()
        raise TrainingError(f"{name}: another run is writing this log: give the log another name") from None


def _place(lines, head, after, average):
    """Whether a run goes on in the ``lines`` of a log, and how many of them to keep.

    It does if the last header is of such a run, and they tell no other average ``after`` that iteration. If they tell none,
    with which it would be known for certain, no whole line is cut off.
    """
    end, heads = len(lines), [line for line in lines if line.startswith(LOG_HEADERS)]
    if after is None or not heads or _run_of(heads[-1]) != _run_of(head.encode()):
        return False, end
    while end and _figures(lines[end - 1])[0] > after:
        end -= 1
    found = _average_at(lines[:end], after)
    if found is None:
        return True, len(lines) - (not lines[-1].endswith(b"\n"))
    return (True, end) if found == average else (False, len(lines))


def _run_of(line):
    """The run of a header, and of which kind of log it is."""
    return line[:1], (json_object(line.removeprefix(b"# ")) or {}).get("run")


def _average_at(lines, iteration):
    """The running average after ``iteration``, if the last of the ``lines`` are of this one; else None."""
    for line in reversed(lines):
        at, average = _figures(line)
        if at != iteration:
            return None
        if average is not None:
            return average
    return None


def _figures(line):
    """The iteration and the running average of a line of the log; of half a line, at its end, an iteration beyond all.

    The average of a measurement or a sample is None; the iteration of any other line -1.
    """
    if not line.endswith(b"\n"):
        return math.inf, None
    if line[:1].isdigit():
        try:
            iteration, _, average = line.split(b",", 3)[:3]
            return int(iteration), float(average)
        except ValueError:  # a text that begins with a digit
            return -1, None
    record = json_object(line) or {}
    iteration = record.get("iteration")
    return iteration if type(iteration) is int else -1, record.get("avg_loss")


class Picture(Report):
    """The curves so far as an .svg or .png at ``path``, drawn again at measurements, and at the end.

    ``unit`` is what a symbol of the text is. It is drawn as often as keeps the drawing to a hundredth of the time. Raises
    InputError without matplotlib.
    """

    def __init__(self, path, unit="character"):
        check_picture(path)
        self.name, self._path, self._unit = show(path), path, unit
        self._run, self._next, self._drawn = Run("run"), 0.0, None

    def write(self, step, sample=None):
        run = self._run
        run.training[step.iteration] = step.avg_loss / math.log(2)
        if step.valid_loss is not None:
            run.held_out[step.iteration] = step.valid_loss / math.log(2)
        if time.perf_counter() >= self._next and (step.valid_loss is not None or self._drawn is None):
            self._draw()

    def _draw(self):
        begun = time.perf_counter()
        with reported(TrainingError, self._path, "cannot write the picture"):
            write_atomically(self._path, [picture(self._path, curves([self._run], "iterations"), "iterations", self._unit)])
        now = time.perf_counter()
        self._drawn, self._next = max(self._run.training), now + (now - begun) / PICTURE_TAKES

    def __exit__(self, kind, *_):
        if kind is None and self._run.training and self._drawn != max(self._run.training):
            self._draw()
