"""``.safetensors`` files: everything of a weights file goes there and back, and faults are named in a line."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from interop_cases import DIALECTS, LAYERS, make, symbols

from pydarknet import __version__, load_network
from pydarknet.darknet.weights import write_weights
from pydarknet.weight_tools import denormalized

safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors: pip install '.[safetensors]'")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def there_and_back(cfg, weights, *options):
    """The cfg and the weights file that come back, and the metadata on the way."""
    result = run("export", cfg, weights, "m.safetensors", "--overwrite", *options)
    assert result.code == 0, result
    result = run("import", "m.safetensors", "back.cfg", "back.weights", "--overwrite")
    assert result.code == 0 and result.out.startswith(b"Saved back.cfg and back.weights\n"), result
    with safetensors.safe_open("m.safetensors", "numpy") as file:
        return file.metadata()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_byte_for_byte(tmp_path, name, dialect):
    cfg, weights, _ = make(tmp_path, name, dialect)
    facts = there_and_back(cfg, weights)
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    assert (tmp_path / "back.cfg").read_bytes() == cfg.read_bytes()
    assert facts["cfg"] == cfg.read_text() and facts["pydarknet"] == __version__
    assert (facts["dialect"], facts["seen"]) == (dialect, "7")


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 7), (1, 0, 0), (2000, 0, 1), (1000, 3, 5)])
@pytest.mark.parametrize("seen", [0, 2**32 - 1, 2**33 + 5])
def test_any_header_and_numbers_at_the_edges(tmp_path, version, seen):
    """Transposed matrices and a short `seen` of old programs; zeros with a sign, and the smallest numbers."""
    cfg, weights, network = make(tmp_path, "all")
    network.parameters.values[:6] = [-0.0, 1e-45, -1e-42, 3.4e38, -3.4e38, 0.1]
    write_weights(network.layers, weights, seen, network.dialect, version)
    assert load_network(cfg, weights).seen == seen % (2**64 if version[0] in (0, 1) and version != (0, 1, 0) else 2**32)
    there_and_back(cfg, weights)
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()


def test_a_file_of_the_order_that_its_header_does_not_tell(tmp_path):
    cfg, weights, network = make(tmp_path, "lstm", "alexeyab")
    write_weights(network.layers, weights, 7, network.dialect, (0, 1, 0))
    facts = there_and_back(cfg, weights, "--dialect", "alexeyab")
    assert facts["dialect"] == "alexeyab"
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()


def test_a_cfg_with_dontsave_comes_back_with_all_that_it_reads(tmp_path):
    cfg, weights, _ = make(tmp_path, "lstm")
    cfg.write_text(cfg.read_text().replace("output=7", "output=7\ndontsave=1"))
    there_and_back(cfg, weights)
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()
    cfg.write_text(cfg.read_text().replace("dontsave=1", "dontload=1\ndontsave=1"))
    network = load_network(cfg, srand=1)
    network.save_weights(weights)
    result = run("export", cfg, weights, "other.safetensors")
    assert result.code == 1 and "net.cfg:6: [lstm] dontload=1: these weights are not read, so there are none" in result.err
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.parametrize("comment", ["# caf\xe9".encode("latin-1"), "# café ☕".encode(), b"\xef\xbb\xbf# x", b"; a\r"])
def test_the_text_of_the_cfg_is_kept(tmp_path, comment):
    cfg, weights, _ = make(tmp_path, "lstm")
    cfg.write_bytes(comment + b"\n" + cfg.read_bytes())
    there_and_back(cfg, weights)
    back = (tmp_path / "back.cfg").read_bytes()
    assert back == (cfg.read_bytes() if b"caf\xe9" not in comment else cfg.read_bytes().replace(b"\xe9", "é".encode()))


def test_a_network_that_is_no_longer_that_of_its_cfg(tmp_path):
    """Without batch norm, and with its cfg gone: the file describes the network as it is."""
    from pydarknet.interop.files import read_model
    from pydarknet.interop.safetensors import write_safetensors

    cfg, _, network = make(tmp_path, "lstm, batch norm")
    plain, text = denormalized(network), symbols(50)
    for gone in (False, True):
        if gone:
            cfg.unlink()
        write_safetensors(plain, tmp_path / "plain.safetensors")
        back = read_model(tmp_path / "plain.safetensors")
        assert "batch_normalize" not in back.cfg
        assert np.array_equal(back.network.predict(text), plain.predict(text))
        plain.reset_state()


def test_nothing_is_replaced_unasked(tmp_path):
    cfg, weights, _ = make(tmp_path, "lstm")
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    result = run("export", cfg, weights, "there.safetensors")
    assert result.code == 1 and result.err == "pydarknet: there.safetensors: already exists; --overwrite replaces it\n"
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"
    assert run("export", cfg, weights, "m.safetensors").code == 0
    for words in (("net.cfg", "new.weights"), ("new.cfg", "net.weights")):
        result = run("import", "m.safetensors", *words)
        assert result.code == 1 and "already exists" in result.err
    result = run("import", "m.safetensors", "same", "same")
    assert result.code == 1 and "the output is another file of the same command" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "net.cfg", "net.weights", "there.safetensors"]


def changed(path, change, **facts):
    """Write the tensors and metadata of the file at ``path`` anew, as ``change`` leaves them."""
    with safetensors.safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() | facts
    change(tensors)
    safetensors.save_file(tensors, path, {key: value for key, value in metadata.items() if value})


def put(name, array):
    return lambda tensors: tensors.__setitem__(name, np.asarray(array))


@pytest.mark.parametrize(
    "change, facts, message",
    [
        (lambda t: t.pop("layers.2.bias"), {}, "m.safetensors: has no tensor layers.2.bias, which the network needs"),
        (put("layers.9.bias", [1.0]), {}, "tensor layers.9.bias has no place in the network"),
        (put("layers.2.bias", [1.0]), {}, "layers.2.bias has the shape (1,), the network needs (19,)"),
        (put("layers.2.bias", [np.nan] * 19), {}, "layers.2.bias holds numbers that are not finite"),
        (put("layers.2.bias", [1e60] * 19), {}, "layers.2.bias holds numbers that are not finite"),
        (put("layers.2.bias", [1] * 19), {}, "layers.2.bias is of int64: it must hold floating-point numbers"),
        (put("layers.0.norm_hh.rolling_variance", [-1.0] * 28), {}, "rolling_variance holds numbers below 0"),
        (lambda t: None, {"seen": "many"}, "its metadata (cfg, dialect, seen, weights_version) is incomplete or damaged"),
        (lambda t: None, {"seen": str(2**64)}, "is incomplete or damaged"),
        (lambda t: None, {"cfg": ""}, "is incomplete or damaged"),
        (lambda t: None, {"dialect": "caffe"}, "is incomplete or damaged"),
        (lambda t: None, {"weights_version": "0.2"}, "is incomplete or damaged"),
        (lambda t: None, {"weights_version": "0.2.99999999999"}, "is incomplete or damaged"),
        (lambda t: None, {"cfg": "[net]\ninputs=19\n[lstn]\n"}, "cfg of m.safetensors:3: [lstn] is not a section of Darknet"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, facts, message):
    cfg, weights, _ = make(tmp_path, "lstm, batch norm")
    assert run("export", cfg, weights, "m.safetensors").code == 0
    changed(tmp_path / "m.safetensors", change, **facts)
    refused(message)


def refused(message, model="m.safetensors"):
    result = run("import", model, "out.cfg", "out.weights")
    assert (result.code, result.out) == (1, b"") and result.err.count("\n") == 1 and message in result.err, result
    assert not list(Path().glob("out*"))


def header(**tensors):
    data = json.dumps(tensors).encode()
    return struct.pack("<Q", len(data)) + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\xff" * 100,
        struct.pack("<Q", 2**60) + b'{"',
        header(x={"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}),
        header(x={"dtype": "F32", "shape": [1], "data_offsets": [0, 20]}) + bytes(20),
        header(x={"dtype": "?", "shape": [1], "data_offsets": [0, 4]}) + bytes(4),
    ],
)
def test_damaged_files(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    refused("m.safetensors: cannot be read as safetensors: ")


def test_files_that_are_none(tmp_path):
    refused("m.safetensors: cannot read the model: No such file or directory")
    refused(".: cannot read the model: ", ".")
    cfg, weights, _ = make(tmp_path, "lstm")
    refused("net.weights: cannot be read as safetensors", weights.name)
    result = run("export", cfg, weights, "m.pt")
    assert result.code == 1 and "m.pt: the model's name must end in .safetensors or .onnx" in result.err
    result = run("export", cfg, weights, "no/m.safetensors")
    assert result.code == 1 and "no/m.safetensors: cannot write the model: No such file or directory" in result.err
