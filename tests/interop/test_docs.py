"""The Python of docs/interop.md, run from top to bottom on the shipped network, with its commands between."""

import shlex

import numpy as np
import pytest
from command_line import run
from places import ROOT
from test_docs import split

from pydarknet import load_network

for name in ("torch", "safetensors", "onnx", "onnxruntime"):
    pytest.importorskip(name, reason=f"needs {name}: pip install '.[torch,safetensors,onnx]'")


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    for name in ("cfg", "weights"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    page, names = ROOT / "docs" / "interop.md", {}
    first, *_ = [content for _, language, content in split(page)[1] if language == "python"]
    assert len([line for line in first.splitlines() if line]) <= 10 and "pydarknet" not in first
    for line, language, content in split(page)[1]:
        if language == "python":
            exec(compile("\n" * (line - 1) + content, str(page), "exec"), names)
            if content == first:
                text = np.frombuffer(b"import ", np.uint8)[:, None]
                expected = load_network("cfg/rnn.cfg", "weights/rnn.weights").predict(text)
                assert np.abs(names["p"].detach().numpy() - expected).max() < 1e-5
        else:
            for words in map(shlex.split, content.splitlines()):
                if words[0] == "pydarknet":
                    result = run(*words[1:])
                    assert result.code == 0, result
    assert (tmp_path / "copy.weights").read_bytes() == (ROOT / "weights" / "rnn.weights").read_bytes()
    assert (tmp_path / "copy.cfg").read_bytes() == (ROOT / "cfg" / "rnn.cfg").read_bytes()
    written = capsys.readouterr().out.splitlines()
    greedy = load_network("cfg/rnn.cfg", "weights/rnn.weights").generate("import ", 20, temperature=0)
    assert written[0].startswith("most likely next byte: b'") and written[-1] == "import " + greedy.partition("\n")[0]
