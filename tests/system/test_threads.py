"""Threads of our own: what they share out is whole again, and an error in one ends all."""

import threading
import time
import weakref

import numpy as np
import pytest
from command_line import run
from runs import write_cfg, write_text

from pydarknet import load_network
from pydarknet import network as network_module
from pydarknet.errors import TrainingError
from pydarknet.layers.gru import GRU
from pydarknet.layers.layer import OneHot
from pydarknet.layers.lstm import LSTM
from pydarknet.sharing import Sharing
from pydarknet.system.threads import Team, blas_limited, blas_threads, can_start

T, B, H = 70, 5, 12  # more than one block of steps


def test_a_team_calls_all_and_meets():
    seen, lock = [], threading.Lock()

    def work(n, meet):
        for round_ in range(50):
            with lock:
                seen.append((round_, n))
            meet()

    Team(3).run(work)
    assert sorted(seen) == [(round_, n) for round_ in range(50) for n in range(3)]
    assert [round_ for round_, _ in seen] == [round_ for round_ in range(50) for _ in range(3)]


@pytest.mark.parametrize("fails", [0, 2])
def test_an_error_in_one_ends_all(fails):
    def work(n, meet):
        meet()
        if n == fails:
            raise ValueError("here")
        meet()

    before = threading.active_count()
    with pytest.raises(ValueError, match="here"):
        Team(3).run(work)
    assert threading.active_count() == before


def test_settings_for_errors_hold_in_every_thread():
    found = {}

    def work(n, meet):
        found[n] = np.geterr()

    with np.errstate(over="ignore", invalid="raise"):
        expected = np.geterr()
        Team(3).run(work)
    assert found == dict.fromkeys(range(3), expected)


def test_threads_that_cannot_be_had(monkeypatch):
    start = threading.Thread.start

    def second_fails(thread):
        if threading.active_count() > before:
            raise RuntimeError("can't start new thread")
        start(thread)

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(TrainingError, match="cannot start a thread to share the work: can't start new thread; with OPENBLAS"):
        Team(3).run(lambda n, meet: meet())
    assert threading.active_count() == before


def test_a_network_does_without_threads_that_cannot_be_had(tmp_path, monkeypatch):
    cfg = tmp_path / "a.cfg"
    cfg.write_text("[net]\ninputs=50\nbatch=4\n[lstm]\noutput=8\n[connected]\noutput=50\n[softmax]\n")
    symbols = np.random.default_rng(1).integers(50, size=(7, 4))
    expected = load_network(cfg, srand=1).predict(symbols)
    network = load_network(cfg, srand=1)
    network.sharing = Sharing(threads=3)
    assert can_start(2)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not can_start(1)
    with pytest.warns(UserWarning, match="no more threads can be started: one does all the work"):
        np.testing.assert_array_equal(network.predict(symbols), expected)
    assert network.sharing == Sharing()


def test_a_run_saves_when_a_thread_cannot_be_had_in_the_middle_of_a_call(tmp_path, monkeypatch):
    """Whichever thread it is, of which layer, forward or backward; the run that goes on from there is the undisturbed one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network_module, "sharing_of_a_call", lambda *_: Sharing(threads=3))
    cfg, text, start, begun, fails_at = write_cfg(tmp_path), write_text(tmp_path), threading.Thread.start, 0, None

    def counted(thread):
        nonlocal begun
        begun += thread._target.__name__ == "guarded"  # not those that can_start() tries
        if begun == fails_at:
            begun += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)
    words = ("train", cfg, text, "--max-batches", 4, "-srand", 1, "--valid-fraction", 0.1, "--backup")
    assert run(*words, "whole").code == 0
    weights, total = (tmp_path / "whole" / "tiny_final.weights").read_bytes(), begun
    each = total // 4
    for fails_at in range(total - each, total - 1, max(1, each // 4)):
        begun, folder = 0, f"at{fails_at}"
        result = run(*words, folder)
        saved, last = result.err.splitlines()[-2:]
        assert result.code == 1, fails_at
        assert last.startswith("pydarknet: cannot start a thread to share the work: can't start new thread; ")
        assert saved.startswith(f"pydarknet: saved {folder}/tiny.backup after iteration "), result.err
        assert run(*words, folder, "--resume").code == 0
        assert (tmp_path / folder / "tiny_final.weights").read_bytes() == weights
    begun, fails_at = 0, 1
    result = run(*words, "never")
    assert result.code == 1 and result.err.startswith("pydarknet: cannot start a thread") and result.err.count("\n") == 1


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
    Team(count).product(a, b, out)
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
        team, random = Team(parts), np.random.default_rng(2)
        layer = make(make_x(np.random.default_rng(3)).shape[2], H, batch_normalize=norm, dtype=np.float64, random=random)
        layer.u_biases.value[:] = random.normal(size=len(layer.u_biases.value))
        for state in layer.state(B).values():  # and from zeros W h₋₁ has no variance at all
            state[:] = random.normal(size=state.shape)
        found = []
        for call in range(2):  # the second from the state that the first leaves
            x, dy = make_x(np.random.default_rng(call)), random.normal(size=(T, B, H))
            found += [layer.forward(x, True, team).copy(), layer.backward(dy.copy(), team=team)]
            found += [getattr(layer, f"d{name}0") for name in layer.states]
        found += [p.gradient for p in layer.parameters] + [a.copy() for a in layer.state(B).values()]
        found += [statistic.value.copy() for statistic in layer.statistics]
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
        with monkeypatch.context() as patch:
            patch.setattr(np, "full", slow)
            layer.forward(x, True, Team(parts))
        results.append([statistic.value for statistic in layer.statistics])
    for one, several in zip(*results, strict=True):
        np.testing.assert_allclose(several, one, rtol=0, atol=1e-12 * np.abs(one).max())
