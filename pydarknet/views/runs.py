"""The log of a run, read as curves: what ``plot`` and ``report`` draw.

A log has one JSON object a line. One with ``iteration`` and ``loss`` is an iteration; one with ``valid_loss`` is, or is also,
a measurement on the held-out text; one with ``sample`` a text that the network wrote; one with ``cfg`` a header. Whatever else
stands in them is skipped, and so are numbers that no run has. Losses are in nats in the log, in bits here, per
:attr:`Run.unit`.
"""

import csv
import io
import json
import math
from bisect import bisect_right
from dataclasses import dataclass, field

from pydarknet.errors import TextError
from pydarknet.system.files import open_regular, reported, show
from pydarknet.system.kinds import json_object

AXES = ("iterations", "characters", "time")
LONGEST = 4 << 20  # characters of a line: the header has a cfg, others a sample
LARGEST = 1e14  # of the numbers of a run: below it floats have room for the tenths that a chart reckons with


@dataclass
class Run:
    """A run by iteration: ``training`` and ``held_out``, in bits per ``unit``; ``characters`` and ``time``, in seconds."""

    name: str
    header: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    held_out: dict = field(default_factory=dict)
    characters: dict = field(default_factory=dict)
    time: dict = field(default_factory=dict)
    samples: list = field(default_factory=list)

    @property
    def unit(self):
        """What a symbol of its text is: a "byte", a "token", or a "character", also where the log does not say."""
        unit = self.header.get("unit")
        return unit if unit in ("byte", "token") else "character"

    def points(self, curve, axis):
        """[(x, bits)] of ``curve``, "training" or "held_out", over ``axis``, one of :data:`AXES`, by iteration."""
        places = {"characters": self.characters, "time": self.time}.get(axis)
        points = sorted(getattr(self, curve).items())
        return [(n if places is None else places[n], bits) for n, bits in points if places is None or n in places]


def read_run(path):
    """The :class:`Run` of the log at ``path``. Raises TextError for a file that is no log, or has no iteration yet.

    A last line without an end is skipped: the run is writing it. Iterations that come twice count as they came last.
    """
    run = Run(show(path))
    elapsed, last = 0.0, None
    for record in _records(path):
        iteration = _number(record.get("iteration"))
        if "cfg" in record:
            run = Run(show(path), record)
            elapsed, last = 0.0, None
        if type(iteration) is not int:
            continue
        loss = _bits(record.get("avg_loss", record.get("loss")))
        if "loss" in record and loss is not None:
            run.training[iteration] = loss
            steps = max(1, iteration - last) if last is not None else 1  # --log-every leaves some out
            elapsed = _number(elapsed + (_number(record.get("seconds")) or 0) * steps) or elapsed
            run.time[iteration], last = elapsed, iteration
            characters = _number(record.get("characters"))
            if characters is not None:
                run.characters[iteration] = characters
        held_out = _bits(record.get("valid_loss"))
        if held_out is not None:
            run.held_out[iteration] = held_out
        if isinstance(record.get("sample"), str):
            run.samples.append((iteration, record["sample"]))
    if not run.training:
        raise TextError(f"{show(path)}: there is no iteration in this log: `train --log` writes one")
    for places in (run.characters, run.time):  # of measurements that stand in objects of their own
        known = sorted(places)
        for iteration in run.held_out:
            before = bisect_right(known, iteration)
            if before:
                places[iteration] = places[known[before - 1]]
    return run


def _lines(path):
    with reported(TextError, path, "cannot read this log"), open_regular(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8")
        while line := text.readline(LONGEST + 1):
            if len(line) > LONGEST:
                raise TextError(
                    f"{show(path)}: has a line of more than {LONGEST:,} characters: this is no log of `train --log`"
                )
            yield line


def _records(path):
    """The JSON objects of a log, or the rows of a table as such objects."""
    columns: list[str] | None = None
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            if columns is not None and line[:1].isdigit():
                record = {name: _value(text) for name, text in zip(columns, next(csv.reader([line])))}
            elif line.startswith("iteration,"):
                columns = next(csv.reader([line]))
                continue
            else:
                record = json_object(line.removeprefix("# "))
        except (ValueError, RecursionError, csv.Error):
            record = None
        if record is None:
            if not line.endswith("\n"):  # the last
                return
            raise TextError(f"{show(path)}:{number}: no JSON object: this is no log of `train --log`")
        yield record


def _value(text):
    return json.loads(text) if text else None  # numbers and texts alike


def curves(runs, axis):
    """[(label, [(x, bits)])] of the training and the held-out loss of ``runs``, empty ones left out."""
    found = []
    for run in runs:
        for curve, what in (("training", "training"), ("held_out", "held out")):
            points = run.points(curve, axis)
            if points:
                found.append((f"{run.name}, {what}" if len(runs) > 1 else what, points))
    return found


def common_unit(runs):
    """What a symbol of the texts of all ``runs`` is, by :attr:`Run.unit`; "symbol" where they differ."""
    units = {run.unit for run in runs}
    return units.pop() if len(units) == 1 else "symbol"


def label_of(axis, unit):
    """What is written at the ``axis``, one of :data:`AXES`."""
    return {"characters": f"{unit}s", "time": "seconds"}.get(axis, axis)


def _number(value):
    """``value`` if it is a number that a run can have, else None."""
    return value if type(value) in (int, float) and abs(value) < LARGEST else None


def _bits(nats):
    return None if (number := _number(nats)) is None else number / math.log(2)
