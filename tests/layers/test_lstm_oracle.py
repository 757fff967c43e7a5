"""The fused LSTM against Darknet's eight connected layers, transcribed slowly (``oracle.py``)."""

import numpy as np
import oracle
import pytest

from pydarknet.layers.lstm import LSTM

D, H, T, B = 5, 4, 7, 3

# Sums in another order: some units of the last place, 1e-16 in float64 and 6e-8 in float32, through
# seven steps (measured: 1e-15 and 5e-7 of the largest value). Batch norm over three streams divides
# by deviations that may be small and magnifies that (measured: 5e-14 and 3e-5).
TOLERANCES = {("float64", False): 1e-12, ("float64", True): 1e-12, ("float32", False): 5e-6, ("float32", True): 3e-4}


@pytest.mark.parametrize("dtype, norm", TOLERANCES)
@pytest.mark.parametrize("seed", range(3))
def test_lstm_is_eight_connected_layers(dtype, norm, seed):
    random = np.random.default_rng(seed)
    layer = LSTM(D, H, norm, dtype, random)
    matrices = {name: (layer.matrices[name], "linear") for name in "wi wf wo wg ui uf uo ug".split()}
    oracle.check_against(layer, matrices, oracle.lstm, random, T, B, TOLERANCES[dtype, norm])


def test_oracle_tells_two_gates_apart():
    random = np.random.default_rng(0)
    layer = LSTM(D, H, dtype=np.float64, random=random)
    swapped = {"wi": "wf", "wf": "wi"}
    matrices = {name: (layer.matrices[swapped.get(name, name)], "linear") for name in "wi wf wo wg ui uf uo ug".split()}
    with pytest.raises(AssertionError, match="y.* the oracle has "):
        oracle.check_against(layer, matrices, oracle.lstm, random, T, B, 1e-3)
