"""What the fuzz targets found, each pinned, and the targets' own seeds, so that they keep running."""

import importlib
import sys
import warnings

import numpy as np
import pytest
from places import ROOT
from runs import make_trainer, text, write_cfg

from pydarknet import load_network
from pydarknet.errors import CheckpointError, PydarknetError, TrainingError, WeightsError
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
