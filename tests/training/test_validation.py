"""The held-out text: what a measurement covers, what follows from it, and what a run may go on from."""

import math
from contextlib import nullcontext

import numpy as np
import pytest

from pydarknet.errors import InputError
from pydarknet.text.corpus import Corpus
from pydarknet.training.validation import Interrupted, Validation


class Listener:
    """In place of a network: it notes what it is shown, and a symbol's loss is a hundredth of the symbol."""

    streams, time_steps, subdivisions, inputs = 4, 5, 3, 256

    def __init__(self):
        self.calls = []

    def side_state(self):
        return nullcontext()

    def nats(self, x, y):
        assert (x[1:] == y[:-1]).all()
        self.calls.append(y)
        return y / 100


def corpus_of(length):
    return Corpus.from_symbols((np.arange(length) % 251).astype(np.uint8))


def validation_of(*losses, **options):
    """One whose measurements come to these losses."""
    validation, coming = Validation(Listener(), corpus_of(50), every=2, **options), iter(losses)
    validation.measure = lambda interrupted: next(coming)
    return validation


@pytest.mark.parametrize(
    ("length", "streams", "steps"),
    [(2, 1, 1), (100, 1, 99), (2001, 2, 1000), (5000, 4, 1024), (64_001, 64, 64), (200_000, 64, 64)],
)
def test_a_measurement_reads_every_stream_once_in_blocks(length, streams, steps):
    validation = Validation(Listener(), corpus_of(length))
    loss, calls = validation.measure(), validation.network.calls
    part = (length - 1) // streams
    assert [len(call) for call in calls] == [min(steps, part - at) for at in range(0, part, steps)]
    read = np.concatenate(calls).T  # (B, T)
    expected = (np.arange(1, part * streams + 1) % 251).reshape(streams, part)
    np.testing.assert_array_equal(read, expected)
    assert loss == pytest.approx(expected.mean() / 100, rel=1e-12)


def test_a_measurement_may_be_given_up_before_each_block():
    answers = iter([False, False, True])
    validation = Validation(Listener(), corpus_of(10_000))
    with pytest.raises(Interrupted):
        validation.measure(lambda: next(answers))
    assert len(validation.network.calls) == 2


@pytest.mark.parametrize(
    ("length", "every"), [(2, 100), (1800, 100), (1801, 101), (18_000, 1000)]
)  # 60 characters an iteration: a tenth of the time is 18 characters of measurement
def test_by_default_measuring_takes_a_tenth_of_the_time_at_most(length, every):
    assert Validation(Listener(), corpus_of(length)).every == every
    assert Validation(Listener(), corpus_of(length), every=7).every == 7


@pytest.mark.parametrize("name", ["every", "patience", "plateau"])
def test_numbers_below_one_are_refused(name):
    Validation(Listener(), corpus_of(50), **{name: 1})
    with pytest.raises(InputError, match=f"^{name} is 0; it must be a whole number from 1$"):
        Validation(Listener(), corpus_of(50), **{name: 0})


def test_it_measures_when_it_is_time_and_at_the_end():
    validation = validation_of(3.0, 2.0, 2.5)
    found = [validation.after(iteration, last=iteration == 5) for iteration in (1, 2, 3, 4, 5)]
    assert found == [None, 3.0, None, 2.0, 2.5]
    assert (validation.best_loss, validation.best_iteration) == (2.0, 4)


def test_the_best_is_the_first_of_equals_and_the_last_measurement_counts_for_nothing_else():
    validation = validation_of(2.0, 2.0, 1.0, patience=1)
    assert not validation.exhausted
    validation.after(2, last=False)
    assert (validation.best_iteration, validation.since_lowest, validation.exhausted) == (2, 0, False)
    validation.after(4, last=False)  # no lower: patience runs out
    assert (validation.best_iteration, validation.since_lowest, validation.exhausted) == (2, 1, True)
    validation.after(5, last=True)
    assert (validation.best_loss, validation.best_iteration) == (1.0, 5)
    assert (validation.lowest_loss, validation.since_lowest, validation.exhausted) == (2.0, 1, True)


def test_every_plateau_halves_the_rate_and_patience_counts_on():
    validation = validation_of(5, 6, 6, 6, 6, 4, 5, 5, plateau=2, patience=5)
    found = []
    for iteration in range(2, 18, 2):
        validation.after(iteration, last=False)
        found.append((validation.rate_factor, validation.since_cut, validation.since_lowest))
    whole, half, quarter, eighth = 1, 1 / 2, 1 / 4, 1 / 8
    assert found == [
        (whole, 0, 0), (whole, 1, 1), (half, 0, 2), (half, 1, 3), (quarter, 0, 4),
        (quarter, 0, 0), (quarter, 1, 1), (eighth, 0, 2),
    ]  # fmt: skip
    assert not validation.exhausted


