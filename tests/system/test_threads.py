"""Threads of our own: what they share out is whole again, and an error in one ends all."""

import threading
import weakref

import numpy as np
import pytest

from pydarknet import load_network, network
from pydarknet.layers.base import OneHot
from pydarknet.layers.lstm import LSTM
from pydarknet.system import threads
from pydarknet.system.threads import blas_limited, blas_threads, product, run_together, taking_over

T, B, H = 70, 5, 12  # more than one block of steps


def test_run_together_calls_all_and_meets():
    seen, lock = [], threading.Lock()

    def work(n, meet):
        for round_ in range(50):
            with lock:
                seen.append((round_, n))
            meet()

    run_together(work, 3)
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
        run_together(work, 3)
    assert threading.active_count() == before


def test_settings_for_errors_hold_in_every_thread():
    def work(n, meet):
        np.float32([1e30]) * np.float32([1e30])

    with np.errstate(over="ignore"):
        run_together(work, 2)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        run_together(work, 2)


def test_threads_that_cannot_be_had(monkeypatch):
    start = threading.Thread.start

    def second_fails(thread):
        if threading.active_count() > before:
            raise RuntimeError("can't start new thread")
        start(thread)

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(RuntimeError, match="can't start"):
        run_together(lambda n, meet: meet(), 3)
    assert threading.active_count() == before


def test_an_old_tape_is_freed():
    layer = LSTM(5, 4, random=np.random.default_rng(1))
    layer.forward(np.zeros((5, 3, 2), np.float32), train=True)
    layer.backward(np.zeros((4, 3, 2), np.float32))
    old = weakref.ref(layer._tape)
    layer.forward(np.zeros((5, 4, 2), np.float32), train=True)
    assert old() is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_product(monkeypatch, count):
    monkeypatch.setattr(threads, "_own", count)
    random = np.random.default_rng(1)
    a, b = random.normal(size=(7, 5)), random.normal(size=(5, 4))
    out = np.empty((7, 4))
    product(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-14)


def test_taking_over_and_back():
    before = blas_threads()
    with taking_over():
        assert threads.own_threads() == (before or 1)
        assert blas_threads() in (1, None)
        with taking_over():  # as a network within another's call
            assert threads.own_threads() == (before or 1)
        assert threads.own_threads() == (before or 1)
    assert threads.own_threads() == 1
    assert blas_threads() == before


def test_the_number_of_blas_threads_comes_back():
    before = blas_threads()
    with blas_limited(1):
        assert blas_threads() in (1, None)
    assert blas_threads() == before


def few(random):
    return OneHot(random.integers(9, size=(T, B)), 300)


def many(random):
    return OneHot(random.permutation(T * B).reshape(T, B), 400)


def dense(random):
    return random.normal(size=(30, T, B))


@pytest.mark.parametrize("make_x", [few, many, dense])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_lstm_in_parts(monkeypatch, make_x, count):
    # 12 units in 2 and 3 parts; 5 don't divide them, so that it is one.
    results = []
    for parts in (1, count):
        monkeypatch.setattr(threads, "_own", parts)
        random = np.random.default_rng(2)
        layer = LSTM(make_x(np.random.default_rng(3)).shape[0], H, dtype=np.float64, random=random)
        layer.u_biases.value[:] = random.normal(size=4 * H)
        found = []
        for call in range(2):  # the second from the state that the first leaves
            x, dy = make_x(np.random.default_rng(call)), random.normal(size=(H, T, B))
            found += [layer.forward(x, train=True).copy(), layer.backward(dy.copy()), layer.dh0, layer.dc0]
        found += [p.gradient for p in layer.parameters] + [a.copy() for a in layer.state(B).values()]
        found.append(layer.forward(make_x(np.random.default_rng(9))).copy())
        assert len(layer._tape.parts) == (1 if H % parts else parts)
        results.append([a for a in found if a is not None])
    assert len(results[0]) == len(results[1])
    for one, several in zip(*results):
        np.testing.assert_allclose(several, one, rtol=0, atol=1e-13 * np.abs(one).max())


@pytest.mark.parametrize(
    ("layers", "cores", "takes_over"),
    [
        ("[lstm]\noutput=8\n[lstm]\noutput=8", 2, True),
        ("[lstm]\noutput=8", 3, False),  # which don't divide it
        ("[lstm]\noutput=8", 1, False),
        ("[lstm]\noutput=16", 8, False),  # more than were measured
        ("[lstm]\noutput=8\nbatch_normalize=1", 2, False),
        ("[lstm]\noutput=8\n[gru]\noutput=8", 2, False),
    ],
)
def test_who_is_shared_out(tmp_path, monkeypatch, layers, cores, takes_over):
    cfg = tmp_path / "a.cfg"
    cfg.write_text(f"[net]\ninputs=50\nbatch=4\ntime_steps=6\n{layers}\n[connected]\noutput=50\nactivation=linear\n[softmax]\n")
    symbols = np.random.default_rng(1).integers(50, size=(7, 4))
    used, losses = [], []
    monkeypatch.setattr(threads, "blas_threads", lambda: cores)
    monkeypatch.setattr(network, "blas_threads", lambda: cores)
    monkeypatch.setattr(
        LSTM, "_tape_for", lambda self, *a, plain=LSTM._tape_for: (used.append(threads.own_threads()), plain(self, *a))[1]
    )
    for large in (10**12, 1):
        monkeypatch.setattr(network, "LARGE_PRODUCT", large)
        net = load_network(str(cfg), srand=1, dtype=np.float64)
        losses.append([net.train_call(symbols[:-1], symbols[1:]), *net.nats(symbols[:-1], symbols[1:]).reshape(-1)])
        assert set(used) == {2 if takes_over and large == 1 else 1}
        used.clear()
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-13)
