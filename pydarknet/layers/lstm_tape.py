"""The memory of the LSTM's forward and backward pass: which arrays there are, how they lie, and which thread has which.

The equations are in :mod:`pydarknet.layers.lstm`; why the layout is as it is says :mod:`pydarknet.layers.tape`.
"""

import numpy as np

from pydarknet.layers.base import Buffer, as_it_lies, by_gate
from pydarknet.layers.tape import Tape


class LSTMTape(Tape):
    """The tape of an LSTM, with its units shared out to ``count`` :attr:`parts`."""

    def __init__(self, layer, T, B, count):
        super().__init__(layer, T, B, rows=4 * layer.outputs)
        size = self.H // count
        self.parts = [Part(self, slice(start, start + size)) for start in range(0, self.H, size)]

    def fits(self, T, B, count):
        return super().fits(T, B) and len(self.parts) == count

    def start_back(self):
        """Make the parts ready for the way back; return dh and dc of after the end: zeros."""
        for part in self.parts:
            part.start_back(self)
        return self.per_step(self.H, make=np.zeros), self.per_step(self.H, make=np.zeros)


class Part:
    """What a tape keeps of the units ``rows``: per step the gates o i f g and the cell before it, c₋₁; and tanh(c).

    One thread computes the steps of one part; as a rule all units are one part.
    """

    def __init__(self, tape, rows):
        T, H = tape.T, rows.stop - rows.start
        self.rows = rows
        self.gates = tape.per_step(T + 1, 5, H)
        self.tanh_c = tape.per_step(T, H)
        self.Wh, products = tape.per_step(4, H), tape.per_step(2, H)
        self.c = [gates[4] for gates in self.gates]  # c[t] is the cell before step t
        self.z = [as_it_lies(gates[:4]) for gates in self.gates]
        self.cells = [cell_views(*map(as_it_lies, (self.gates[t], products, self.c[t + 1], self.tanh_c[t], tape.h[rows, t + 1])))
                      for t in range(T)]
        self.outputs = Buffer(tape.dtype)
        self.steps_back = None

    def start_back(self, tape):
        """Make the views of the backward pass, if it is the first."""
        if self.steps_back is not None:
            return
        _, _, H, _ = self.gates.shape
        self.slopes = tape.per_step(max(len(block) for block in tape.blocks), 5, H)
        self.dh, self.spare = tape.per_step(H), tape.per_step(H)
        dz = by_gate(tape.dz, 4)[:, self.rows]
        self.steps_back = [(slopes[0], slopes[1:4], slopes[4], self.gates[t, 2],
                            tape.dz[:, t], dz[0, :, t], dz[1:, :, t])
                           for block in tape.blocks for slopes, t in zip(self.slopes, block)]

    def to_differentiate(self, block):
        """Of the steps of ``block``: gates, tanh(c), and room for their slopes."""
        steps = slice(block.start, block.stop)
        return self.gates[steps], self.tanh_c[steps], self.slopes[:len(block)]


def cell_views(gates, products, c, tanh_c, h):
    """The arguments of ``cell``: views of ``gates`` (5, ...), which are o i f g and c₋₁, and of ``products`` (2, ...)."""
    return gates[:3], gates[3], gates[1:3], gates[3:], products, products[0], products[1], c, tanh_c, gates[0], h
