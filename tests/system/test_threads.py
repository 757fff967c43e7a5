"""Threads of our own: what they share out is whole again, and an error in one ends all."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
from command_line import run

from pydarknet import load_network
from pydarknet import network as network_module
from pydarknet.layers.gru import GRU
from pydarknet.layers.layer import OneHot
from pydarknet.layers.lstm import LSTM
from pydarknet.sharing import Sharing
from pydarknet.system import threads
from pydarknet.system.threads import ALONE, Team, blas_limited, blas_threads, team_of

START = _thread.start_new_thread
T, B, H = 70, 5, 12  # more than one block of steps


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Others, such as tqdm's, may have begun with an earlier test."""
    before = _thread._count()
    yield
    until = time.monotonic() + 5
    while _thread._count() > before and time.monotonic() < until:
        time.sleep(0.001)
    assert _thread._count() <= before


@contextmanager
def all_of(count):
    with team_of(count) as team:
        assert team.count == count
        yield team


def refuse(function, arguments):
    raise RuntimeError("can't start new thread")


def die(*_):
    raise MemoryError


def test_a_team_calls_all_and_meets():
    seen, lock = [], threading.Lock()

    def work(n, meet):
        for round_ in range(50):
            with lock:
                seen.append((round_, n))
            meet()

    with all_of(3) as team:
        for _ in range(2):
            seen.clear()
            team.run(work)
            assert sorted(seen) == [(round_, n) for round_ in range(50) for n in range(3)]
            assert [round_ for round_, _ in seen] == [round_ for round_ in range(50) for _ in range(3)]


def test_a_run_waits_for_all():
    done = []

    def work(n, meet):
        time.sleep(0.02 * n)
        done.append(n)

    with all_of(3) as team:
        team.run(work)
        assert done == [0, 1, 2]


@pytest.mark.parametrize("fails", [0, 2])
def test_an_error_in_one_ends_all(fails):
    def work(n, meet):
        meet()
        if n == fails:
            raise ValueError("here")
        meet()

    with all_of(3) as team:
        for _ in range(2):  # and there is no work for them after it
            with pytest.raises(ValueError, match="here"):
                team.run(work)


def test_ctrl_c_ends_all():
    def work(n, meet):
        meet()
        if n == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        meet()

    with pytest.raises(KeyboardInterrupt), all_of(3) as team:
        team.run(work)


def test_settings_for_errors_hold_in_every_thread():
    found = {}

    def work(n, meet):
        found[n] = np.geterr()

    with all_of(3) as team:
        for over in "ignore", "raise":
            with np.errstate(over=over, invalid="raise"):
                expected = np.geterr()
                team.run(work)
            assert found == dict.fromkeys(range(3), expected)


