"""Fuzz target: any bytes as a weights file. The first byte chooses the network that reads the others.

What is read must be what a file of it gives again, and must not depend on what the network read before; a file
that is refused must leave the network as it was.
"""

import numpy as np
from shared import as_file, no_cfg_warnings

from pydarknet.errors import PydarknetError
from pydarknet.network import load_network

LAYERS = [
    b"[lstm]\noutput=2\n",
    b"[gru]\noutput=2\nbatch_normalize=1\n",
    b"[rnn]\noutput=2\nhidden=3\n[batchnorm]\n",
    b"[crnn]\nsize=1\noutput=2\nhidden=2\n",
]
CFGS = [
    as_file(b"[net]\ninputs=3\n" + layers + b"[connected]\noutput=3\nactivation=linear\n[softmax]\n", f"{n}.cfg")
    for n, layers in enumerate(LAYERS)
]
no_cfg_warnings()


def _seed(n, dialect):
    path = as_file(b"", "seed.weights")
    load_network(CFGS[n], srand=n, dialect=dialect).save_weights(path)
    with open(path, "rb") as file:
        return bytes((n,)) + file.read()


SEEDS = [_seed(n, dialect) for n in range(len(CFGS)) for dialect in ("pjreddie", "alexeyab")]
NETWORKS = [load_network(cfg, srand=7) for cfg in CFGS]


def one_input(data):
    network = NETWORKS[data[0] % len(NETWORKS)] if data else NETWORKS[0]
    before = network.parameters.values.copy()
    try:
        network.load_weights(as_file(data[1:]))
    except PydarknetError:
        np.testing.assert_array_equal(network.parameters.values, before)
        raise
    again = load_network(network.cfg.path, srand=1)  # that has read nothing before
    path = as_file(b"", "again.weights")
    network.save_weights(path)
    again.load_weights(path)
    assert (again.seen, again.dialect) == (network.seen, network.dialect)
    np.testing.assert_array_equal(again.parameters.values, network.parameters.values)
    np.testing.assert_array_equal(again.parameters.statistics, network.parameters.statistics)
