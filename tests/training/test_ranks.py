"""Ranks that mpirun starts do what one process does, and one that ends takes none of the work with it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from runs import SHARED_MEMORY, bytes_of, command, environment, start_program, write_cfg, write_text

from pydarknet.training.checkpoint import read_checkpoint

END = "\n[connected]\noutput=64\nactivation=linear\n[softmax]\n"
STACK = (
    "[dropout]\nprobability=.1\n[lstm]\noutput=9\n[gru]\ntanh=1\noutput=8\nweight_dropout=.2\n[rnn]\noutput=7\nhidden=6\nactivation=tanh"
    + END
)
NET = dict(batch=10, subdivisions=2, adam=1, learning_rate=0.01, decay=0, clip_norm=0.05, jump=1 / 8)

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
needs_mpi = pytest.mark.skipif(
    not (MPIEXEC and find_spec("mpi4py") and SHARED_MEMORY),
    reason="needs mpi4py, an mpiexec and shared memory: pip install '.[mpi]' mpich",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cfg(tmp_path, STACK, **NET)
    write_text(tmp_path)
    return tmp_path


def words(*more):
    return ("train", "tiny.cfg", "text.bin", "--srand", 1, *more)


def mpirun(count, *arguments, program=None, **options):
    """The CompletedProcess of a command line in so many ranks."""
    line = [sys.executable, program, *map(str, arguments)] if program else command(*arguments)
    started = [MPIEXEC, "-n", str(count), *line]
    return subprocess.run(started, env=environment(), capture_output=True, text=True, timeout=100, **options)


def lines_of(result):
    """What was said, without what mpirun itself says."""
    return [line for line in result.stderr.splitlines() if line and not line.startswith("[mpiexec")]


def logged(name, key="loss"):
    return np.array([record[key] for record in map(json.loads, open(name)) if key in record])


def assert_alike(one, other):
    worst = np.abs(other / one - 1).max()
    assert len(one) == len(other) and worst < 1e-4, f"{worst:.1e}:\n{one}\n{other}"


# The same run


@needs_mpi
def test_two_and_four_ranks_as_one_process(folder):
    """Also what is measured on a held-out text, and the plateaus that follow from it."""
    write_text(folder, 400, "other.bin", seed=2)  # which is learned at first, then less and less
    held_out = ("--valid", "other.bin", "--valid-every", 10, "--plateau", 2, "--max-batches", 200)
    assert run(*words("--backup", "1", "--log", "1.log", *held_out)).code == 0
    losses = logged("1.log")
    assert np.mean(losses[-10:]) < 0.9 * losses[0] and len(losses) == 200
    rates = logged("1.log", "rate")
    assert len(set(rates)) > 2  # there was a plateau
    for count in (2, 4):
        result = mpirun(count, *words("--mpi", "--backup", count, "--log", f"{count}.log", "--quiet", *held_out))
        assert result.returncode == 0 and not lines_of(result), result
        assert result.stdout.splitlines()[0] == f"Saved {count}/tiny_final.weights" and len(result.stdout.splitlines()) == 2
        assert_alike(losses, logged(f"{count}.log"))
        assert_alike(logged("1.log", "valid_loss"), logged(f"{count}.log", "valid_loss"))
        assert (logged(f"{count}.log", "rate") == rates).all()
        one, other = read_checkpoint("1/tiny.checkpoint"), read_checkpoint(f"{count}/tiny.checkpoint")
        assert one.facts["random"] == other.facts["random"] and one.facts["seen"] == other.facts["seen"]
        for name, array in one.arrays.items():
            assert np.abs(array - other.arrays[name]).max(initial=0) < 1e-3, name


WATCHED = """
import sys
from pydarknet.cli import main, train
class Watched(train.Trainer):
    def step(self):
        step = super().step()
        if step.iteration == 20:
            from mpi4py import MPI
            arrays = [(name, array.tobytes()) for name, array in sorted(self.checkpoint().arrays.items())]
            assert len(set(MPI.COMM_WORLD.allgather(hash((str(self.checkpoint().facts), str(arrays)))))) == 1
            print("alike", flush=True)
        return step
