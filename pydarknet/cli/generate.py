"""``pydarknet generate``: text from a trained network, written as it is made."""

import os
import sys

import click

from pydarknet.cli.options import PATH, dialect_option, srand_option
from pydarknet.text_files import read_tokens
from pydarknet.errors import InputError
from pydarknet.network import load_network
from pydarknet.sample import DEFAULT_TEMPERATURE, darknet_random
from pydarknet.sample import generate as generate_symbols


@click.command()
@click.argument("cfg", type=PATH)
@click.argument("weights", type=PATH)
@click.option("-len", "--len", "length", type=click.IntRange(0), default=1000, show_default=True, help="Characters to write.")
@click.option("-seed", "--seed", default="\n\n", help="Text to go on from; written first. Default: two line ends.")
@click.option("-temp", "--temp", "temperature", type=float, default=DEFAULT_TEMPERATURE, show_default=True,
              help="Below 1 the likely becomes likelier, above 1 less so.")
@click.option("-tokens", "--tokens", "tokens_file", type=PATH, help="Vocabulary, one token a line, of a network over tokens; the seed is then token numbers.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Texts to write, all at once.")
@srand_option("a text")
@dialect_option
def generate(cfg, weights, length, seed, temperature, tokens_file, count, srand, dialect):
    """Write text with the network of CFG and WEIGHTS.

    With the same weights and -srand, the text is the one that Darknet writes.

    Example: pydarknet generate cfg/rnn.cfg backup/rnn_final.weights -len 500 -seed "def "
    """
    network = load_network(cfg, weights, batch=count, time_steps=1, dialect=dialect)
    spell, symbols = _vocabulary(tokens_file, seed)
    texts = generate_symbols(network, symbols, length, temperature, darknet_random(network, srand), count)
    start = b"".join(spell(symbol) for symbol in symbols)
    if count == 1:
        _stream(start, (spell(step[0]) for step in texts))
    else:
        steps = list(texts)
        for stream in range(count):
            _stream(start, (spell(step[stream]) for step in steps))


def _stream(start, pieces):
    out = sys.stdout.buffer
    at_once = sys.stdout.isatty()
    out.write(start)
    for piece in pieces:
        out.write(piece)
        if at_once:
            out.flush()
    out.write(b"\n")
    out.flush()


def _vocabulary(tokens_file, seed):
    """How a symbol is spelled, and the symbols of the seed."""
    if tokens_file is None:
        return lambda symbol: bytes((symbol,)), os.fsencode(seed)
    tokens = read_tokens(tokens_file)

    def spell(symbol):
        if symbol >= len(tokens):
            raise InputError(f"{tokens_file}: the network writes token {symbol}, but the file has {len(tokens)} lines")
        return tokens[symbol] + b" "

    try:
        return spell, [int(word) for word in seed.split()]
    except ValueError:
        raise InputError(f"-seed {seed!r}: with -tokens it is token numbers, such as -seed '12 7'") from None
