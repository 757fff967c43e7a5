"""Files that are either the old one or the new one, never half of either."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path, chunks):
    """Write the byte strings ``chunks`` to ``path``: temporary file beside it, fsync, rename.

    At any moment, and after any fault, ``path`` holds its old content or the whole of the new.
    Raises OSError when the folder, the disk or the permissions do not allow it; the temporary file
    is removed then.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    if path.exists() and not os.access(path, os.W_OK):  # a rename would replace even a read-only file
        raise PermissionError(13, "Permission denied", str(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode_for(path))
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _mode_for(path):
    # mkstemp makes files that only their owner can read; give what open() would have given.
    with suppress(OSError):
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder):
    # The rename itself must reach the disk. Not every system can open a folder for this.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def why(error):
    """The system's own words for an OSError, without its number and path."""
    return error.strerror or str(error)
