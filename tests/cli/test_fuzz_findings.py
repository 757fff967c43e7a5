"""What the fuzz targets found, each pinned, and the targets' own seeds, so that they keep running."""

import importlib
import sys
import warnings

import numpy as np
import pytest
from command_line import run as command_line
from places import ROOT
from runs import make_trainer, text, write_cfg

from pydarknet import load_network
from pydarknet.errors import LONGEST, CheckpointError, PydarknetError, TrainingError, WeightsError
from pydarknet.text.corpus import Corpus
from pydarknet.training.checkpoint import Checkpoint
from pydarknet.training.validation import Validation

FUZZ = ROOT / "fuzz"
TARGETS = sorted(path.stem for path in FUZZ.glob("fuzz_*.py"))
LAYERS = "[batchnorm]\n[connected]\noutput=64\nactivation=linear\n[softmax]\n"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name, monkeypatch):
    import pydarknet.system.memory
    import pydarknet.text.tokens

    # The targets change these for good; here they are put back.
    monkeypatch.setattr(pydarknet.system.memory, "memory_at_hand", pydarknet.system.memory.memory_at_hand)
    monkeypatch.setattr(pydarknet.text.tokens, "_TOKEN_BLOCK", pydarknet.text.tokens._TOKEN_BLOCK)
    monkeypatch.setattr(sys, "path", [str(FUZZ), *sys.path])
    target, guarded = importlib.import_module(name), importlib.import_module("run").guarded
    accepted = 0
    for seed in target.SEEDS:
        guarded(target.one_input)(seed)
        try:
            target.one_input(seed)
            accepted += 1
        except PydarknetError:
            pass
    assert accepted > 1, "the seeds no longer get past the first check"


@pytest.mark.parametrize(("array", "value"), [("adam.t", -5000), ("adam.t", 2**62), ("adam.v", -1)])
def test_an_optimizer_that_no_run_can_have_had(tmp_path, array, value):
    """OverflowError from B1^t with t far below zero; with v below zero, parameters that are not numbers."""
    trainer = make_trainer(tmp_path, adam=1)
    trainer.step()
    good = trainer.checkpoint()
    arrays = {name: content.copy() for name, content in good.arrays.items()}
    arrays[array].flat[0] = value
    before = trainer.network.parameters.values.copy()
    with pytest.raises(CheckpointError, match="no usable memory of the optimizer"):
        trainer.restore(Checkpoint(good.facts, arrays, "damaged.checkpoint"))
    np.testing.assert_array_equal(trainer.network.parameters.values, before)
    trainer.restore(good)
    trainer.step()


def test_a_variance_below_zero(tmp_path):
    """Read without a word, its root made every probability NaN."""
    network = load_network(write_cfg(tmp_path, LAYERS), srand=1)
    path = tmp_path / "w.weights"
    network.layers[0].norm.rolling_variance.value[3] = -1
    network.save_weights(path)
    again = load_network(tmp_path / "tiny.cfg", srand=1)
    # The header, 64 scales, 64 means, 3 variances.
    with pytest.raises(WeightsError, match=r"layer 0 \[batchnorm\] rolling_variance holds -1.0 at byte 544: a variance"):
        again.load_weights(path)


def test_nothing_stays_of_a_file_of_the_other_dialect(tmp_path):
    """The biases of [batchnorm], which pjreddie's file has no room for, were left from an alexeyab file read before."""
    cfg = write_cfg(tmp_path, LAYERS)
    network = load_network(cfg, srand=1, dialect="alexeyab")
    network.layers[0].biases.value[:] = 7
    network.save_weights(tmp_path / "a.weights")
    load_network(cfg, srand=1).save_weights(tmp_path / "p.weights")
    network.load_weights(tmp_path / "a.weights")
    assert (network.layers[0].biases.value == 7).all()
    network.load_weights(tmp_path / "p.weights")
    assert not network.layers[0].biases.value.any()


def test_a_run_that_diverges_says_so_once(tmp_path):
    """When the update made the numbers overflow, measuring the held-out text added NumPy's own warnings."""
    trainer = make_trainer(
        tmp_path,
        validation=lambda network: Validation(network, Corpus.from_symbols(text(500)), every=1),
        learning_rate=3e38,
        adam=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TrainingError, match="the loss on the held-out text is nan"):
            trainer.step()


def test_a_section_whose_name_moves_the_cursor(tmp_path):
    """The name of the section, of a cfg or in a checkpoint, went into messages as it stands."""
    cfg = tmp_path / "a.cfg"
    cfg.write_bytes(b"[net]\ninputs=9\n[softm\x19\x1b[2J]\nkey\n")
    with pytest.raises(PydarknetError) as caught:
        load_network(cfg)
    assert r"[softm\x19\x1b[2J] 'key' is not key=value" in str(caught.value)
    trainer = make_trainer(tmp_path)
    trainer.step()
    good = trainer.checkpoint()
    sections = [["net", {}], ["lstm\x1b]0;title\x07", {}], *good.facts["cfg"][2:]]
    with pytest.raises(CheckpointError) as caught:
        trainer.restore(Checkpoint({**good.facts, "cfg": [good.facts["cfg"][0], *sections[1:]]}, good.arrays))
    assert r"layer 0 was [lstm\x1b]0;title\x07], and is [lstm]" in str(caught.value)


@pytest.mark.parametrize("kind", PydarknetError.__subclasses__())
def test_every_message_is_one_line_of_bounded_length(kind):
    message = str(kind("a\nb\r\x1b[2J\x9b\u202e\udcff" + "é" * 10**6 + "; take another"))
    assert message.isprintable() and len(message) <= LONGEST
    assert message.startswith(r"a\nb\r\x1b[2J\x9b\u202e\udcffé") and message.endswith("é; take another")


def test_no_control_character_of_a_name_reaches_the_terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a\x1b[2J\x07b"
    for words in (
        ("train", name, "text"),
        ("valid", name, name, name),
        ("generate", name, "--set", name),
        (name,),
        ("train", f"--{name}"),
        ("plot", name),
        ("statistics", name, name),
        ("train", "text", "--log", name, "--device", name),
    ):
        result = command_line(*words)
        assert result.code in (1, 2) and not set(result.err) & set("\x1b\x07"), result
