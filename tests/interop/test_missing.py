"""Without the extra packages: a line says what to install, and no other command asks for them."""

import subprocess
import sys

import pytest
from command_line import make_network, run
from runs import environment, write_cfg, write_text

PACKAGES = ("torch", "safetensors", "onnx", "onnxruntime")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (*PACKAGES, "safetensors.numpy", "pydarknet.interop.torch"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    "words, extra",
    [
        ("export net.cfg net.weights m.safetensors", "safetensors"),
        ("export net.cfg net.weights m.onnx", "onnx"),
        ("import net.weights out.cfg out.weights", "safetensors"),
    ],
)
def test_a_missing_package_is_named(tmp_path, words, extra):
    make_network(tmp_path)
    result = run(*words.split())
    assert result.code == 1 and result.err.count("\n") == 1
    assert result.err.startswith(f"pydarknet: this needs the package {extra} (")
    assert result.err.endswith(f"): python3 -m pip install 'pydarknet[{extra}]'\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.cfg", "net.weights"]


def test_training_and_writing_import_none_of_it(tmp_path):
    write_cfg(tmp_path, max_batches=2), write_text(tmp_path)
    make_network(tmp_path)
    code = """
import sys
from pydarknet.cli import main
assert main(["train", "tiny.cfg", "text.bin", "--quiet"]) == 0
assert main(["generate", "net.cfg", "net.weights", "-len", "5"]) == 0
print([name for name in sys.modules if name.split(".")[0] in %r or name.startswith(%r)])
""" % ((*PACKAGES, "mpi4py"), ("pydarknet.interop", "pydarknet.training.device", "pydarknet.training.ranks"))
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "[]", result.stderr
