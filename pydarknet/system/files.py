"""Files that are either the old one or the new one, never half of either; and how messages speak of files."""

import errno
import itertools
import os
import secrets
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from pydarknet.errors import InputError, PydarknetError


@contextmanager
def reported(error_type, path, what, advice=""):
    """While it lasts, whatever the system has against the file ``path`` is an ``error_type``: ``path: what: why``.

    ``advice`` ends its message.
    """
    try:
        yield
    except (PydarknetError, BrokenPipeError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise error_type(f"{show(path)}: {what}: {why(error)}{advice}") from None


def open_regular(path):
    """The file at ``path``, to be read as bytes. Raises OSError for a folder, a pipe or a device, which has no end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        raise kind(errno.EINVAL, "a folder, pipe or device, not a regular file")
    return open(path, "rb")


def check_output(out, inputs):
    """Raise InputError if the file ``out`` is one of the ``inputs``, lies in one that is a folder, or is standard input.

    A command never writes over what it reads. Links of both kinds are seen through.
    """
    shown, place = show(out), _place(out)
    for path in inputs:
        both_there = os.path.exists(out) and os.path.exists(path)
        if place == _place(path) or (both_there and os.path.samefile(out, path)):
            raise InputError(f"{shown}: the output is another file of the same command: give it another name")
        if both_there and _lies_in(out, path):
            raise InputError(f"{shown}: the output is a file of the folder {show(path)}, which is read: give it another name")
    with suppress(OSError):  # there is no such file yet, or standard input is none
        if os.path.samestat(os.stat(out), os.fstat(sys.stdin.fileno())) and stat.S_ISREG(os.stat(out).st_mode):
            raise InputError(f"{shown}: the output is standard input: give it another name")


def _place(path):
    """Where a path leads in the end. Raises InputError where it can't be told: the current folder has been deleted."""
    with reported(InputError, path, "cannot be found", ": is the current folder still there?"):
        return os.path.realpath(path)


def _lies_in(path, folder):
    inside, whole = (os.path.join(_place(each), "") for each in (path, folder))
    return os.path.isdir(folder) and inside.startswith(whole)


def check_outside(out, folders):
    """Raise InputError if ``out``, a file or a folder, lies in one of the ``folders``, which are read."""
    for folder in folders:
        if _lies_in(out, folder):
            raise InputError(f"{show(out)}: would be a file of the folder {show(folder)}, which is read: put it elsewhere")


def free_name(path, taken=()):
    """``path``, or if there is such a file the first of ``name.1.suffix``, ``name.2.suffix``, ... that is free.

    Those that are ``taken`` are not free.
    """
    path = Path(path)
    numbered = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
    return next(name for name in itertools.chain([path], numbered) if name not in taken and not os.path.lexists(name))


def check_writable(path):
    """Raise OSError if :func:`write_atomically` could not write ``path``: to be asked before hours of work."""
    path = Path(os.path.realpath(os.fsdecode(path)))
    _mode_to_replace(path)
    os.stat(path.parent)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))


def rename_to_free(path, name):
    """Rename ``path`` to ``name``, or where something stands there by now to another name that is free; return the name.

    Nothing is replaced. Raises OSError.
    """
    while True:
        try:
            os.link(path, name, follow_symlinks=False)
        except FileExistsError:
            name = free_name(name)
            continue
        except OSError:  # a file system without hard links: then without their certainty
            name = free_name(name)
            os.rename(path, name)
            return name
        os.unlink(path)
        return name


def write_atomically(path, chunks, mode_of=None):
    """Write the byte strings ``chunks`` to ``path``: temporary file beside it, fsync, rename.

    At any moment, and after any fault, ``path`` holds its old content or the whole of the new. A
    symbolic link stays one: the file that it leads to is what is replaced. Other hard links of that file
    keep the old content. A new file gets the permissions of the file ``mode_of``, if there is one.

    Raises OSError when the folder, the disk or the permissions do not allow it, or when ``path`` is
    there and is no regular file; the temporary file is removed then, as after any exception of ``chunks``.
    """
    path = Path(os.path.realpath(os.fsdecode(path)))
    mode = _mode_to_replace(path)
    if mode is None and mode_of is not None:
        with suppress(OSError):
            mode = os.stat(mode_of).st_mode & 0o777 | stat.S_IWUSR  # what is written here is replaced one day
    # A name of its own: one made from a long name could be too long. "x" never writes through a planted link.
    temporary = path.with_name(f".pydarknet-{secrets.token_hex(8)}.tmp")
    try:
        # Until it has the mode of the file that it replaces, only the owner can read it.
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o666 if mode is None else 0o600)) as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            _sync(file.fileno())
        if mode is not None:
            with suppress(OSError):  # some network drives keep no modes
                os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _mode_to_replace(path):
    """The permissions of the file at ``path``, None if there is none. Raises OSError if it must not be replaced."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):  # the rename would put a file in the place of /dev/null
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    # The rename would replace even a read-only file, and root may write to any.
    if not (os.access(path, os.W_OK) and mode & 0o222):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return mode & 0o777


def _sync(handle):
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot, and then keep no promise to break
            raise


def _sync_folder(folder):
    # The rename itself must reach the disk. Not every system can open a folder for this.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def why(error):
    """The system's own words for an OSError, without number and path; those of a ValueError (a NUL in a name)."""
    return getattr(error, "strerror", None) or str(error)


def show(path):
    """A path as a message can hold it: on one line, and without stray halves of characters."""
    name = os.fsdecode(path)
    return name if name.isprintable() else ascii(name)[1:-1]
