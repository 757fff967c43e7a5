"""Several processes do what one does: the same numbers, the same errors, and nothing left behind."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from runs import (
    LAYERS,
    bytes_of,
    command,
    ends_soon,
    environment,
    heard_signals,
    run,
    seconds_of,
    start_program,
    text,
    wait_until_group_is_gone,
    write_cfg,
    write_text,
)

from pydarknet import load_network
from pydarknet.errors import InputError, TrainingError
from pydarknet.system.locks import Lock
from pydarknet.text.corpus import Corpus
from pydarknet.training.checkpoint import read_checkpoint
from pydarknet.training.processes import stream_processes
from pydarknet.training.trainer import Trainer
from pydarknet.training.validation import Validation

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks are used on Linux only")

END = "\n[connected]\noutput=64\nactivation=linear\n[softmax]\n"
DROPOUT = "[dropout]\nprobability=.2\n[lstm]\noutput=6\n[dropout]\nprobability=.4" + END
KINDS = {
    "lstm": LAYERS,
    "gru": "[gru]\noutput=6" + END,
    "rnn": "[rnn]\noutput=6\nhidden=5\nshortcut=1" + END,
    "crnn": "[crnn]\noutput=6\nhidden=5\nsize=1" + END,
    "lstm, lstm": "[lstm]\noutput=6\n[lstm]\noutput=5" + END,
    "dropout": DROPOUT,
    "dropped weights": "[gru]\noutput=6\nweight_dropout=.3\n[dropout]\nprobability=.4" + END,
}


def trainer_of(folder, processes, layers=LAYERS, dtype=np.float32, validation=None, **net):
    """A context that gives a trainer with ``processes``."""
    network = load_network(write_cfg(folder, layers, batch=10, subdivisions=2, **net), srand=3, dtype=dtype)
    corpus = Corpus.from_symbols(text(3000))
    return _Context(network, corpus, processes, validation and validation(network))


class _Context:
    def __init__(self, network, corpus, processes, validation):
        self.network, self.corpus, self.validation = network, corpus, validation
        self.processes = stream_processes(network, processes)

    def __enter__(self):
        train_call = self.processes.__enter__()
        self.network.jump = 1 / 4
        return Trainer(self.network, self.corpus, srand=3, validation=self.validation, train_call=train_call)

    def __exit__(self, *what):
        return self.processes.__exit__(*what)


def workers_of(processes):
    """The process numbers of the workers of the train_call that a context gave."""
    return [worker._process.pid for worker in processes.__self__._workers]


def everything(trainer):
    network = trainer.network
    state = [a for layer in network.layers for _, a in sorted(layer.state(network.streams).items())]
    return np.concatenate(
        [a.reshape(-1) for a in (network.parameters.values, network.parameters.gradients, trainer.optimizer.buffer, *state)]
    )


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_as_one_process(tmp_path, kind, count):
    # Five streams, shared out unevenly; what differs is the order of additions.
    runs = []
    for processes in (1, count):
        with trainer_of(tmp_path, processes, KINDS[kind], np.float64) as trainer:
            losses = [trainer.step().loss for _ in range(6)]
            runs.append((losses, everything(trainer), trainer.network.seen, trainer.network.dropout_random.random()))
    (one_losses, one, *one_rest), (losses, several, *rest) = runs
    np.testing.assert_allclose(losses, one_losses, rtol=1e-13)
    assert np.abs(several - one).max() < 1e-12 * np.abs(one).max()
    assert rest == one_rest


def test_validation_is_the_same(tmp_path):
    runs = []
    for processes in (1, 2):
        measured = lambda network: Validation(network, Corpus.from_symbols(text(400, seed=2)), every=2)  # noqa: E731
        with trainer_of(tmp_path, processes, DROPOUT, np.float64, measured) as trainer:
            runs.append([trainer.step().valid_loss for _ in range(4)])
    assert runs[0][0] is None and runs[0][1] is not None
    np.testing.assert_allclose(np.float64(runs[1]), np.float64(runs[0]), rtol=1e-12)


def test_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    with trainer_of(tmp_path, 2, DROPOUT) as trainer:
        for _ in range(3):
            trainer.step()
        checkpoint = trainer.checkpoint()
        arrays = {name: array.copy() for name, array in checkpoint.arrays.items()}
        straight = [trainer.step().loss for _ in range(3)]
        checkpoint.arrays.clear()
        checkpoint.arrays.update(arrays)
        with trainer_of(tmp_path, 2, DROPOUT) as again:
            again.restore(checkpoint)
            assert [again.step().loss for _ in range(3)] == straight
        trainer.restore(checkpoint)  # also where the workers are at work already
        assert [trainer.step().loss for _ in range(3)] == straight


@pytest.mark.parametrize("then", [lambda t: None, lambda t: t.network.reset_state(), lambda t: t.restore(t.kept)])
def test_another_use_in_between_is_as_with_one_process(tmp_path, then):
    runs = []
    for processes in (1, 2):
        with trainer_of(tmp_path, processes, dtype=np.float64) as trainer:
            trainer.step()
            trainer.kept = trainer.checkpoint()
            trainer.kept.arrays.update({name: array.copy() for name, array in trainer.kept.arrays.items()})
            trainer.step()
            trainer.network.predict(np.zeros((3, 2), int))  # other streams: other states
            then(trainer)
            runs.append([trainer.step().loss for _ in range(3)])
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-13)


def test_input_is_checked(tmp_path):
    with trainer_of(tmp_path, 2) as trainer:
        ids = np.zeros((5, 5), int)
        for symbols, truth, complaint in (
            (ids[:1], ids[:1], "must be of the network's"),
            (ids, ids + 64, "outside 0..63"),
            (ids, ids[:3], "must be of one shape"),
        ):
            with pytest.raises(InputError, match=complaint):
                trainer.train_call(symbols, truth)
        assert trainer.network.seen == 0
        trainer.train_call(ids.tolist(), ids.tolist())
    with pytest.raises(InputError, match="context of this train_call has been left"):
        trainer.train_call(ids, ids)


def test_an_interrupt_while_they_start_loses_none(tmp_path):
    program = f"""
