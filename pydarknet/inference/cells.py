"""What single cells of a recurrent layer follow in a text: quotes, brackets, indentation, the place in the line.

A cell's value is tanh(c) of an LSTM, h of a GRU, RNN or CRNN, after each character; how well it follows a feature of
the text is Pearson's r between the two. Letters: N characters of the text, H cells.
"""

import re
from dataclasses import dataclass

import numpy as np

from pydarknet.errors import InputError
from pydarknet.system.memory import check_memory
from pydarknet.traces import symbols_of, trace_blocks

GATES = {"lstm": "ifo", "gru": "rz", "rnn": "", "crnn": ""}
VALUES = {"lstm": "tanh_c", "gru": "h", "rnn": "h", "crnn": "h"}
LIKELIEST = 5
BLOCK = 4096  # characters at once, or there would be a second copy of all values
SHUT, OPEN = 0.1, 0.9
BRACKETS = dict(zip("([{（［｛【〔〈《", ")]}）］｝】〕〉》"))
# What ends a quotation that begins with it: German has „so“ and »so«, Polish „so”, French «so».
QUOTES = {"“": "”", "‘": "’", "„": "“”", "‚": "‘’", "«": "»", "»": "«", "‹": "›", "›": "‹", "「": "」", "『": "』"}


@dataclass(frozen=True)
class Cells:
    """A layer read over a text of N characters; a character of several bytes counts as it stands after the last.

    ``characters`` are N strings; ``values`` (N, H), each -``scale``..``scale``; ``gates`` {letter: (N, H) uint8, 255 for 1};
    ``next_symbols`` and ``next_probabilities`` (N, 5) the likeliest symbols to follow; ``shares`` {letter: (2, H)}, the
    share of characters at which a gate is below .1 and above .9.
    """

    layer: int
    type: str
    characters: list
    values: np.ndarray
    scale: float
    gates: dict
    shares: dict
    next_symbols: np.ndarray
    next_probabilities: np.ndarray

    @property
    def name(self):
        """What the values are called."""
        return "tanh(c)" if self.type == "lstm" else "h"


def recurrent_layers(network):
    """The numbers of the layers whose cells can be looked at."""
    return [number for number, layer in enumerate(network.layers) if layer.type in VALUES]


@np.errstate(over="ignore", invalid="ignore")  # said once, as an InputError
def read_cells(network, data, layer=None):
    """The :class:`Cells` of ``layer`` (None: the last recurrent one) for the bytes ``data``; the network is left as it was.

    Raises InputError for a layer that has no such cells, for a network over tokens, for an empty text or one that the
    memory has no room for, and for weights that overflow.
    """
    if network.inputs > 256:
        raise InputError(f"cells are shown over bytes: the cfg has inputs={network.inputs}")
    there = recurrent_layers(network)
    if not there:
        raise InputError("this network has no [lstm], [gru], [rnn] or [crnn] layer to look into")
    layer = there[-1] if layer is None else layer
    if layer not in there:
        raise InputError(f"layer {layer} is not recurrent: choose from {', '.join(map(str, there))}")
    if not data:
        raise InputError("the text is empty: there is nothing to look at")
    kind = network.layers[layer].type
    characters = data.decode("utf-8", "surrogateescape")
    ends = np.cumsum([1 if "\udc80" <= c <= "\udcff" else len(c.encode()) for c in characters]) - 1
    N = len(ends)
    values, gates, shares = np.empty(0), {}, {}
    best, chances = np.empty((N, LIKELIEST), np.uint8), np.empty((N, LIKELIEST), np.float32)
    done = 0
    for start, p, layers in trace_blocks(network, symbols_of(data)):
        arrays, count = layers[layer], np.searchsorted(ends, start + len(p)) - done
        rows, here = ends[done : done + count] - start, slice(done, done + count)
        if not start:
            H = arrays["h"].shape[1]
            needed = N * H * (4 + len(GATES[kind]))
            check_memory(needed, f"{H} cells at {N:,} characters", "give a shorter text")
            values = np.empty((N, H), np.float32)
            gates = {letter: np.empty((N, H), np.uint8) for letter in GATES[kind]}
            shares = {letter: np.zeros((2, H)) for letter in GATES[kind]}
        values[here] = arrays[VALUES[kind]][rows]
        for letter in gates:
            gate = arrays[letter][rows]
            gates[letter][here] = np.rint(255 * gate)
            shares[letter] += [(gate < SHUT).sum(axis=0), (gate > OPEN).sum(axis=0)]
        likely = min(LIKELIEST, p.shape[1])
        order = np.argsort(-p[rows], axis=1, kind="stable")[:, :likely]
        best[here, :likely], chances[here, :likely] = order, np.take_along_axis(p[rows], order, axis=1)
        best[here, likely:], chances[here, likely:] = 0, 0
        done += count
    if not np.isfinite([values.min(), values.max(), chances.min(), chances.max()]).all():
        raise InputError("the network's cells are not finite numbers: its weights overflow")
    scale = 1.0 if kind in ("lstm", "gru") else float(max(1.0, np.abs(values).max()))
    shares = {letter: counts / N for letter, counts in shares.items()}
    return Cells(layer, kind, list(characters), values, scale, gates, shares, best, chances)


