"""A page of the cells of a layer over a text: self-contained, with a script of its own and no requests.

The numbers are in it as bytes in base64, one cell after the other, and the script draws only the rows that can be seen.
"""

import base64
import json
from html import escape
from importlib.resources import files

import numpy as np

from pydarknet.views.characters import shown_as

MOST = 24 << 20  # bytes of cells and gates in a page
STEPS = 16  # of a colour
GATES_TABLE = """<h2>How often this cell's gates are</h2>
<table><tr class="dim"><th>gate<td class="r">below .1<td class="r">above .9</tr><tbody id="gates"></tbody></table>"""


def cells_that_fit(cells, found, first):
    """The numbers of the cells that a page has room for, ascending: ``first``, those ``found``, then the liveliest."""
    N, H = cells.values.shape
    room = max(1, MOST // (N * (1 + len(cells.gates))))
    if room >= H:
        return list(range(H))
    chosen = dict.fromkeys([first, *(cell for best in found.values() for cell, _ in best)])
    chosen |= dict.fromkeys(np.argsort(-cells.values.std(axis=0), kind="stable").tolist())
    return sorted(list(chosen)[:room])


def page(name, cells, found, first):
    """The HTML of :class:`~pydarknet.inference.cells.Cells` over the text ``name``, and how many cells it has room for.

    ``found`` is what :func:`~pydarknet.inference.cells.find_cells` returns; ``first`` the cell shown at first.
    """
    numbers = cells_that_fit(cells, found, first)
    values = cells.values[:, numbers]
    data = {
        "text": "".join(cells.characters),
        "escapes": {c: shown for c in sorted({*cells.characters}) if len(shown := shown_as(c)) > 1},
        "cells": numbers,
        "total": cells.values.shape[1],
        "first": first,
        "value": cells.name,
        "scale": cells.scale,
        "views": {
            "value": _packed(np.rint(127 + 127 * values / cells.scale).T),
            **{letter: _packed(gate[:, numbers].T) for letter, gate in cells.gates.items()},
        },
        "shares": {letter: np.round(share[:, numbers], 4).tolist() for letter, share in cells.shares.items()},
        "next_symbols": _packed(cells.next_symbols),
        "next_chances": _packed(np.rint(255 * cells.next_probabilities)),
        "found": [[what, [pair for pair in best if pair[0] in numbers]] for what, best in found.items()],
    }
    source = files("pydarknet.views")
    style = source.joinpath("cells.css").read_text("utf-8") + _shades()
    script = source.joinpath("cells.js").read_text("utf-8")
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    gates = GATES_TABLE if cells.gates else '<table id="gates"></table>'
    html = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{escape(name)}: cells</title><style>{style}</style></head><body>
<header><h1>{escape(name)}</h1><span class="dim">layer {cells.layer} [{cells.type}], {values.shape[0]} characters</span>
<div id="bar"><span id="cell"></span><span id="legend"></span><span id="views"></span>
<button id="under">likeliest next <kbd>n</kbd></button>
<span class="dim"><kbd>←</kbd> <kbd>→</kbd> other cell, <kbd>,</kbd> <kbd>.</kbd> other character</span></div>
<div id="strip" title="every cell at the chosen character; click on one to see it"></div></header>
<div id="text" tabindex="0"><div id="all"></div></div>
<aside><h2>The chosen character</h2><div id="here"></div><h2>Likeliest next</h2><table id="likely"></table>
<h2>Cells that follow the text (r)</h2><table id="found"></table>
{gates}</aside>
<script type="application/json" id="data">{text}</script><script>{script}</script></body></html>
"""
    return html, len(numbers)


def _packed(array):
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.uint8).tobytes()).decode()


def _shades():
    """A class for each step of a colour: p and n on the two sides of 0, q from 0 to 1."""
    kinds = (("p", "pos"), ("n", "neg"), ("q", "seq"))
    return "".join(
        f".{letter}{step}{{background:rgb(var(--{colour})/calc({step / STEPS:.4f}*var(--deep)))}}"
        for letter, colour in kinds
        for step in range(1, STEPS + 1)
    )