def test_a_thread_is_tried_again_until_the_system_lets_go_of_an_old_one(monkeypatch):
    start, refused = _thread.start_new_thread, []

    def refused_at_first(function, arguments):
        if len(refused) < 3:
            refused.append(1)
            refuse(function, arguments)
        return start(function, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", refused_at_first)
    with all_of(3) as team:
        team.run(lambda n, meet: meet())


@pytest.mark.parametrize("fault", [refuse, lambda function, arguments: START(die, arguments)], ids=["refused", "dies"])
def test_threads_that_cannot_be_had(monkeypatch, fault):
    """One that dies before it runs a line has no way to tell, and nobody waits for it."""

    begun = []

    def second_fails(function, arguments):
        begun.append(1)
        return (START if len(begun) == 1 else fault)(function, arguments)

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setattr(threads, "PATIENCE", 0)
    monkeypatch.setattr(_thread, "start_new_thread", second_fails)
    with team_of(3) as team:
        assert team is ALONE


def test_a_thread_that_ends_without_a_word(monkeypatch):
    def work(n, meet):
        meet()
        if n == 1:
            raise MemoryError
        meet()

    class Full(list):
        append = die

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with all_of(3) as team:
        team._errors = Full()
        with pytest.raises(MemoryError, match="a thread that shared the work has ended"):
            team.run(work)


def test_a_network_does_without_threads_that_cannot_be_had(tmp_path, monkeypatch):
    cfg = tmp_path / "a.cfg"
    cfg.write_text("[net]\ninputs=50\nbatch=4\n[lstm]\noutput=8\n[connected]\noutput=50\n[softmax]\n")
    symbols = np.random.default_rng(1).integers(50, size=(7, 4))
    expected = load_network(cfg, srand=1).predict(symbols)
    network = load_network(cfg, srand=1)
    network.sharing = Sharing(threads=3)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.warns(UserWarning, match="no more threads can be started: one does all the work"):
        np.testing.assert_array_equal(network.predict(symbols), expected)
    assert network.sharing == Sharing()


def test_a_run_goes_on_without_threads_that_cannot_be_had_any_more(here, monkeypatch):
    monkeypatch.setattr(network_module, "sharing_of_a_call", lambda *_: Sharing(threads=3))
    monkeypatch.setattr(threads, "PATIENCE", 0)
    begun = []

    def counted(function, arguments):
        begun.append(1)
        return (START if len(begun) <= 5 else refuse)(function, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", counted)
    result = run("train", "tiny.cfg", "text.bin", "--max-batches", 6, "--quiet")
    assert result.code == 0 and len(begun) == 6
    assert result.err.count("warning: no more threads can be started: one does all the work\n") == 1
    assert (here / "backup" / "tiny_final.weights").exists()


def test_a_run_saves_when_a_thread_fails_in_the_middle_of_a_call(here, monkeypatch):
    """Of whichever layer, forward or backward; the run that goes on from there is the undisturbed one."""
    monkeypatch.setattr(network_module, "sharing_of_a_call", lambda *_: Sharing(threads=3))
    met, fails_at, meet = 0, None, Team._meet

    def counted(team, n):
        nonlocal met
        met += n == 2
        if n == 2 and met == fails_at:
            raise MemoryError("just here")
        meet(team, n)

    monkeypatch.setattr(Team, "_meet", counted)
    words = ("train", "tiny.cfg", "text.bin", "--max-batches", 4, "-srand", 1, "--valid-fraction", 0.1, "--backup")
    assert run(*words, "whole").code == 0
    weights, total = (here / "whole" / "tiny_final.weights").read_bytes(), met
    each = total // 4
    for fails_at in range(total - each, total - 1, max(1, each // 4)):
        met, folder = 0, f"at{fails_at}"
        result = run(*words, folder)
        saved, last = result.err.splitlines()[-2:]
        assert result.code == 1, fails_at
        assert last.startswith("pydarknet: out of memory: just here; "), result.err
        assert saved.startswith(f"pydarknet: saved {folder}/tiny.backup after iteration "), result.err
        assert run(*words, folder, "--resume").code == 0
        assert (here / folder / "tiny_final.weights").read_bytes() == weights


IN_NO_MEMORY = """
import resource, sys
import numpy as np
from pydarknet import load_network
from pydarknet.sharing import Sharing
network, ids, kept = load_network("tiny.cfg", srand=1), np.zeros((8, 4), int), []
network.sharing = Sharing(threads=2)
for _ in range(3):
    network.train_call(ids, ids)
size = 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size - 8_000_000, size - 8_000_000))
try:
    while True:
        network.train_call(ids, ids)
        kept.append(bytearray(100_000))
except MemoryError:
    kept.clear()
    print("told")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bound of memory is Linux's")
def test_memory_that_runs_out_hangs_nothing(here):
    """The new thread finds no memory to run its first line in."""
    done = subprocess.run([sys.executable, "-c", IN_NO_MEMORY], capture_output=True, timeout=60)
    assert done.stdout == b"told\n", done.stderr


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_an_old_tape_is_freed(make):
    layer = make(5, 4, random=np.random.default_rng(1))
    layer.forward(np.zeros((3, 2, 5), np.float32), train=True)
    layer.backward(np.zeros((3, 2, 4), np.float32))
    old = weakref.ref(layer._tape)
    layer.forward(np.zeros((4, 2, 5), np.float32), train=True)
    assert old() is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_product(count):
    random = np.random.default_rng(1)
    a, b = random.normal(size=(7, 5)), random.normal(size=(5, 4))
    out = np.empty((7, 4))
    with all_of(count) as team:
        team.product(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-14)


def test_the_number_of_blas_threads_comes_back():
    before = blas_threads()
    with blas_limited(1):
        assert blas_threads() in (1, None)
    assert blas_threads() == before


def few(random):
    # Five of nine at each step: where streams agree, batch norm divides rounding by next to nothing, once a step.
    return OneHot(random.permuted(np.tile(np.arange(9), (T, 1)), axis=1)[:, :B], 300)


def many(random):
    return OneHot(random.permutation(T * B).reshape(T, B), 400)


def dense(random):
    return random.normal(size=(T, B, 30))


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("make_x", [few, many, dense])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("make", [LSTM, GRU])
def test_a_layer_in_parts(make, make_x, count, norm):
    """12 units in 2, 3 and 5 parts, the last of unequal sizes, are the whole; training, and reading on."""
    results = []
    for parts in (1, count):
        random = np.random.default_rng(2)
        layer = make(make_x(np.random.default_rng(3)).shape[2], H, batch_normalize=norm, dtype=np.float64, random=random)
        layer.u_biases.value[:] = random.normal(size=len(layer.u_biases.value))
        for state in layer.state(B).values():  # and from zeros W h₋₁ has no variance at all
            state[:] = random.normal(size=state.shape)
        found = []
        with all_of(parts) as team:
            for call in range(2):  # the second from the state that the first leaves
                x, dy = make_x(np.random.default_rng(call)), random.normal(size=(T, B, H))
                found += [layer.forward(x, True, team).copy(), layer.backward(dy.copy(), team=team)]
                found += [getattr(layer, f"d{name}0") for name in layer.states]
        found += [p.gradient for p in layer.parameters] + [a.copy() for a in layer.state(B).values()]
        found += [statistic.value.copy() for statistic in layer.statistics]
        with all_of(parts) as team:
            found.append(layer.forward(make_x(np.random.default_rng(9)), team=team).copy())
        assert len(layer._tape.parts) == parts
        results.append([a for a in found if a is not None])
    assert len(results[0]) == len(results[1])
    for one, several in zip(*results):
        np.testing.assert_allclose(several, one, rtol=0, atol=1e-12 * np.abs(one).max())


def test_threads_share_the_memory_of_rolling_statistics(monkeypatch):
    """It is made when it is first read: not by each thread its own, of which all but one would be lost."""
    full = np.full

    def slow(*arguments):
        time.sleep(0.01)
        return full(*arguments)

    x, results = dense(np.random.default_rng(1)), []
    for parts in (1, 2):
        layer = LSTM(30, H, batch_normalize=True, dtype=np.float64, random=np.random.default_rng(2))
        with monkeypatch.context() as patch, all_of(parts) as team:
            patch.setattr(np, "full", slow)
            layer.forward(x, True, team)
        results.append([statistic.value for statistic in layer.statistics])
    for one, several in zip(*results, strict=True):
        np.testing.assert_allclose(several, one, rtol=0, atol=1e-12 * np.abs(one).max())
