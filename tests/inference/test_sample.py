"""Sampling: Darknet's own text byte by byte, its ``sample_array`` transcribed, and the ends of the range."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import make_network
from hypothesis import assume, given
from hypothesis import strategies as st
from places import GOLDEN as GOLDEN_ROOT

from pydarknet.darknet.randomness import CRandom
from pydarknet.errors import InputError, WeightsError
from pydarknet.inference.sample import (
    CUTOFF,
    NEVER,
    Sampling,
    _cooled,
    _possible,
    darknet_random,
    generate,
    generate_tactic,
    generate_text,
)
from pydarknet.network import load_network

GOLDEN = GOLDEN_ROOT / "forward" / "pjreddie"


def text_of(steps, stream=0):
    return bytes(int(step[stream]) for step in steps)


@pytest.mark.parametrize("case", ["case1_lstm", "case4_gru"])
def test_the_text_is_darknets(case):
    options = json.loads((GOLDEN / case / "meta.json").read_text())["generate"]
    network = load_network(GOLDEN / case / "case.cfg", GOLDEN / case / "case.weights")
    steps = generate(
        network, options["seed"].encode(), options["len"], options["temp"], darknet_random(network, options["srand"])
    )
    assert text_of(steps) == (GOLDEN / case / "gen_out.bin").read_bytes()


def sample(probabilities, uniform):
    return Sampling(1.0).choose(probabilities, SimpleNamespace(uniform=lambda: uniform))


def sample_array(probabilities, uniform):
    """``test_char_rnn`` and ``sample_array`` of Darknet, step by step in float32."""
    p = [np.float32(0) if x < np.float32(1e-4) else x for x in probabilities]
    total = np.float32(sum(map(float, p)))
    p = [x * np.float32(1 / total) for x in p]
    for n, x in enumerate(p):
        uniform = np.float32(uniform - x)
        if uniform <= 0:
            return n
    return len(p) - 1


@given(st.integers(1, 1200), st.integers(0, 10**6), st.sampled_from([0.01, 1.0, 20.0]))
def test_sample_is_darknets_sample_array(size, seed, sharpness):
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(size, 1 / sharpness)).astype(np.float32)
    assume(p.max() >= 1e-4)
    for uniform in [np.float32(0), np.float32(1), *random.random(5, dtype=np.float32)]:
        expected, found = sample_array(p.copy(), uniform), sample(p.copy(), uniform)
        if found != expected:  # the sum is taken in another order: only a tie within rounding may fall otherwise
            kept = np.where(p < 1e-4, 0, p).astype(np.float64)
            edges = np.cumsum(kept / kept.sum())
            assert np.abs(edges - uniform).min() < 1e-5, (found, expected, uniform)


def test_cut_off_symbols_are_never_written():
    p = np.array([0.00009, 0.5, 0.00009, 0.49982], np.float32)
    found = {sample(p.copy(), np.float32(u)) for u in np.linspace(0, 1, 10001)}
    # A uniform number of exactly 0 gives the first symbol, in Darknet also: 0 - 0 <= 0.
    assert found == {0, 1, 3}
    assert sample(p.copy(), np.float32(1e-9)) == 1


def test_of_many_equal_symbols_one_is_written():
    """All 20,000 are below the cut-off, where Darknet divides by zero."""
    p = np.full(20000, 1 / 20000, np.float32)
    p[7] *= 1.5
    assert sample(p, np.float32(0.5)) == 7
    assert Sampling().choose(p, CRandom(1)) == 7


def test_what_is_just_the_cut_off_stays():
    p = np.array([1 - CUTOFF, CUTOFF], np.float32)
    assert sample(p, np.float32(1)) == 1


def test_the_likeliest_is_written_when_it_is_cold(tmp_path):
    _, _, network = make_network(tmp_path)
    network.reset_state()
    probabilities = network.predict(np.array([[65]]))[0, 0]
    (step,) = generate(network, b"A", 1, temperature=0.01, random=CRandom(0))
    assert step[0] == probabilities.argmax(), (step, probabilities.argmax())


def test_the_same_seed_gives_the_same_text_whatever_was_read_before(tmp_path):
    _, _, network = make_network(tmp_path)
    first = text_of(generate(network, b"ab", 50, random=CRandom(4)))
    assert text_of(generate(network, b"ab", 50, random=CRandom(4))) == first
    assert text_of(generate(network, b"ab", 50, random=CRandom(5))) != first


def test_an_empty_seed_is_symbol_0(tmp_path):
    _, _, network = make_network(tmp_path)
    assert text_of(generate(network, b"", 20, random=CRandom(1))) == text_of(generate(network, b"\0", 20, random=CRandom(1)))


def test_streams_are_texts_of_their_own(tmp_path):
    """With uniform numbers dealt out in turn, each stream is the text that those numbers give alone."""

    class Dealt:
        def __init__(self, numbers):
            self.numbers = iter(numbers)

        def uniform(self):
            return next(self.numbers)

    _, _, network = make_network(tmp_path)
    numbers = np.random.default_rng(3).random(3 * 40, dtype=np.float32)
    together = list(generate(network, b"x", 40, random=Dealt(numbers), streams=3))
    for stream in range(3):
        alone = text_of(generate(network, b"x", 40, random=Dealt(numbers[stream::3])))
        assert text_of(together, stream) == alone, stream


def test_length_0_writes_nothing(tmp_path):
    _, _, network = make_network(tmp_path)
    assert list(generate(network, b"x", 0)) == []


@pytest.mark.parametrize("temperature", [-1, float("nan")])
def test_a_temperature_below_0(tmp_path, temperature):
    _, _, network = make_network(tmp_path)
    with pytest.raises(InputError, match="temperature is .*; it must be a number from 0"):
        generate(network, b"x", 1, temperature)  # before anything is written


@pytest.mark.parametrize("symbol", [-1, 256, 10**30])
def test_a_seed_that_the_network_has_not_got(tmp_path, symbol):
    _, _, network = make_network(tmp_path)
    for fine in (0, 1):
        with pytest.raises(InputError, match=f"symbol {symbol} of the seed is outside 0..255"):
            generate(network, [fine, symbol], 1)


class Script:
    """A network that writes a text of its own, whatever it reads: for what stands around the sampling."""

    inputs = 256

    def __init__(self, text):
        self.text, self.read = text, []

    def reset_state(self):
        self.read = []

    def stepper(self, streams, temperature):
        def step(symbols):
            self.read.append(int(symbols[0]))
            p = np.zeros((streams, 256), np.float32)
            p[:, self.text[(len(self.read) - self.start) % len(self.text)]] = 1
            return p

        return step


def tactic(text, prompt, length=100):
    network = Script(text)
    network.start = len(prompt)
    return bytes(generate_tactic(network, prompt, length, random=CRandom(0))), network


def test_a_tactic_ends_at_a_full_stop_with_a_newline():
    written, network = tactic(b"intros.x\ny.\nmore", b"goal >> ")
    assert written == b"intros.x\ny."
    assert bytes(network.read) == b"goal >> " + written


def test_the_full_stop_of_the_prompt_does_not_end_it():
    """Darknet's ``c`` is EOF then, not the last character that was read."""
    assert tactic(b"\na.\nb", b"goal.")[0] == b"\na."


