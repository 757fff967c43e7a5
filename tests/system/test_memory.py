"""The estimates of memory: from below, so that nothing is refused that fits, and not far below."""

import io
import resource
import tracemalloc

import pytest
from runs import LAYERS, make_trainer, write_cfg

from pydarknet import load_network
from pydarknet.errors import CfgError, TrainingError
from pydarknet.inference.sample import generate
from pydarknet.system import memory
from pydarknet.system.memory import memory_at_hand, step_memory, training_memory

LARGE = LAYERS.replace("output=7", "output=200")
CASES = {
    "lstm": (LARGE, {}),
    "gru": (LARGE.replace("lstm", "gru"), {}),
    "rnn": (LARGE.replace("lstm", "rnn"), {}),
    "crnn": (LARGE.replace("[lstm]", "[crnn]\nsize=1\nhidden=150"), {}),
    "connected": (LARGE.replace("lstm", "connected"), {}),
    "adam": (LARGE, dict(adam=1)),
    "weights dropped": (LAYERS.replace("output=7", "output=500\nweight_dropout=.3"), dict(time_steps=2)),
    "few steps": (LARGE, dict(time_steps=2)),
    "many steps": (LAYERS, dict(time_steps=2000, batch=2)),
}


@pytest.mark.parametrize(("layers", "net"), CASES.values(), ids=CASES)
def test_training_takes_what_was_estimated(tmp_path, layers, net):
    net = {"batch": 32, "time_steps": 40, **net}
    tracemalloc.start()
    try:
        trainer = make_trainer(tmp_path, layers, **net)
        tracemalloc.reset_peak()  # reading a cfg makes room for the largest that is allowed
        trainer.step()
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    network = trainer.network
    needed, kept = training_memory(network)
    # What is not counted: Python, the text, temporary arrays; a megabyte or two here.
    assert needed + network.parameters.values.nbytes <= taken, f"{needed:,} were estimated and {taken:,} taken"
    assert taken < 2 * (needed + network.parameters.values.nbytes) + (2 << 20), f"{needed:,} were estimated and {taken:,} taken"


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "crnn", "connected"])
def test_a_step_of_many_streams_takes_what_was_estimated(tmp_path, name):
    network = load_network(write_cfg(tmp_path, CASES[name][0]))
    tracemalloc.start()
    try:
        next(generate(network, length=1, streams=5000))
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    needed = step_memory(network, 5000)
    assert needed < taken < 3 * needed, f"{needed:,} were estimated and {taken:,} taken"


def test_dropped_weights_are_counted_twice(tmp_path):
    dropped = load_network(write_cfg(tmp_path, LARGE.replace("output=200", "output=200\nweight_dropout=.3")))
    none = load_network(write_cfg(tmp_path, LARGE))
    matrices = 2 * 4 * 200 * 200 * 4
    assert training_memory(dropped) == (training_memory(none)[0] + matrices, training_memory(none)[1])


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "crnn", "connected"])
def test_parameters_are_counted(tmp_path, name, monkeypatch):
    """With one byte less than the estimate asks for, the cfg is refused; and the estimate is the number that there are."""
    cfg = write_cfg(tmp_path, CASES[name][0])
    needed = 2 * load_network(cfg).parameters.values.nbytes
    monkeypatch.setattr(memory, "memory_at_hand", lambda: needed)
    load_network(cfg)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: needed - 1)
    with pytest.raises(CfgError, match=rf"tiny.cfg:\d+: \[connected\] the parameters up to here need {needed:,} bytes"):
        load_network(cfg)


def test_where_the_system_does_not_tell(tmp_path, monkeypatch):
    """No estimate is held against anything, and training goes its way."""
    monkeypatch.setattr(memory, "memory_at_hand", lambda: None)
    make_trainer(tmp_path).step()
    monkeypatch.setattr(memory, "memory_at_hand", lambda: 100_000)
    with pytest.raises(
        TrainingError, match="tiny.cfg: training needs .* for time_steps=5000 of 2 streams, and 100,000 can be had"
    ):
        make_trainer(tmp_path, time_steps=5000)


def test_where_other_hosts_run_the_rest_of_the_streams(tmp_path, monkeypatch):
    cfg = write_cfg(tmp_path, batch=40)  # 20 streams
    network = load_network(cfg)
    network.streams_here = 5
    needed, _ = training_memory(network)
    assert training_memory(network) == training_memory(load_network(cfg, batch=5))
    monkeypatch.setattr(memory, "memory_at_hand", lambda: needed)
    memory.check_training_memory(network)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: needed - 1)
    with pytest.raises(TrainingError, match="for time_steps=5 of 5 streams, and"):
        memory.check_training_memory(network)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "none")))
    free = memory_at_hand()
    limit.write_text("max\n")
    assert memory_at_hand() > free / 2
    limit.write_text("1234567\n")
    assert memory_at_hand() == 1234567


@pytest.mark.parametrize("path", ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"])
def test_where_linux_tells_the_limit_of_a_container(monkeypatch, path):
    def opened(name, *arguments, **options):
        if name == path:
            return io.StringIO("1234567\n")
        raise FileNotFoundError(name)

    monkeypatch.setattr("builtins.open", opened)
    found = memory_at_hand()
    monkeypatch.undo()
    assert found == 1234567


def test_the_limit_of_a_process_counts_the_soft_one(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: {resource.RLIMIT_AS: (1234567, resource.RLIM_INFINITY)}[kind])
    assert memory_at_hand() == 1234567


@pytest.mark.parametrize(("adam", "arrays"), [(0, 2), (1, 3)])
def test_the_estimate_in_numbers(tmp_path, adam, arrays):
    """Gradients and what the optimizer remembers; the softmax, two kinds of symbols in 8 bytes, and what the layers keep."""
    network = load_network(write_cfg(tmp_path, adam=adam, batch=6, subdivisions=2, time_steps=5))
    tapes = sum(layer.tape_bytes(5, 3) for layer in network.layers)
    kept = 64 * 5 * 3 * 4 + 2 * 8 * 6 * 3 + tapes
    assert tapes > 0
    assert training_memory(network) == (arrays * network.parameters.values.nbytes + kept, kept)
