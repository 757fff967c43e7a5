"""The measures of a text: what the real Darknet printed, its loops transcribed, and the reading of long texts."""

import io
import itertools
import json
import math
import tracemalloc

import numpy as np
import pytest
from command_line import make_network
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN as GOLDEN_ROOT

from pydarknet.errors import InputError, TextError, WeightsError
from pydarknet.inference.valid import (
    BLOCK,
    COLUMNS,
    Score,
    TacticTally,
    Tally,
    blocks_of_corpus,
    blocks_of_file,
    surprise,
    tactic_lines,
    valid_lines,
)
from pydarknet.network import load_network
from pydarknet.text.corpus import Corpus

FORWARD = GOLDEN_ROOT / "forward"
CASES = ["case1_lstm", "case3_lstm_bn", "case4_gru", "case6_rnn_leaky", "case8_connected_bn"]

# Darknet sums float32 logarithms in float32. Measured over all lines: 5e-5 bits, of which half a unit of the
# fourth decimal that is printed; 9e-6 of the perplexity; 7e-5 of the word perplexity, whose exponent is 60 bits.
BITS, PERPLEXITY, WORD_PERPLEXITY = 2e-4, 1e-4, 2e-4


def golden(case):
    network = load_network(
        FORWARD / "pjreddie" / case / "case.cfg", FORWARD / "pjreddie" / case / "case.weights", batch=1, time_steps=1
    )
    return network, json.loads((FORWARD / "pjreddie" / case / "meta.json").read_text())["valid"]


@pytest.mark.parametrize("case", CASES)
def test_the_lines_of_valid_are_darknets(case):
    network, valid = golden(case)
    tally, lines = Tally(), []
    for block in surprise(network, blocks_of_file(io.BytesIO((FORWARD / "valid_text.txt").read_bytes()))):
        lines += valid_lines(*tally.add(*block))
    assert len(lines) == valid["n_lines"]
    for expected in valid["lines"] + [valid["last"]]:
        number, _, bits, _, perplexity, _, _, words = expected.split()
        found = lines[int(number) - 1]
        assert found[: found.index(":")] == expected[: expected.index(":")], (found, expected)
        _, _, found_bits, _, found_perplexity, _, _, found_words = found.split()
        for name, ours, theirs, tolerance in (
            ("bits", found_bits, bits, BITS / float(bits)),
            ("perplexity", found_perplexity, perplexity, PERPLEXITY),
            ("word perplexity", found_words, words, WORD_PERPLEXITY),
        ):
            assert float(ours) == pytest.approx(float(theirs), rel=tolerance), (
                f"{case} line {number}, {name}: {ours}, Darknet {theirs}"
            )


def transcribed(network, text, seed, tactic):
    """``valid_char_rnn`` or ``valid_tactic_rnn``, one character at a time: a list of (count, words, -sum in nats)."""
    network.reset_state()
    for c in seed:
        network.predict(np.array([[c]]))
    lines, count, words, total, inside = [], 0, 1, 0.0, False
    for c, following in itertools.pairwise(text):
        p = float(network.predict(np.array([[c]]))[0, 0, following])
        if tactic:
            if c == ord(".") and following == ord("\n"):
                inside = False
            if not inside:
                if c == ord(">") and following == ord(">"):
                    inside = True
                    words += 1
                continue
        elif following in b" \n\t":
            words += 1
        count += 1
        total -= math.log(p)
        lines.append((count, words, total))
    return lines


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return make_network(tmp_path_factory.mktemp("network"))[2]


def measured(tally, blocks):
    rows = [zip(*(column.tolist() for column in tally.add(*block))) for block in blocks]
    return [row for part in rows for row in part]


def cut(arrays, places):
    return zip(*(np.split(array, places) for array in arrays))


@given(
    text=st.lists(st.sampled_from(b">>>..\n ab\t\xff\0"), min_size=2, max_size=60).map(bytes),
    places=st.sets(st.integers(0, 60), max_size=4),
    tactic=st.booleans(),
)
@settings(deadline=None)
def test_the_tallies_are_darknets_loops_however_the_text_is_cut(network, text, places, tactic):
    expected = transcribed(network, text, b"\n\n", tactic)
    (whole,) = surprise(network, blocks_of_file(io.BytesIO(text)))
    places = sorted(place for place in places if place < len(text))
    found = measured(TacticTally() if tactic else Tally(), cut(whole, places))
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    # The probabilities of the transcription are float32: 1e-7 of each.
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in expected], rtol=1e-5)


def test_the_lines_of_validtactic():
    running = np.array([3, 4]), np.array([2, 3]), np.array([3, 4]) * math.log(8)
    assert list(tactic_lines(*running)) == [
        "3 2 Perplexity: 8.0000    Word Perplexity: 22.6274\n",
        "4 3 Perplexity: 8.0000    Word Perplexity: 16.0000\n",
    ]