def test_a_tactic_is_drawn_with_the_numbers_given(tmp_path):
    _, _, network = make_network(tmp_path)
    written = bytes(generate_tactic(network, b"goal", 30, 2, CRandom(5)))
    assert written == text_of(generate(network, b"goal", 30, 2, CRandom(5)))
    assert written != bytes(generate_tactic(network, b"goal", 30, 2, CRandom(6)))


def test_a_tactic_is_cut_at_the_length():
    assert tactic(b"abcdef.\n", b"x", 3)[0] == b"abc"


def test_a_tactic_needs_a_prompt():
    with pytest.raises(InputError, match="the prompt is empty"):
        tactic(b"x", b"")


def test_a_network_whose_output_is_not_a_number_says_so():
    with pytest.raises(WeightsError, match="not a finite number"):
        sample(np.array([0.2, np.nan, 0.3], np.float32), np.float32(0.5))
    for temperature in (0, 1):
        with pytest.raises(WeightsError, match="not a finite number"):
            next(generate(Constant([0.2, np.nan, 0.3]), [1], 1, temperature))


@pytest.mark.filterwarnings("error")
def test_weights_that_overflow_are_told_once(tmp_path):
    _, _, network = make_network(tmp_path)
    network.parameters.values[:] = 3e38
    with pytest.raises(WeightsError, match="not a finite number"):
        next(generate(network, [1], 1))


# Steering


def drawn(rule, p, count, least=1e-4):
    """How often each symbol is chosen from ``p``, in shares."""
    random = CRandom(1)
    return np.bincount([rule.choose(p.copy(), random, least) for _ in range(count)], minlength=len(p)) / count


