"""The C library's rand(), by numbers that the C library gave, and the generators of training."""

import numpy as np
import pytest
from places import GOLDEN as GOLDEN_ROOT

from pydarknet.darknet.randomness import CRandom, generator
from pydarknet.inference.sample import darknet_random
from pydarknet.network import load_network

GOLDEN = GOLDEN_ROOT / "forward" / "pjreddie"

# Printed by a C program linked against the GNU C library: srand(SEED), then rand() five times.
RAND = {
    0: [1804289383, 846930886, 1681692777, 1714636915, 1957747793],
    1: [1804289383, 846930886, 1681692777, 1714636915, 1957747793],  # srand(0) is srand(1)
    5: [590011675, 99788765, 2131925610, 171864072, 317159276],
    2**31 - 1: [1065668062, 2142264300, 1066566375, 1064012770, 2141034222],
    2**32 - 1: [254925627, 1205188300, 366127624, 1401405153, 76053476],
}


@pytest.mark.parametrize("seed", RAND)
def test_rand_is_the_c_librarys(seed):
    random = CRandom(seed)
    assert [random.rand() for _ in RAND[seed]] == RAND[seed]


def test_negative_seeds_are_those_of_the_unsigned_int():
    assert CRandom(-1).rand() == CRandom(2**32 - 1).rand()


@pytest.mark.parametrize("count", [0, 1, 2, 30, 31, 32, 495, 496, 497, 5000])
@pytest.mark.parametrize("before", [0, 3])
def test_skip_is_so_many_numbers(count, before):
    one_by_one, at_once = CRandom(5), CRandom(5)
    for random in (one_by_one, at_once):
        for _ in range(before):
            random.rand()
    for _ in range(count):
        one_by_one.rand()
    at_once.skip(count)
    expected, found = ([random.rand() for _ in range(100)] for random in (one_by_one, at_once))
    assert found == expected, f"after skip({count}): {found[:3]} instead of {expected[:3]}"


@pytest.mark.parametrize("case", ["case1_lstm", "case4_gru"])
def test_uniform_numbers_are_darknets_when_it_begins_to_write(case):
    expected = np.load(GOLDEN / case / "gen_uniforms.npy")
    network = load_network(GOLDEN / case / "case.cfg", GOLDEN / case / "case.weights")
    random = darknet_random(network, 5)
    found = [random.uniform() for _ in expected]
    # The program that wrote the file may have divided by RAND_MAX or multiplied by its inverse.
    np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_each_purpose_has_numbers_of_its_own_that_come_again():
    drawn = {purpose: generator(3, purpose).random(4).tolist() for purpose in ("weights", "dropout", "offsets")}
    assert len({tuple(numbers) for numbers in drawn.values()}) == 3, drawn
    assert generator(3, "offsets").random(4).tolist() == drawn["offsets"]
    assert generator(4, "offsets").random(4).tolist() != drawn["offsets"]
    assert generator(None, "weights").random() != generator(None, "weights").random()
