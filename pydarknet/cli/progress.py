"""What a training run shows: a progress bar on a terminal, Darknet's lines elsewhere.

Each is a context manager to be called with every :class:`~pydarknet.training.trainer.Step` and with the text that the network
wrote after it, or None. A BrokenPipeError says that its reader has gone, a TrainingError any other reason why it cannot
write.
"""

import math
import shutil
import sys

import click

from pydarknet.cli.streams import drop, one_line
from pydarknet.errors import TrainingError
from pydarknet.system.files import why
from pydarknet.views.characters import columns_of, cut

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE = 8  # measurements in the small curve, as many as a checkpoint knows


def make_report(trainer, every=1):
    """The report that suits standard error; away from a terminal it tells of every so many iterations."""
    in_notebook = "ipykernel" in sys.modules
    return Bar(trainer) if in_notebook or (sys.stderr and sys.stderr.isatty()) else DarknetLines(every)


class Report:
    """A context manager that writes each step it is called with."""

    name = "standard error"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def fileno(self):
        """The descriptor that tells whether it can be written, or None."""
        return None

    def write(self, step, sample=None):
        """Write ``step``, and the ``sample`` after it if there is one. May raise OSError."""
        raise NotImplementedError

    def __call__(self, step, sample=None):
        try:
            self.write(step, sample)
        except BrokenPipeError:
            raise
        except OSError as error:  # the disk that it goes to is full, the terminal has been closed
            raise TrainingError(f"{self.name}: cannot write the progress: {why(error)}") from None


class OnStandardError(Report):
    """A report that, once it cannot write, sends what is left nowhere: Python would try again when it ends."""

    def __call__(self, step, sample=None):
        try:
            super().__call__(step, sample)
        except (BrokenPipeError, TrainingError):
            drop(sys.stderr)
            raise


class DarknetLines(OnStandardError):
    """``ITER: LOSS, AVG avg, RATE rate, SECONDS seconds, EPOCHS epochs`` on standard error, as Darknet prints it.

    A measurement and a sample have a line of their own after it.
    """

    def __init__(self, every):
        self._every = every

    def write(self, step, sample=None):
        if step.iteration % self._every and step.valid_loss is None and sample is None:
            return
        click.echo(
            f"{step.iteration}: {step.loss:f}, {step.avg_loss:f} avg, {step.rate:f} rate, "
            f"{step.seconds:f} seconds, {step.epochs:f} epochs",
            err=True,
        )
        if step.valid_loss is not None:
            click.echo(f"held out: {step.valid_loss:f}", err=True)
        if sample is not None:
            click.echo(f"sample: {one_line(sample)}", err=True)


class Bar(OnStandardError):
    """A progress bar over the iterations: bits per symbol, also on the held-out text, rate, and symbols a second.

    Each measurement, and each sample, leaves a line above it: iteration, loss, held-out loss with its direction, the
    last measurements as a small curve, and what the network writes at that moment, as far as the line goes.
    """

    def __init__(self, trainer):
        self._samples = trainer.samples
        self._held_out = ""
        self._measured = list(trainer.validation.recent) if trainer.validation else []
        self._digits = len(str(trainer.max_batches))
        self._bar = _tqdm()(
            total=trainer.max_batches,
            initial=trainer.iteration,
            disable=trainer.done,  # then there is an error to come, and no iteration
            unit="it",
            dynamic_ncols=True,
            file=sys.stderr,
            bar_format="{bar}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}",
        )

    def __exit__(self, *_):
        self._bar.close()

    def write(self, step, sample=None):
        if step.valid_loss is not None:
            self._held_out = f", held out {_bits(step.valid_loss):.3f}"
        if step.valid_loss is not None or sample is not None:
            self._bar.write(self._line(step, sample), file=sys.stderr)
        speed = self._samples / max(step.seconds, 1e-9)  # a clock may stand still
        self._bar.set_postfix_str(
            f"{_bits(step.avg_loss):.3f} bits{self._held_out}, rate {step.rate:.2g}, {_short(speed)}/s", refresh=False
        )
        self._bar.update()

    def _line(self, step, sample):
        parts = [f"{step.iteration:>{self._digits}}  {_bits(step.avg_loss):.3f} bits"]
        if step.valid_loss is not None:
            direction = " "
            if self._measured:
                direction = "↓" if step.valid_loss < self._measured[-1] else "↑"
            self._measured.append(step.valid_loss)
            parts.append(f"held out {_bits(step.valid_loss):.3f} {direction} {small_curve(self._measured[-CURVE:]):{CURVE}}")
        if sample is not None:
            left = shutil.get_terminal_size().columns - 1 - sum(columns_of(part) + 2 for part in parts)
            parts.append(cut(one_line(sample), left))
        return "  ".join(parts).rstrip()


def small_curve(values):
    """The ``values`` as blocks, the least as the lowest."""
    low, high = min(values), max(values)
    steps = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / (high - low) * steps) if high > low else 0] for value in values)


def _tqdm():
    if "ipykernel" in sys.modules:  # a notebook, whose bar is another one
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm


def _short(number):
    """A number in at most five characters: 950, 12.3k, 104k, 1.2M."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if number >= 99.5 or not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f}G"


def _bits(nats):
    return nats / math.log(2)
