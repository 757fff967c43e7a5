"""``pydarknet generate`` and ``generatetactic``: text from a trained network, written as it is made."""

import codecs
import json
import os
import time

import click

from pydarknet.cli.commands import Number, command
from pydarknet.cli.options import (
    LONGEST_SEED,
    PATH,
    bytes_option,
    cfg_argument,
    dialect_option,
    read_text,
    seed_option,
    srand_option,
    text_argument,
    weights_argument,
)
from pydarknet.cli.streams import write_bytes
from pydarknet.errors import InputError
from pydarknet.inference.sample import DEFAULT_SEED, DEFAULT_TEMPERATURE, darknet_random, generate_tactic
from pydarknet.inference.sample import generate as generate_symbols
from pydarknet.network import load_network
from pydarknet.system.files import show
from pydarknet.system.memory import check_memory, step_memory
from pydarknet.text.tokens import read_tokens
from pydarknet.text.utf8 import state_after

length_option = click.option(
    "-len", "--len", "length", type=click.IntRange(0), default=1000, show_default=True, help="Characters to write."
)
temperature_option = click.option(
    "-temp",
    "--temp",
    "temperature",
    type=Number(0),
    default=DEFAULT_TEMPERATURE,
    show_default=True,
    help="Below 1 the likely becomes likelier, above 1 less so; 0 always takes the likeliest.",
)
tokens_option = click.option(
    "-tokens", "--tokens", "tokens_file", type=PATH, help="Vocabulary, one token a line, of a network over tokens."
)


