"""``generate`` and ``generatetactic``: Darknet's bytes, seeds of any bytes, vocabularies."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command_line import TINY, done, make_network, run
from places import GOLDEN as GOLDEN_ROOT
from runs import LAYERS, write_cfg

from pydarknet import load_network
from pydarknet.darknet.randomness import CRandom
from pydarknet.inference.sample import darknet_random, generate, generate_tactic

PYDARKNET = [sys.executable, "-m", "pydarknet"]
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
    files = GOLDEN / case / "case.cfg", GOLDEN / case / "case.weights"
    written = done("generate", *files, *arguments, "--bytes")
    assert written == done("rnn", "generate", *files, *arguments)
    assert written == options["seed"].encode() + (GOLDEN / case / "gen_out.bin").read_bytes() + b"\n"


def test_a_seed_of_any_bytes(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    seed = bytes(range(1, 256))  # an argument cannot hold a NUL
    out = subprocess.run(
        [sys.executable, "-m", "pydarknet", "generate", cfg, weights, "-seed", seed, "-len", "30", "-srand", "1", "--bytes"],
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
    words = "--count", 3, "-len", 20, "-seed", "ab", "-srand", 1
    steps = list(generate(network, b"ab", 20, random=darknet_random(network, 1), streams=3))
    expected = [b"ab" + bytes(int(step[n]) for step in steps) + b"\n" for n in range(3)]
    assert done("generate", cfg, weights, *words, "--bytes") == b"---\n".join(expected)
    assert done("generate", cfg, weights, *words, "--bytes", "--separator", "* * *") == b"* * *\n".join(expected)
    characters = [text.encode() for text in characters_of(cfg, weights, 20, b"ab", 1, streams=3)]
    assert done("generate", cfg, weights, *words) == b"\n---\n".join(characters) + b"\n"


# Whole characters

SCRIPT = "Füße, 漢字 und 😀! "
CONTROLS = [
    [],
    ["-temp", "0"],
    ["-temp", "3"],
    ["--top-k", "5"],
    ["--top-p", ".5"],
    ["--min-p", ".2"],
    ["--repetition-penalty", "1.5"],
    ["-temp", "1.5", "--top-k", "40", "--top-p", ".9", "--min-p", ".01", "--repetition-penalty", "1.1"],
    ["-temp", "0", "--repetition-penalty", "2"],
]
NAMES = {"-temp": "temperature", "--top-k": "top_k", "--top-p": "top_p", "--min-p": "min_p"}
NAMES |= {"--repetition-penalty": "repetition_penalty"}


def controls_of(words):
    return {NAMES[name]: (int if name == "--top-k" else float)(value) for name, value in zip(words[::2], words[1::2])}


def characters_of(cfg, weights, length, seed, srand, streams=1, **controls):
    """What the library writes, strictly decoded; with the seed."""
    network = load_network(cfg, weights)
    steps = np.array(
        list(generate(network, seed, length, random=darknet_random(network, srand), streams=streams, utf8=True, **controls))
    )
    texts = [seed + bytes(column[column >= 0].astype(np.uint8)) for column in steps.reshape(-1, streams).T]
    return [text.decode() for text in texts]


@pytest.mark.parametrize("controls", CONTROLS, ids=" ".join)
def test_only_whole_characters_are_written(tmp_path, controls):
    """An untrained network draws all bytes alike; the strict decoder reads what it writes."""
    (tmp_path / "net.cfg").write_text(TINY.format(layer="lstm", options=""))
    load_network(tmp_path / "net.cfg", srand=1).save_weights(tmp_path / "net.weights")
    line = ["generate", tmp_path / "net.cfg", tmp_path / "net.weights", "-srand", 4, "-seed", "aé", *controls]
    text = done(*line, "-len", 5000).decode("utf-8", "strict")
    assert len(text) == 2 + 5000 + 1 and text.startswith("aé") and text.endswith("\n")
    assert done(*line, "-len", 5000).decode() == text, "the same -srand gives the same text"
    assert [text[:-1]] == characters_of(
        tmp_path / "net.cfg", tmp_path / "net.weights", 5000, "aé".encode(), 4, **controls_of(controls)
    )
    if "0" not in controls and len(controls) < 4:
        assert {1, 2} <= {len(character.encode()) for character in text}, "the test needs characters of several bytes"
    together = json.loads(done(*line, "-len", 50, "--count", 3, "--json"))
    assert [len(record["text"]) for record in together["texts"]] == [52, 52, 52]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("controls", CONTROLS, ids=" ".join)
def test_only_whole_characters_in_a_hundred_thousand(tmp_path, controls):
    for layer, scale in (("lstm", 1), ("gru", 3)):
        cfg, weights, _ = make_network(tmp_path, layer, scale=scale)
        text = done("generate", cfg, weights, "-len", 100_000, "-srand", 1, *controls).decode("utf-8", "strict")
        assert len(text) == 2 + 100_000 + 1


def test_a_network_of_one_script_is_not_changed_by_the_mask(tmp_path):
    """Trained on UTF-8, it hardly ever draws what the mask forbids: then the text is Darknet's, byte for byte."""
    write_cfg(
        tmp_path,
        LAYERS.replace("64", "256").replace("7", "40"),
        inputs=256,
        max_batches=250,
        batch=16,
        time_steps=20,
        clip_norm=1,
    )
    (tmp_path / "text.txt").write_text(SCRIPT * 300)
    done("train", tmp_path / "tiny.cfg", tmp_path / "text.txt", "--backup", tmp_path, "-srand", 1)
    line = ["generate", tmp_path / "tiny.cfg", tmp_path / "tiny_final.weights", "-srand", 1, "-temp", ".3", "-seed", SCRIPT]
    text = done(*line, "-len", 60).decode()
    assert set(text) <= {*SCRIPT, "\n"} and len({*text} & {*"漢字😀ü"}) >= 2
    assert done(*line, "--bytes", "-len", len(text.encode()) - len(SCRIPT.encode()) - 1) == text.encode()