def features_of(characters, patterns=()):
    """{name: (N,) float32} of a text: what a cell may follow. ``patterns`` are regular expressions: 1 inside a match.

    Quotes that look alike at both ends end with their line at the latest, others, and brackets, with their paragraph.

    Raises InputError for one that is no regular expression.
    """
    text = "".join(characters)
    quoted, depth = _quotes_and_brackets(text)
    indent, place = _margins_and_columns(text)
    features = {
        "quotes": quoted,
        "brackets": (depth > 0).astype(np.float32),
        "depth": depth,
        "indentation": indent,
        "position": place,
        "upper case": np.array([c.isupper() for c in text], np.float32),
        "digits": np.array([c.isdigit() for c in text], np.float32),
    }
    for pattern in patterns:
        try:
            matches = re.finditer(pattern, text, re.MULTILINE)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(f"{pattern!r} is not a regular expression: {error}") from None
        inside = np.zeros(len(text), np.float32)
        for match in matches:
            inside[match.start() : match.end()] = 1
        features[f"/{pattern}/"] = inside
    return features


def _quotes_and_brackets(text):
    """Whether each character is in a quotation, and in how many brackets it is."""
    quoted, depth = np.zeros((2, len(text)), np.float32)
    quote, opened, before = "", [], "\n"
    for n, c in enumerate(text):
        after = text[n + 1 : n + 2]
        escaped = before == "\\" and text[n - 2 : n - 1] != "\\"
        apostrophe = c == "’" and before.isalnum() and after.isalnum()
        if quote:
            if (c in quote and not escaped and not apostrophe) or (c == "\n" and quote in "\"'"):
                quote = ""
        elif c == '"' or (c == "'" and not before.isalnum()):
            quote = c
        elif c in QUOTES and not (c in "»›" and (before.isalnum() or not after.isalnum())):  # those end one, too
            quote = QUOTES[c]
        elif c in BRACKETS:
            opened.append(BRACKETS[c])
        elif opened and c == opened[-1]:
            opened.pop()
        if c == after == "\n":  # what is never closed ends with its paragraph
            quote = ""
            opened.clear()
        quoted[n], depth[n], before = bool(quote), len(opened), c
    return quoted, depth


def _margins_and_columns(text):
    """How far the line of each character is indented, as far as it has been read, and where in the line it stands."""
    indent, place = np.zeros((2, len(text)), np.float32)
    column, margin, in_margin = 0, 0, True
    for n, c in enumerate(text):
        in_margin = in_margin and c in " \t"
        margin += (1 if c == " " else 4) if in_margin else 0
        indent[n], place[n] = margin, column
        column += 1
        if c == "\n":
            column, margin, in_margin = 0, 0, True
    return indent, place


def find_cells(values, features, top=3):
    """{feature: [(cell, r)]}: the ``top`` cells of ``values`` (N, H) that follow each best, by |r|.

    A feature that does not change in the text has no cells; a cell that does not change follows nothing.
    """
    mean = values.mean(axis=0)
    apart = {name: feature - feature.mean() for name, feature in features.items()}
    squares, products = np.zeros(len(mean)), {name: np.zeros(len(mean)) for name in features}
    for start in range(0, len(values), BLOCK):
        here = slice(start, start + BLOCK)
        centred = values[here] - mean
        squares += np.einsum("nh,nh->h", centred, centred, dtype=np.float64)
        for name in features:
            products[name] += apart[name][here] @ centred
    norms = np.sqrt(squares)
    found: dict = {}
    for name in features:
        norm = float(np.linalg.norm(apart[name]))
        found[name] = []
        if norm > 0:
            scale = norms * norm
            r = np.divide(products[name], scale, out=np.zeros_like(norms), where=scale > 1e-9 * norm)
            order = np.argsort(-np.abs(r), kind="stable")[:top]
            found[name] = [(int(cell), float(r[cell])) for cell in order]
    return found
