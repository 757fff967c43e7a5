"""``pydarknet score``: where a text surprises the network, in colours, by line, as JSON or as a page."""

import json
import os
import shutil
import sys
from itertools import groupby

import click
import numpy as np

from pydarknet.cli.commands import Choice, command
from pydarknet.cli.options import (
    PATH,
    cfg_argument,
    color_option,
    dialect_option,
    name_of,
    read_text,
    seed_option,
    showing,
    weights_argument,
)
from pydarknet.cli.streams import in_colour
from pydarknet.errors import InputError, TextError
from pydarknet.inference.sample import DEFAULT_SEED
from pydarknet.inference.score import MEASURES, lines_of, most_surprising
from pydarknet.inference.valid import blocks_of_corpus, surprise
from pydarknet.network import load_network
from pydarknet.system.files import check_output, reported, show, write_atomically
from pydarknet.text.corpus import Corpus
from pydarknet.text.stores import IN_MEMORY
from pydarknet.views.characters import columns_of, rows
from pydarknet.views.score_page import level, page

STYLES = ("", "33", "38;5;208", "31", "1;37;41")  # of the levels: yellow, orange, red, white on red
MARKS = " .:*#"  # where there are no colours
NARROWEST = 20  # columns for the text beside the numbers


@command(sections={"Output": "top by as_json html color", "Reading": "seed dialect"})
@cfg_argument
@weights_argument
@click.argument("text", type=PATH)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the N most surprising lines, the most surprising first.")
@click.option(
    "--by",
    type=Choice(MEASURES),
    default="peak",
    show_default=True,
    help="What makes a line surprising: the most bits of three characters in a row, as a mistake of typing has them; bits "
    "per character; or all bits.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the bits of every character.")
@click.option(
    "--html", type=PATH, metavar="FILE", help="Write a self-contained page to FILE, replacing it; the text is not printed."
)
@color_option
@seed_option
@dialect_option
def score(cfg, weights, text, top, by, as_json, html, color, seed, dialect):
    """Show where a text surprises the network of CFG and WEIGHTS.

    TEXT is a file; - is standard input. Each line is printed with its number, its bits and its bits per character,
    and the characters in colours: yellow from 3 bits, orange from 5, red from 8, white on red from 12. Without
    colours, marks . : * # stand below them. Each further bit halves the probability: a character of 12 bits had one
    chance in 4096.

    Example: pydarknet score cfg/rnn.cfg backup/rnn_final.weights module.py --top 20
    """
    if html and as_json:
        raise click.UsageError("--html and --json cannot be combined: give only one of them")
    if html:
        check_output(html, [cfg, weights, text])
    network = load_network(cfg, weights, batch=1, time_steps=1, dialect=dialect)
    if network.inputs > 256:
        raise InputError(f"score is for networks over bytes: the cfg has inputs={network.inputs}")
    data, name = read_text(text, IN_MEMORY), name_of(text)
    with Corpus.from_symbols(data, name) as corpus:
        scored = surprise(
            network, blocks_of_corpus(corpus, network.inputs), DEFAULT_SEED if seed is None else os.fsencode(seed)
        )
        lines = lines_of(data, np.concatenate([nats for *_, nats in showing(scored, len(data))]))
    chosen = most_surprising(lines, top, by) if top else lines
    if html:
        _write_page(html, page(name, lines, most_surprising(lines, top or 20, by)))
        click.echo(f"Saved {show(html)}")
    elif as_json:
        click.echo(json.dumps(_record(lines, chosen)))
    else:
        _print(chosen, in_colour(color))
        if not top:
            click.echo(_sum(lines))


def _sum(lines):
    bits, characters = sum(line.total for line in lines), sum(len(line.bits) for line in lines) - 1
    return f"{len(lines)} lines, {characters} characters scored, {bits:.1f} bits, {bits / characters:.4f} bits per character"


def _record(lines, chosen):
    return {
        "characters": sum(len(line.bits) for line in lines) - 1,
        "bits": sum(line.total for line in lines),
        "lines": [
            {
                "line": line.number,
                "text": line.text,
                "bits": line.total,
                "bits_per_character": line.mean,
                "peak": line.peak,
                "characters": [[character, round(bits, 4)] for character, bits in zip(line.characters, line.bits.tolist())],
            }
            for line in chosen
        ],
    }


def _write_page(path, text):
    with reported(TextError, path, "cannot write the page"):
        write_atomically(path, [text.encode()])


def _print(lines, colours):
    digits = max(len(str(line.number)) for line in lines)
    margin = digits + 2 + 8 + 6 + 2
    width = max(NARROWEST, shutil.get_terminal_size().columns - margin) if sys.stdout.isatty() or not colours else 1 << 30
    sys.stdout.write(f"{'':{digits}}  {'bits':>8}{'/char':>6}\n")
    for line in lines:
        head = f"{line.number:{digits}}  {line.total:8.1f}{line.mean:6.2f}  "
        for row in rows(line.characters, map(level, line.bits.tolist()), width):
            sys.stdout.write(head + (_coloured(row) if colours else "".join(shown for shown, _ in row)).rstrip() + "\n")
            head = " " * margin
            marks = "".join(MARKS[level] * columns_of(shown) for shown, level in row).rstrip()
            if marks and not colours:
                sys.stdout.write(head + marks + "\n")


def _coloured(row):
    parts = []
    for number, group in groupby(row, key=lambda pair: pair[1]):
        text = "".join(shown for shown, _ in group)
        parts.append(f"\033[{STYLES[number]}m{text}\033[0m" if number else text)
    return "".join(parts)