@pytest.mark.parametrize("length", [0, 1, 30])
def test_a_seed_that_ends_inside_a_character_is_finished_first(tmp_path, length):
    cfg, weights, _ = make_network(tmp_path)
    whole = "aé漢😀".encode()
    for cut in range(1, len(whole)):
        (tmp_path / "seed").write_bytes(whole[:cut])
        text = done("generate", cfg, weights, "-len", length, "-srand", 2, "--seed-file", tmp_path / "seed")
        assert text.startswith(whole[:cut])
        begun = sum(byte & 0xC0 != 0x80 for byte in whole[:cut])
        assert len(text.decode()) == begun + length + 1, (cut, text)


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        (b"a\xff", "byte 1 (0xff)"),
        ("é".encode("latin-1") + b"a", "byte 1 (0x61)"),
        (b"\x80", "byte 0"),
        (b"\xed\xa0\x80", "byte 1"),
    ],
)
def test_a_seed_that_is_not_utf8_needs_bytes(tmp_path, seed, says):
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "seed").write_bytes(seed)
    result = run("generate", cfg, weights, "--seed-file", tmp_path / "seed")
    assert (result.code, result.out) == (1, b"")
    assert f"the seed is not UTF-8: {says}" in result.err and "with --bytes" in result.err and result.err.count("\n") == 1
    assert done("generate", cfg, weights, "--seed-file", tmp_path / "seed", "--bytes", "-len", 3)[:-4] == seed


@pytest.mark.parametrize("inputs", [10, 128, 194, 195, 230, 256])
def test_networks_of_fewer_symbols(tmp_path, inputs):
    text = TINY.replace("256", str(inputs))
    cfg, weights, _ = make_network(tmp_path, text=text, scale=0.1)
    assert len(done("generate", cfg, weights, "-len", 300, "-srand", 1, "-seed", "\1").decode()) == 302


# Steering


def written(cfg, weights, *words, seed="ab"):
    return done("generate", cfg, weights, "-srand", 3, "-seed", seed, *words)


