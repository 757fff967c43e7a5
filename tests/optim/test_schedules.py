"""Learning rates, against those of Darknet itself and against their equations."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from places import GOLDEN as GOLDEN_ROOT

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import CfgError, CfgWarning, InputError, TrainingError
from pydarknet.optim.schedules import POLICIES, Schedule

# get_current_rate of pjreddie's darknet at batch numbers 0 to 20, for the [net] section that stands with each.
GOLDEN = json.loads((GOLDEN_ROOT / "learning_rates_pjreddie.json").read_text())

# Darknet keeps its numbers in float32, whose rounding is 6e-8. A rate is a few rounded numbers multiplied: 1e-6 covers
# that, and also gamma^20 of a rounded gamma (20 * 3e-8).
TOLERANCE = 1e-6
# 1 - n/N cancels: n/N below 1 is rounded by 3e-8, so at n = 19 of 20 what is left, .05, is off by 6e-7; a power p
# multiplies this by p, and 4 * 6e-7 is 2.4e-6.
POLY_TOLERANCE = 2.5e-6


def schedule(options):
    return Schedule.from_section(parse_cfg_text("[net]\n" + options, "x.cfg").net)


def rates(a_schedule, batches):
    return [a_schedule.rate(n) for n in batches]


def check(name, batches=None):
    """Compare a golden table, or some batch numbers of it, with the schedule of its own section."""
    case = GOLDEN[name]
    ours = Schedule.from_section(parse_cfg_text(case["net_section"], name).net)
    tolerance = POLY_TOLERANCE if ours.policy == "poly" else TOLERANCE
    for n, theirs in zip(case["batch"], case["rate"], strict=True):
        if batches is None or n in batches:
            rate = ours.rate(n)
            assert rate == pytest.approx(theirs, rel=tolerance, abs=0), f"{name}, batch {n}: {rate} != {theirs}"


@pytest.mark.parametrize("name", sorted(GOLDEN.keys() - {"sigmoid", "sigmoid_negative_gamma", "unknown_name"}))
def test_rates_are_darknets(name):
    check(name)


@pytest.mark.parametrize("name", ["sigmoid", "sigmoid_negative_gamma"])
def test_sigmoid_rates_are_darknets_from_step_on(name):
    # Below `step` pjreddie's n - step is unsigned and wraps: a rate of 0, or the full one for a negative gamma.
    # AlexeyAB's is signed, and so is ours.
    check(name, range(10, 21))
    ours = Schedule.from_section(parse_cfg_text(GOLDEN[name]["net_section"], name).net)
    for n in range(10):
        assert ours.rate(n) == pytest.approx(0.1 / (1 + math.exp(ours.gamma * (n - 10))), rel=1e-14)  # float64


def test_cosine_is_ours_where_darknet_falls_back_to_constant():
    case = GOLDEN["unknown_name"]  # policy=cosine, which Darknet has not got: "going with constant"
    assert set(case["rate"]) == {0.100000001}
    ours = Schedule.from_section(parse_cfg_text(case["net_section"], "cosine").net)
    assert rates(ours, [0, 10, 20, 21]) == pytest.approx([0.1, 0.05, 0, 0], abs=1e-17)  # cos(pi) and so on, float64


def test_a_name_that_nobody_knows_is_an_error():
    with pytest.raises(CfgError, match=r"^x.cfg:2: \[net\] policy='onecycle' is not one of constant, step, "):
        schedule("policy=onecycle")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_numbers_read_are_darknets(name):
    case = GOLDEN[name]
    ours = Schedule.from_section(parse_cfg_text(case["net_section"], name).net)
    for key in ("learning_rate", "power", "burn_in", "max_batches"):
        assert getattr(ours, key) == pytest.approx(case[key], rel=1e-7), key  # printed from float32
    assert len(ours.steps) == case["num_steps"]


def test_defaults_are_darknets():
    assert (
        schedule("")
        == Schedule()
        == Schedule(learning_rate=0.001, policy="constant", burn_in=0, power=4, max_batches=0, step=1, scale=1, gamma=1)
    )
    for policy in ("step", "exp"):
        assert schedule(f"policy={policy}") == Schedule(policy=policy)
    sgdr = schedule("policy=sgdr\nmax_batches=50")
    assert (sgdr.learning_rate_min, sgdr.sgdr_cycle, sgdr.sgdr_mult) == (0.00001, None, 2)


# The warm-up


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"steps"}))
def test_the_warm_up_is_that_of_every_policy(policy):
    warm = schedule(f"policy={policy}\nlearning_rate=2\nburn_in=4\npower=2\nmax_batches=10")
    assert rates(warm, range(4)) == [0, 2 / 16, 2 / 4, 2 * 9 / 16]


def test_burn_in_of_one_leaves_the_first_update_whole():
    assert schedule("burn_in=1").rate(1) == 0.001


# Policies without a golden table


def test_sgdr_is_alexeyabs():
    # His loop goes on to the next cycle when start + cycle < n, so a cycle of 4 ends with batch 4 at the minimum,
    # the next is twice as long, and the rate at its first batch is one batch below the full one.
    sgdr = schedule("policy=sgdr\nlearning_rate=1\nlearning_rate_min=.2\nsgdr_cycle=4")
    expected = (
        [0.2 + 0.4 * (1 + math.cos(math.pi * n / 4)) for n in range(5)]
        + [0.2 + 0.4 * (1 + math.cos(math.pi * k / 8)) for k in range(1, 9)]
        + [0.2 + 0.4 * (1 + math.cos(math.pi * k / 16)) for k in range(1, 17)]
    )
    assert rates(sgdr, range(len(expected))) == pytest.approx(expected, rel=1e-14)


def test_sgdr_with_equal_cycles():
    sgdr = schedule("policy=sgdr\nmax_batches=3\nsgdr_mult=1")
    assert rates(sgdr, range(1, 4)) == rates(sgdr, range(4, 7)) == rates(sgdr, range(3_000_000_001, 3_000_000_004))
    assert sgdr.rate(3) == pytest.approx(0.00001, rel=1e-14)


def test_random_rates_come_from_the_generator_that_is_given():
    random_rate = schedule("policy=random\nlearning_rate=3\npower=2")
    drawn = [random_rate.rate(n, np.random.default_rng(5)) for n in (1, 2)]
    assert drawn == [3 * np.random.default_rng(5).random() ** 2] * 2
    with pytest.raises(InputError, match="numpy Generator"):
        random_rate.rate(1)


@pytest.mark.parametrize("policy", ["cosine", "linear"])
def test_cosine_and_linear_fall_from_the_warm_up_to_the_last_batch(policy):
    fall = schedule(f"policy={policy}\nlearning_rate=1\nlearning_rate_min=.1\nburn_in=10\nmax_batches=110")
    assert rates(fall, [10, 60, 110, 111, 10**9]) == pytest.approx([1, 0.55, 0.1, 0.1, 0.1], rel=1e-14)
    quarter = 0.1 + 0.9 * (0.75 if policy == "linear" else (1 + math.sqrt(0.5)) / 2)
    assert fall.rate(35) == pytest.approx(quarter, rel=1e-14)
    assert all(a > b for a, b in zip(rates(fall, range(10, 110)), rates(fall, range(11, 111)), strict=True))


@pytest.mark.parametrize("policy", ["poly", "cosine", "linear"])
def test_past_the_last_batch_the_rate_is_zero(policy):
    # (1 - n/N)^.5 would be a complex number in Python, and NaN in Darknet
    fall = schedule(f"policy={policy}\npower=.5\nmax_batches=5")
    assert rates(fall, [5, 6, 100]) == [0, 0, 0]


def test_a_warm_up_longer_than_the_run():
    fall = schedule("policy=cosine\nburn_in=20\npower=1\nmax_batches=10")
    assert fall.rate(10) == 0.0005
    assert fall.rate(20) == 0


def test_sigmoid_does_not_overflow():
    # Far from the step, where exp() overflows (above 709), the sigmoid is 1 or 0 to the last digit.
    assert rates(schedule("policy=sigmoid\nstep=5000\nlearning_rate=1"), [1, 5000, 10000]) == [1, 0.5, 0]


# Mistakes


@pytest.mark.parametrize(
    "options, said",
    [
        ("policy=steps", "x.cfg:2: [net] policy=steps needs steps=..."),
        ("policy=steps\nsteps=1,2", "x.cfg:2: [net] policy=steps needs scales=..."),
        ("policy=steps\nscales=.1\nsteps=1,2", "x.cfg:3: [net] the list of steps has 2, the list of scales 1"),
        ("policy=steps\nscales=.1,.1\nsteps=1,2,", "x.cfg:4: [net] steps='' (in '1,2,') is not a whole number"),
        ("policy=steps\nsteps=-1\nscales=.1", "x.cfg:3: [net] steps holds a number below 0"),
        ("policy=steps\nsteps=1\nscales=-.1", "x.cfg:4: [net] scales holds a number below 0"),
        ("policy=step\nstep=0", "x.cfg:3: [net] step=0 is too small"),
        ("policy=step\nscale=-.1", "x.cfg:3: [net] scale=-0.1 is too small"),
        ("policy=sigmoid\nstep=-1", "x.cfg:3: [net] step=-1 is too small"),
        ("policy=exp\ngamma=-.1", "x.cfg:3: [net] gamma=-0.1 is too small"),
        ("learning_rate=-.1", "x.cfg:2: [net] learning_rate=-0.1 is too small"),
        ("burn_in=-1", "x.cfg:2: [net] burn_in=-1 is too small"),
        ("power=-1\nburn_in=3", "x.cfg:2: [net] power=-1.0 is too small"),
        ("max_batches=-1", "x.cfg:2: [net] max_batches=-1 is too small"),
        ("policy=sgdr\nsgdr_cycle=0", "x.cfg:3: [net] sgdr_cycle=0 is too small"),
        ("policy=sgdr\nlearning_rate_min=-.1", "x.cfg:3: [net] learning_rate_min=-0.1 is too small"),
        ("policy=sgdr\nsgdr_mult=0", "x.cfg:3: [net] sgdr_mult=0 is too small"),
        ("policy=linear\nlearning_rate_min=1", "x.cfg:3: [net] learning_rate_min=1.0 is too large"),
    ],
)
def test_mistakes_are_told_with_their_line(options, said):
    with pytest.raises(CfgError) as caught:
        schedule(options)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    "options",
    [
        "burn_in=0\nmax_batches=0\nlearning_rate=0\npower=0",
        "policy=step\nstep=1\nscale=0",
        "policy=steps\nsteps=0\nscales=0",
        "policy=sigmoid\nstep=0\ngamma=-1",
        "policy=sgdr\nsgdr_cycle=1\nsgdr_mult=1",
    ],
)
def test_the_least_numbers_that_may_be(options):
    assert schedule(options).rate(1) >= 0


def test_steps_that_do_not_ascend_are_warned_about():
    """Darknet goes through them as they stand, up to the first that lies ahead."""
    with pytest.warns(CfgWarning, match=r"^x.cfg:3: \[net\] steps are not in ascending order"):
        falling = schedule("policy=steps\nsteps=5,3\nscales=.5,.5\nlearning_rate=1")
    assert rates(falling, (3, 4, 5)) == [1, 1, 0.25]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule("policy=steps\nsteps=3,3,5\nscales=1,1,1")


@pytest.mark.parametrize("policy", ["poly", "sgdr", "cosine", "linear"])
def test_a_fall_without_an_end_is_an_error_at_the_first_batch(policy):
    endless = schedule(f"policy={policy}\nburn_in=5")  # no error yet: the cfg may be there to generate with
    with pytest.raises(TrainingError, match="set max_batches"):
        endless.rate(1)
    assert replace(endless, max_batches=10).rate(5) > 0


@pytest.mark.parametrize(
    "options", ["policy=exp\ngamma=2", "policy=step\nscale=2", f"policy=steps\nsteps={'1,' * 8}1\nscales={'3e38,' * 8}3e38"]
)
def test_a_rate_that_overflows_is_an_error(options):
    rising = schedule(options)
    with pytest.raises(TrainingError, match=f"overflows at batch 5000 with policy={rising.policy}"):
        rising.rate(5000)


def test_keys_of_other_policies_stay_unused():
    net = parse_cfg_text("[net]\npolicy=constant\nsteps=1\nscales=x\nlearning_rate_min=1\n", "x").net
    Schedule.from_section(net)
    assert [key for key, _ in net.unused()] == ["steps", "scales", "learning_rate_min"]


def test_a_policy_of_the_python_interface_is_checked():
    with pytest.raises(InputError, match="policy='cosin'"):
        Schedule(policy="cosin").rate(1)
