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
from pydarknet.system.files import show, why


def make_report(trainer):
    """The report that suits standard error."""
    return Bar(trainer) if sys.stderr and sys.stderr.isatty() else DarknetLines()


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

    def write(self, step):
        click.echo(
            f"{step.iteration}: {step.loss:f}, {step.avg_loss:f} avg, {step.rate:f} rate, "
            f"{step.seconds:f} seconds, {step.epochs:f} epochs",
            err=True,
        )
        if step.valid_loss is not None:
            click.echo(f"held out: {step.valid_loss:f}, {_bits(step.valid_loss):f} bits per character", err=True)


class Bar(OnStandardError):
    """A progress bar over the iterations, with loss, bits per character, rate and characters a second."""

    def __init__(self, trainer):
        self._samples = trainer.samples
        self._held_out = ""
        self._bar = tqdm(
            total=trainer.max_batches,
            initial=trainer.iteration,
            unit="it",
            dynamic_ncols=True,
            file=sys.stderr,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )

    def __exit__(self, *_):
        self._bar.close()

    def write(self, step):
        if step.valid_loss is not None:
            self._held_out = f", held out {_bits(step.valid_loss):.3f}"
        self._bar.set_postfix_str(
            f"loss {step.avg_loss:.4f}, {_bits(step.avg_loss):.3f} bits/char{self._held_out}, "
            f"rate {step.rate:.4g}, {self._samples / step.seconds:,.0f} chars/s",
            refresh=False,
        )
        self._bar.update()


class JsonLog(Report):
    """Appends one JSON object a step to the file at ``path``, at once: what watches the file sees whole lines."""

    def __init__(self, path):
        self.name = show(path)
        try:
            self._file = open(path, "a", encoding="utf-8")
            self._end_cut_line(path)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.name}: cannot write the log: {why(error)}") from None

    def _end_cut_line(self, path):
        """A run that was killed, or had no space left, may have left half of a line."""
        with open(path, "rb") as file:
            if file.seek(0, 2) and file.seek(-1, 2) >= 0 and file.read(1) != b"\n":
                self._file.write("\n")

    def __exit__(self, *_):
        with suppress(OSError):  # what could not be written has been told
            self._file.close()

    def write(self, step):
        record = dataclasses.asdict(step)
        if step.valid_loss is None:
            del record["valid_loss"]
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def _bits(nats):
    return nats / math.log(2)