import os, signal
from pydarknet import load_network
from pydarknet.training.processes import stream_processes
import numpy as np
network = load_network({write_cfg(tmp_path)!r})
ids = np.zeros((5, 2), int)
signal.setitimer(signal.ITIMER_REAL, WHEN, 1.0)  # again, as a user would: Python drops what is raised in a __del__
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
while True:
    with stream_processes(network, 2) as train_call:
        train_call(ids, ids)
"""
    for when in np.linspace(0.01, 0.06, 10):
        finished = subprocess.run(
            [sys.executable, "-c", program.replace("WHEN", str(when))],
            env=environment(),
            timeout=60,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heard_signals,
        )
        assert "KeyboardInterrupt" in finished.stderr


def test_who_is_refused(tmp_path):
    network = load_network(write_cfg(tmp_path, batch=6, subdivisions=2))
    with pytest.raises(InputError, match="5 processes: the batch has 3 streams"), stream_processes(network, 5):
        pass
    network = load_network(write_cfg(tmp_path, LAYERS.replace("output=7", "output=7\nbatch_normalize=1"), batch=6))
    with pytest.raises(InputError, match="2 processes: batch normalisation takes its mean over all streams"):
        with stream_processes(network, 2):
            pass
    with pytest.raises(InputError, match="0 processes: .* give 1 to 3"), stream_processes(network, 0):
        pass


def test_a_worker_that_is_killed(tmp_path):
    with trainer_of(tmp_path, 3) as trainer:
        trainer.step()
        seen = trainer.network.seen
        first, _ = workers_of(trainer.train_call)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(TrainingError, match=r"has ended \(exit code -9\); --processes 1 does without"):
            trainer.step()
        assert not workers_of(trainer.train_call)
        assert trainer.network.seen == seen
        trainer.step()  # with new ones


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_leaves_signals_to_the_first_process(tmp_path, number):
    # What they would inherit is what a signal does by default, also where these tests are a shell's background job.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with trainer_of(tmp_path, 3) as trainer:
            trainer.step()
            pids = workers_of(trainer.train_call)
            for pid in pids:
                os.kill(pid, number)
            trainer.step()
            assert workers_of(trainer.train_call) == pids
    finally:
        signal.signal(number, before)


def test_without_proc(tmp_path, monkeypatch):
    """As in a container that has none: what a worker inherits is let go of all the same."""
    listed = os.listdir

    def no_proc(path="."):
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", no_proc)
    reader, writer = os.pipe()
    with trainer_of(tmp_path, 2) as trainer, open(reader, "rb") as file:
        trainer.step()
        os.close(writer)
        assert file.read() == b""  # the worker has no copy that would hold the pipe open
        trainer.step()


def test_without_forks(tmp_path, monkeypatch):
    runs = []
    for count in (1, 2):
        if count == 2:
            monkeypatch.setattr(sys, "platform", "darwin")
        context = trainer_of(tmp_path, count)
        with pytest.warns(UserWarning, match="on Linux only: training goes on in one process") if count == 2 else nullcontext():
            trainer = context.__enter__()
        runs.append(trainer.step())
        context.__exit__(None, None, None)
    assert runs[0].loss == runs[1].loss


def test_where_no_process_can_be_started_one_warning_is_given(tmp_path, monkeypatch):
    """Later calls do not try again, and all is as with one process."""
    tries = []

    def refuse(self, *arguments, **options):
        tries.append(arguments)
        raise OSError(11, "Resource temporarily unavailable")

    runs = []
    for count in (1, 3):
        with trainer_of(tmp_path, count, DROPOUT) as trainer:
            monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", refuse)
            warned = "cannot start a process .*: training goes on in one process"
            with pytest.warns(UserWarning, match=warned) if count == 3 else nullcontext():
                losses = [trainer.step().loss]
            losses += [trainer.step().loss for _ in range(3)]
            runs.append((losses, everything(trainer).tolist(), trainer.network.seen))
    assert runs[0] == runs[1] and len(tries) == 1


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (ValueError("no"), TrainingError, "in a process that shares the work: ValueError: no"),
        (MemoryError("Unable to allocate 4 MiB"), MemoryError, "Unable to allocate 4 MiB"),
    ],
)
def test_an_error_in_a_worker(tmp_path, error, raised, told):
    with trainer_of(tmp_path, 2) as trainer:
        seen = trainer.network.seen
        call = trainer.network.train_call
        here = os.getpid()

        def fails_elsewhere(*pair):
            if os.getpid() != here:
                raise error
            return call(*pair)

        trainer.network.train_call = fails_elsewhere
        with pytest.raises(raised, match=f"^{told}$"):
            trainer.step()
        assert trainer.network.seen == seen


def test_nothing_is_left_running(tmp_path):
    with trainer_of(tmp_path, 3) as trainer:
        trainer.step()
        pids = workers_of(trainer.train_call)
        assert len(pids) == 2
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


WITHOUT_PROC = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
ANOTHER = 10**6 + os.getpid()  # a user who has no process, and may read Python all the same, wherever it is
CAPABILITIES = "-all,+dac_read_search"
ANOTHER_USER = ("setpriv", f"--reuid={ANOTHER}", f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}")


def needs(*words):
    """Skip the test where this command can't be run."""
    if not shutil.which(words[0]) or subprocess.run(words, capture_output=True).returncode:
        pytest.skip(f"this user, or this machine, cannot {words[0]} so")


