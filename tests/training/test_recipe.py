"""The rule of the recipe, number by number, and what it makes of trials whose speeds are given."""

import math
from contextlib import contextmanager

import pytest
from runs import text

from pydarknet import Corpus
from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.errors import TextError
from pydarknet.training import recipe as recipes
from pydarknet.training.recipe import (
    Recipe,
    batch_of,
    cfg_to_save,
    dropout,
    expected_loss,
    held_out_of,
    learning_rate,
    make_recipe,
    measurements_every,
    output_rate,
    vocabulary,
)


@pytest.fixture(scope="module")
def corpus():
    return Corpus.from_symbols(text(2_000_000))


def test_expected_loss_is_that_of_its_equation():
    assert expected_loss(256, 1e6, 2_000_000) == pytest.approx(20.5 / 256 + 350 / 1000)
    counted = 2e6 * (1 + 2 * (1 - math.exp(-1)))  # three passes
    assert expected_loss(256, 6e6, 2_000_000) == pytest.approx(20.5 / 256 + 350 / math.sqrt(counted))
    assert expected_loss(2000, 1e6, 1_000_000) == pytest.approx(20.5 / 2000 + 350 / 1000 + 1), (
        "twice the square root of the text"
    )


def test_rates():
    assert learning_rate(160) == 0.008 and learning_rate(640) == pytest.approx(0.008 * 0.25**0.6)
    assert (output_rate(1_999_999), output_rate(2_000_000)) == (3, 1)


def test_dropout_is_that_of_its_equation():
    """By the passes and the parameters for each character: nothing below where it begins, and half at most."""
    assert dropout(10**5, 0.3, 10**6) == (0, 0)
    assert dropout(10**5, 10, 10**5) == (round(0.08 * math.log(10 / 2), 2), round(0.065 * math.log(10 / 0.3), 2))
    assert dropout(2 * 10**5, 5, 10**5) == dropout(10**5, 10, 10**5)
    assert dropout(10**6, 1000, 10**5) == (0.5, 0.5)


def test_batches():
    found = [batch_of(n) for n in (1e5, 1e6, 1e6 + 1, 5e6, 5e6 + 1, 30e6, 30e6 + 1)]
    assert found == [(16, 32), (16, 32), (32, 32), (32, 32), (32, 64), (32, 64), (64, 64)]


def test_the_interval_of_measurements():
    """They take 3 % of the time, where reading a character takes a third of learning it."""
    assert measurements_every(100_000, 8, 64) == math.ceil(100_000 / 3 / (8 * 64 * 0.03))
    assert measurements_every(100, 8, 64) == 20


def test_what_is_held_out():
    assert [held_out_of(n) for n in (50, 20_000, 200_000, 400_000, 1_000_000, 10**8)] == [
        (0.1, 1),
        (0.1, 2),
        (0.1, 5),
        (0.05, 5),
        (0.025, 5),
        (0.001, 5),
    ]


def test_ascii_needs_half_of_the_bytes():
    assert vocabulary(Corpus.from_symbols(b"plain text")) == 128
    assert vocabulary(Corpus.from_symbols("für".encode())) == 256
    assert vocabulary(Corpus.from_symbols([3, 17, 5])) == 18


@pytest.mark.parametrize("place", [0, 3, 4, 7, 8, 9])
def test_one_byte_beyond_ascii_needs_them_all(monkeypatch, place):
    monkeypatch.setattr("pydarknet.text.corpus.BLOCK", 4)
    data = bytearray(b"plain text")
    data[place] = 128
    assert vocabulary(Corpus.from_symbols(bytes(data))) == 256


