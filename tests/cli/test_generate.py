"""``generate`` and ``generatetactic``: Darknet's bytes, seeds of any bytes, vocabularies."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command_line import done, make_network, run
from places import GOLDEN as GOLDEN_ROOT

from pydarknet.darknet.randomness import CRandom
from pydarknet.inference.sample import darknet_random, generate, generate_tactic

GOLDEN = GOLDEN_ROOT / "forward" / "pjreddie"
VOCABULARY = """[net]
inputs=1000
batch=4
time_steps=5
learning_rate=.1
max_batches=3
[{layer}]
output=6
{options}
[connected]
output=1000
activation=linear
[softmax]
"""


@pytest.mark.parametrize("case", ["case1_lstm", "case4_gru"])
@pytest.mark.parametrize("spelling", ["darknet", "gnu"])
def test_the_text_is_darknets_byte_for_byte(case, spelling):
    options = json.loads((GOLDEN / case / "meta.json").read_text())["generate"]
    names = ["seed", "len", "temp", "srand"]
    arguments = [text for name in names for text in (("-" if spelling == "darknet" else "--") + name, options[name])]
    written = done("generate", GOLDEN / case / "case.cfg", GOLDEN / case / "case.weights", *arguments)
    assert written == options["seed"].encode() + (GOLDEN / case / "gen_out.bin").read_bytes() + b"\n"


@pytest.mark.skipif(os.name != "posix", reason="arguments are text on Windows")
def test_a_seed_of_any_bytes(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    seed = bytes(range(1, 256))  # an argument cannot hold a NUL
    out = subprocess.run(
        [sys.executable, "-m", "pydarknet", "generate", cfg, weights, "-seed", seed, "-len", "30", "-srand", "1"],
        capture_output=True,
        check=True,
    ).stdout
    expected = bytes(int(step[0]) for step in generate(network, seed, 30, random=darknet_random(network, 1)))
    assert out == seed + expected + b"\n"


def test_the_default_seed_is_two_line_ends_and_an_empty_one_symbol_0(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    assert done("generate", cfg, weights, "-len", 0) == b"\n\n\n"
    assert done("generate", cfg, weights, "-len", 0, "-seed", "") == b"\0\n"
    assert done("generate", cfg, weights, "-len", 5, "-srand", 3) == done(
        "generate", cfg, weights, "-len", 5, "-srand", 3, "-seed", "\n\n"
    )


def test_negative_srand_is_cs(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    assert done("generate", cfg, weights, "-srand", -1) == done("generate", cfg, weights, "-srand", 2**32 - 1)


def test_several_texts_begin_with_the_seed_each(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    out = done("generate", cfg, weights, "--count", 3, "-len", 20, "-seed", "ab", "-srand", 1)
    steps = list(generate(network, b"ab", 20, random=darknet_random(network, 1), streams=3))
    assert out == b"".join(b"ab" + bytes(int(step[n]) for step in steps) + b"\n" for n in range(3))


def test_a_temperature_of_0_is_an_error(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    result = run("generate", cfg, weights, "-temp", 0)
    assert (result.code, result.err) == (1, "pydarknet: temperature 0 is not above 0\n")


# vocabularies


@pytest.fixture
def tokens(tmp_path):
    """A network over 1000 tokens, and its vocabulary."""
    cfg, weights, network = make_network(tmp_path, text=VOCABULARY)
    words = [f"w{n}" for n in range(1000)]
    words[10] = "<NEWLINE>"
    (tmp_path / "vocabulary.txt").write_text("".join(word + "\n" for word in words))
    words[10] = "\n"
    return cfg, weights, network, words


def test_tokens_are_spelled(tmp_path, tokens):
    cfg, weights, network, words = tokens
    out = done("generate", cfg, weights, "-tokens", tmp_path / "vocabulary.txt", "-seed", "999 10 0", "-len", 40, "-srand", 2)
    symbols = [999, 10, 0] + [int(step[0]) for step in generate(network, [999, 10, 0], 40, random=darknet_random(network, 2))]
    assert max(symbols[3:]) > 255, "the test needs tokens beyond the bytes"
    assert out.decode() == "".join(words[symbol] + " " for symbol in symbols) + "\n"


def test_without_a_vocabulary_tokens_are_numbers(tokens):
    cfg, weights, network, _ = tokens
    out = done("generate", cfg, weights, "-seed", "999 10", "-len", 10, "-srand", 2).decode().split()
    assert out[:2] == ["999", "10"]
    assert [int(word) for word in out[2:]] == [
        int(step[0]) for step in generate(network, [999, 10], 10, random=darknet_random(network, 2))
    ]


@pytest.mark.parametrize("seed", ["CHAPTER", "12 x", "1.5"])
def test_a_seed_that_is_no_token_number(tokens, seed):
    result = run("generate", *tokens[:2], "-seed", seed)
    assert (result.code, result.out) == (1, b"") and "token numbers, such as -seed '12 7'" in result.err


def test_a_seed_beyond_the_vocabulary(tokens):
    result = run("generate", *tokens[:2], "-seed", "9" * 30)
    assert (result.code, result.out) == (1, b"") and "of the seed is outside" in result.err
    result = run("generate", *tokens[:2], "-seed", "1000")
    assert result.code == 1 and "symbol 1000 of the seed is outside 0..999" in result.err


def test_a_vocabulary_that_is_too_short(tmp_path, tokens):
    (tmp_path / "short.txt").write_text("a\nb\n")
    result = run("generate", *tokens[:2], "-tokens", tmp_path / "short.txt", "-seed", "1")
    assert result.code == 1 and "but the file has 2 lines" in result.err


def test_a_vocabulary_of_a_thousand_trains_is_measured_and_writes(tmp_path, tokens):
    cfg, *_ = tokens
    random = np.random.default_rng(0)
    (tmp_path / "text.tok").write_text(" ".join(map(str, random.integers(0, 1000, 500))))
    result = run("train", cfg, tmp_path / "text.tok", "-tokenized", "--backup", tmp_path / "backup", "-srand", 1)
    assert result.code == 0, result.err
    trained = tmp_path / "backup" / "net_final.weights"
    words = done("generate", cfg, trained, "-tokens", tmp_path / "vocabulary.txt", "-len", 20, "-seed", "7").split()
    assert len(words) >= 20 and words[0] == b"w7"
    score = json.loads(done("valid", cfg, trained, tmp_path / "text.tok", "-tokenized", "--json"))
    assert score["characters"] == 499 and score["word_perplexity"] == pytest.approx(score["perplexity"])
    assert 9 < score["bits_per_character"] < 11, score  # little has been learned in 3 iterations: log2(1000) = 9.97


# tactics


def test_generatetactic_reads_the_prompt_from_standard_input_or_a_file(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    prompt = b"goal \xff\0>> "
    expected = bytes(generate_tactic(network, prompt, 200, random=darknet_random(network, 4))) + b"\n"
    (tmp_path / "prompt").write_bytes(prompt)
    assert done("generatetactic", cfg, weights, "-len", 200, "-srand", 4, stdin=prompt) == expected
    assert done("generatetactic", cfg, weights, tmp_path / "prompt", "-len", 200, "-srand", 4) == expected
    result = run("generatetactic", cfg, weights, stdin=b"")
    assert result.code == 1 and "the prompt is empty" in result.err


def test_a_number_that_is_darknets(tmp_path):
    """The state of the generator behind the initial weights is part of the text: see darknet_random()."""
    cfg, weights, network = make_network(tmp_path)
    assert darknet_random(network, 4).rand() != CRandom(4).rand()
