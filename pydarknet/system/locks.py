"""A lock that its process cannot leave behind: the system lets go of it however the process ends."""

import errno
import fcntl
import os

_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


def hold(descriptor):
    """Hold an open file against every other process until it is closed. Raises BlockingIOError when another holds it.

    A file system that knows no locks (some network drives) is used without.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(error.errno, os.strerror(error.errno)) from None


class Lock:
    """Holds the file at ``path``, made when missing, against every other process until it is closed.

    The file itself stays: taking it away would let two processes lock two files of one name. Raises
    BlockingIOError when another holds it, and OSError when the file cannot be made.
    """

    def __init__(self, path):
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            hold(self._file)
        except BlockingIOError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def lost(self):
        """Whether the file has been taken away: one that is made again at its path could be held by another."""
        try:
            return not os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return True

    def close(self):
        """Let go of it, if that has not been done."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
