"""State dicts that PyTorch alone has made: what comes in computes the same, what can't is refused in a line."""

import io
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import run

from pydarknet import load_network

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors: pip install '.[safetensors]'")
nn = torch.nn
V, H, E = 23, 9, 6


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)


class Model(nn.Module):
    """What people write: an embedding or none, an LSTM, a linear layer."""

    def __init__(self, embedding=None, layers=1, bias=True, linear_bias=True, tied=False, batch_first=False):
        super().__init__()
        self.embedding = nn.Embedding(V, embedding) if embedding else None
        self.lstm = nn.LSTM(embedding or V, H, layers, bias=bias, batch_first=batch_first)
        self.fc = nn.Linear(H, V, bias=linear_bias)
        if tied:
            self.fc.weight = self.embedding.weight
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(3)

    def forward(self, symbols):
        x = nn.functional.one_hot(symbols, V).float() if self.embedding is None else self.embedding(symbols)
        return self.fc(self.lstm(x)[0]).softmax(-1)


def imported(path="m.safetensors"):
    result = run("import", path, "out.cfg", "out.weights", "--overwrite")
    assert result.code == 0, result
    assert b"Its symbols are the numbers 0 to 22" in result.out
    return load_network("out.cfg", "out.weights")


def check(model, path="m.safetensors", tolerance=1e-5):
    text = np.random.default_rng(0).integers(0, V, (1000, 1))
    with torch.no_grad():
        expected = model(torch.from_numpy(text)).numpy()
    assert expected.std(axis=0).max() > 0.01
    network = imported(path)
    assert np.abs(network.predict(text) - expected).max() < tolerance
    return network


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 3},
        {"embedding": E},
        {"embedding": E, "layers": 2, "bias": False, "linear_bias": False},
        {"embedding": H, "linear_bias": False},  # both matrices are (V, H)
        {"embedding": H, "layers": 2},
        {"bias": False},
        {"embedding": V},
    ],
)
def test_an_lstm_and_a_linear_layer(options):
    model = Model(**options)
    safetensors.save_file(model.state_dict(), "m.safetensors")
    network = check(model)
    assert [layer.type for layer in network.layers] == ["lstm"] * options.get("layers", 1) + ["connected"]


def test_an_embedding_that_is_one_hot_changes_no_number():
    model = Model(embedding=V)
    model.embedding.weight.data = torch.eye(V)
    safetensors.save_file(model.state_dict(), "m.safetensors")
    network = check(model)
    inputs = {array.name: array.array for array in network.layers[0].stored(network.dialect)}
    ours = np.concatenate([inputs[f"u{gate}.weights"] for gate in "ifgo"])
    assert np.array_equal(ours, model.lstm.weight_ih_l0.detach().numpy())


def test_tied_weights_that_the_file_has_once():
    model = Model(embedding=H, tied=True)
    safetensors.save_model(model, "m.safetensors")  # says in its metadata which takes whose place
    check(model)
    kept = {name: tensor for name, tensor in model.state_dict().items() if name != "fc.weight"}
    safetensors.save_file(kept, "m.safetensors")
    check(model)