@command(
    sections={
        "Text": "length seed seed_file until count separator as_json as_bytes",
        "Sampling": "temperature top_k top_p min_p repetition_penalty srand",
        "Network": "tokens_file dialect",
    }
)
@cfg_argument
@weights_argument
@length_option
@seed_option
@click.option("--seed-file", type=PATH, metavar="FILE", help="Read the seed from FILE, as it stands; - is standard input.")
@click.option(
    "--until",
    multiple=True,
    metavar="STRING",
    help="End a text after STRING, once the network writes it. May be given several times.",
)
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="Texts to write, all at once.")
@click.option("--separator", default="---", show_default=True, metavar="LINE", help="The line between two texts.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, with all texts and how each has ended.")
@bytes_option("Write Darknet's bytes, whole characters or not, to a terminal also; -len counts bytes then.")
@temperature_option
@click.option("--top-k", type=click.IntRange(1), metavar="K", help="Draw from the K likeliest characters only.")
@click.option(
    "--top-p",
    type=Number(0, 1, min_open=True),
    metavar="P",
    help="Draw from the fewest likeliest characters that have the probability P together.",
)
@click.option(
    "--min-p",
    type=Number(0, 1),
    metavar="P",
    help="Draw from the characters with at least P times the likeliest one's probability.",
)
@click.option(
    "--repetition-penalty",
    type=Number(0, min_open=True),
    metavar="X",
    help="Make what stands among the last 64 characters X times less likely.",
)
@srand_option("text")
@tokens_option
@dialect_option
def generate(
    cfg,
    weights,
    length,
    seed,
    seed_file,
    until,
    count,
    separator,
    as_json,
    as_bytes,
    temperature,
    top_k,
    top_p,
    min_p,
    repetition_penalty,
    srand,
    tokens_file,
    dialect,
):
    """Write text with the network of CFG and WEIGHTS.

    The seed is written first, then what goes on from it, in whole characters of UTF-8: a byte that would break a
    character is never drawn. If the seed ends inside a character, that one is finished first. The text for an -srand is
    Darknet's with --bytes, and without it as long as the network itself breaks no character. To the sampling options a byte
    is a character.

    A network over tokens (-tokens, or inputs above 256) takes token numbers as its seed, such as "12 7"; without -tokens it
    writes numbers too.

    Example: pydarknet generate cfg/rnn.cfg backup/rnn_final.weights -len 500 -seed "def "
    """
    if seed is not None and seed_file is not None:
        raise click.UsageError("-seed and --seed-file cannot be combined: give only one of them")
    if as_bytes and as_json:
        raise click.UsageError("--json holds text: it can't go with --bytes")
    if "" in until:
        raise click.UsageError("--until needs a STRING that isn't empty")
    network = load_network(cfg, weights, batch=count, time_steps=1, dialect=dialect)
    check_memory(step_memory(network, count), f"--count {count}", "give a smaller count")
    over_tokens = tokens_file is not None or network.inputs > 256
    spell = _speller(network, tokens_file)
    seed = _read_seed(seed, seed_file)
    symbols = _token_numbers(seed) if over_tokens else list(DEFAULT_SEED if seed is None else seed)
    symbols = symbols or [0]  # as Darknet does, which writes it too
    whole = not (as_bytes or over_tokens)
    if whole:
        _check_utf8(symbols)
    srand = int(time.time()) if srand is None else srand
    steps = generate_symbols(
        network,
        symbols,
        length,
        temperature,
        darknet_random(network, srand),
        count,
        utf8=whole,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    texts = [Text(spell, symbols, until, whole) for _ in range(count)]
    if count == 1 and not as_json:
        write_bytes(_streamed(texts[0], (step[0] for step in steps)), raw=as_bytes)
        return
    written = [bytearray(text.start) for text in texts]
    for step in steps:
        for text, so_far, symbol in zip(texts, written, step.tolist()):
            so_far += text.add(symbol)
        if until and all(text.ended_by is not None for text in texts):
            break
    if as_json:
        records = [{"text": _decoded(data), "ended_by": text.ended_by} for text, data in zip(texts, written)]
        click.echo(json.dumps({"seed": _decoded(texts[0].start), "srand": srand, "texts": records}))
    else:
        between = os.fsencode(separator) + b"\n"
        for n, data in enumerate(written):
            write_bytes([between * (n > 0), data, b"\n"], raw=as_bytes)


@command()
@cfg_argument
@weights_argument
@text_argument
@length_option
@bytes_option("Write control characters to a terminal as they are; elsewhere they always are.")
@temperature_option
@tokens_option
@srand_option("text")
@dialect_option
def generatetactic(cfg, weights, text, length, as_bytes, temperature, tokens_file, srand, dialect):
    """Write the tactic that continues a proof: up to a full stop followed by a newline.

    The proof is the file TEXT, or standard input, and is not written again. The bytes are Darknet's.

    Example: pydarknet generatetactic cfg/rnn.cfg coq.weights -temp .3 < proof.txt
    """
    network = load_network(cfg, weights, batch=1, time_steps=1, dialect=dialect)
    spell = _speller(network, tokens_file)
    prompt = read_text(text, LONGEST_SEED)
    random = darknet_random(network, srand)
    write_bytes(map(spell, generate_tactic(network, prompt, length, temperature, random)), raw=as_bytes)
    write_bytes([b"\n"])


class Text:
    """One text as it grows: ``start``, the bytes to begin with, and ``ended_by``, the string that has ended it, or None."""

    def __init__(self, spell, symbols, until, whole):
        self._spell = spell
        self._decoder = codecs.getincrementaldecoder("utf-8")() if whole else None
        self.start = b"".join(map(self._complete, symbols))
        self.ended_by = None
        self._until = tuple(map(os.fsencode, until))
        self._longest = max(map(len, self._until), default=0)
        self._tail = b""  # of what the network has written: the seed ends no text

    def add(self, symbol):
        """The bytes that are complete with another symbol; none once the text has ended."""
        if symbol < 0 or self.ended_by is not None:
            return b""
        piece = self._complete(symbol)
        if self._until and piece:
            new = self._tail + piece
            self.ended_by = next((os.fsdecode(string) for string in self._until if string in new), None)
            self._tail = new[-self._longest :]
        return piece

    def _complete(self, symbol):
        piece = self._spell(symbol)
        return self._decoder.decode(piece).encode() if self._decoder else piece


def _streamed(text, symbols):
    """Yield the bytes of ``text`` as they become complete."""
    yield text.start
    for symbol in symbols:
        yield text.add(symbol)
        if text.ended_by is not None:
            break
    yield b"\n"


def _decoded(data):
    return data.decode("utf-8", "backslashreplace")


def _read_seed(seed, seed_file):
    """The seed's bytes; None where none is given."""
    if seed_file is None:
        return None if seed is None else os.fsencode(seed)
    return read_text(seed_file, LONGEST_SEED, "seed")


def _check_utf8(seed):
    try:
        state_after(seed)
    except InputError as error:
        raise InputError(f"the seed is not UTF-8: {error}; with --bytes it may be any bytes") from None


def _speller(network, tokens_file):
    """A function of a symbol that gives the bytes to write for it (``print_symbol`` in Darknet's ``examples/rnn.c``)."""
    if tokens_file is None:
        if network.inputs > 256:  # of which Darknet writes the lowest byte
            return lambda symbol: b"%d " % symbol
        return lambda symbol: bytes((symbol,))
    tokens = read_tokens(tokens_file)

    def spell(symbol):
        if symbol >= len(tokens):
            raise InputError(f"{show(tokens_file)}: the network writes token {symbol}, but the file has {len(tokens)} lines")
        return tokens[symbol] + b" "

    return spell


def _token_numbers(seed):
    try:
        return [int(word) for word in (seed or b"").split()]
    except ValueError:
        raise InputError(
            f"-seed {os.fsdecode(seed)!r}: a network over tokens takes token numbers as its seed, such as -seed '12 7'"
        ) from None