def test_greedy_takes_the_likeliest_and_no_random_number(tmp_path):
    cfg, weights, network = make_network(tmp_path, text=TINY.replace("256", "100"))
    text = written(cfg, weights, "-temp", 0, "-len", 30)
    assert text == done("generate", cfg, weights, "-srand", 9, "-seed", "ab", "-temp", "0.0", "-len", 30)
    assert text == written(cfg, weights, "-temp", 0, "-len", 30, "--top-k", 3, "--top-p", 0.1)
    assert (
        text
        == written(cfg, weights, "-temp", 0, "-len", 30, "--bytes")
        == done("rnn", "generate", cfg, weights, "-temp", 0, "-len", 30, "-seed", "ab")
    )
    assert text == written(cfg, weights, "--top-k", 1, "-len", 30)
    symbols = np.frombuffer(text[:-1], np.uint8)[:, None]
    network.reset_state()
    p = network.predict(symbols[:-1])[:, 0]
    assert (p[1:].argmax(1) == symbols[2:, 0]).all()


def test_controls_are_the_librarys_and_change_the_text(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    texts = set()
    for controls in CONTROLS:
        (expected,) = characters_of(cfg, weights, 100, b"ab", 3, **controls_of(controls))
        assert written(cfg, weights, "-len", 100, *controls).decode() == expected + "\n", controls
        texts.add(expected)
    assert len(texts) == len(CONTROLS)
    plain = written(cfg, weights, "-len", 100)
    neutral = ["--top-k", 256, "--top-p", 1, "--min-p", 0, "--repetition-penalty", 1]
    assert written(cfg, weights, "-len", 100, *neutral) == plain


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-temp", "-1"], 2, "Invalid value for '-temp'"),
        (["-temp", "nan"], 2, "'nan' is not a number"),
        (["--top-k", "0"], 2, "Invalid value for '--top-k'"),
        (["--top-p", "0"], 2, "Invalid value for '--top-p'"),
        (["--top-p", "nan"], 2, "'nan' is not a number"),
        (["--min-p", "1.5"], 2, "Invalid value for '--min-p'"),
        (["--repetition-penalty", "0"], 2, "Invalid value for '--repetition-penalty'"),
        (["--repetition-penalty", "inf"], 1, "repetition_penalty is inf; it must be above 0"),
        (["-seed", "a", "--seed-file", "b"], 2, "give only one of them"),
        (["--json", "--bytes"], 2, "can't go with --bytes"),
        (["--until", ""], 2, "isn't empty"),
        (["--count", "1000000000"], 1, "--count 1000000000: this needs "),
        (["--seed-file", "none.txt"], 1, "none.txt: cannot read this text"),
    ],
)
def test_controls_out_of_range(tmp_path, words, code, says):
    cfg, weights, _ = make_network(tmp_path)
    result = run("generate", cfg, weights, *words)
    assert (result.code, result.out) == (code, b"") and says in result.err, result


@pytest.mark.parametrize("temperature", ["1e-30", "1e-60", "1e30", "1e300"])
def test_extreme_temperatures(tmp_path, temperature):
    cfg, weights, _ = make_network(tmp_path)
    text = written(cfg, weights, "-temp", temperature, "-len", 50)
    assert len(text.decode()) == 53
    assert (text == written(cfg, weights, "-temp", 0, "-len", 50)) is temperature.startswith("1e-")


@pytest.mark.parametrize("penalty", ["1e-320", "1e-38", "1e300"])
def test_extreme_penalties(tmp_path, penalty):
    cfg, weights, _ = make_network(tmp_path)
    text = written(cfg, weights, "--repetition-penalty", penalty, "-len", 50)
    assert len(text.decode()) == 53 and (set(text) == set(b"ab\n")) is penalty.startswith("1e-")