def test_modules_of_their_own_and_other_names():
    cells = [nn.LSTM(V, 7), *(nn.LSTM(7, 7) for _ in range(10)), nn.LSTM(7, H)]
    linear = nn.Linear(H, V)
    with torch.no_grad():
        for parameter in [p for module in (*cells, linear) for p in module.parameters()]:
            parameter.mul_(3)

    def model(symbols):
        x = nn.functional.one_hot(symbols, V).float()
        for cell in cells:
            x = cell(x)[0]
        return linear(x).softmax(-1)

    modules = {f"module.net.rnn{n + 1}": cell for n, cell in enumerate(cells)} | {"module.net.head": linear}
    given = {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
    safetensors.save_file(given, "m.safetensors")
    text = torch.from_numpy(np.random.default_rng(0).integers(0, V, (200, 1)))
    assert np.abs(imported().predict(text.numpy()) - model(text).detach().numpy()).max() < 1e-5


def test_an_lstm_cell():
    cell, linear = nn.LSTMCell(V, H), nn.Linear(H, V)
    plain = Model()
    plain.lstm.load_state_dict({f"{name}_l0": tensor for name, tensor in cell.state_dict().items()})
    plain.fc = linear
    given = {f"cell.{name}": tensor for name, tensor in cell.state_dict().items()} | {
        f"out.{name}": tensor for name, tensor in linear.state_dict().items()
    }
    safetensors.save_file(given, "m.safetensors")
    text = torch.from_numpy(np.random.default_rng(0).integers(0, V, (50, 1)))
    assert np.abs(imported().predict(text.numpy()) - plain(text).detach().numpy()).max() < 1e-5


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-5), (torch.float16, 1e-5), (torch.bfloat16, 1e-5)])
def test_other_precisions(monkeypatch, dtype, tolerance):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # it comes with onnx, and must not be needed
    model = Model(embedding=E)
    rounded = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    model.load_state_dict(rounded)
    safetensors.save_file(rounded, "m.safetensors")
    check(model, tolerance=tolerance)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "model_state": state, "loss": 1.5}])
def test_files_of_torch_save(wrap):
    model = Model(embedding=E, layers=2)
    torch.save(wrap(model.state_dict()), "m.pt")
    check(model, "m.pt")


def refused(message, given=None, model="m.safetensors"):
    if given is not None:
        safetensors.save_file({name: tensor.clone() for name, tensor in given.items()}, model)
    result = run("import", model, "out.cfg", "out.weights")
    assert (result.code, result.out) == (1, b"") and result.err.count("\n") == 1 and message in result.err, result
    assert not list(Path().glob("out*"))


def named(**modules):
    return {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    "modules, message",
    [
        ({"gru": nn.GRU(V, H), "fc": nn.Linear(H, V)}, "gru: is an nn.GRU, which applies r after the candidate's product"),
        ({"rnn": nn.RNN(V, H), "fc": nn.Linear(H, V)}, "rnn: is an nn.RNN, which activates the sum of its products"),
        ({"lstm": nn.LSTM(V, H, bidirectional=True), "fc": nn.Linear(2 * H, V)}, "reverse: is of an LSTM that reads both ways"),
        ({"lstm": nn.LSTM(V, H, proj_size=4), "fc": nn.Linear(4, V)}, "weight_hr_l0: is of an LSTM with proj_size"),
        ({"fc": nn.Linear(H, V)}, "holds no torch.nn.LSTM"),
        ({"lstm": nn.LSTM(V, H)}, "there must be one nn.Linear, and at most one nn.Embedding; there is nothing"),
        (
            {"lstm": nn.LSTM(V, H), "a": nn.Linear(H, H), "b": nn.Linear(H, V)},
            "there must be one nn.Linear, and at most one nn.Embedding; there is a, b",
        ),
        (
            {"lstm": nn.LSTM(H, H), "p": nn.Embedding(V, H), "q": nn.Linear(H, V, bias=False)},
            "there must be one nn.Linear, and at most one nn.Embedding; there is p, q",
        ),
        ({"lstm": nn.LSTM(V, H), "norm": nn.LayerNorm(H), "fc": nn.Linear(H, V)}, "norm.weight: is of no nn.LSTM, nn.Linear"),
        ({"lstm": nn.LSTM(V, H).to(torch.float8_e5m2), "fc": nn.Linear(H, V)}, "is of F8_E5M2: convert it to float32 first"),
        ({"lstm": nn.LSTM(V, H), "conv": nn.Conv1d(H, V, 3)}, "conv.weight: is of no nn.LSTM"),
        ({"lstm": nn.LSTM(V, H), "fc": nn.Linear(H, V + 1)}, f"it reads {V} symbols and writes {V + 1}"),
        ({"lstm": nn.LSTM(V, H), "fc": nn.Linear(H + 1, V)}, f"fc: takes {H + 1} numbers, and the LSTM gives {H}"),
        (
            {"emb": nn.Embedding(V, 5), "lstm": nn.LSTM(E, H), "fc": nn.Linear(H, V)},
            "emb: gives 5 numbers for a symbol, and the LSTM takes 6",
        ),
        ({"b": nn.LSTM(V, H), "a": nn.LSTM(H, H), "fc": nn.Linear(H, V)}, "a, b, don't say which comes first: number them"),
        ({"l1": nn.LSTM(V, H), "l2": nn.LSTM(V, H), "fc": nn.Linear(H, V)}, "they are not stacked"),
    ],
)
def test_what_no_darknet_network_computes(modules, message):
    refused(message, named(**modules))


