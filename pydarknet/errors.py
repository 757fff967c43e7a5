"""The exceptions a user of pydarknet can meet, drawn as a tree.

    PydarknetError
    ├── CfgError         a cfg file that cannot be read as a network
    ├── WeightsError     a .weights file that does not fit, or cannot be written
    ├── TextError        a text, token or vocabulary file that cannot be used
    ├── CheckpointError  a checkpoint that does not belong to this run
    ├── TrainingError    a run that cannot start or go on
    └── InputError       an argument of the Python interface out of its range

Every message is one line that says where, what and how to mend it, whatever the file it speaks of holds. The command line
(:mod:`pydarknet.cli`) is the only place that turns one into an exit code.
"""

LONGEST = 2000  # characters of a message: it may name a file of any length, or quote one


def printable(message):
    """``message`` as one line that moves no cursor: what cannot be shown is escaped, and what is too long cut in the middle."""
    if not message.isprintable():
        message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2 - 3]} ... {message[-(LONGEST // 2 - 3) :]}"
    return message


class PydarknetError(Exception):
    """The root: the only kind of exception that a user's mistake may raise."""

    def __str__(self):
        return printable(super().__str__())


class CfgError(PydarknetError):
    """A cfg file that cannot be read, or that describes no network.

    The message begins with ``file:line:`` when a line is to blame.
    """


class WeightsError(PydarknetError):
    """A ``.weights`` file that is short, long, not finite, of another network, or cannot be written."""


class TextError(PydarknetError):
    """A text, token or vocabulary file that cannot be read or holds what the network cannot take."""


class CheckpointError(PydarknetError):
    """A checkpoint that is damaged, of another version, or of another cfg or text."""


class TrainingError(PydarknetError):
    """A run that cannot start or go on: no iterations to do, a loss that is not finite, a folder in use."""


class InputError(PydarknetError, ValueError):
    """An argument of the Python interface that is out of range or of the wrong shape."""


class CfgWarning(UserWarning):
    """Something in a cfg file that Darknet would pass over and we pass over aloud (``file:line:`` first)."""
