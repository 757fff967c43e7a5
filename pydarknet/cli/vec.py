"""``pydarknet vec``: lines as vectors."""

import os
from contextlib import ExitStack
from itertools import chain

import click

from pydarknet.cli.commands import command
from pydarknet.cli.options import (
    bytes_option,
    cfg_argument,
    dialect_option,
    is_stdin,
    open_text,
    seed_option,
    texts_argument,
    weights_argument,
)
from pydarknet.cli.streams import write_bytes
from pydarknet.errors import InputError, TextError
from pydarknet.inference.sample import DEFAULT_SEED
from pydarknet.inference.vec import line_vectors
from pydarknet.network import load_network
from pydarknet.system.files import show

LONGEST = 16 << 20  # bytes of a line


@command()
@cfg_argument
@weights_argument
@texts_argument
@seed_option
@click.option(
    "--layer",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Number of the layer, counted from 0, whose output is the vector.",
)
@bytes_option("Write control characters to a terminal as they are; elsewhere they always are.")
@dialect_option
def vec(cfg, weights, texts, seed, layer, as_bytes, dialect):
    """Print a vector for each line of a text: what the first layer puts out when it has read the line.

    The lines are those of one or more files TEXT, or of standard input. Each is printed without its blanks and
    tabs, which the network does not read either, then the numbers with commas between.

    Example: pydarknet vec cfg/rnn.cfg backup/rnn_final.weights names.txt
    """
    network = load_network(cfg, weights, batch=1, time_steps=1, dialect=dialect)
    if network.inputs > 256:
        raise InputError(f"{show(cfg)}: the network has {network.inputs} symbols, which are tokens: vec reads lines of text")
    seed = DEFAULT_SEED if seed is None else os.fsencode(seed)
    with ExitStack() as stack:
        named = [("standard input", None)] if is_stdin(texts) else [(show(path), path) for path in texts]
        files = [_lines(name, stack.enter_context(open_text(path))) for name, path in named]
        vectors = line_vectors(network, chain.from_iterable(files), seed, layer)
        write_bytes((line + _numbers(vector) for line, vector in vectors), raw=as_bytes)


def _lines(name, file):
    """The lines of ``file``, each bounded: a pipe may have none that ends."""
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise TextError(
                f"{name}: a line of more than {LONGEST:,} bytes: vec prints a vector for each line; give shorter ones"
            )
        yield line


def _numbers(vector):
    return "".join(f",{x:g}" for x in vector.tolist()).encode() + b"\n"
