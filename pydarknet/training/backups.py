"""What a training run leaves in its folder: weights, named as Darknet names them, and checkpoints.

``BASE.backup`` is the newest, ``BASE_ITERATION.weights`` are kept along the way, ``BASE_final.weights``
ends the run and ``BASE_best.weights`` did best on the held-out text; BASE is the cfg's file name up to
its first dot (Darknet's ``basecfg``). ``BASE.checkpoint`` stands beside the backup and lets the run go
on, ``BASE.checkpoint.previous`` is the one before it. Each is written atomically. Source:
``train_char_rnn`` in Darknet's ``examples/rnn.c``.
"""

import errno
import os
import re
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from pydarknet.errors import CheckpointError, TrainingError
from pydarknet.system.files import check_writable, free_name, rename_to_free, reported, show, why, write_atomically
from pydarknet.system.locks import Lock
from pydarknet.training.checkpoint import read_checkpoint, write_checkpoint
from pydarknet.training.trainer import diverged

BACKUP_EVERY = 100  # iterations, as in Darknet
KEEP_EVERY = 10000
FORGOTTEN = 3600  # seconds: a temporary file this old was left by a process that was killed while it saved


def base_name(cfg_path):
    """The BASE of the names, from the path of a cfg."""
    return Path(cfg_path).name.split(".")[0]


def base_of_text(path):
    """The BASE of the names, from the path of a text that is trained on without a cfg; it has no dot, and is never empty.

    The name that it ends in, without an ending, and for ``.`` and the like that of the folder that they mean.
    """
    name = Path(os.path.realpath(path)).name if Path(path).name in ("", "..") else Path(path).name
    for ending in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(ending)
    return os.path.splitext(name.lstrip("."))[0].replace(".", "_") or "text"


def check_folder(folder, base):
    """Make ``folder``, if it is missing; raise TrainingError if files of ``base`` can't be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        check_writable(Path(folder) / f"{base}_unreadable.1.checkpoint")  # the longest of the names
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from None


def _unusable(place, error):
    advice = (
        "give a shorter --name" if getattr(error, "errno", None) == errno.ENAMETOOLONG else "choose another with --backup DIR"
    )
    return TrainingError(f"{show(place)}: cannot save weights in this folder: {why(error)}; {advice}")


def newest_checkpoint(folder, base, warn):
    """The newest good checkpoint of ``base`` in ``folder``; ``warn`` hears of one that is skipped.

    Raises CheckpointError if there is none.
    """
    present = _present(folder, base)
    for path in present:
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            if path == present[-1]:
                raise
            warn(f"{error}; trying the one before it")


def _present(folder, base):
    """The checkpoints that are there, newest first."""
    newest = _followed(Path(folder) / f"{base}.checkpoint")
    # The first is there only if a process was killed before it could rename it.
    present = [path for path in (_new(newest), newest, _previous(newest)) if os.path.lexists(path)]
    if not present:
        raise CheckpointError(f"{show(newest)}: there is no checkpoint to go on from; leave --resume out to begin a run")
    return present


def lock_to_resume(folder, base):
    """The lock of the files of ``base`` in ``folder``, to be had before the newest checkpoint is read.

    Without it another run could save a newer one in between. Raises CheckpointError if there is none, and TrainingError
    when another run holds the lock.
    """
    _present(folder, base)
    return _locked(folder, base)


def _locked(folder, base):
    check_folder(folder, base)
    lock = Path(folder) / f".{base}.lock"
    try:
        return Lock(lock)
    except BlockingIOError:
        raise TrainingError(
            f"{show(folder)}: another run is saving {base}.* in this folder; "
            "wait for it, or choose another folder with --backup DIR"
        ) from None
    except (OSError, ValueError) as error:
        place = lock if os.path.lexists(lock) else folder  # the lock may be another user's, in a folder open to all
        raise _unusable(place, error) from None


def _followed(path):
    """The file that a link leads to: its checkpoints stand beside each other there."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def _new(path):
    return path.with_name(f"{path.name}.new")


