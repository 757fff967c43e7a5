"""``pydarknet valid`` and ``validtactic``: how well a network predicts a text."""

import json
import math
import os
import sys
from collections import deque
from contextlib import ExitStack, contextmanager

import click
import numpy as np

from pydarknet.cli.commands import Number, command
from pydarknet.cli.options import (
    PATH,
    cfg_argument,
    dialect_option,
    is_stdin,
    open_text,
    read_text,
    seed_option,
    showing,
    texts_argument,
    weights_argument,
)
from pydarknet.errors import TextError
from pydarknet.inference.dynamic_evaluation import Adaptation
from pydarknet.inference.sample import DEFAULT_SEED
from pydarknet.inference.valid import TacticTally, Tally, blocks_of_corpus, blocks_of_file, surprise, tactic_lines, valid_lines
from pydarknet.network import load_network
from pydarknet.system.files import check_output, reported, write_atomically
from pydarknet.text.corpus import Corpus
from pydarknet.text.stores import IN_MEMORY
from pydarknet.text.utf8 import Utf8Watch

FIGURES = "bits_per_character", "nats_per_character", "perplexity", "word_perplexity"
UTF8_FIGURES = "utf8_characters", "bits_per_utf8_character", "nats_per_utf8_character"

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead; a figure that is not finite is null."
)
every_option = click.option(
    "--every",
    type=click.IntRange(1),
    metavar="N",
    help="Print the figures so far every N characters; Darknet prints them after each one.",
)


@command(sections={"Measuring": "seed adapt streams tokenized", "Output": "as_json every characters_file"})
@cfg_argument
@weights_argument
@texts_argument
@seed_option
@json_option
@click.option(
    "--per-character",
    "characters_file",
    type=PATH,
    metavar="FILE",
    help="Write a line for each byte to FILE, which is replaced: position, value as a number, -ln p.",
)
@every_option
@click.option(
    "--streams",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Cut the text into N pieces and read them side by side: much faster, but after a cut the network knows nothing of "
    "what came before.",
)
@click.option(
    "--adapt",
    type=Number(0, min_open=True),
    metavar="RATE",
    help="Go on learning at this rate from each piece of the text once it has been scored; try .1 for a GRU, .5 for an LSTM. "
    "The weights file stays as it is.",
)
@click.option("-tokenized", "--tokenized", is_flag=True, help="TEXT holds whole numbers, one a symbol; each counts as a word.")
@dialect_option
def valid(cfg, weights, texts, seed, as_json, characters_file, every, streams, adapt, tokenized, dialect):
    """Measure how well the network of CFG and WEIGHTS predicts a text.

    TEXT is one or more files or folders, joined; without it, standard input is read. Prints the bits per character (BPC),
    the perplexity and the word perplexity, as Darknet does, over every character but the first, each given the seed and all
    that comes before it. To Darknet a byte is a character; for UTF-8 text with longer characters a second line gives the bits
    per character and per byte.

    Example: pydarknet valid cfg/rnn.cfg backup/rnn_final.weights text.txt
    """
    if streams > 1 and (every or characters_file):
        raise click.UsageError("--every and --per-character go through the text in order: they need --streams 1")
    from_stdin = is_stdin(texts)
    if tokenized and from_stdin:
        raise click.UsageError("-tokenized needs TEXT, a file")
    if characters_file:
        check_output(characters_file, [cfg, weights, *texts])
    network = load_network(cfg, weights, batch=streams, time_steps=1, dialect=dialect)
    seed = os.fsencode(seed) if seed is not None else b"" if tokenized else DEFAULT_SEED
    tally, watch = Tally(tokens=tokenized), Utf8Watch()
    with ExitStack() as stack:
        if from_stdin and streams == 1:
            file = stack.enter_context(open_text(None))
            total, blocks = _size(file), blocks_of_file(watch.reading(file))
        else:
            corpus = stack.enter_context(_corpus(texts, tokenized))
            total, blocks = len(corpus), blocks_of_corpus(corpus, network.inputs, streams)
            if not tokenized:
                watch.read(corpus)
        scored = surprise(network, blocks, seed, nats=Adaptation(network, adapt).nats if adapt else None)
        rows = _scoring(scored if every else showing(scored, total), tally, every)
        if characters_file:
            _write_characters(characters_file, (_characters(*row) for row in rows))
        else:
            deque(rows, maxlen=0)
    score = tally.score
    _print_score(valid_lines, score, as_json, every, UTF8_FIGURES if watch.is_utf8 and not tokenized else ())


