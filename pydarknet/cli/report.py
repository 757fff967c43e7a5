"""What a training run shows: a progress bar on a terminal, Darknet's lines elsewhere, and a JSON log.

Each is a context manager to be called with every :class:`~pydarknet.training.trainer.Step`. A BrokenPipeError
says that its reader has gone, a TrainingError any other reason why it cannot write.
"""

import dataclasses
import json
import math
import os
import sys
from contextlib import suppress

import click
from tqdm import tqdm

from pydarknet.errors import TrainingError
from pydarknet.system.files import reported, show, why


def make_report(trainer, every=1):
    """The report that suits standard error; away from a terminal it tells of every so many iterations."""
    return Bar(trainer) if sys.stderr and sys.stderr.isatty() else DarknetLines(every)


class Report:
    """A context manager that writes each step it is called with."""

    name = "standard error"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, step):
        """Write ``step``. May raise OSError."""
        raise NotImplementedError

    def __call__(self, step):
        try:
            self.write(step)
        except BrokenPipeError:
            raise
        except OSError as error:  # the disk that it goes to is full, the terminal has been closed
            raise TrainingError(f"{self.name}: cannot write the progress: {why(error)}") from None


class OnStandardError(Report):
    """A report that, once it cannot write, sends what is left nowhere: Python would try again when it ends."""

    def __call__(self, step):
        try:
            super().__call__(step)
        except (BrokenPipeError, TrainingError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
            raise


class DarknetLines(OnStandardError):
    """``ITER: LOSS, AVG avg, RATE rate, SECONDS seconds, EPOCHS epochs`` on standard error, as Darknet prints it."""

    def __init__(self, every):
        self._every = every

    def write(self, step):
        if step.iteration % self._every and step.valid_loss is None:
            return
        click.echo(
            f"{step.iteration}: {step.loss:f}, {step.avg_loss:f} avg, {step.rate:f} rate, "
            f"{step.seconds:f} seconds, {step.epochs:f} epochs",
            err=True,
        )
        if step.valid_loss is not None:
            click.echo(f"held out: {step.valid_loss:f}", err=True)


class Bar(OnStandardError):
    """A progress bar over the iterations: bits per character, also on the held-out text, rate, and characters a second."""

    def __init__(self, trainer):
        self._samples = trainer.samples
        self._held_out = ""
        self._bar = tqdm(
            total=trainer.max_batches,
            initial=trainer.iteration,
            unit="it",
            dynamic_ncols=True,
            file=sys.stderr,
            bar_format="{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}",
        )

    def __exit__(self, *_):
        self._bar.close()

    def write(self, step):
        if step.valid_loss is not None:
            self._held_out = f", held out {_bits(step.valid_loss):.3f}"
        self._bar.set_postfix_str(
            f"{_bits(step.avg_loss):.3f} bits{self._held_out}, rate {step.rate:.2g}, {_short(self._samples / step.seconds)}/s",
            refresh=False,
        )
        self._bar.update()


class JsonLog(Report):
    """Appends one JSON object a step to the file at ``path``, at once: what watches the file sees whole lines.

    A run that goes on ``after`` an iteration (None for one that begins) first takes back what was logged of later ones: it was
    killed behind its last checkpoint, and comes to them again. With ``every`` it logs every so many iterations, and those
    with a measurement.
    """

    def __init__(self, path, after=None, every=1):
        self.name, self._every = show(path), every
        with reported(TrainingError, path, "cannot write the log"):
            if os.path.isfile(path):
                _take_back(path, after)
            self._file = open(path, "a", encoding="utf-8")

    def __exit__(self, *_):
        with suppress(OSError):  # what could not be written has been told
            self._file.close()

    def write(self, step):
        if step.iteration % self._every and step.valid_loss is None:
            return
        record = dataclasses.asdict(step)
        if step.valid_loss is None:
            del record["valid_loss"]
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def _take_back(path, after):
    """Cut the log's last lines off that are of an iteration beyond ``after``; end a line that was cut in the middle."""
    with open(path, "rb+") as file:
        lines = file.readlines()
        end = len(lines)
        while end and after is not None and _iteration(lines[end - 1]) > after:
            end -= 1
        file.truncate(sum(map(len, lines[:end])))
        if end and not lines[end - 1].endswith(b"\n"):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")


def _iteration(line):
    """The iteration of a line of the log; of half a line, at its end, one beyond all; of any other line -1."""
    try:
        return json.loads(line)["iteration"]
    except (ValueError, TypeError, KeyError):
        return -1 if line.endswith(b"\n") else math.inf


def _short(number):
    """A number in at most five characters: 950, 12.3k, 104k, 1.2M."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if number >= 99.5 or not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}G"


def _bits(nats):
    return nats / math.log(2)