SPECIAL = {
    "sparse": lambda x: x.to_sparse(),
    "csr": lambda x: x.to_sparse_csr(),
    "meta": lambda x: x.to("meta"),
    "quantized": lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8),
    "complex": lambda x: x.to(torch.complex64),
    "conjugated": lambda x: x.to(torch.complex64).conj(),
    "nested": lambda x: torch.nested.nested_tensor([x[0], x[1, :2]]),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch, of what it will no longer have one day
@pytest.mark.parametrize("kind", SPECIAL)
def test_tensors_that_are_no_arrays_are_named(kind):
    state = Model().state_dict()
    torch.save({**state, "fc.weight": SPECIAL[kind](state["fc.weight"])}, "m.pt")
    refused("m.pt: tensor fc.weight is sparse, nested, quantized, complex or without data", model="m.pt")


@pytest.mark.parametrize("shape", [(1000, 1000), (10**6, 10**7)])
def test_a_tensor_that_repeats_a_number_without_end(shape):
    torch.save({**Model().state_dict(), "fc.weight": torch.zeros(1).expand(shape)}, "m.pt")
    refused("m.pt: its tensors repeat a few numbers many times, as expand() does", model="m.pt")


def test_a_file_that_is_compressed():
    torch.save({**Model().state_dict(), "fc.weight": torch.zeros(1000, 1000)}, "plain.pt")
    with zipfile.ZipFile("plain.pt") as plain, zipfile.ZipFile("m.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refused("m.pt: can't be read as tensors alone (it is compressed)", model="m.pt")


def test_names_with_numbers_of_any_length():
    digits = 5000 * "9"
    state = {name.replace("_l0", f"_l{digits}"): array for name, array in Model().state_dict().items()}
    safetensors.save_file(state, "m.safetensors")
    refused("holds no torch.nn.LSTM")
    state = {name.replace("lstm", f"lstm{digits}"): array for name, array in Model().state_dict().items()}
    safetensors.save_file(state, "m.safetensors")
    imported()


def test_a_product_that_is_too_large_is_told_once():
    state = Model(embedding=E).state_dict()
    safetensors.save_file({name: torch.full_like(array, 1e38) for name, array in state.items()}, "m.safetensors")
    refused("holds numbers that are not finite")


def test_pickles():
    torch.save(Model(), "whole.pt")
    refused("whole.pt: can't be read as tensors alone (Weights only load failed): write safetensors", model="whole.pt")
    Path("m.pkl").write_bytes(pickle.dumps(print))
    refused("m.pkl: can't be read as tensors alone", model="m.pkl")
    Path("m.pt").write_bytes(b"PK\x03\x04 and then nothing")
    refused("m.pt: can't be read as tensors alone", model="m.pt")
    torch.save([1, 2], "m.pt")
    refused("m.pt: holds no state dict", model="m.pt")
    torch.save({"a": Model().state_dict(), "b": Model().state_dict()}, "m.pt")
    refused("m.pt: holds no state dict", model="m.pt")


def test_a_pickle_without_pytorch(monkeypatch):
    torch.save(Model().state_dict(), "m.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(
        "m.pt: is a file of torch.save, which PyTorch alone can read: install 'pydarknet[torch]', or write "
        "safetensors.torch.save_file(model.state_dict(), 'm.safetensors') in Python",
        model="m.pt",
    )


def test_a_pickle_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    buffer = io.BytesIO()
    torch.save({"lstm.weight_ih_l0": Trap()}, buffer)
    Path("m.pt").write_bytes(buffer.getvalue())
    refused("m.pt: can't be read as tensors alone", model="m.pt")
    assert not (tmp_path / "sprung").exists()
