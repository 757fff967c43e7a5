"""Gradients by PyTorch: the same run as the engine's, and one that goes on under either."""

import sys

import numpy as np
import pytest
from command_line import run
from interop_cases import LAYERS as KINDS
from runs import bytes_of, make_trainer, text, write_cfg

from pydarknet import load_network
from pydarknet.errors import InputError, TrainingError
from pydarknet.text.corpus import Corpus
from pydarknet.training.trainer import Trainer
from pydarknet.training.validation import Validation

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")

from pydarknet.training.device import torch_device  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """PyTorch's threads wait for each other at every small product when another process is busy: minutes for seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


END = "\n[connected]\noutput=64\nactivation=linear\n[softmax]\n"
STACKS = {
    "lstm": "[lstm]\noutput=12\n[lstm]\noutput=9" + END,
    "gru": "[gru]\noutput=12\n[gru]\ntanh=1\noutput=9\nweight_dropout=.2" + END,
    "rnn": "[rnn]\noutput=12\nhidden=9\nactivation=tanh\n[rnn]\noutput=9\nhidden=7\nactivation=loggy" + END,
}
ADAM = dict(adam=1, learning_rate=0.01, decay=0, clip_norm=0.05, batch=16, subdivisions=2, time_steps=10, max_batches=200)


def losses(trainer, count):
    return [trainer.step().loss for _ in range(count)]


def assert_alike(one, other, tolerance=1e-4):
    """That losses agree within ``tolerance``, relative."""
    worst = np.abs(np.divide(other, one) - 1).max()
    assert worst < tolerance, f"{worst:.1e}:\n{one}\n{other}"


@pytest.mark.parametrize("kind", STACKS)
def test_two_hundred_iterations_as_the_engine(tmp_path, kind):
    engine = make_trainer(tmp_path, STACKS[kind], **ADAM)
    expected = losses(engine, 200)
    assert np.mean(expected[-10:]) < 0.8 * expected[0]  # it learns, so that the parameters matter
    other = make_trainer(tmp_path, STACKS[kind], **ADAM)
    with torch_device(other.network, "cpu") as other.train_call:
        assert_alike(expected, losses(other, 200))
    assert other.network.seen == engine.network.seen
    for name, array in engine.network.arrays().items():
        assert np.abs(array - other.network.arrays()[name]).max(initial=0) < 0.01, name


FLOAT64 = 1e-9  # both are exact to some 1e-14; what is amplified over the updates stays below this


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cost", ["", "[cost]\nscale=.5\n"])
def test_every_layer_in_double_precision(tmp_path, kind, cost):
    """Parameters, statistics, states and gradients after some iterations; also with dropout, whose masks are the engine's."""
    layers = KINDS[kind] + END + "temperature=.8\n" + cost
    trainers = []
    for device in (None, "cpu"):
        network = load_network(write_cfg(tmp_path, layers, jump=1 / 4, batch=6, learning_rate=0.05), srand=3, dtype=np.float64)
        trainer = Trainer(network, Corpus.from_symbols(text()), srand=3)
        if device:
            with torch_device(network, device) as trainer.train_call:
                found = losses(trainer, 6)
        else:
            found = losses(trainer, 6)
        trainers.append((found, trainer))
    (expected, engine), (found, other) = trainers
    np.testing.assert_allclose(found, expected, rtol=FLOAT64)
    arrays = other.network.arrays()
    for name, array in engine.network.arrays().items():
        np.testing.assert_allclose(arrays[name], array, rtol=FLOAT64, atol=FLOAT64, err_msg=name)
    gradients = engine.network.parameters.gradients
    np.testing.assert_allclose(other.network.parameters.gradients, gradients, atol=FLOAT64 * np.abs(gradients).max())
    assert engine.network.dropout_random.random() == other.network.dropout_random.random()


def test_validation_and_stopbackward(tmp_path):
    layers = "[lstm]\noutput=6\n[dropout]\n[lstm]\noutput=5\nstopbackward=1" + END
    measured = lambda network: Validation(network, Corpus.from_symbols(text(400, seed=2)), every=2)  # noqa: E731
    runs = []
    for device in (None, "cpu"):
        trainer = make_trainer(tmp_path, layers, validation=measured)
        context = torch_device(trainer.network, device) if device else None
        trainer.train_call = context and context.__enter__()
        steps = [trainer.step() for _ in range(4)]
        runs.append([value for step in steps for value in (step.loss, step.valid_loss or 0.0)])
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-4)
    assert runs[0][3] > 0


def test_parameters_go_there_once_an_iteration_and_states_stay(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, STACKS["lstm"], jump=0)
    with torch_device(trainer.network, "cpu") as trainer.train_call:
        engine, moved = trainer.train_call.__self__, []
        put, made = engine._put_parameters, torch.tensor
        monkeypatch.setattr(engine, "_put_parameters", lambda: (moved.append("parameters"), put()))
        monkeypatch.setattr(torch, "tensor", lambda *a, **k: (moved.append("state"), made(*a, **k))[1])
        losses(trainer, 3)
    assert moved == ["parameters", *["state"] * 4] * 3  # the trainer looks at the states once an iteration


