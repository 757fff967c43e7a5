"""The two dialects of Darknet, kept in one place.

``pjreddie`` is pjreddie/darknet, the default and what we write; ``alexeyab`` is AlexeyAB/darknet and
hank-ai's continuation. The dialect decides the order of a layer's matrices in a weights file, whether that
holds the biases of a ``[batchnorm]``, the epsilon of batch norm at inference, the candidate of a GRU, and of an
``[rnn]`` the default state size and whether ``logistic`` means anything.
"""

from enum import Enum


class Dialect(Enum):
    """One of the two forks of Darknet whose conventions differ."""

    PJREDDIE = "pjreddie"
    ALEXEYAB = "alexeyab"

    @property
    def version(self):
        """Major, minor and revision that its ``save_weights`` writes."""
        return (0, 2, 0) if self is Dialect.PJREDDIE else (0, 2, 5)

    @staticmethod
    def of_header(major, minor, revision):
        """The dialect that wrote a weights file: AlexeyAB's has revision 5 or above, since version 0.2."""
        transposed = major > 1000 or minor > 1000  # by programs older than the forks
        return Dialect.ALEXEYAB if not transposed and (major, minor) >= (0, 2) and revision >= 5 else Dialect.PJREDDIE


PJREDDIE = Dialect.PJREDDIE
ALEXEYAB = Dialect.ALEXEYAB