def start_run(folder, *before, **options):
    """The command line at work in two processes, after its first iterations; ``before`` is a command that starts it."""
    cfg, words = write_cfg(folder, batch=16, subdivisions=1, max_batches=10**6), write_text(folder)
    process = start_program(*before, *command("train", cfg, words, "--processes", 2, "--srand", 1), cwd=folder, **options)
    for _ in range(3):
        process.stderr.readline()
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_all_stops_all(tmp_path, number, code):
    process = start_run(tmp_path, start_new_session=True)
    with ends_soon() as pieces:
        os.killpg(process.pid, number)  # as a terminal sends it: to all of the group
        _, errors = process.communicate(timeout=60)
        pieces.append(seconds_of(errors.splitlines()))
    assert process.returncode == code
    assert errors.endswith("; --resume goes on\n")
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_run_whose_worker_is_killed_saves_and_says_how_to_go_on(tmp_path):
    process = start_run(tmp_path)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(children[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    saved, last = errors.splitlines()[-2:]
    at = read_checkpoint(tmp_path / "backup/tiny.checkpoint").facts["iteration"]
    assert at >= 3
    assert saved == f"pydarknet: saved backup/tiny.backup after iteration {at}; --resume goes on"
    assert last == "pydarknet: a process that shared the work has ended (exit code -9); --processes 1 does without"
    more = ("train", "tiny.cfg", "text.bin", "--processes", 2, "--max-batches", at + 5)
    assert run(*more, "--resume", cwd=tmp_path).returncode == 0
    assert run(*more, "--srand", 1, "--backup", "whole", cwd=tmp_path).returncode == 0
    assert bytes_of(tmp_path / "whole")["tiny.checkpoint"] == bytes_of(tmp_path / "backup")["tiny.checkpoint"]


@pytest.mark.parametrize("before", [(), WITHOUT_PROC], ids=["with /proc", "without"])
def test_a_killed_run_holds_nothing_back(tmp_path, before):
    if before:
        needs(*before, "true")
    process = start_run(tmp_path, *before, start_new_session=True)
    process.kill()
    process.stderr.read()  # ends when the last process lets go of the pipe
    process.wait()
    (lock,) = (tmp_path / "backup").glob("*.lock")
    Lock(lock).close()
    wait_until_group_is_gone(process.pid)


def test_a_process_more_than_the_user_may_have():
    """`ulimit -u`: a warning, and the weights of one process."""
    alone = () if os.geteuid() else ANOTHER_USER  # to root no such limit applies
    needs(*alone, "true")
    with TemporaryDirectory() as folder:  # tmp_path is closed to others
        words = ("train", write_cfg(folder, DROPOUT), write_text(folder), "--srand", 1, "--quiet", "--processes")
        run(*words, 1, "--backup", "one", cwd=folder, check=True)
        if alone:
            os.chown(folder, ANOTHER, -1)
        limited = subprocess.run(
            [*alone, *command(*words, 2)],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)),
        )
        assert (limited.returncode, limited.stderr) == (
            0,
            "pydarknet: warning: cannot start a process to share the work: Resource temporarily unavailable: "
            "training goes on in one process\n",
        )
        assert bytes_of(Path(folder, "backup")) == bytes_of(Path(folder, "one"))


def test_a_program_that_never_leaves_the_context_ends(tmp_path):
    program = f"""
from pydarknet import load_network
from pydarknet.training.processes import stream_processes
import numpy as np
network = load_network({write_cfg(tmp_path)!r})
context = stream_processes(network, 2)
train_call = context.__enter__()
train_call(np.zeros((5, 2), int), np.zeros((5, 2), int))
"""
    subprocess.run([sys.executable, "-c", program], env=environment(), timeout=60, check=True)