def test_another_use_in_between_is_as_with_the_engine(tmp_path):
    runs = []
    for device in (None, "cpu"):
        trainer = make_trainer(tmp_path, STACKS["gru"])
        context = torch_device(trainer.network, device) if device else None
        trainer.train_call = context and context.__enter__()
        losses(trainer, 2)
        trainer.network.predict(np.zeros((3, 7), int))  # other streams: other states
        found = losses(trainer, 2)
        with trainer.network.side_state():
            trainer.network.predict(np.ones((3, 2), int))
        trainer.network.reset_state(1)
        runs.append(found + losses(trainer, 2))
    assert_alike(*runs)


def test_an_iteration_that_fails_leaves_all_as_it_was(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, STACKS["lstm"])
    with torch_device(trainer.network, "cpu") as trainer.train_call:
        losses(trainer, 2)
        before = {name: array.copy() for name, array in trainer.network.arrays().items()}
        call, calls = trainer.train_call, []

        def fails(*pair):
            calls.append(pair)
            if len(calls) == 2:
                monkeypatch.setattr(torch.Tensor, "backward", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory. More")))
            return call(*pair)

        trainer.train_call = fails
        with pytest.raises(TrainingError, match="^device 'cpu': no memory$"):
            trainer.step()
        monkeypatch.undo()
        for name, array in trainer.network.arrays().items():
            assert (array == before[name]).all(), name
        found = losses(trainer, 2)
    straight = make_trainer(tmp_path, STACKS["lstm"])
    with torch_device(straight.network, "cpu") as straight.train_call:
        assert losses(straight, 4)[2:] == found


# The command


def train(*words):
    result = run("train", "tiny.cfg", "text.bin", "--srand", 1, *words)
    assert result.code == 0, result.err
    return result.err


def logged(name):
    return np.array([float(line.split('"loss": ')[1].split(",")[0]) for line in open(name) if '"loss": ' in line])


def test_a_run_goes_on_under_another_device(here):
    write_cfg(here, STACKS["lstm"], **{**ADAM, "max_batches": 40})
    train("--backup", "whole", "--log", "whole.log")
    devices = {"engine": [], "cpu": ["--device", "cpu"]}
    for first, second in (("engine", "cpu"), ("cpu", "engine"), ("cpu", "cpu")):
        name = f"{first}-{second}"
        train("--backup", name, "--log", f"{name}.log", "--max-batches", 20, *devices[first])
        said = train("--backup", name, "--log", f"{name}.log", "--resume", *devices[second])
        assert "going on from" in said
        assert_alike(logged("whole.log"), logged(f"{name}.log"))
    train("--backup", "straight", "--device", "cpu")
    one, other = bytes_of("straight"), bytes_of("cpu-cpu")
    assert one["tiny.checkpoint"] == other["tiny.checkpoint"] and one["tiny_final.weights"] == other["tiny_final.weights"]


def test_who_computes_is_said(here):
    assert "pydarknet: PyTorch on cpu\n" in train("--device", "cpu", "--verbose", "--max-batches", 1)


@pytest.mark.parametrize(
    "device, message",
    [
        ("gpu", "device 'gpu': PyTorch knows none of that name; give cuda, mps or cpu"),
        ("meta", "device 'meta': PyTorch cannot use it here: Tensor.item() cannot be called on meta tensors"),
        ("cuda:99", "device 'cuda:99': PyTorch cannot use it here: "),
        ("a\nb", r"device 'a\nb': PyTorch knows none of that name; give cuda, mps or cpu"),
    ],
)
def test_a_device_that_is_not_there(here, device, message):
    result = run("train", "tiny.cfg", "text.bin", "--device", device)
    assert result.code == 1 and result.err.startswith(f"pydarknet: {message}") and result.err.count("\n") == 1, result.err
    assert not (here / "backup").exists()


def test_device_and_processes(here):
    result = run("train", "tiny.cfg", "text.bin", "--device", "cpu", "--processes", 2)
    assert result.code == 2 and "--processes, --device and --mpi cannot be combined: give only one of them" in result.err


def test_without_pytorch(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "pydarknet.interop.torch", raising=False)
    result = run("train", "tiny.cfg", "text.bin", "--device", "cpu")
    assert result.code == 1 and result.err.count("\n") == 1
    assert result.err.endswith("): python3 -m pip install 'pydarknet[torch]'\n")


def test_a_device_without_the_networks_precision(tmp_path, monkeypatch):
    """As mps, which has no float64."""
    network = load_network(write_cfg(tmp_path), dtype=np.float64)

    moved = torch.nn.Module.to

    def to(module, where):
        if isinstance(where, torch.device):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype. Please use float32 instead.")
        return moved(module, where)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(InputError, match="^device 'cpu': Cannot convert a MPS .* dtype$"), torch_device(network, "cpu"):
        pass