@pytest.mark.parametrize(("weight_dropout", "rate"), [(0.0, 1.0), (0.125, 3.0)])
def test_the_cfg_has_the_numbers(weight_dropout, rate):
    """And says nothing of what has Darknet's value."""
    cfg = parse_cfg_text(Recipe(128, 96, 16, 32, weight_dropout, 0.25, 0.0042, rate, 500).text(), "my.cfg")
    net, (gru, drop, connected, softmax) = cfg.net.options, [layer.options for layer in cfg.layers]
    assert [net[key][0] for key in ("inputs", "batch", "time_steps", "learning_rate", "max_batches", "burn_in")] == [
        "128", "16", "32", "0.0042", "500", "25",
    ]  # fmt: skip
    assert gru["output"][0] == "96" and connected["output"][0] == "128" and drop["probability"][0] == "0.25" and not softmax
    assert gru.get("weight_dropout", ("none",))[0] == ("0.12" if weight_dropout else "none")
    assert connected.get("learning_rate", ("none",))[0] == ("3" if rate != 1 else "none")


def test_a_cfg_that_was_set_is_saved_with_where_it_is_from():
    cfg = parse_cfg_text("[net]\ninputs=4\n[softmax]\n", "my.cfg")
    assert cfg_to_save(cfg, None) is None
    cfg.set("net.inputs=8")
    assert cfg_to_save(cfg, None).startswith("# my.cfg\n# --set net.inputs=8\n[net]\ninputs=8\n")
    assert cfg_to_save(cfg, Recipe(8, 8, 1, 1, 0, 0, 1, 1, 1)).startswith("# --set net.inputs=8\n[net]\n")


@pytest.mark.parametrize(
    ("number", "counted"),
    [(0.04, "0.04 passes"), (1, "1 pass"), (1.04, "1 pass"), (9.94, "9.9 passes"), (10, "10 passes"), (12345, "12,345 passes")],
)
def test_numbers_of_things(number, counted):
    assert recipes._counted(number, "pass", "passes") == counted


class Trials:
    """Takes the place of the trials: a size has ``speed``, what 256 units have, by its size; time goes by with ``takes``."""

    def __init__(self, monkeypatch, speed, takes=0.0):
        self.speed, self.takes, self.now, self.given = speed, takes, 0.0, []
        monkeypatch.setattr(recipes, "_try", self.tried)
        monkeypatch.setattr(recipes.time, "perf_counter", lambda: self.now)

    def of(self, output):
        return self.speed * (256 / output) ** 1.5  # a larger network does more multiplications a second

    def tried(self, corpus, inputs, output, batch, seconds, trial, gradients, settings=()):
        self.given.append((output, batch, trial, settings))
        self.now += self.takes
        return recipes._Tried(len(corpus), inputs, output, batch, self.of(output), int(self.of(output) * seconds))


@pytest.mark.parametrize(("takes", "left"), [(0, 300), (10, None), (400, 30)])
def test_the_iterations_fill_what_time_is_left(monkeypatch, corpus, takes, left):
    """Less 3 % for measurements and 4 % for the rest; where the trials took all of it, a tenth is left all the same."""
    trials = Trials(monkeypatch, 30_000, takes)
    recipe = make_recipe(corpus, 1000, 300)
    left = 300 - takes * len(trials.given) if left is None else left
    assert recipe.max_batches == int(trials.of(recipe.output) * left * 0.93) // (recipe.streams * recipe.steps)
    *tries, (output, batch, timing, _) = trials.given
    assert (output, batch) == (recipe.output, (recipe.streams, recipe.steps))
    assert timing == pytest.approx(0.03 * 300) and {trial for *_, trial, _ in tries} == {0.004 * 300}
    make_recipe(corpus, 1000, 6000)
    assert [trial for *_, trial, _ in trials.given[len(tries) + 1 :]][-2:] == [3, 20], "seconds, at most"


def test_what_is_told_of_the_trials(monkeypatch, corpus):
    asked, trials = [], Trials(monkeypatch, 30_000)
    recipe = make_recipe(corpus, 1000, 300, trying=asked.append)
    assert asked[-1] == recipe.output and [*dict.fromkeys(asked)] == [*dict.fromkeys(output for output, *_ in trials.given)]
    place = recipes.SIZES.index(recipe.output)
    assert recipe.why[1] == (
        f"a GRU of {recipe.output} ({trials.of(recipe.output):,.0f} characters/s): {recipes.SIZES[place - 1]} is too small, "
        f"{recipes.SIZES[place + 1]} too large"
    )


