"""The cfgs that come with pydarknet, found by name where there is no such file: ``pydarknet train rnn.cfg text.txt``."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "cfg")  # of an installation, and of a clone


def names():
    """The names of all recipes, sorted."""
    return sorted({path.name for folder in FOLDERS for path in folder.glob("*.cfg")})


def find(path):
    """The path of the recipe called ``path`` (``rnn.cfg`` or ``rnn``); None if it is no such name."""
    name = os.fsdecode(path)
    name = name if name.endswith(".cfg") else f"{name}.cfg"
    if name not in names():
        return None
    return next(str(folder / name) for folder in FOLDERS if (folder / name).is_file())


def cfg_path(path):
    """The path of the cfg that ``path`` names: its own, or where there is no such file that of the recipe so called."""
    return path if os.path.lexists(path) else find(path) or path