train.Trainer = Watched
sys.exit(main(sys.argv[1:]))
"""


@needs_mpi
def test_all_ranks_stay_alike(folder, monkeypatch):
    """Without a seed: rank 0's is everybody's."""
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    Path("watched.py").write_text(WATCHED)
    result = mpirun(3, "train", "tiny.cfg", "text.bin", "--mpi", "--quiet", program="watched.py")
    assert result.returncode == 0 and result.stdout.startswith("alike\n"), result


@needs_mpi
def test_from_weights_that_rank_0_alone_can_read(folder):
    assert run(*words("--max-batches", 3, "--dialect", "alexeyab")).code == 0
    shutil.move("backup/tiny_final.weights", "start.weights")
    more = words("--weights", "start.weights", "--max-batches", 9)
    assert run(*more, "--backup", "one").code == 0
    elsewhere = words("--weights", "no.weights", "--max-batches", 9, "--mpi", "--backup", "two")
    result = mpirun(1, *more, "--mpi", "--backup", "two", ":", "-n", "1", *command(*elsewhere))
    assert result.returncode == 0, result
    one, two = (read_checkpoint(f"{name}/tiny.checkpoint") for name in ("one", "two"))
    assert one.facts["seen"] == two.facts["seen"] and one.facts["dialect"] == two.facts["dialect"]
    assert np.abs(one.arrays["values"] - two.arrays["values"]).max() < 1e-3


@needs_mpi
def test_one_rank_without_mpirun(folder):
    result = subprocess.run(command(*words("--mpi", "--verbose")), env=environment(), capture_output=True, text=True)
    assert result.returncode == 0 and "pydarknet: 1 rank of MPI share" in result.stderr
    assert run(*words("--backup", "plain")).code == 0
    assert bytes_of("plain") == bytes_of("backup")


# The end of a run


def start(count, *more):
    """A run of ranks after its 30th iteration, which saves every 20; and the numbers of its processes by rank."""
    line = command(*words("--mpi", "--max-batches", 10**6, "--save-every", 20, *more))
    process = start_program(MPIEXEC, "-n", str(count), *line)
    for line in process.stderr:
        if line.startswith("30: "):
            return process, ranks_below(process.pid)
    pytest.fail(f"it ended: {process.communicate()}")


def ranks_below(pid):
    found = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        if rank := re.search(rb"\0PMI_RANK=(\d+)\0", Path(f"/proc/{child}/environ").read_bytes()):
            found[int(rank[1])] = child
        else:
            found |= ranks_below(child)
    return found


@needs_mpi
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the ranks in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed(folder, victim):
    process, pids = start(2)
    os.kill(pids[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    (said,) = [line for line in errors.splitlines() if line.startswith("pydarknet: ")]
    assert said == (
        "pydarknet: a rank of this run has ended, and MPI has ended the others: the last checkpoint is backup/tiny.checkpoint; "
        "the same command with --resume goes on from there"
    )
    at = read_checkpoint("backup/tiny.checkpoint").facts["iteration"]
    assert at >= 20
    shutil.copytree("backup", "other")
    more = words("--resume", "--max-batches", at + 10)
    three = mpirun(3, *more, "--mpi", "--log", "three.log")
    assert three.returncode == 0 and f"going on from backup/tiny.checkpoint after iteration {at}\n" in three.stderr, three
    assert run(*more, "--backup", "other", "--log", "one.log").code == 0
    assert_alike(logged("one.log"), logged("three.log"))


@needs_mpi
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the ranks in /proc")
@pytest.mark.parametrize("number, to", [(signal.SIGINT, "mpirun"), (signal.SIGTERM, 1), (signal.SIGHUP, 0)])
def test_a_signal_ends_and_saves(folder, number, to):
    process, pids = start(2)
    os.kill(process.pid if to == "mpirun" else pids[to], number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    at = read_checkpoint("backup/tiny.checkpoint").facts["iteration"]
    saved = f"pydarknet: saved backup/tiny.backup after iteration {at}; --resume goes on"
    assert errors.splitlines().count(saved) == 1 and at >= 30 and "Traceback" not in errors


FAULTY = """
import sys
from pydarknet.cli import main, ranks
from pydarknet.errors import TextError
from pydarknet.network import Network
rank, _ = ranks.started_by_mpirun()
call, calls = Network.train_call, []
def faulty(self, *pair):
    calls.append(pair)
    if rank == {rank} and len(calls) == 8:
        raise {error}
    return call(self, *pair)
