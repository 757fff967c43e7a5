"""``train --mpi``, and what a plain ``train`` is to do under mpirun: nothing, aloud."""

import os
import sys
from contextlib import nullcontext, suppress

from pydarknet.cli.streams import tell

STARTED = {"OMPI_COMM_WORLD": "Open MPI", "PMI": "MPICH", "MV2_COMM_WORLD": "MVAPICH"}  # what they begin their variables with


def started_by_mpirun():
    """(rank, size) as the environment of mpirun tells; (0, 1) without one."""
    for name in STARTED:
        rank, size = (os.environ.get(f"{name}_{what}", "") for what in ("RANK", "SIZE"))
        with suppress(ValueError):  # there are no such variables, or they are somebody else's
            return int(rank), int(size)
    return 0, 1


def make_ranks(mpi):
    """The :class:`~pydarknet.training.ranks.Ranks` for ``--mpi``, else an :class:`Alone`. All but rank 0 say no more.

    Ends the command with exit code 2 where mpirun has started several runs. Raises InputError as :class:`Ranks` does.
    """
    rank, size = started_by_mpirun()
    if rank > 0:
        _be_silent()
    if mpi:
        from pydarknet.training.ranks import Ranks

        ranks = Ranks(size)
        if not ranks.first:
            _be_silent()
        return ranks
    if size > 1:
        tell(f"mpirun has started this command {size} times: add --mpi, and the {size} ranks share one run")
        sys.exit(0 if rank else 2)  # Open MPI ends all at the first failure: rank 0 must have said it by then
    return Alone()


def _be_silent():
    sys.stdout = sys.stderr = open(os.devnull, "w")


class Alone:
    """One process: what :class:`~pydarknet.training.ranks.Ranks` are to several."""

    first = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def together(self):
        return nullcontext()

    def from_first(self, work):
        return work()

    def measured(self, validation):
        return validation

    def check_alike(self, trainer):
        pass

    def share(self, trainer):
        pass

    def hear(self, noted):
        return noted

    def steps(self, trainer, checkpoint):
        return trainer.run()