def test_every_byte_is_scored(network):
    """Darknet stops at 255 and does not know 0."""
    text = bytes(range(256)) + bytes(range(255, -1, -1))
    tally = Tally()
    for block in surprise(network, blocks_of_file(io.BytesIO(text))):
        tally.add(*block)
    expected = transcribed(network, text, b"\n\n", tactic=False)[-1]
    assert (tally.score.characters, tally.score.words) == (511, 1 + 6) == expected[:2]
    assert tally.score.nats == pytest.approx(expected[2], rel=1e-5)


def test_the_seed_comes_before_the_text(network):
    with_default, other, none = (
        next(surprise(network, blocks_of_file(io.BytesIO(b"ab")), seed))[2] for seed in (b"\n\n", b"xyz", b"")
    )
    assert len({float(nats[0]) for nats in (with_default, other, none)}) == 3
    for seed, nats in ((b"\n\n", with_default), (b"xyz", other), (b"", none)):
        assert nats[0] == pytest.approx(transcribed(network, b"ab", seed, False)[0][2], rel=1e-5), seed


def test_the_state_goes_on_from_block_to_block(network):
    text = bytes(np.random.default_rng(0).integers(0, 256, 2 * BLOCK + 77, np.uint8))
    found = np.concatenate([nats for _, _, nats in surprise(network, blocks_of_file(io.BytesIO(text)))])
    network.reset_state()
    p = network.predict(np.frombuffer(b"\n\n" + text, np.uint8)[:, None])[2:-1, 0]
    expected = -np.log(p[np.arange(len(text) - 1), np.frombuffer(text, np.uint8)[1:]].astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("length", [2, 3, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK + 1, 1500])
@pytest.mark.parametrize("streams", [1, 2, 3, 7, "all"])
def test_each_character_is_scored_once_whatever_the_streams(length, streams):
    streams = length - 1 if streams == "all" else min(streams, length - 1)
    text = np.random.default_rng(length).integers(0, 300, length)
    pairs = []
    for before, after, counted in blocks_of_corpus(Corpus.from_symbols(text), 300, streams):
        assert before.shape == after.shape and before.shape[1] == streams
        pairs += zip(before[counted].tolist(), after[counted].tolist())
    assert sorted(pairs) == sorted(zip(text[:-1].tolist(), text[1:].tolist()))


def test_one_stream_of_a_corpus_is_the_file(network):
    text = bytes(np.random.default_rng(0).integers(0, 256, 1500, np.uint8))
    of_file = np.concatenate([nats for *_, nats in surprise(network, blocks_of_file(io.BytesIO(text)))])
    of_corpus = np.concatenate([nats for *_, nats in surprise(network, blocks_of_corpus(Corpus.from_symbols(text), 256))])
    assert np.array_equal(of_file, of_corpus)


def test_pieces_side_by_side_differ_only_behind_the_cuts(network):
    text = bytes(np.random.default_rng(0).integers(97, 123, 4001, np.uint8))
    tallies = [Tally(), Tally()]
    for tally, streams in zip(tallies, (1, 4)):
        for block in surprise(network, blocks_of_corpus(Corpus.from_symbols(text), 256, streams)):
            tally.add(*block)
    one, four = (tally.score for tally in tallies)
    assert (one.characters, one.words) == (four.characters, four.words)
    assert one.bits_per_character != four.bits_per_character
    assert one.bits_per_character == pytest.approx(four.bits_per_character, abs=0.02)


def test_the_cost_of_what_the_network_holds_impossible_is_finite(tmp_path):
    """Where float32's probability is 0, Darknet's sum becomes infinite."""
    _, _, network = make_network(tmp_path, scale=400)
    symbols = np.arange(256)[:, None]
    network.reset_state()
    p = network.predict(symbols)[np.arange(256), 0, symbols[::-1, 0]]
    network.reset_state()
    nats = network.nats(symbols, symbols[::-1])[:, 0]
    assert (p == 0).any(), "no probability has underflowed: the test tests nothing"
    assert np.isfinite(nats).all() and nats[p == 0].min() > 80
    np.testing.assert_allclose(nats[p > 1e-30], -np.log(p[p > 1e-30].astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_the_temperature_of_the_cfg_counts(tmp_path):
    text = "[net]\ninputs=256\n[{layer}]\noutput=6\n{options}\n[connected]\noutput=256\n[softmax]\ntemperature=.5\n"
    _, _, network = make_network(tmp_path, text=text)
    network.reset_state()
    p = network.predict(np.array([[65]]))[0, 0, 66]
    network.reset_state()
    assert network.nats(np.array([[65]]), np.array([[66]]))[0, 0] == pytest.approx(-math.log(p), rel=1e-5)


def test_memory_does_not_grow_with_the_text(network):
    class Endless(io.RawIOBase):
        left = 100 * BLOCK

        def read(self, count):
            self.left -= count
            return bytes(count) if self.left > 0 else b""

    def peak(text):
        tally = Tally()
        tracemalloc.start()
        for block in surprise(network, blocks_of_file(text)):
            tally.add(*block)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(io.BytesIO(bytes(2 * BLOCK)))  # makes the layers' buffers
    short, long = peak(io.BytesIO(bytes(4 * BLOCK))), peak(Endless())
    assert long < 1.2 * short, f"{long} bytes at most for 100 blocks, {short} for 4"


def test_a_word_beyond_all_numbers_is_infinite():
    tally = Tally()
    tally.add(np.array([65]), np.array([66]), np.array([800.0]))
    assert tally.score.word_perplexity == math.inf
    assert list(valid_lines(*(np.array([x]) for x in (1, 1, 800.0)))) == [
        "1 BPC: 1154.1560   Perplexity:  inf    Word Perplexity:  inf\n"
    ]


def test_the_measures_are_those_of_their_equations():
    score = Score(characters=8, words=4, nats=16 * math.log(2), utf8_characters=2)
    assert score.bits_per_character == pytest.approx(2) and score.nats_per_character == pytest.approx(2 * math.log(2))
    assert (score.perplexity, score.word_perplexity) == (pytest.approx(4), pytest.approx(16))
    assert (score.nats_per_utf8_character, score.bits_per_utf8_character) == (pytest.approx(8 * math.log(2)), pytest.approx(8))
    none = Score(characters=1, words=1, nats=2.0)  # a text that ends within a character has begun none
    assert none.utf8_characters == 0 and none.nats_per_utf8_character == none.bits_per_utf8_character == math.inf


def test_a_character_of_utf8_is_counted_at_its_first_byte():
    text, tally = np.frombuffer("xaä€😀\x7f".encode(), np.uint8).astype(int), Tally()
    for start in range(len(text) - 1):  # byte by byte: the score goes on
        tally.add(text[start : start + 1], text[start + 1 : start + 2], np.ones(1))
    assert (tally.score.characters, tally.score.utf8_characters, tally.score.nats) == (len(text) - 1, 5, len(text) - 1)


def test_blocks_are_no_larger_than_they_may_be():
    corpus = Corpus.from_symbols(np.zeros(20_001, np.uint8))
    for streams, steps in ((1, BLOCK), (4, BLOCK), (20, COLUMNS // 20), (5000, 1)):
        shapes = [before.shape for before, _, _ in blocks_of_corpus(corpus, 256, streams)]
        assert shapes[0] == (steps, streams) and sum(T for T, _ in shapes) == 20_000 // streams
    assert len(next(blocks_of_file(io.BytesIO(bytes(2000))))[0]) == BLOCK


def test_other_costs_may_take_the_place_of_the_networks(network):
    blocks = blocks_of_file(io.BytesIO(b"abc"))
    ((before, after, nats),) = surprise(network, blocks, nats=lambda before, after: before + 2.0 * after)
    assert (before.tolist(), after.tolist(), nats.tolist()) == ([97, 98], [98, 99], [97 + 2 * 98, 98 + 2 * 99])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [3e38, np.nan])
def test_an_output_that_overflows_is_told_once(tmp_path, value):
    _, _, network = make_network(tmp_path)
    network.parameters.values[:] = np.where(np.arange(network.parameters.values.size) % 3, value, -value)
    with pytest.raises(WeightsError, match="not a finite number"):
        list(surprise(network, blocks_of_file(io.BytesIO(b"abc"))))


def test_a_file_that_gives_a_byte_at_a_time(network):
    """As a pipe may."""

    class Drops(io.BytesIO):
        def read(self, count):
            return super().read(min(count, 1))

    drops, whole = (np.concatenate([block[2] for block in surprise(network, blocks_of_file(file(b"abcab")))])
                    for file in (Drops, io.BytesIO))  # fmt: skip
    assert len(whole) == 4
    np.testing.assert_allclose(drops, whole, rtol=1e-5)


def test_tokens_are_words(network):
    tally = Tally(tokens=True)
    for block in surprise(network, blocks_of_corpus(Corpus.from_symbols(np.array([5, 32, 10, 7])), 256), seed=()):
        tally.add(*block)
    assert (tally.score.characters, tally.score.words) == (3, 3)


def test_nothing_to_score():
    with pytest.raises(TextError, match="nothing to score: the text needs at least two characters"):
        Tally().score
    with pytest.raises(TextError, match="nothing to score: the text holds no tactic"):
        TacticTally().score


@pytest.mark.parametrize("streams", [0, 4])
def test_too_many_streams(streams):
    with pytest.raises(InputError, match=f"{streams} streams: from 1 to 3 are possible"):
        next(blocks_of_corpus(Corpus.from_symbols(b"abcd"), 256, streams))


def test_symbols_that_the_network_has_not_got(tmp_path):
    text = "[net]\ninputs=100\n[{layer}]\noutput=6\n{options}\n[connected]\noutput=100\n[softmax]\n"
    _, _, network = make_network(tmp_path, text=text)
    with pytest.raises(InputError, match="symbol 120 is outside 0..99"):
        list(surprise(network, blocks_of_file(io.BytesIO(b"abcx"))))
    with pytest.raises(TextError, match="symbol 120 is out of range"):
        list(surprise(network, blocks_of_corpus(Corpus.from_symbols(b"abcx"), 100)))
