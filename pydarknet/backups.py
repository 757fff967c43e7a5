"""Where a training run leaves its weights, named as Darknet names them.

``BASE.backup`` is the newest, ``BASE_ITERATION.weights`` are kept along the way and
``BASE_final.weights`` ends the run; BASE is the cfg's file name up to its first dot (Darknet's
``basecfg``). Each is written atomically. Source: ``train_char_rnn`` in Darknet's ``examples/rnn.c``.
"""

import tempfile
from pathlib import Path

from pydarknet.errors import TrainingError
from pydarknet.files import why

BACKUP_EVERY = 100  # iterations, as in Darknet
KEEP_EVERY = 10000


class Backups:
    """The weights files of one run in ``folder``, which is made when it is missing.

    With ``every`` both the backup and a kept file are written every so many iterations, else at
    Darknet's intervals. Raises TrainingError when the folder cannot be made or written to: before
    the training, not after it.
    """

    def __init__(self, network, folder, every=None):
        self.network = network
        self.folder = Path(folder)
        self.base = Path(network.cfg.path).name.split(".")[0]
        self.backup_every = every or BACKUP_EVERY
        self.keep_every = every or KEEP_EVERY
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise TrainingError(f"{folder}: cannot save weights in this folder: {why(error)}; "
                                "choose another with --backup DIR") from None

    def after(self, iteration):
        """Save what is due after ``iteration``."""
        if iteration % self.backup_every == 0:
            self.save_backup()
        if iteration % self.keep_every == 0:
            self._save(f"{self.base}_{iteration}.weights")

    def save_backup(self):
        """Write ``BASE.backup``; return its path. Raises WeightsError."""
        return self._save(f"{self.base}.backup")

    def save_final(self):
        """Write ``BASE_final.weights``; return its path. Raises WeightsError."""
        return self._save(f"{self.base}_final.weights")

    def _save(self, name):
        path = self.folder / name
        self.network.save_weights(path)
        return path