@command()
@cfg_argument
@weights_argument
@texts_argument
@seed_option
@json_option
@every_option
@dialect_option
def validtactic(cfg, weights, texts, seed, as_json, every, dialect):
    """Measure how well a network predicts the tactics in a text of proofs.

    A tactic stands between >> and a full stop at the end of a line; nothing else is counted. TEXT is
    one or more files or folders, joined; without it, standard input is read.

    Example: pydarknet validtactic cfg/rnn.cfg coq.weights < proofs.txt
    """
    network = load_network(cfg, weights, batch=1, time_steps=1, dialect=dialect)
    seed = DEFAULT_SEED if seed is None else os.fsencode(seed)
    tally = TacticTally()
    with ExitStack() as stack:
        if is_stdin(texts):
            file = stack.enter_context(open_text(None))
            total, blocks = _size(file), blocks_of_file(file)
        else:
            corpus = stack.enter_context(Corpus.open(texts))
            total, blocks = len(corpus), blocks_of_corpus(corpus, network.inputs)
        scored = surprise(network, blocks, seed)
        for block in scored if every else showing(scored, total):
            _print_lines(tactic_lines, every, *tally.add(*block))
    _print_score(tactic_lines, tally.score, as_json, every)


@contextmanager
def _corpus(texts, tokenized):
    if is_stdin(texts):  # where the pieces begin is known only when all has been read
        yield Corpus.from_symbols(read_text(None, IN_MEMORY), "standard input")
        return
    with Corpus.open(texts, tokenized=tokenized) as corpus:
        yield corpus


def _size(file):
    """The bytes of a file, where that can be known."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except (OSError, ValueError):
        return None


def _print_lines(lines, every, characters, words, nats):
    if every:
        due = characters % min(every, 2**63 - 1) == 0  # NumPy's numbers go no further, and no text either
        sys.stdout.writelines(lines(characters[due], words[due], nats[due]))


def _print_score(lines, score, as_json, every, utf8_figures=()):
    if as_json:
        figures = {name: getattr(score, name) for name in FIGURES}
        figures |= {name: getattr(score, name) if name in utf8_figures else None for name in UTF8_FIGURES}
        figures = {name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()}
        click.echo(json.dumps({"characters": score.characters, **figures}))
        return
    if not every or score.characters % every:
        sys.stdout.writelines(lines(*np.array([[score.characters], [score.words], [score.nats]])))
    if utf8_figures and not every and 0 < score.utf8_characters < score.characters:
        click.echo(
            f"UTF-8: {score.utf8_characters} characters, {score.bits_per_utf8_character:.4f} bits per character; "
            f"{score.characters} bytes, {score.bits_per_character:.4f} bits per byte"
        )


def _scoring(scored, tally, every):
    """Yield the positions, symbols and nats of what has been counted and, if it is due, printed."""
    for before, after, nats in scored:
        running = tally.add(before, after, nats)
        _print_lines(valid_lines, every, *running)
        yield running[0], after, nats


def _characters(positions, symbols, nats):
    rows = zip(positions.tolist(), symbols.tolist(), nats.tolist())
    return "".join(f"{position} {symbol} {cost:.6f}\n" for position, symbol, cost in rows).encode()


def _write_characters(path, chunks):
    """To a pipe or a device as they come; a file that is there is kept until all of the new one is written."""
    with reported(TextError, path, "cannot write the characters"):
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as file:
                file.writelines(chunks)
        else:
            write_atomically(path, chunks)