def _previous(path):
    return path.with_name(f"{path.name}.previous")


def _stat(path):
    """What tells the file at ``path`` from every other that may take its place; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class Backups:
    """The files of the run of ``trainer`` in ``folder``, which is made when it is missing; a context manager.

    With ``every`` both the backup and a kept file are written every so many iterations, else at
    Darknet's intervals. A run that does not continue the checkpoint in the folder (``resumed``) replaces nothing
    that an earlier one made, unless told to ``overwrite``: when it would, it first gives the file another name.
    :attr:`kept` says which, name by name; ``start``, the file that the run begins with, is kept like the others.
    ``name`` takes the place of BASE. With ``cfg_text``, :meth:`begin` puts a cfg of that text beside the weights, as
    ``BASE.cfg``: for a network that is not that of a file. ``lock`` is that of :func:`lock_to_resume`, where it is held.

    Raises TrainingError when another run is using the folder for the same BASE, or when what the run is going to write
    could not be written: before the training, not after it; CheckpointError when a checkpoint that a killed run left cannot be
    renamed.
    """

    def __init__(
        self, trainer, folder, every=None, resumed=False, overwrite=False, name=None, cfg_text=None, start=None, lock=None
    ):
        self.trainer = trainer
        self._resumed, self._overwrite, self._start = resumed, overwrite, start
        self.folder = Path(folder)
        self.base = name or base_name(trainer.network.cfg.path)
        self.backup_every = every or BACKUP_EVERY
        self.keep_every = every or KEEP_EVERY
        self.checkpoint = _followed(self.folder / f"{self.base}.checkpoint")
        self.backup = self.folder / f"{self.base}.backup"
        self.best = self.folder / f"{self.base}_best.weights"
        self.final = self.folder / f"{self.base}_final.weights"
        self.cfg = self.folder / f"{self.base}.cfg"
        self._cfg_text = cfg_text and cfg_text.encode("utf-8", "surrogateescape")
        self.saved: int | None = None  # the iteration of the last checkpoint
        self._begun = trainer.iteration
        self.kept: dict[Path, Path] = {}
        self._lock = lock or _locked(self.folder, self.base)
        try:
            self._sweep()
            if os.path.lexists(_new(self.checkpoint)):  # a process was killed before it could rename it
                self._take_up_new()
            self.kept = self._to_keep()
            self._check()
        except BaseException:
            self._lock.close()
            raise
        self._stood = _stat(self.checkpoint)  # as this run has seen it last

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lock.close()

    @property
    def goes_on_after(self):
        """The iteration after which --resume would go on with this run; None where there is no checkpoint of it."""
        return self._begun if self.saved is None and self._resumed else self.saved

    @property
    def previous(self):
        """The checkpoint before the newest."""
        return _previous(self.checkpoint)

    @property
    def cfg_is_ours(self):
        """Whether the network is that of ``BASE.cfg``, written by this run."""
        return self._cfg_text is not None

    def begin(self):
        """Write ``BASE.cfg``, if there is one to write. Raises TrainingError."""
        if self._cfg_text is None or self._cfg_is_there():
            return
        if self._make_way(self.cfg):  # the others go with it: nothing could go on from them beside another cfg
            with reported(CheckpointError, self.checkpoint, "cannot be kept"):
                self._make_way_for_checkpoint()
            for path in list(self.kept):
                self._make_way(path)
        with reported(TrainingError, self.cfg, "cannot save the cfg"):
            write_atomically(self.cfg, [self._cfg_text])

    def _cfg_is_there(self):
        with reported(TrainingError, self.cfg, "cannot read this cfg"):
            return self.cfg.is_file() and self.cfg.read_bytes() == self._cfg_text

    def after(self, step):
        """Save what is due after ``step`` (:class:`~pydarknet.training.trainer.Step`). Raises what :meth:`save` does."""
        # The best first: a checkpoint that knows of it must not be there without it.
        if step.valid_loss is not None and self.trainer.validation.best_iteration == step.iteration:
            self._save_weights(self.best)
        if step.iteration % self.keep_every == 0:
            self._save_weights(self._numbered(step.iteration))
        if step.iteration % self.backup_every == 0:
            self.save()

    def save(self):
        """Write ``BASE.backup`` and the checkpoint; return the backup's path.

        Raises WeightsError or CheckpointError if one of them fails, when the other has been written; TrainingError if the
        numbers are no longer finite, or a file of an earlier run cannot be renamed. The earlier files are still whole then.
        """
        return self._save_with_checkpoint(self.backup)

    def save_final(self):
        """Write ``BASE_final.weights`` and the checkpoint; return the path of the weights. Raises as :meth:`save`."""
        return self._save_with_checkpoint(self.final)

    def _save_with_checkpoint(self, path):
        try:
            self._save_weights(path)
        finally:
            if self._finite():
                self._save_checkpoint()
        return path

    def _save_weights(self, path):
        if not self._finite():
            raise diverged(self.trainer.iteration, "the parameters are not finite")
        self._keep_lock()
        if path in self.kept and self._resumed and self.trainer.network.is_saved(path):
            del self.kept[path]  # this very run had come so far before it was killed
            return
        self._make_way(path)
        self.trainer.network.save_weights(path)

    def _keep_lock(self):
        """If the lock, or the folder with it, has been taken away, make both again; what another run has left since is kept."""
        with reported(TrainingError, self.folder, "cannot save weights in this folder"):
            if not self._lock.lost:
                return
        lock = _locked(self.folder, self.base)
        self._lock.close()
        self._lock = lock
        if _stat(self.checkpoint) != self._stood:
            self._resumed, self.saved = False, None
            self.kept = self._to_keep()
            if self.kept:
                names = ", ".join(show(path.name) for path in self.kept)
                what = f"{show(self.folder)}: {names}: made by another run meanwhile, and kept under other names"
                warnings.warn(what, stacklevel=2)
        self.begin()

    def _finite(self):
        return np.isfinite(self.trainer.network.parameters.values).all()

    def _save_checkpoint(self):
        """Write the new one in full before the others change their names: at any moment one of them is good."""
        self._keep_lock()
        if self.saved == self.trainer.iteration:  # a run may end where a save was due
            return
        with reported(CheckpointError, self.checkpoint.parent, "cannot be made again"):
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(_new(self.checkpoint), self.trainer.checkpoint(), mode_of=self.checkpoint)
        self._rename_new()
        self.saved, self._stood = self.trainer.iteration, _stat(self.checkpoint)

    def _take_up_new(self):
        name, readable = self._name_of_earlier(_new(self.checkpoint))
        if readable:
            self._rename_new()
            return
        with reported(CheckpointError, _new(self.checkpoint), "cannot rename this checkpoint, which cannot be read"):
            rename_to_free(_new(self.checkpoint), name)

    def _rename_new(self):
        with reported(CheckpointError, self.checkpoint, "cannot save the checkpoint"):
            self._make_way_for_checkpoint()
            with suppress(FileNotFoundError):
                os.replace(self.checkpoint, self.previous)
            os.replace(_new(self.checkpoint), self.checkpoint)

    def _make_way_for_checkpoint(self):
        kept = self._make_way(self.checkpoint)
        if not self._make_way(self.previous) and kept and not self._resumed:
            self.previous.unlink(missing_ok=True)  # older still, and of no use to this run
        if not self._resumed:  # what stands beside this run's checkpoint is this run's when it goes on
            for path in list(self.kept):
                self._make_way(path)

    def _make_way(self, path):
        """Give the file of an earlier run at ``path`` its other name, if there is one; return whether there was."""
        name = self.kept.get(path)
        if name is None:
            return False
        with (
            reported(TrainingError, path, f"cannot keep this file of an earlier run as {show(name)}"),
            suppress(FileNotFoundError),
        ):
            rename_to_free(path, name)
        del self.kept[path]  # not before it is done: else the next save would replace it
        return True

    def _to_keep(self):
        """The files of an earlier run that this one would replace, each with the name that it gets then.

        A run that goes on replaces its own backup, checkpoint and best weights, but not what it left when it had come to an
        end, nor a checkpoint that cannot be read here: it goes on from the one before, which then stays. Best or numbered
        weights that its checkpoint does not know of may be of another run.
        """
        if self._overwrite:
            return {}
        own = [self.backup] if self._resumed else []
        if self._resumed and self.trainer.validation and self.trainer.validation.best_iteration is not None:
            own.append(self.best)
        names = {path: free_name(path) for path in self.planned() if path not in own and path.is_file()}
        if self.cfg in names and self._cfg_is_there():
            del names[self.cfg]
        readable = False
        if self.checkpoint in names:
            names[self.checkpoint], readable = self._name_of_earlier(self.checkpoint)
            if self._resumed and readable:
                del names[self.checkpoint]
        if self.previous.is_file():
            name, of_use = self._name_of_earlier(self.previous, names.values())
            if not of_use or (not self._resumed and (not readable or self._begun_with(self.previous))):
                names[self.previous] = name
        return names

    def _begun_with(self, path):
        return self._start is not None and os.path.exists(self._start) and os.path.samefile(path, self._start)

    def planned(self):
        """Every file that this run may write or replace; of BASE_ITERATION.weights only those that exist."""
        best = [self.best] if self.trainer.validation else []
        numbered = re.compile(rf"{re.escape(self.base)}_([1-9]\d{{0,9}})\.weights")
        with reported(TrainingError, self.folder, "cannot list this folder", "; choose another with --backup DIR"):
            there = sorted(self.folder.iterdir())
        present = [path for path in there if (found := numbered.fullmatch(path.name)) and self._due(int(found[1]))]
        cfg = [self.cfg] if self._cfg_text is not None else []
        return [self.checkpoint, self.backup, self.final, *best, *cfg, *present]

    def _due(self, iteration):
        first = self.trainer.iteration + (not self.trainer.unfinished)  # that is still to be saved
        return iteration % self.keep_every == 0 and first <= iteration <= self.trainer.max_batches

    def _numbered(self, iteration):
        return self.folder / f"{self.base}_{iteration}.weights"

    def _check(self):
        """Find out now what could not be written later."""
        for path in (*self.planned(), _new(self.checkpoint), self.previous):
            if path not in self.kept:
                with reported(TrainingError, path, "cannot be written", "; choose another folder with --backup DIR"):
                    check_writable(path)

    def _name_of_earlier(self, checkpoint, taken=()):
        """The name under which to keep it, and whether it can be read."""
        try:
            iteration = read_checkpoint(checkpoint).fact("iteration", int)
        except CheckpointError:  # damaged, or of a newer version: of no use here, but not ours to throw away
            iteration = -1
        readable = 0 <= iteration < 2**63
        name = f"{self.base}_{iteration if readable else 'unreadable'}.checkpoint"
        return free_name(checkpoint.with_name(name), taken), readable

    def _sweep(self):
        """Remove what processes left that were killed while they saved: files of our own names alone.

        Their age is by the clock of the folder, which may be on another machine whose clock differs from ours.
        """
        with suppress(OSError):
            os.utime(self._lock.path)
            now = os.stat(self._lock.path).st_mtime
            for path in self.folder.glob(".pydarknet-" + 16 * "[0-9a-f]" + ".tmp"):
                with suppress(OSError):  # one that another run takes away just now keeps none of the others
                    if path.stat().st_mtime < now - FORGOTTEN:
                        path.unlink()