Network.train_call = faulty
sys.exit(main(sys.argv[1:]))
"""


@needs_mpi
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_ends_all_and_saves(folder, rank):
    Path("faulty.py").write_text(FAULTY.format(rank=rank, error="TextError('text.bin: it is gone')"))
    result = mpirun(2, *words("--mpi", "--quiet"), program="faulty.py")
    named = "" if rank == 0 else f"rank 1 ({os.uname().nodename}): "
    saved, told = lines_of(result)
    assert result.returncode == 1 and told == f"pydarknet: {named}text.bin: it is gone", result
    assert saved == "pydarknet: saved backup/tiny.backup after iteration 3; --resume goes on"
    assert run(*words("--resume", "--log", "two.log")).code == 0
    assert run(*words("--backup", "whole", "--log", "one.log")).code == 0
    assert_alike(logged("one.log")[3:], logged("two.log"))


@needs_mpi
def test_a_fault_of_ours_hangs_nothing(folder):
    Path("faulty.py").write_text(FAULTY.format(rank=1, error="ZeroDivisionError('a fault')"))
    result = mpirun(2, *words("--mpi", "--quiet"), program="faulty.py")
    assert result.returncode != 0 and "Traceback" in result.stderr and "ZeroDivisionError: a fault" in result.stderr


FILLS_UP = """
import errno, os, sys
from pydarknet.cli import log, main

put, lines = log.FileLog._put, []

def put_three(self, text):
    if len(lines) == 3:  # the header and two iterations
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines.append(text)
    put(self, text)