def test_without_a_plateau_the_rate_stays():
    validation = validation_of(5, 6, 7)
    for iteration in (2, 4, 6):
        validation.after(iteration, last=False)
    assert (validation.rate_factor, validation.exhausted, validation.since_lowest) == (1.0, False, 2)


def test_it_goes_on_from_what_was_seen_of_the_same_text():
    seen = validation_of(3.0, 4.0, plateau=1)
    for iteration in (2, 4):
        seen.after(iteration, last=False)
    facts, again, other = seen.facts(), validation_of(), Validation(Listener(), corpus_of(60))
    for one in (again, other):
        one.check(facts | {"iteration": 4}, {})
        one.take(facts)
    assert again.facts() == facts and again.rate_factor == 0.5
    assert (other.best_loss, other.rate_factor) == (None, 1.0)
    for nothing in ({}, {"validation": None}):
        other.check(nothing, {})
        other.take(nothing)
    assert other.best_loss is None


def test_the_regular_measurements_of_late_are_known_when_it_goes_on():
    seen = validation_of(*range(1, 12))
    for iteration in range(2, 21, 2):
        seen.after(iteration, last=False)
    seen.after(21, last=True)  # a longer run would not have made it
    assert seen.recent == list(range(3, 11))
    again = validation_of()
    again.check(seen.facts() | {"iteration": 21}, {})
    again.take(seen.facts())
    assert again.recent == seen.recent
    facts = seen.facts()
    del facts["validation"]["recent"]  # of an earlier version
    earlier = validation_of()
    earlier.check(facts | {"iteration": 21}, {})
    earlier.take(facts)
    assert (earlier.recent, earlier.best_loss) == ([], 1)
    for damaged in (None, 1, "1", {}, [-1], ["1"], [True], [math.nan], [10**400]):
        facts["validation"]["recent"] = damaged
        with pytest.raises(ValueError, match="^has no usable 'recent' of its validation$"):
            earlier.check(facts | {"iteration": 21}, {})


NUMBERS = ("best_loss", "lowest_loss", "rate_factor")
COUNTS = ("best_iteration", "since_lowest", "since_cut")


@pytest.mark.parametrize("name", NUMBERS + COUNTS)
def test_what_no_measurements_can_have_left(name):
    validation = validation_of(1.0)
    validation.after(6, last=False)

    def refused(value):
        facts = validation.facts()
        if value is ...:
            del facts["validation"][name]
        else:
            facts["validation"][name] = value
        try:
            validation.check(facts | {"iteration": 7}, {})
        except ValueError as error:
            assert str(error) == f"has no usable '{name}' of its validation"
            return True
        return False

    assert all(refused(value) for value in (-1, -0.5, math.nan, math.inf, "1", "", True, [], ...))
    assert refused(0.5) == (name in COUNTS)
    assert not refused(1) and refused(0) == (name in ("best_iteration", "rate_factor"))
    assert name == "best_loss" or refused(None) == (name != "lowest_loss")
    assert refused(10**400) and refused(8) == (name in COUNTS or name == "rate_factor")
    for value in ([1], "text", 1):
        with pytest.raises(ValueError, match="^has no usable 'validation'$"):
            validation.check({"validation": value}, {})


@pytest.mark.parametrize("known", ["best_loss", "best_iteration"])
def test_the_best_has_a_loss_and_an_iteration_or_neither(known):
    validation = validation_of()
    validation.check(validation.facts() | {"iteration": 7}, {})
    setattr(validation, known, 1)
    with pytest.raises(ValueError, match="^has no usable 'best_iteration' of its validation$"):
        validation.check(validation.facts() | {"iteration": 7}, {})


def test_a_rate_that_has_been_halved_until_nothing_is_left_of_it():
    validation = validation_of(*[1.0] * 1100, plateau=1)
    for iteration in range(2, 2202, 2):
        validation.after(iteration, last=False)
        validation.check(validation.facts() | {"iteration": iteration}, {})
    assert validation.rate_factor == 0


def test_repr_says_the_best():
    validation = validation_of(1.23456)
    assert repr(validation).endswith(", every 2 iterations, not measured yet)")
    validation.after(2, last=False)
    assert repr(validation).endswith(", every 2 iterations, best 1.2346 nats at 2)")
