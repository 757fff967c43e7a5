"""The GRU, the RNN and the CRNN against their connected layers, transcribed slowly (``oracle.py``)."""

from functools import partial

import numpy as np
import oracle
import pytest

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers.crnn import CRNN
from pydarknet.layers.gru import GRU
from pydarknet.layers.rnn import RNN

D, H, T, B, O = 5, 4, 7, 3, 6

# As in test_lstm_oracle.py, and measured alike.
TOLERANCES = {("float64", False): 1e-12, ("float64", True): 1e-12, ("float32", False): 5e-6, ("float32", True): 3e-4}
kinds_of_numbers = pytest.mark.parametrize("dtype, norm", TOLERANCES)
GRU_NAMES = "wz wr wh uz ur uh".split()


@kinds_of_numbers
@pytest.mark.parametrize(
    "tanh, dialect, candidate", [(False, PJREDDIE, "logistic"), (True, PJREDDIE, "tanh"), (True, ALEXEYAB, "logistic")]
)
def test_gru_is_six_connected_layers(tanh, dialect, candidate, dtype, norm):
    random = np.random.default_rng(1)
    layer = GRU(D, H, tanh, norm, dtype, random)
    layer.dialect = dialect
    matrices = {name: (layer.matrices[name], "linear") for name in GRU_NAMES}
    oracle.check_against(layer, matrices, partial(oracle.gru, candidate=candidate), random, T, B, TOLERANCES[dtype, norm])


@kinds_of_numbers
@pytest.mark.parametrize("cls", [RNN, CRNN])
@pytest.mark.parametrize("activation, self_activation", [("leaky", None), ("logistic", "loggy"), ("tanh", "logistic")])
@pytest.mark.parametrize("shortcut", [False, True], ids=["", "shortcut"])
def test_rnn_is_three_connected_layers(cls, activation, self_activation, shortcut, dtype, norm):
    random = np.random.default_rng(2)
    layer = cls(D, O, H, activation, self_activation, shortcut, norm, dtype, random)
    matrices = {
        "input": (layer.matrices["input"], activation),
        "self": (layer.matrices["self"], self_activation or activation),
        "output": (layer.matrices["output"], activation),
    }
    oracle.check_against(layer, matrices, partial(oracle.rnn, shortcut=shortcut), random, T, B, TOLERANCES[dtype, norm])
