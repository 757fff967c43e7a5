"""The source of Python's own standard library as one text to train on: every machine with Python has it.

It is the ``*.py`` files under ``sysconfig.get_path("stdlib")``, sorted by name, without

- ``site-packages`` and ``dist-packages``, ``sitecustomize.py`` and ``usercustomize.py``: not the library;
- ``test``, ``tests``, ``idle_test``: half of the whole, and full of deliberately broken text;
- ``encodings`` and ``pydoc_data``: tables of character codes and a dump of the manual, which would teach
  a small network little of Python;
- ``_sysconfigdata*`` and ``config-*``: written when Python was built, and different on every machine.

Line ends become newlines, and each file ends with one; all else is left as it is, byte for byte.
The same Python always gives the same text.
"""

import os
import platform
import sysconfig
from pathlib import Path

from pydarknet.errors import TextError
from pydarknet.system.files import reported, show, write_atomically

MARK = b"# The source of the standard library of Python "
FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
FILES = {"sitecustomize.py", "usercustomize.py"}


def source_files(library):
    """Return the files to join, sorted by their path below ``library`` in the same order on every system."""
    found = []
    for parent, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in FOLDERS and not name.startswith(("config-", "."))]
        for name in names:
            if name.endswith(".py") and name not in FILES and not name.startswith(("_sysconfigdata", ".")):
                found.append(Path(parent, name))
    return sorted(found, key=lambda path: path.relative_to(library).as_posix())


def read_source(path):
    """Return the bytes of a file with plain newlines, the last line's too; an empty file stays empty."""
    source = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return source if source.endswith(b"\n") or not source else source + b"\n"


def build(output, max_bytes=None, overwrite=False, library=None):
    """Write the corpus to ``output``, whole or not at all; return (size in bytes, number of files).

    ``library`` is the folder of the standard library, by default this Python's. Raises TextError: there is no source in
    it, ``output`` cannot be written, or is a file that this function did not write and ``overwrite`` is not set.
    """
    output, library = Path(os.fsdecode(output)), Path(library or sysconfig.get_path("stdlib"))
    with reported(TextError, output, "cannot write this text"):
        if output.exists() and not output.is_file():
            raise TextError(f"{show(output)}: is no regular file: give another name")
        if output.exists() and not (overwrite or is_ours(output)):
            raise TextError(f"{show(output)}: already exists, and this command did not make it; --overwrite replaces it")
    files = source_files(library)
    if not files:
        raise TextError(
            f"{show(library)}: no Python source here (it may be in a zip file, or left out of a small installation); "
            f"use another Python, or train on any other text"
        )
    text, count = bytearray(MARK + platform.python_version().encode() + b", joined by pydarknet.\n"), 0
    for path in files:
        if max_bytes is not None and len(text) >= max_bytes:
            break
        text += read_source(path)
        count += 1
    if max_bytes is not None:
        del text[max(max_bytes, len(MARK)) :]  # the last file is cut; the mark tells whose text this is
    with reported(TextError, output, "cannot write this text"):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, [text])
    return len(text), count


def is_ours(path):
    """Whether a file begins with the line that :func:`build` writes."""
    with open(path, "rb") as file:
        return file.read(len(MARK)) == MARK