def test_another_size_has_as_many_multiplications_a_second():
    first = recipes._Tried(10**6, 128, 256, (16, 32), 1000.0, 300_000)
    other = first.with_units(512)
    for number in ("speed", "characters"):
        done = getattr(first, number) * first.multiplications
        assert getattr(other, number) * other.multiplications == pytest.approx(done, rel=1e-3)


def test_dropout_goes_by_the_passes():
    tried = recipes._Tried(10**6, 128, 256, (16, 32), 1000.0, 12_000_000)
    recipe = tried.recipe()
    assert (
        (recipe.weight_dropout, recipe.output_dropout)
        == dropout(tried.parameters, 12, 10**6)
        != dropout(tried.parameters, 1, 10**6)
    )
    assert recipe.max_batches == 12_000_000 // (16 * 32)


def test_a_trial_is_of_the_gradients_that_the_run_will_have():
    corpus, calls = Corpus.from_symbols(text(5000)), []

    @contextmanager
    def gradients(network):
        def train_call(*pair):
            calls.append(pair[0].shape)
            return network.train_call(*pair)

        yield train_call

    tried = recipes._try(corpus, 128, 8, (4, 8), 100.0, 0.01, gradients)
    assert len(calls) >= 5 and {*calls} == {(8, 4)}
    assert tried.characters == int(tried.speed * 100) and tried.batch == (4, 8) and tried.length == 5000


def test_a_text_beyond_ascii_is_told_in_bytes(monkeypatch):
    Trials(monkeypatch, 30_000)
    told = make_recipe(Corpus.from_symbols("漢字かな".encode() * 1000), 1000, 300).why
    assert told[0] == "<memory>: 12,000 bytes to learn from, 1,000 held out" and "bytes/s" in told[1]
    told = make_recipe(Corpus.from_symbols(list(range(300)) * 10), 100, 300).why
    assert told[0] == "<memory>: 3,000 tokens to learn from, 100 held out" and "tokens/s" in told[1]


def test_the_shortest_text(monkeypatch):
    Trials(monkeypatch, 30_000)
    with pytest.raises(TextError, match="without what is held out it has 64 bytes, and 65 are the least"):
        make_recipe(Corpus.from_symbols(text(64)), 10, 300)
    assert make_recipe(Corpus.from_symbols(text(65)), 10, 300).output == recipes.SIZES[0]


def test_a_faster_machine_gets_a_larger_network(monkeypatch, corpus):
    """The same seconds: at ten times the speed, more units, and not fewer characters."""

    def of_speed(speed):
        def tried(corpus, inputs, output, streams, seconds, trial, gradients, settings=()):
            found = speed * 256 / output
            return recipes._Tried(len(corpus), inputs, output, streams, found, int(found * seconds))

        monkeypatch.setattr(recipes, "_try", tried)
        return make_recipe(corpus, 1000, 300)

    slow, fast = of_speed(5_000), of_speed(50_000)
    assert slow.output < fast.output
    assert slow.streams * slow.max_batches < fast.streams * fast.max_batches


@pytest.mark.parametrize("speed", [300, 3_000, 30_000, 300_000, 3_000_000, 30_000_000])
def test_a_few_sizes_are_tried_and_the_best_is_found(monkeypatch, corpus, speed):
    asked = []
    Trials(monkeypatch, speed)
    recipe = make_recipe(corpus, 1000, 300, trying=asked.append)
    assert recipe.output == min(recipes.SIZES, key=lambda H: expected_loss(H, speed * (256 / H) ** 1.5 * 300, len(corpus)))
    assert len(asked) <= 8 < len(recipes.SIZES)
    assert "e+" not in recipe.why[2], "hundreds of passes are told as a plain number"
