"""What the cells of a network compute while it reads a text: ``network.trace(text)``.

The text is read in blocks with the state carried, so that its length is bounded by the memory for the result alone.
Letters: T symbols of the text, V symbols of the network, H cells of a layer.
"""

from collections.abc import Mapping
from html import escape

import numpy as np

from pydarknet.errors import InputError

BLOCK = 512  # steps at once


class Trace(Mapping):
    """The arrays of each recurrent layer, by the layer's number and then by name: ``trace[0]["h"]``, each (T, H).

    An LSTM has ``i f o`` (gates, 0 to 1), ``g`` and ``tanh_c`` (-1 to 1), ``c`` and ``h``; a GRU ``r z`` (0 to 1), ``q``
    and ``h``; an RNN ``h``. Row t is what the layer computed when it read symbol t. ``symbols`` is the text, (T,).
    """

    def __init__(self, symbols, types, arrays):
        self.symbols, self.types, self._arrays = symbols, types, arrays

    def __getitem__(self, layer):
        return self._arrays[layer]

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)

    def __repr__(self):
        layers = "; ".join(f"layer {n} [{self.types[n]}] {' '.join(arrays)}" for n, arrays in self.items())
        return f"<Trace of {len(self.symbols)} symbols: {layers or 'no recurrent layer'}>"

    def _repr_html_(self):
        """A table of what is in it, for a notebook."""
        rows = "".join(
            f"<tr><td>{n}<td>{escape(self.types[n])}<td>{escape(name)}<td>{array.shape}"
            f"<td>{_least(array)}<td>{_most(array)}</tr>"
            for n, arrays in self.items()
            for name, array in arrays.items()
        )
        return (
            f"<p>Trace of {len(self.symbols)} symbols</p>"
            f"<table><tr><th>layer<th>type<th>name<th>shape<th>least<th>greatest</tr>{rows}</table>"
        )


def _least(array):
    return f"{array.min():.3f}" if array.size else ""


def _most(array):
    return f"{array.max():.3f}" if array.size else ""


def symbols_of(text):
    """The symbols (T,) of a string (its UTF-8), of bytes, or of integers. Raises InputError for what is no text."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogateescape")
    if isinstance(text, (bytes, bytearray, memoryview)):
        return np.frombuffer(text, np.uint8)
    symbols = np.asarray(text)
    if symbols.ndim != 1 or not (np.issubdtype(symbols.dtype, np.integer) or not symbols.size):
        raise InputError("trace takes a string, bytes or a one-dimensional array of integers")
    return symbols.astype(np.int64)


def trace_blocks(network, symbols):
    """Yield (start, probabilities, {layer: arrays}) for each block of ``symbols`` (T,); the network is left as it was.

    ``probabilities`` (S, V) is of the symbol that follows each of the block's S; the arrays are those of
    :class:`Trace`, (S, H), valid until the next block.
    """
    with network.side_state():
        for start in range(0, len(symbols), BLOCK):
            probabilities = network.predict(symbols[start : start + BLOCK, None])[:, 0]
            layers = {
                number: {name: array[:, 0] for name, array in layer.trace().items()}
                for number, layer in enumerate(network.layers)
                if layer.recurrent
            }
            yield start, probabilities, layers


def trace(network, text, names=None):
    """The :class:`Trace` of ``text``; with ``names`` of the arrays so called alone. See ``Network.trace``."""
    symbols = symbols_of(text)
    types = {number: layer.type for number, layer in enumerate(network.layers) if layer.recurrent}
    arrays: dict = {number: {} for number in types}
    for start, _, layers in trace_blocks(network, symbols):
        for number, found in layers.items():
            for name, block in found.items():
                if names is None or name in names:
                    if name not in arrays[number]:
                        arrays[number][name] = np.empty((len(symbols), block.shape[1]), block.dtype)
                    arrays[number][name][start : start + len(block)] = block
    return Trace(symbols, types, arrays)
