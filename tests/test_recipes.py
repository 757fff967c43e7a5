"""Every recipe in cfg/ makes a network that trains, and every file in weights/ writes with the cfg of its name."""

import numpy as np
import pytest
from places import ROOT

from pydarknet import Corpus, Trainer, load_network
from pydarknet.darknet.randomness import CRandom
from pydarknet.inference.sample import generate

CFGS = sorted((ROOT / "cfg").glob("*.cfg"))
WEIGHTS = sorted((ROOT / "weights").glob("*.weights"))


@pytest.mark.parametrize("cfg", CFGS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("error", "ignore:max_batches=1 is below burn_in")
def test_a_recipe_trains(cfg):
    text = Corpus.from_symbols(np.random.default_rng(1).integers(97, 123, size=2000, dtype=np.uint8))
    network = load_network(cfg, srand=1)
    step = Trainer(network, text, max_batches=1, srand=1).step()
    assert abs(step.loss - np.log(network.inputs)) < 0.3, "before it has learned anything, all symbols are about as likely"


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda path: path.stem)
def test_shipped_weights_write_text(weights):
    network = load_network(ROOT / "cfg" / f"{weights.stem}.cfg", weights)
    text = bytes(int(step[0]) for step in generate(network, b"the ", 200, 0.5, CRandom(1)))
    written = text.decode("utf-8", "ignore")
    assert len(set(text)) > 10 and len(written.encode()) >= len(text) - 3, "whole characters, but for a last one that is cut"
    assert all(c.isprintable() or c in "\t\n" for c in written)
    assert text.count(b" ") > 10, text
