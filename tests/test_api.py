"""pydarknet as a Python programmer meets it: names, tables, a text written with one call."""

import subprocess
import sys

import numpy as np
import pytest
from places import ROOT
from runs import environment, make_trainer, write_cfg, write_text

import pydarknet
from pydarknet.errors import InputError
from pydarknet.training import processes
from pydarknet.training.trainer import Trainer


def test_the_public_names_are_shown():
    assert {"Corpus", "Network", "PydarknetError", "Step", "Trainer", "load_network"} <= {*dir(pydarknet)}
    for name in pydarknet.__all__:
        assert getattr(pydarknet, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pydarknet.nothing
    code = "import sys, pydarknet; pydarknet.__version__, dir(pydarknet); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60).returncode == 0


def test_objects_print_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(".")
    assert repr(trainer.network).splitlines() == [
        "Network of tiny.cfg: 64 symbols, 5 steps x 2 streams, 0 characters seen",
        "layer       type  in  out  parameters",
        "    0       lstm  64    7       2,044",
        "    1  connected   7   64         512",
        "           total                2,556",
    ]
    write_text(".", name="a.txt"), write_text(".", name="b.txt")
    assert repr(pydarknet.Corpus.open(["a.txt", "b.txt"])) == "Corpus(a.txt and 1 more, 6,000 bytes)"
    assert repr(trainer) == "Trainer('./tiny.cfg', Corpus(<memory>, 3,000 bytes), iteration 0 of 30)".replace("./", "")


def test_a_trainer_takes_a_path(tmp_path):
    network = pydarknet.load_network(write_cfg(tmp_path), srand=1)
    trainer = Trainer(network, write_text(tmp_path), max_batches=2, srand=1)
    assert len(list(trainer.run())) == 2
    with pytest.raises(InputError, match=r"the text is b?\[1, 2\]; give a path, or a pydarknet.Corpus"):
        Trainer(network, [1, 2])


def test_a_trainer_shares_the_work_out_as_the_command_does(tmp_path, monkeypatch):
    asked = []
    plain = processes.stream_processes
    monkeypatch.setattr(processes, "stream_processes", lambda network, count: asked.append(count) or plain(network, count))
    monkeypatch.setattr("pydarknet.sharing.WORK_OF_PROCESSES", 1)
    monkeypatch.setattr("pydarknet.sharing.SMALLEST_OF_PROCESSES", 1)
    monkeypatch.setattr("pydarknet.sharing.blas_threads", lambda: 2)
    trainer = make_trainer(tmp_path, batch=32, max_batches=3)
    run = trainer.run()
    next(run)
    assert asked == [2] and trainer.train_call is not None
    assert len(list(run)) == 2 and trainer.train_call is None


def test_a_network_writes_a_str():
    network = pydarknet.load_network(ROOT / "cfg" / "rnn.cfg", ROOT / "weights" / "rnn.weights")
    symbols = np.frombuffer(b"def", np.uint8)[:, None]
    network.predict(symbols)
    state = {name: array.copy() for name, array in network.layers[0].state(1).items()}
    text = network.generate("def ", 300, srand=1)
    assert isinstance(text, str) and len(text) == 300 and "self" in text
    assert network.generate("def ", 300, srand=1) == text != network.generate("def ", 300, srand=2)
    assert len(network.generate("def ", 20, temperature=0, top_k=5)) == 20
    for name, array in network.layers[0].state(1).items():
        np.testing.assert_array_equal(array, state[name])


def test_a_network_over_tokens_says_so(tmp_path):
    cfg = write_cfg(tmp_path, "[lstm]\noutput=4\n[connected]\noutput=300\n[softmax]\n", inputs=300)
    with pytest.raises(InputError, match="300 symbols, which are tokens"):
        pydarknet.load_network(cfg).generate("a", 3)