def test_the_seed_from_a_file_or_standard_input(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    seed = "ein Anfang\nmit Zeile\n"
    (tmp_path / "seed").write_text(seed)
    words = "generate", cfg, weights, "-len", 20, "-srand", 3
    expected = done(*words, "-seed", seed)
    assert done(*words, "--seed-file", tmp_path / "seed") == expected
    assert done(*words, "--seed-file", "-", stdin=seed.encode()) == expected
    assert done(*words, "-seed-file", "-", stdin=b"") == done(*words, "-seed", "")
    assert done("rnn", *words, "--seed-file", tmp_path / "seed").startswith(seed.encode())


def test_until_ends_a_text_behind_the_string(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    whole = written(cfg, weights, "-len", 400).decode()[2:-1]
    strings = [whole[100], whole[200:202], "never in it"]
    at = min(whole.find(string) + len(string) for string in strings[:2])
    words = [word for string in strings for word in ("--until", string)]
    assert written(cfg, weights, "-len", 400, *words).decode() == "ab" + whole[:at] + "\n"
    assert written(cfg, weights, "-len", 400, "--until", "never in it").decode() == "ab" + whole + "\n"
    assert written(cfg, weights, "-len", 50, "--until", "b").decode()[:2] == "ab", "the seed ends nothing"
    pair = whole[200:202]
    at = whole.find(pair) + 2
    assert written(cfg, weights, "-len", 400, "--until", pair).decode() == "ab" + whole[:at] + "\n"
    assert written(cfg, weights, "-len", 50, "--until", "b" + whole[0]).decode()[2:-1] == whole[:50], "nor the seed in part"
    raw = written(cfg, weights, "-len", 400, "--bytes")[2:-1]
    stop = next(byte for byte in raw if 32 < byte < 127)
    assert written(cfg, weights, "-len", 400, "--bytes", "--until", chr(stop)) == b"ab" + raw[: raw.index(stop) + 1] + b"\n"


def test_until_ends_each_of_several_texts(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    words = "-len", 200, "--count", 4, "--json"
    whole = [record["text"] for record in json.loads(written(cfg, weights, *words))["texts"]]
    stop = whole[0][50]
    found = json.loads(written(cfg, weights, *words, "--until", stop))
    assert (found["seed"], found["srand"]) == ("ab", 3)
    for text, record in zip(whole, found["texts"]):
        at = text.find(stop, 2)
        assert record == {"text": text[: at + 1] if at >= 0 else text, "ended_by": stop if at >= 0 else None}


def test_json_says_the_number_that_gives_the_text_again(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    found = json.loads(done("generate", cfg, weights, "-len", 30, "-seed", "x", "--json"))
    assert (
        done("generate", cfg, weights, "-len", 30, "-seed", "x", "-srand", found["srand"]).decode()[:-1]
        == found["texts"][0]["text"]
    )


def test_a_terminal_is_sent_no_control_characters(tmp_path):
    """What a network of a stranger writes must not move the cursor or set the title; --bytes writes it as it is."""
    import pty

    cfg, weights, _ = make_network(tmp_path, text=TINY.replace("256", "32"))
    for raw in ([], ["--bytes"]):
        master, slave = pty.openpty()
        subprocess.run(
            [*PYDARKNET, "generate", cfg, weights, "-seed", "\x1b", "-len", "40", "-srand", "1", *raw], stdout=slave, check=True
        )
        os.close(slave)
        shown = os.read(master, 10000)
        os.close(master)
        assert (b"\x1b" in shown) is bool(raw) and shown.startswith(b"\x1b" if raw else b"\\x1b"), shown


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
    assert (result.code, result.out) == (1, b"") and "token numbers as its seed, such as -seed '12 7'" in result.err


def test_a_seed_beyond_the_vocabulary(tokens):
    result = run("generate", *tokens[:2], "-seed", "9" * 30)
    assert (result.code, result.out) == (1, b"") and "of the seed is outside" in result.err
    result = run("generate", *tokens[:2], "-seed", "1000")
    assert result.code == 1 and "symbol 1000 of the seed is outside 0..999" in result.err


def test_a_vocabulary_that_is_too_short(tmp_path, tokens):
    (tmp_path / "short.txt").write_text("a\nb\n")
    result = run("generate", *tokens[:2], "-tokens", tmp_path / "short.txt", "-seed", "1")
    assert result.code == 1 and "but the file has 2 lines" in result.err
    result = run("generate", *tokens[:2], "-tokens", tmp_path / "short.txt", "-seed", "2", "-len", 1)
    assert result.code == 1 and "the network writes token 2, but the file has 2 lines" in result.err


def test_a_vocabulary_of_a_thousand_trains_is_measured_and_writes(tmp_path, tokens):
    cfg, *_ = tokens
    random = np.random.default_rng(0)
    (tmp_path / "text.tok").write_text(" ".join(map(str, random.integers(0, 1000, 500))))
    options = "-tokenized", "--valid-fraction", ".1", "--backup", tmp_path / "backup", "-srand", 1
    result = run("train", cfg, tmp_path / "text.tok", *options)
    assert result.code == 0 and b" bits per token after iteration " in result.out, result
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
