"""``pydarknet generate`` and ``generatetactic``: text from a trained network, written as it is made."""

import os
import sys

import click

from pydarknet.cli.commands import command
from pydarknet.cli.options import (
    PATH,
    cfg_argument,
    dialect_option,
    open_text,
    seed_option,
    srand_option,
    text_argument,
    weights_argument,
)
from pydarknet.errors import InputError
from pydarknet.inference.sample import DEFAULT_SEED, DEFAULT_TEMPERATURE, darknet_random, generate_tactic
from pydarknet.inference.sample import generate as generate_symbols
from pydarknet.network import load_network
from pydarknet.text.stores import read_tokens

length_option = click.option(
    "-len", "--len", "length", type=click.IntRange(0), default=1000, show_default=True, help="Characters to write."
)
temperature_option = click.option(
    "-temp",
    "--temp",
    "temperature",
    type=float,
    default=DEFAULT_TEMPERATURE,
    show_default=True,
    help="Below 1 the likely becomes likelier, above 1 less so.",
)
tokens_option = click.option(
    "-tokens", "--tokens", "tokens_file", type=PATH, help="Vocabulary, one token a line, of a network over tokens."
)


@command()
@cfg_argument
@weights_argument
@length_option
@seed_option
@temperature_option
@tokens_option
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Texts to write, all at once.")
@srand_option("a text")
@dialect_option
def generate(cfg, weights, length, seed, temperature, tokens_file, count, srand, dialect):
    """Write text with the network of CFG and WEIGHTS.

    The seed is written first, then what goes on from it. With the same weights and -srand, the text
    is the one that Darknet writes. Of a network over tokens (-tokens, or inputs over 256) the seed is
    token numbers, such as "12 7", and without -tokens so is what is written.

    Example: pydarknet generate cfg/rnn.cfg backup/rnn_final.weights -len 500 -seed "def "
    """
    network = load_network(cfg, weights, batch=count, time_steps=1, dialect=dialect)
    spell = _speller(network, tokens_file)
    symbols = _token_numbers(seed) if tokens_file or network.inputs > 256 else _bytes(seed)
    symbols = symbols or [0]  # as Darknet does, which writes it too
    texts = generate_symbols(network, symbols, length, temperature, darknet_random(network, srand), count)
    start = b"".join(spell(symbol) for symbol in symbols)
    if count == 1:
        _write(start, (spell(step[0]) for step in texts))
    else:
        steps = list(texts)
        for stream in range(count):
            _write(start, (spell(step[stream]) for step in steps))


@command()
@cfg_argument
@weights_argument
@text_argument
@length_option
@temperature_option
@tokens_option
@srand_option("a text")
@dialect_option
def generatetactic(cfg, weights, text, length, temperature, tokens_file, srand, dialect):
    """Write the tactic that goes on from a proof: as far as a full stop with a newline behind it.

    The proof is the file TEXT, or standard input, and is not written again.

    Example: pydarknet generatetactic cfg/rnn.cfg coq.weights -temp .3 < proof.txt
    """
    network = load_network(cfg, weights, batch=1, time_steps=1, dialect=dialect)
    spell = _speller(network, tokens_file)
    with open_text(text) as file:
        prompt = file.read()
    random = darknet_random(network, srand)
    _write(b"", (spell(symbol) for symbol in generate_tactic(network, prompt, length, temperature, random)))


def _write(start, pieces):
    out = sys.stdout.buffer
    at_once = sys.stdout.isatty()
    out.write(start)
    for piece in pieces:
        out.write(piece)
        if at_once:
            out.flush()
    out.write(b"\n")
    out.flush()


def _speller(network, tokens_file):
    """A function of a symbol that gives the bytes to write for it (``print_symbol`` in Darknet's ``examples/rnn.c``)."""
    if tokens_file is None:
        if network.inputs > 256:  # of which Darknet writes the lowest byte
            return lambda symbol: b"%d " % symbol
        return lambda symbol: bytes((symbol,))
    tokens = read_tokens(tokens_file)

    def spell(symbol):
        if symbol >= len(tokens):
            raise InputError(f"{tokens_file}: the network writes token {symbol}, but the file has {len(tokens)} lines")
        return tokens[symbol] + b" "

    return spell


def _bytes(seed):
    return list(DEFAULT_SEED if seed is None else os.fsencode(seed))


def _token_numbers(seed):
    try:
        return [int(word) for word in (seed or "").split()]
    except ValueError:
        raise InputError(f"-seed {seed!r}: of a network over tokens it is token numbers, such as -seed '12 7'") from None
