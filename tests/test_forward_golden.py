"""Softmax outputs of the real Darknet (pjreddie's), byte by byte.

Each case is a cfg, weights written by Darknet's own ``save_weights``, 200 bytes fed one at a time,
and the softmax after each of them. The weights were scaled up until a wrong gate shows; the batch
norm of some units has a tiny variance, so that the epsilon shows.
"""

import numpy as np
import pytest
from places import GOLDEN as GOLDEN_ROOT

from pydarknet import load_network
from pydarknet.darknet.dialect import ALEXEYAB

FOLDER = GOLDEN_ROOT / "forward" / "pjreddie"

# Darknet computes in float32 with -Ofast, in another order than we do. Measured agreement, the
# largest difference and the largest relative one over all 200 x 256 probabilities:
CASES = [
    "case1_lstm",  # 1e-8, 8e-7
    "case3_lstm_bn",  # 3e-8, 1e-6
    "case4_gru",  # 4e-8, 1e-6
    "case6_rnn_leaky",  # 3e-7, 4e-6
    "case8_connected_bn",  # 4e-7, 2e-6
]
ABSOLUTE = 1e-5  # what we promise
RELATIVE = 2e-5  # five times the worst case measured; most probabilities are below 1e-3, so it is the tighter bound

every_case = pytest.mark.parametrize("case", CASES)


def load(case, **options):
    folder = FOLDER / case
    symbols = np.frombuffer((folder / "input.bin").read_bytes(), np.uint8).astype(int)
    return load_network(folder / "case.cfg", folder / "case.weights", **options), symbols, np.load(folder / "expected.npy")


def compare(case, ours, expected):
    assert ours.shape == expected.shape
    difference = np.abs(ours - expected)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    assert difference[worst] < ABSOLUTE, (
        f"{case}: after byte {worst[0]}, symbol {worst[1]}: {ours[worst]:.8f}, Darknet has {expected[worst]:.8f}"
    )
    ratio = difference / expected
    worst = np.unravel_index(np.argmax(ratio), ratio.shape)
    assert ratio[worst] < RELATIVE, (
        f"{case}: after byte {worst[0]}, symbol {worst[1]}: {ours[worst]:.8g}, Darknet has {expected[worst]:.8g}"
    )


@every_case
def test_predict(case):
    network, symbols, expected = load(case)
    compare(case, network.predict(symbols[:, None])[:, 0], expected)


@every_case
def test_predict_of_several_streams_in_pieces(case):
    network, symbols, expected = load(case)
    pieces = [network.predict(np.stack([piece, piece[::-1], piece], axis=1)) for piece in np.split(symbols, [1, 50, 147])]
    p = np.concatenate(pieces)
    compare(case, p[:, 0], expected)
    compare(case, p[:, 2], expected)


@every_case
def test_stepper(case):
    network, symbols, expected = load(case)
    step = network.stepper()
    compare(case, np.stack([step(symbols[t : t + 1])[0].copy() for t in range(len(symbols))]), expected)


@pytest.mark.parametrize("case", ["case3_lstm_bn", "case8_connected_bn"])
def test_the_epsilon_of_the_other_dialect_would_show(case):
    network, symbols, expected = load(case)
    for layer in network.layers:
        layer.dialect = ALEXEYAB  # after the weights were read in pjreddie's order
    assert np.abs(network.predict(symbols[:, None])[:, 0] - expected).max() > 1e-3


@pytest.mark.parametrize("case", ["case1_lstm", "case4_gru"])
def test_the_order_of_the_other_dialect_would_show(case):
    network, symbols, expected = load(case, dialect="alexeyab")
    assert np.abs(network.predict(symbols[:, None])[:, 0] - expected).max() > 1e-2
