"""A training run at the command line, once all is ready: its iterations, what is saved, and what is said of it."""

import math
import os
import sys
from contextlib import nullcontext

import click

from pydarknet.cli.commands import argument, to_copy, typed_without, with_options
from pydarknet.cli.progress import make_report
from pydarknet.cli.streams import tell
from pydarknet.errors import PydarknetError
from pydarknet.system.files import show
from pydarknet.text.utf8 import bytes_per_character, unit_of
from pydarknet.training.trainer import Diverged

NOT_AGAIN = ("resume", "max_batches", "minutes", "overwrite", "clear", "weights", "dialect")  # options of a run that goes on


def run_and_tell(trainer, steps, backups, reports, samples, print_every, checkpoint, stop):
    """Run ``trainer``, tell and save. Without ``print_every`` no progress is shown."""
    if checkpoint:
        tell(f"going on from {show(checkpoint.path)} after iteration {trainer.iteration}")
    if backups.kept and not trainer.done:
        tell(_what_is_kept(backups, going_on=checkpoint is not None))
    backups.begin()
    at_end = trainer.iteration == trainer.max_batches or trainer.stopped_early
    if checkpoint and trainer.done and at_end and not os.path.lexists(backups.final):  # the run before could not write them
        click.echo(f"Saved {show(_saved(backups.save_final, stop))}")
        return
    with make_report(trainer, print_every) if print_every else nullcontext() as progress:  # it ends before the last lines
        step = _run(trainer, steps, backups, [*reports, progress] if progress else reports, samples, stop)
    try:
        saved = _saved(backups.save_final if trainer.done else backups.save, stop)
    except PydarknetError:
        _tell_what_is_saved(trainer, backups)
        raise
    if not trainer.done:
        _tell_saved(trainer, saved)
        sys.exit(stop.code)
    if trainer.stopped_early:
        tell(f"stopped after iteration {trainer.iteration}: {trainer.validation.patience} measurements without a new best")
    click.echo(f"Saved {show(saved)}")
    if trainer.validation:
        _tell_best(trainer, backups, saved, step)


def follow(trainer, steps, stop):
    """What every rank but the first does: the iterations, and no more."""
    for _ in steps:
        if stop:
            break
    if not trainer.done:
        sys.exit(stop.code)


def _what_is_kept(backups, going_on):
    """One line: which files of an earlier run get another name when this one would replace them."""
    names = ", ".join(f"{show(old.name)} as {show(new.name)}" for old, new in backups.kept.items())
    checkpoints = {backups.checkpoint, backups.previous}
    if going_on and not {*backups.kept} <= {backups.final, *checkpoints, backups.cfg}:  # the rest may be its own
        return f"{show(backups.folder)} holds files that may be another run's; if they are, they are kept: {names}"
    advice = (
        "--overwrite replaces them" if going_on else "--overwrite replaces them, and --resume goes on with that run instead"
    )
    return f"{show(backups.folder)} holds files of an earlier run, which are kept: {names}; {advice}"


def _run(trainer, steps, backups, reports, samples, stop):
    """Train to the end or a signal, saving and reporting; return the last Step. Whatever ends it, the work is saved.

    A step is logged first and saved after that: --resume can take lines beyond the checkpoint out of a log, but cannot add
    one that is missing. If anything fails in between, the step is put back: the run that goes on measures, logs and saves it.
    """
    begun, step, pending = trainer.iteration, None, False

    def save():
        if pending:
            trainer.put_back(step)
        return backups.save()

    stop.rescue = lambda: save() if trainer.iteration > begun else None
    try:
        while True:
            with stop.undisturbed():
                if (found := next(steps, None)) is None:
                    break
                step, pending = found, True
                sample = samples.after(step, trainer.validation is not None) if samples else None
            for report in reports:
                report(step, sample)
            with stop.undisturbed():
                backups.after(step)
                pending = False
            if stop:
                break
    except Diverged:
        raise
    except Exception as first:  # of a mistake in the program too: the work is not lost with it
        if trainer.iteration > begun:
            try:
                _tell_saved(trainer, _saved(save, stop))
            except PydarknetError as error:
                if str(error) != str(first):
                    tell(error)
                _tell_what_is_saved(trainer, backups)
        raise
    finally:
        steps.close()
    return step


def _tell_saved(trainer, path):
    tell(f"saved {show(path)} after iteration {trainer.iteration}; --resume goes on")


def _tell_what_is_saved(trainer, backups):
    """After a save that was refused."""
    if backups.saved == trainer.iteration:
        _tell_saved(trainer, backups.checkpoint)
        return
    at = backups.goes_on_after
    what = "there is no checkpoint to go on from" if at is None else f"--resume goes on after iteration {at}"
    tell(f"not saved after iteration {trainer.iteration}; {what}")


def _saved(save, stop):
    """What ``save()`` returns; then nothing is left to rescue."""
    with stop.undisturbed():
        path = save()
        stop.rescue = None
    return path


def _tell_best(trainer, backups, final, step):
    """The best measurement; of a text with characters of several bytes it is told by these too."""
    best, unit = trainer.validation, unit_of(trainer.corpus)
    bits = best.best_loss / math.log(2)
    whole = bytes_per_character(best.corpus) if unit == "byte" else None
    longer = f", {bits * whole:.4f} per character of UTF-8," if whole and whole > 1 else ""
    kept = show(backups.best) if backups.best.is_file() else "(its weights are gone)"
    click.echo(
        f"Best on the held-out text: {kept}, {bits:.4f} bits per {unit}{longer} "
        f"after iteration {best.best_iteration} ({show(final.name)}: {step.valid_loss / math.log(2):.4f})"
    )


def tell_what_next(trainer, backups, cfg, start, as_bytes):
    """The commands that write text with the network and train it further, to be copied."""
    weights = argument(backups.best if trainer.validation and backups.best.is_file() else backups.final)
    cfg = argument(backups.cfg if cfg is None or backups.cfg_is_ours else cfg)
    if trainer.network.inputs <= 256:
        words = ["pydarknet", "generate", cfg, weights, "-len", "500", *["--bytes"] * as_bytes]
        click.echo(f"Write text: {to_copy(words)}")
    words = with_options(typed_without(NOT_AGAIN, start), ["--resume", "--max-batches", str(2 * trainer.max_batches)])
    click.echo(f"Train on:   {to_copy(['pydarknet', *words])}")