def narrowed(p, top_k=None, top_p=None, min_p=None):
    """The distribution that Sampling describes, symbol by symbol."""
    p = np.where(p < 1e-4, 0, p).astype(np.float64)
    p /= p.sum()
    stays = np.zeros(len(p), bool)
    for n, own in enumerate(p):
        likelier = p[p > own]
        stays[n] = (
            (top_k is None or len(likelier) < top_k)
            and (top_p is None or likelier.sum() < top_p)
            and (min_p is None or own >= min_p * p.max())
        )
    return np.where(stays, p, 0) / p[stays].sum()


@pytest.mark.parametrize("sharpness", [0.3, 3])
@pytest.mark.parametrize(
    "controls",
    [
        dict(top_k=1),
        dict(top_k=4),
        dict(top_k=100),
        dict(top_p=0.05),
        dict(top_p=0.6),
        dict(top_p=1),
        dict(min_p=0.3),
        dict(min_p=1),
        dict(top_k=6, top_p=0.8, min_p=0.05),
    ],
    ids=str,
)
def test_what_is_drawn_is_as_described(controls, sharpness):
    p = np.random.default_rng(7).dirichlet(np.full(30, 1 / sharpness)).astype(np.float32)
    expected = narrowed(p, **controls)
    found = drawn(Sampling(**controls), p, 4000)
    assert not found[expected == 0].any(), "a symbol that doesn't stay was drawn"
    # Five standard deviations of a share of 4000 draws.
    assert (np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9).all(), (found, expected)


@pytest.mark.parametrize(
    ("controls", "stay"),
    [(dict(top_p=0.5), [0]), (dict(top_p=0.75), [0, 1]), (dict(min_p=0.5), [0, 1]), (dict(top_k=2), [0, 1])],
)
def test_bounds_that_are_met_to_the_bit(controls, stay):
    """The likelier ones of a symbol have just ``top_p``: it goes. It has just ``min_p``: it stays."""
    p = np.array([0.5, 0.25, 0.125, 0.125], np.float32)
    assert sorted(np.flatnonzero(drawn(Sampling(**controls), p, 200))) == stay


def test_what_must_not_be_written_never_is():
    """Also with a uniform number of 0 or 1, where Darknet's way ends at the first or last symbol, whatever it has."""
    least = np.full(20, NEVER, np.float32)
    least[[3, 7, 11]] = 1e-4
    p = np.full(20, 1e-6, np.float32)

    class Uniform:
        def uniform(self):
            return np.float32(self.number)

    random = Uniform()
    for likeliest in (0, 5, 7, 19):
        p[:] = 1e-6
        p[[3, 7, likeliest]] = 0.01, 0.02, 0.97
        for random.number in (0, 1e-9, 0.3, 0.9999999, 1):
            for controls in ({}, dict(top_k=2), dict(top_p=0.9), dict(temperature=0)):
                assert Sampling(utf8=True, **controls).choose(p.copy(), random, least) in (3, 7), (likeliest, random.number)


@pytest.mark.parametrize("mass", [1e-2, 1e-4, 1e-8, 1e-36])
def test_among_what_the_mask_leaves_the_shares_are_the_networks(mass):
    """However little it is; without a mask the cut-off of 1e-4 holds, as in Darknet."""
    least = np.full(20, NEVER, np.float32)
    least[[3, 7, 11]] = 1e-4
    p = np.zeros(20, np.float32)
    p[[0, 3, 7, 11]] = 1 - mass, 0.6 * mass, 0.39 * mass, 0.01 * mass
    found = drawn(Sampling(1, utf8=True), p, 4000, least)
    assert found[[3, 7, 11]] == pytest.approx([0.6, 0.39, 0.01], abs=0.04) and found.sum() == pytest.approx(1)
    assert found[11] > 0 and found[[3, 7, 11]].sum() == pytest.approx(1)
    if mass < 1e-4:
        assert drawn(Sampling(1), p, 100)[0] == 1


class Constant:
    """A network whose prediction is always ``p``."""

    def __init__(self, p):
        self.p, self.inputs = np.array(p, np.float32), len(p)

    def reset_state(self):
        pass

    def stepper(self, streams, temperature):
        return lambda symbols: np.repeat(self.p[None], streams, axis=0)


