"""What a training run leaves in its folder: weights, named as Darknet names them, and checkpoints.

``BASE.backup`` is the newest, ``BASE_ITERATION.weights`` are kept along the way, ``BASE_final.weights``
ends the run and ``BASE_best.weights`` did best on the held-out text; BASE is the cfg's file name up to
its first dot (Darknet's ``basecfg``). ``BASE.checkpoint`` stands beside the backup and lets the run go
on, ``BASE.checkpoint.previous`` is the one before it. Each is written atomically. Source:
``train_char_rnn`` in Darknet's ``examples/rnn.c``.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from pydarknet.errors import CheckpointError, TrainingError
from pydarknet.system.files import show, why
from pydarknet.system.locks import Lock
from pydarknet.training.checkpoint import read_checkpoint, write_checkpoint
from pydarknet.training.trainer import diverged

BACKUP_EVERY = 100  # iterations, as in Darknet
KEEP_EVERY = 10000
FORGOTTEN = 3600  # seconds: a temporary file this old was left by a process that was killed while it saved


def base_name(cfg_path):
    """The BASE of the names, from the path of a cfg."""
    return Path(cfg_path).name.split(".")[0]


def newest_checkpoint(folder, base, warn):
    """The newest good checkpoint of ``base`` in ``folder``; ``warn`` is told of one that is passed over.

    Raises CheckpointError if there is none.
    """
    newest = Path(folder) / f"{base}.checkpoint"
    # The first is there only if a process was killed before it could rename it.
    present = [path for path in (_new(newest), newest, _previous(newest)) if os.path.lexists(path)]
    if not present:
        raise CheckpointError(f"{show(newest)}: there is no checkpoint to go on from; leave --resume out to begin a run")
    for path in present:
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            if path == present[-1]:
                raise
            warn(f"{error}; trying the one before it")


def _new(path):
    return path.with_name(f"{path.name}.new")


def _previous(path):
    return path.with_name(f"{path.name}.previous")


class Backups:
    """The files of the run of ``trainer`` in ``folder``, which is made when it is missing; a context manager.

    With ``every`` both the backup and a kept file are written every so many iterations, else at
    Darknet's intervals. A run that does not continue the checkpoint in the folder (``resumed``) keeps
    it under another name, :attr:`earlier`, from its own first checkpoint on.

    Raises TrainingError when the folder cannot be written to or another run is using it for the same
    BASE: before the training, not after it.
    """

    def __init__(self, trainer, folder, every=None, resumed=False):
        self.trainer = trainer
        self.folder = Path(folder)
        self.base = base_name(trainer.network.cfg.path)
        self.backup_every = every or BACKUP_EVERY
        self.keep_every = every or KEEP_EVERY
        self.checkpoint = self.folder / f"{self.base}.checkpoint"
        self.best = self.folder / f"{self.base}_best.weights"
        self._saved = None  # the iteration of the last checkpoint
        self.earlier = None
        self._lock = self._locked()
        self._sweep()
        if os.path.lexists(_new(self.checkpoint)):  # a process was killed before it could rename it
            self._rename_new()
        if not resumed:
            self.earlier = self._name_of_earlier()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lock.close()

    def after(self, step):
        """Save what is due after ``step`` (:class:`~pydarknet.training.trainer.Step`). Raises what :meth:`save` does."""
        # The best first: a checkpoint that knows of it must not be there without it.
        if step.valid_loss is not None and self.trainer.validation.best_iteration == step.iteration:
            self._save_weights(self.best)
        if step.iteration % self.keep_every == 0:
            self._save_weights(self.folder / f"{self.base}_{step.iteration}.weights")
        if step.iteration % self.backup_every == 0:
            self.save()

    def save(self):
        """Write ``BASE.backup`` and the checkpoint; return the backup's path.

        Raises WeightsError or CheckpointError if that fails, TrainingError if the numbers are no
        longer finite. The files of before are whole then.
        """
        path = self._save_weights(self.folder / f"{self.base}.backup")
        self._save_checkpoint()
        return path

    def save_final(self):
        """Write ``BASE_final.weights`` and the checkpoint; return the path of the weights. Raises as :meth:`save`."""
        path = self._save_weights(self.folder / f"{self.base}_final.weights")
        self._save_checkpoint()
        return path

    def _save_weights(self, path):
        if not np.isfinite(self.trainer.network.parameters.values).all():
            raise diverged(self.trainer.iteration, "the parameters are not finite")
        self.trainer.network.save_weights(path)
        return path

    def _save_checkpoint(self):
        """Write the new one in full before the others change their names: at any moment one of them is good."""
        if self._saved == self.trainer.iteration:  # a run may end where a save was due
            return
        write_checkpoint(_new(self.checkpoint), self.trainer.checkpoint())
        self._rename_new()
        self._saved = self.trainer.iteration

    def _rename_new(self):
        try:
            if self.earlier:
                os.replace(self.checkpoint, self.earlier)
                _previous(self.checkpoint).unlink(missing_ok=True)  # older still, and of no use to this run
                self.earlier = None
            with suppress(FileNotFoundError):
                os.replace(self.checkpoint, _previous(self.checkpoint))
            os.replace(_new(self.checkpoint), self.checkpoint)
        except OSError as error:
            raise CheckpointError(f"{show(self.checkpoint)}: cannot save the checkpoint: {why(error)}") from None

    def _locked(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return Lock(self.folder / f".{self.base}.lock")
        except BlockingIOError:
            raise TrainingError(
                f"{show(self.folder)}: another run is saving {self.base}.* in this folder; "
                "wait for it, or choose another folder with --backup DIR"
            ) from None
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{show(self.folder)}: cannot save weights in this folder: {why(error)}; choose another with --backup DIR"
            ) from None

    def _sweep(self):
        """Remove what processes left that were killed while they saved."""
        for path in self.folder.glob(".pydarknet-*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > FORGOTTEN:
                    path.unlink()

    def _name_of_earlier(self):
        try:
            iteration = read_checkpoint(self.checkpoint).fact("iteration", int)
        except CheckpointError:  # none there, or of no use
            return None
        return self.folder / f"{self.base}_{iteration}.checkpoint"
