"""What the targets share: a file to write an input to, and a machine with little memory."""

import atexit
import os
import shutil
import tempfile
import warnings

from pydarknet.errors import CfgWarning
from pydarknet.system import memory as limits

_folder = tempfile.mkdtemp(prefix="pydarknet-fuzz-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)


def as_file(data, name="input"):
    """The path of a file that holds ``data``."""
    path = os.path.join(_folder, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def little_memory(size=1 << 20):
    """Let pydarknet refuse whatever needs more than ``size`` bytes: so inputs stay fast, and the refusal is tried too."""
    limits.memory_at_hand = lambda: size


def no_cfg_warnings():
    warnings.simplefilter("ignore", CfgWarning)