@pytest.mark.parametrize("penalty", [8, 1.3])  # with 1.3 a symbol comes back while it still counts
def test_a_repetition_is_less_likely_for_64_symbols(penalty):
    p = np.random.default_rng(3).dirichlet(np.full(100, 3)).astype(np.float32)
    symbols = [int(step[0]) for step in generate(Constant(p), [5, 6], 400, 0, repetition_penalty=penalty)]
    text = [5, 6]
    for symbol in symbols:
        factors = np.array([1 / penalty if n in text[-64:] else 1 for n in range(100)], np.float32)
        assert symbol == (p * factors).argmax(), len(text)
        text.append(symbol)
    assert len({*symbols}) < 100 and any(len({*symbols[n : n + 64]}) < 64 for n in range(300)) is (penalty < 2)


def test_a_symbol_counts_until_the_last_of_it_is_64_symbols_back():
    p = np.array([0.4, 0.3, 0.2, 0.05, 0.05], np.float32)
    seed = [0, *[3] * 62, 0]
    steps = generate(Constant(p), seed, 2, 0, repetition_penalty=8)
    assert [int(step[0]) for step in steps] == [1, 2], "the first 0 is 65 symbols back now, the other is not"


def test_where_all_is_unlikely_the_likeliest_that_is_allowed_is_written():
    """No probability reaches the cut-off, nor one of 0 what the mask leaves: it is a byte of a whole character all the same."""
    p = np.zeros(256, np.float32)
    p[0xFF] = 1
    least = np.where(np.arange(256) < 0x80, CUTOFF, np.float32(NEVER))
    assert Sampling(utf8=True).choose(p, CRandom(1), least) < 0x80
    p[0xFF], p[65] = 0.99, 1e-9
    assert Sampling(0, utf8=True).choose(p, CRandom(1), least) == 65


def test_the_nearest_symbol_that_may_be_written():
    p = np.array([0, 0, 0.3, 0, 0.3, 0.4, 0, 0], np.float32)
    assert [_possible(p, symbol) for symbol in range(8)] == [2, 2, 2, 5, 4, 5, 5, 5]


def test_the_character_that_the_seed_begins_is_finished(tmp_path):
    """It does not count; and a seed that ends in a character is gone on from with the next one."""
    _, _, network = make_network(tmp_path)
    for seed, behind in (("€".encode()[:1], 2), ("€".encode()[:2], 1), ("€".encode(), 0)):
        written = text_of(generate(network, seed, 5, random=CRandom(1), utf8=True))
        assert len((seed + written).decode()) == 6 and (b"x" + written[behind:]).decode()
    with pytest.raises(InputError, match="UTF-8"):
        generate(network, b"a\xff", 5, utf8=True)
    assert len(text_of(generate(network, b"a\xff", 5, random=CRandom(1)))) == 5


def test_a_cold_text_goes_by_what_is_allowed_however_unlikely(tmp_path):
    """At a temperature of .01 a byte that is 1e-5 as likely has the probability e^-1151, which is 0 in float32."""
    p = np.full(256, 1e-30, np.float32)
    p[0xFF], p[ord("a")], p[ord("b")] = 1, 1.0e-5, 1.2e-5
    text = bytes(int(step[0]) for step in generate(Constant(p), b"x", 50, 0.01, CRandom(1), utf8=True))
    assert text == b"b" * 50
    p[:0xFF] = 0  # to float32 nothing that is allowed can be: it is whole characters still
    assert len(bytes(int(step[0]) for step in generate(Constant(p), b"x", 50, 0.01, CRandom(1), utf8=True)).decode()) == 50


def test_texts_end_one_by_one(tmp_path):
    """With characters of one to four bytes some texts are longer; -1 stands for those that have ended."""
    _, _, network = make_network(tmp_path)
    steps = np.array(list(generate(network, b"x", 40, random=CRandom(2), streams=5, utf8=True)))
    texts = [bytes(column[column >= 0].astype(np.uint8)).decode() for column in steps.T]
    assert [len(text) for text in texts] == [40] * 5
    for column in steps.T:
        ended = np.flatnonzero(column < 0)
        assert not len(ended) or (column[ended[0] :] == -1).all()
    assert (steps[-1] >= 0).any() and (steps < 0).any()


@pytest.mark.parametrize(
    "controls",
    [
        dict(top_k=0),
        dict(top_p=0),
        dict(top_p=1.1),
        dict(min_p=-0.1),
        dict(min_p=1.1),
        dict(repetition_penalty=0),
        dict(repetition_penalty=float("inf")),
        dict(top_p=float("nan")),
        dict(top_k=2.5),
        dict(top_k="2"),
        dict(temperature="hot"),
        dict(length=-1),
        dict(length="20"),
        dict(length=2.5),
    ],
    ids=str,
)
def test_a_control_out_of_its_range(tmp_path, controls):
    _, _, network = make_network(tmp_path)
    ((name, _),) = controls.items()
    with pytest.raises(InputError, match=f"{name} is .*; it must be"):
        generate(network, b"x", **controls)
    with pytest.raises(InputError, match=f"{name} is .*; it must be"):
        generate_text(network, "x", **controls)