log.FileLog._put = put_three
sys.exit(main(sys.argv[1:]))
"""


@needs_mpi
def test_what_rank_0_cannot_write_ends_all(folder):
    (told,) = lines_of(mpirun(2, *words("--mpi", "--quiet", "--log", "/dev/full")))
    assert told == "pydarknet: /dev/full: cannot write the log: No space left on device"
    (folder / "fills_up.py").write_text(FILLS_UP)
    result = mpirun(2, *words("--mpi", "--quiet", "--no-sample", "--log", "log.jsonl"), program="fills_up.py")
    saved, told = lines_of(result)
    assert result.returncode == 1 and told == "pydarknet: log.jsonl: cannot write the progress: No space left on device"
    assert saved == "pydarknet: saved backup/tiny.backup after iteration 3; --resume goes on"


@needs_mpi
def test_nobody_reads(folder):
    process = start_program(MPIEXEC, "-n", "2", *command(*words("--mpi", "--max-batches", 10**6)), stdout=None)
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(60) != 0


@needs_mpi
def test_divergence_and_nothing_to_do(folder):
    write_cfg(folder, STACK, **{**NET, "adam": 0, "learning_rate": 1e38, "clip_norm": 0})
    result = mpirun(2, *words("--mpi", "--quiet"))
    (told,) = lines_of(result)
    assert result.returncode == 1 and re.match(r"pydarknet: iteration \d+: .* training has diverged", told)
    write_cfg(folder, STACK, **NET)
    assert run(*words("--max-batches", 2)).code == 0
    result = mpirun(2, *words("--mpi", "--resume", "--max-batches", 2))
    assert result.returncode == 1 and "nothing to do" in lines_of(result)[-1] and len(lines_of(result)) == 2


# Mistakes


@needs_mpi
def test_what_all_ranks_refuse(folder):
    (folder / "norm.cfg").write_text(Path("tiny.cfg").read_text().replace("output=9", "output=9\nbatch_normalize=1"))
    for count, cfg, said in (
        (6, "tiny.cfg", "6 ranks: the batch has 5 streams to share out; start 5 at most"),
        (2, "norm.cfg", "2 ranks: batch normalisation takes its mean over all streams, which only one rank sees; start one"),
        (2, "no.cfg", "no.cfg: cannot be read (No such file or directory)"),
    ):
        result = mpirun(count, "train", "--mpi", cfg, "text.bin")
        (told,) = lines_of(result)
        assert result.returncode == 1 and told.startswith(f"pydarknet: {said}"), result
    assert not Path("backup").exists()


@needs_mpi
@pytest.mark.parametrize(
    "other, said",
    [
        (
            "tiny.cfg copy.bin",
            "rank 1 ({}): has another text than rank 0 ({}): every rank must read the same; copy it there, or ",
        ),
        ("copy.cfg text.bin", "rank 1 ({}): has another cfg than rank 0 ({}): "),
        ("tiny.cfg text.bin --max-batches 7", "rank 1 ({}): has another command line than rank 0 ({}): "),
        ("tiny.cfg gone.bin", "rank 1 ({}): gone.bin: "),
    ],
)
def test_ranks_that_differ(folder, other, said):
    write_text(folder, name="copy.bin", seed=2)
    write_cfg(folder, STACK, name="copy.cfg", **{**NET, "learning_rate": 0.02})
    result = mpirun(1, "train", "--mpi", "tiny.cfg", "text.bin", ":", "-n", "1", *command("train", "--mpi", *other.split()))
    (told,) = lines_of(result)
    host = os.uname().nodename
    assert result.returncode == 1 and told.startswith("pydarknet: " + said.format(host, host)), result
    assert not Path("backup").exists()


@needs_mpi
def test_another_mpi_than_that_of_mpirun(folder):
    given = {**environment(), "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
    result = subprocess.run(command(*words("--mpi")), env=given, capture_output=True, text=True)
    (told,) = lines_of(result)
    assert result.returncode == 1 and told.startswith(
        "pydarknet: --mpi: mpirun has started 2 ranks, and mpi4py sees 1: they are of"
    )


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD", "PMI", "MV2_COMM_WORLD"])
def test_mpirun_without_mpi(folder, monkeypatch, name):
    monkeypatch.setenv(f"{name}_SIZE", "3")
    line = "pydarknet: mpirun has started this command 3 times: add --mpi, and the 3 ranks share one run\n"
    for rank, code, said in ((0, 2, line), (1, 0, "")):
        monkeypatch.setenv(f"{name}_RANK", str(rank))
        result = run(*words())
        assert (result.code, result.err, result.out) == (code, said, b"")
    assert not Path("backup").exists()
    monkeypatch.setenv(f"{name}_SIZE", "1"), monkeypatch.setenv(f"{name}_RANK", "0")
    assert run(*words("--max-batches", 1)).code == 0


@pytest.mark.parametrize("rank", ["²", "x", "", 5000 * "9"])
def test_variables_that_are_none_of_mpirun(folder, monkeypatch, rank):
    monkeypatch.setenv("PMI_SIZE", "3"), monkeypatch.setenv("PMI_RANK", rank)
    assert run(*words("--max-batches", 1)).code == 0


def test_without_mpi4py(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    result = run(*words("--mpi"))
    assert (
        result.code == 1 and result.err.count("\n") == 1 and result.err.startswith("pydarknet: --mpi needs mpi4py and an MPI ")
    )
    assert result.err.endswith("): python3 -m pip install 'pydarknet[mpi]' mpich\n")
