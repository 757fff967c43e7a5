"""The ONNX graph, checked by onnx and run by onnxruntime: in one call and step by step, for any T and B."""

import sys

import numpy as np
import pytest
from command_line import run
from interop_cases import DIALECTS, LAYERS, V, make, symbols

from pydarknet import load_network
from pydarknet.layers.activations import ACTIVATIONS

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install '.[onnx]'")


class Session:
    """The graph at ``path`` as a user runs it, with its state."""

    def __init__(self, path, B=1):
        onnx.checker.check_model(str(path), full_check=True)
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        _, *states = self.session.get_inputs()
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.state = {given.name: np.zeros((B, given.shape[1]), np.float32) for given in states}
        assert self.outputs == ["probabilities", *(f"{name}.next" for name in self.state)]

    def __call__(self, symbols):
        probabilities, *states = self.session.run(self.outputs, {"symbols": symbols, **self.state})
        self.state = dict(zip(self.state, states))
        return probabilities


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def exported(cfg, weights):
    result = run("export", cfg, weights, "m.onnx", "--overwrite")
    assert result.code == 0, result
    return result.out.decode()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_thousand_characters_in_one_call_and_step_by_step(tmp_path, name, dialect):
    cfg, weights, _ = make(tmp_path, name, dialect)
    network, text = load_network(cfg, weights), symbols(1000, 2)
    said = exported(cfg, weights)
    expected = network.predict(text)
    assert np.abs(Session("m.onnx", B=2)(text) - expected).max() < 1e-5
    stepping = Session("m.onnx", B=2)
    assert np.abs(np.concatenate([stepping(step[None]) for step in text]) - expected).max() < 1e-5
    assert said.startswith("Saved m.onnx\nLargest difference from pydarknet over 1,000 characters: ")
    assert 0 <= float(said.split(": ")[-1].split()[0]) < 1e-5


def test_states_go_in_and_out(tmp_path):
    """Under the names of the layers, and equal to the network's own."""
    cfg, weights, _ = make(tmp_path, "[lstm]\noutput=7\n[rnn]\noutput=6\nhidden=5\n[gru]\noutput=4")
    exported(cfg, weights)
    session, network = Session("m.onnx", B=3), load_network(cfg, weights)
    for text in (symbols(9, 3), symbols(4, 3, seed=1)):
        assert np.abs(session(text) - network.predict(text)).max() < 1e-6
    assert {*session.state} == {"layers.0.h", "layers.0.c", "layers.1.h", "layers.2.h"}
    for name, array in session.state.items():
        _, number, state = name.split(".")
        np.testing.assert_allclose(array, network.layers[int(number)].state(3)[state], atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(tmp_path, name):
    """Of sums on both sides of every kink."""
    cfg, weights, network = make(tmp_path, f"[connected]\noutput=200\nactivation={name}")
    network.layers[0].biases.value[:] = np.linspace(-6, 6, 200)
    network.save_weights(weights)
    exported(cfg, weights)
    text = symbols(50)
    assert np.abs(Session("m.onnx")(text) - network.predict(text)).max() < 1e-5


def test_operators_and_tensors(tmp_path):
    """ONNX's own LSTM and GRU; every tensor has the name of its layer."""
    cfg, weights, _ = make(tmp_path, "[lstm]\noutput=7\n[gru]\noutput=5\n[rnn]\noutput=4")
    exported(cfg, weights)
    graph = onnx.load("m.onnx").graph
    types = [node.op_type for node in graph.node]
    assert [types.count(name) for name in ("LSTM", "GRU", "Scan")] == [1, 1, 1]
    (gru,) = (node for node in graph.node if node.op_type == "GRU")
    assert {a.name: a.i for a in gru.attribute}["linear_before_reset"] == 0
    shapes = {array.name: tuple(array.dims) for array in graph.initializer if array.name.startswith("layers.")}
    assert shapes["layers.0.weight_ih"] == (1, 28, V) and shapes["layers.2.self.weight.T"] == (4, 4)
    assert len(shapes) == 3 + 3 + 6 + 2
    assert [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.output[:2]] == [
        ["T", "B", V],
        ["B", 7],
    ]
    facts = {fact.key: fact.value for fact in onnx.load("m.onnx").metadata_props}
    assert facts["cfg"] == cfg.read_text() and facts["dialect"] == "pjreddie"


def test_without_onnxruntime_it_says_so(tmp_path, monkeypatch):
    cfg, weights, _ = make(tmp_path, "lstm")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "Not compared with pydarknet: onnxruntime is missing" in exported(cfg, weights)
    assert (tmp_path / "m.onnx").exists()


def test_what_is_too_large_for_the_format(tmp_path, monkeypatch):
    from pydarknet.interop import onnx as ours

    monkeypatch.setattr(ours, "LARGEST", 1000)
    cfg, weights, _ = make(tmp_path, "lstm")
    result = run("export", cfg, weights, "m.onnx")
    assert result.code == 1 and "bytes of parameters are too many for an .onnx file: export .safetensors instead" in result.err
    assert not (tmp_path / "m.onnx").exists()