def test_the_ends_of_the_ranges_and_the_defaults():
    rule = Sampling(0, top_k=1, top_p=1, min_p=0, repetition_penalty=1)
    assert rule.greedy and rule.repetition_penalty is None, "a penalty of 1 is none"
    assert Sampling(1, min_p=1, top_p=1e-9, repetition_penalty=1e9).repetition_penalty == 1e9
    assert Sampling(1e-50).greedy, "float32 has no such number"
    rule = Sampling()
    assert (rule.temperature, rule.utf8, rule.greedy) == (np.float32(0.7), False, False)
    assert rule.top_k is rule.top_p is rule.min_p is rule.repetition_penalty is None
    script = Script(b"abc")
    script.start = 2
    assert text_of(generate(script)) == b"abc" * 333 + b"a" and script.read[:2] == [10, 10]


def test_the_softmax_has_the_temperature_unless_the_mask_of_utf8_comes_first():
    for utf8, temperature, expected in (
        (False, 0.3, 0.3), (False, 2, 2), (False, 0, 1), (True, 0.3, 1), (True, 0.5, 0.5), (True, 0, 1)
    ):  # fmt: skip
        assert Sampling(temperature, utf8=utf8).softmax_temperature == np.float32(expected)
        assert Sampling(temperature, utf8=utf8).cold is (utf8 and temperature == 0.3)


def test_a_cold_text_has_the_shares_of_its_temperature():
    """Behind the mask p^(1/τ), renormalised, as the softmax would give it."""
    p = np.full(256, 1e-9, np.float32)
    p[0xFF], p[ord("a")], p[ord("b")] = 0.7, 0.18, 0.12
    steps = list(generate(Constant(p), b"x", 2000, 0.4, CRandom(1), utf8=True))
    share = text_of(steps).count(b"a") / 2000
    assert share == pytest.approx(1.5**2.5 / (1.5**2.5 + 1), abs=5 * 0.5 / np.sqrt(2000))  # five standard deviations
    cooled = _cooled(p, np.arange(256) < 0x80, 0.4)
    assert cooled.sum() == pytest.approx(1) and not cooled[0x80:].any()
    assert cooled[ord("a")] / cooled[ord("b")] == pytest.approx(1.5**2.5, rel=1e-5)


@pytest.mark.parametrize("streams", [1, 3])
def test_a_text_goes_on_behind_what_was_read_before(tmp_path, streams):
    _, _, network = make_network(tmp_path)
    whole = [step.tolist() for step in generate(network, b"some text", 20, random=CRandom(1), streams=streams)]
    network.reset_state()
    network.predict(np.frombuffer(b"some te", np.uint8)[:, None])
    states = [{name: array.copy() for name, array in layer.state(1).items()} for layer in network.layers]
    steps = generate(network, b"xt", 20, random=CRandom(1), streams=streams, states=states)
    assert [step.tolist() for step in steps] == whole


def test_a_text_for_a_programmer_is_that_of_the_steps_decoded(tmp_path):
    _, _, network = make_network(tmp_path)

    def expected(seed, **controls):
        steps = generate(network, seed, 30, random=darknet_random(network, 3), **{"utf8": True, **controls})
        return text_of(steps).decode("utf-8", "replace")

    assert (
        generate_text(network, "é", 30, srand=3) == generate_text(network, "é".encode(), 30, srand=3) == expected("é".encode())
    )
    assert generate_text(network, length=30, srand=3) == expected(b"\n\n")
    assert generate_text(network, "a", 30, srand=3, utf8=False, temperature=2) == expected(b"a", utf8=False, temperature=2)
    assert len(generate_text(network, "a", temperature=0)) == 1000


def test_utf8_is_for_bytes():
    for symbols in (257, 1000):
        network = Constant(np.ones(symbols) / symbols)
        with pytest.raises(InputError, match=f"utf8 is for networks over bytes: the cfg has inputs={symbols}"):
            generate(network, [3], 1, utf8=True)
        with pytest.raises(InputError, match=f"the network has {symbols} symbols, which are tokens"):
            generate_text(network, "a", 1)
