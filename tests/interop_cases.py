"""Networks of every layer type, for the tests of what other programs compute with."""

import numpy as np
from command_line import make_network

from pydarknet.interop.tensors import tensors

V = 19
LAYERS = {
    "lstm": "[lstm]\noutput=7\n[lstm]\noutput=5",
    "lstm, batch norm": "[lstm]\noutput=7\nbatch_normalize=1\n[lstm]\noutput=5\nbatch_normalize=1",
    "gru": "[gru]\noutput=7\n[gru]\noutput=5",
    "gru, tanh": "[gru]\noutput=7\ntanh=1\n[gru]\noutput=5\ntanh=1",
    "gru, batch norm": "[gru]\noutput=7\nbatch_normalize=1\ntanh=1\n[gru]\noutput=5",
    "rnn": "[rnn]\noutput=7\nhidden=6\nactivation=loggy\n[rnn]\noutput=5\nactivation=tanh",
    "rnn, two activations": "[rnn]\noutput=7\nhidden=6\nactivation=tanh\nlogistic=1\n[rnn]\noutput=5\nhidden=4\nlogistic=2",
    "rnn, shortcut": "[rnn]\noutput=7\nhidden=6\nactivation=tanh\nshortcut=1",
    "rnn, batch norm": "[rnn]\noutput=7\nhidden=6\nactivation=tanh\nbatch_normalize=1",
    "crnn": "[crnn]\nsize=1\noutput=7\nhidden=6\nactivation=tanh\n[crnn]\nsize=1\noutput=5\nhidden=4\nbatch_normalize=1",
    "connected": "[connected]\noutput=7\nactivation=selu\n[connected]\noutput=5\nactivation=gelu\nbatch_normalize=1",
    "batchnorm": "[lstm]\noutput=7\n[batchnorm]\n[connected]\noutput=6\nactivation=leaky\n[batchnorm]",
    "activation": "[gru]\noutput=7\n[activation]\nactivation=mish\n[lstm]\noutput=5\n[activation]\nactivation=swish",
    "all": "[dropout]\n[lstm]\noutput=7\n[dropout]\nprobability=.3\n[rnn]\noutput=6\nhidden=5\n[gru]\noutput=4\n[dropout]",
}
TEXT = """[net]
# a comment
inputs={inputs}
{layers}
[connected]
output={inputs}
activation=linear
[softmax]
temperature={temperature}
"""
DIALECTS = ("pjreddie", "alexeyab")


def make(folder, name, dialect="pjreddie", temperature=0.8, **options):
    """The paths of cfg and weights, and the network, of one of :data:`LAYERS`, or of layers given as they stand.

    What comes depends on what came; nothing grows over the steps, nor do rounding errors: float32 would not keep to 1e-5 then.
    """
    text = TEXT.format(inputs=V, layers=LAYERS.get(name, name), temperature=temperature)
    cfg, weights, network = make_network(folder, text=text, dialect=dialect, scale=2.5, **options)
    for layer, section in zip(network.layers, network.cfg.layers):
        for array_name, array in layer.stored(network.dialect):
            if array_name.endswith(("rolling_mean", "scales")):
                array *= 0.3
            if array_name == "self.weights":
                array *= 0.4
                if section.has("shortcut"):
                    array -= np.eye(len(array), dtype=array.dtype)
    network.save_weights(weights)
    return cfg, weights, network


def symbols(T=1000, B=1, seed=0):
    return np.random.default_rng(seed).integers(0, V, (T, B))


def gradients(network):
    """{name: gradient} of the last calls, under the names of the tensors. The network's parameters are lost."""
    network.parameters.values[:] = network.parameters.gradients
    return {name: array for name, array in tensors(network).items() if "rolling_" not in name}


def assert_close(name, ours, theirs, tolerance):
    """That two arrays differ by at most ``tolerance`` of the largest number."""
    scale = max(np.abs(ours).max(), np.abs(theirs).max(), 1e-12)
    error = np.abs(ours - theirs).max() / scale
    assert error <= tolerance, f"{name}: {error:.1e} of the largest, {scale:.6g}:\n{ours}\n{theirs}"
