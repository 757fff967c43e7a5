"""``pydarknet look``: what single cells of a network do while it reads a text, in colours or as a page."""

import shutil
import sys
from itertools import groupby

import click

from pydarknet.cli.commands import Choice, command
from pydarknet.cli.options import PATH, cfg_argument, color_option, dialect_option, name_of, read_text, weights_argument
from pydarknet.cli.streams import in_colour
from pydarknet.errors import InputError, TextError
from pydarknet.inference.cells import features_of, find_cells, read_cells
from pydarknet.network import load_network
from pydarknet.system.files import check_output, reported, show, write_atomically
from pydarknet.views.cells_page import page
from pydarknet.views.characters import columns_of, rows

STEPS = 5  # of a colour, on each side of 0
POSITIVE = (230, 223, 216, 215, 208, 202)  # of the terminal's 256 colours, towards orange
NEGATIVE = (195, 153, 117, 75, 33, 27)  # towards blue
MARKS = "=- +#"  # from the least to the greatest, where there are no colours
SEARCHED = 3  # cells of each feature
LONGEST = 4 << 20  # bytes of a text: an LSTM of 512 cells takes 3.7 KB for each


@command(sections={"Cells": "layer cell gate find patterns", "Output": "html color"})
@cfg_argument
@weights_argument
@click.argument("text", type=PATH)
@click.option("--layer", type=click.IntRange(0), help="The layer, from 0 as in the cfg. Default: the last recurrent one.")
@click.option("--cell", type=click.IntRange(0), help="The cell, from 0. Default: the one that follows the text best.")
@click.option("--gate", type=Choice(["i", "f", "o", "r", "z"]), help="Show this gate of the cell in place of its value.")
@click.option("--find", is_flag=True, help="List the cells that follow something in the text, by correlation.")
@click.option(
    "--regex",
    "patterns",
    multiple=True,
    metavar="RE",
    help="Also find cells that follow the matches of RE. May be given several times.",
)
@click.option("--html", type=PATH, metavar="FILE", help="Write a self-contained page to FILE, replacing it.")
@color_option
@dialect_option
def look(cfg, weights, text, layer, cell, gate, find, patterns, html, color, dialect):
    """Show what the cells of a network do while it reads a text.

    TEXT is a file; - is standard input. It is printed in the colours of one cell, from blue (-1) to orange (1): tanh(c) of
    an LSTM, h of a GRU or an RNN. Without colours the marks = - + # stand below it. --find and --regex rank the cells by
    how they follow quotes, brackets and their depth, indentation, the position in the line, upper case, digits, or a
    regular expression. The page of --html has all cells, the gates, and the likeliest next characters.

    Example: pydarknet look cfg/rnn.cfg weights/rnn.weights module.py --html look.html
    """
    if html:
        check_output(html, [cfg, weights, text])
    network = load_network(cfg, weights, batch=1, time_steps=1, dialect=dialect)
    data = read_text(text, LONGEST)
    cells = read_cells(network, data, layer)
    H = cells.values.shape[1]
    if cell is not None and cell >= H:
        raise InputError(f"--cell {cell}: layer {cells.layer} has the cells 0 to {H - 1}")
    if gate and gate not in cells.gates:
        raise InputError(f"--gate {gate}: [{cells.type}] has {' '.join(cells.gates) or 'no gates'}")
    found = find_cells(cells.values, features_of(cells.characters, patterns), SEARCHED)
    cell = _best(found, patterns) if cell is None else cell
    if find or patterns:
        _print_found(found)
    if html:
        content, count = page(name_of(text), cells, found, cell)
        _write(html, content)
        room = "" if count == H else f": {count} of {H} cells, those found and the liveliest; a shorter text has room for all"
        click.echo(f"Saved {show(html)}{room}")
    else:
        _print_text(cells, cell, gate, in_colour(color))


def _best(found, patterns):
    """The cell with the greatest |r|: of the user's own patterns where there are any."""
    asked = [found[f"/{pattern}/"] for pattern in patterns] or list(found.values())
    return max((best[0] for best in asked if best), key=lambda pair: abs(pair[1]), default=(0, 0))[0]


def _print_found(found):
    width = max(map(columns_of, found))
    click.echo(f"{'':{width}}  cells and r, the best first")
    for name, best in found.items():
        row = "   ".join(f"{cell:4d} {r:+.2f}" for cell, r in best) or "never changes in this text"
        click.echo(f"{name}{'':{width - columns_of(name)}}  {row}")
    click.echo()


def _print_text(cells, cell, gate, colours):
    shares = ", ".join(f"{letter} {share[0, cell]:.0%} {share[1, cell]:.0%}" for letter, share in cells.shares.items())
    values = cells.values[:, cell] / cells.scale if gate is None else cells.gates[gate][:, cell] / 127.5 - 1
    what = f"{cells.name} from {-cells.scale:g} to {cells.scale:g}" if gate is None else f"gate {gate} from 0 to 1"
    click.echo(f"layer {cells.layer} [{cells.type}], cell {cell}: {what}")
    if shares:
        click.echo(f"gates below .1, above .9: {shares}")
    width = max(20, shutil.get_terminal_size().columns) if sys.stdout.isatty() or not colours else 1 << 30
    for row in rows(cells.characters, values.tolist(), width):
        if colours:
            groups = groupby(row, key=lambda pair: _style(pair[1]))
            line = "".join(f"\033[{style}m{''.join(c for c, _ in group)}\033[0m" for style, group in groups)
            sys.stdout.write(line + "\n")
        else:
            sys.stdout.write("".join(c for c, _ in row).rstrip() + "\n")
            marks = "".join(_mark(value) * columns_of(c) for c, value in row).rstrip()
            if marks:
                sys.stdout.write(marks + "\n")


def _style(value):
    colours = POSITIVE if value >= 0 else NEGATIVE
    return f"30;48;5;{colours[min(STEPS, round(abs(value) * STEPS))]}"


def _mark(value):
    return MARKS[min(4, int((value + 1) * 2.5))]


def _write(path, text):
    with reported(TextError, path, "cannot write the page"):
        write_atomically(path, [text.encode("utf-8", "backslashreplace")])
