"""What a training run shows: a progress bar on a terminal, Darknet's lines elsewhere, and a JSON log."""

import dataclasses
import json
import sys

import click
from tqdm import tqdm

from pydarknet.errors import TrainingError
from pydarknet.files import why


def make_report(trainer):
    """A context manager that gives a function of one :class:`~pydarknet.trainer.Step`."""
    return Bar(trainer) if sys.stderr.isatty() else DarknetLines()


class DarknetLines:
    """``ITER: LOSS, AVG avg, RATE rate, SECONDS seconds, EPOCHS epochs`` on standard error, as Darknet prints it."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, step):
        click.echo(f"{step.iteration}: {step.loss:f}, {step.avg_loss:f} avg, {step.rate:f} rate, "
                   f"{step.seconds:f} seconds, {step.epochs:f} epochs", err=True)


class Bar:
    """A progress bar over the iterations, with loss, bits per character, rate and characters a second."""

    def __init__(self, trainer):
        self._samples = trainer.samples
        self._bar = tqdm(total=trainer.max_batches, initial=trainer.iteration, unit="it", dynamic_ncols=True,
                         file=sys.stderr, bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def __call__(self, step):
        bits = step.avg_loss / step.loss * step.bits_per_character if step.loss else 0
        self._bar.set_postfix_str(f"loss {step.avg_loss:.4f}, {bits:.3f} bits/char, rate {step.rate:.4g}, "
                                  f"{self._samples / step.seconds:,.0f} chars/s", refresh=False)
        self._bar.update()


class JsonLog:
    """Appends one JSON object a :class:`~pydarknet.trainer.Step` to a file. Raises TrainingError when it cannot."""

    def __init__(self, path):
        self._path = path
        try:
            self._file = open(path, "a", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{path}: cannot write the log: {why(error)}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, step):
        """Append ``step``, at once: what is watching the file sees whole lines."""
        try:
            self._file.write(json.dumps(dataclasses.asdict(step)) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"{self._path}: cannot write the log: {why(error)}") from None
