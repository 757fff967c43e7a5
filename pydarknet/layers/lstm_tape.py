"""The memory of the LSTM's forward and backward pass: which arrays there are, how they lie, and which thread has which.

The equations are in :mod:`pydarknet.layers.lstm`; why the layout is as it is says :mod:`pydarknet.layers.tape`.
"""

import numpy as np

from pydarknet.layers.base import Buffer
from pydarknet.layers.tape import Tape


class LSTMTape(Tape):
    """The tape of an LSTM, with its units shared out to ``count`` :attr:`parts`."""

    def __init__(self, layer, T, B, stackable, count):
        super().__init__(layer, T, B, rows=4 * layer.outputs, stackable=stackable)
        size = self.H // count
        self.parts = [Part(self, slice(start, start + size)) for start in range(0, self.H, size)]
        self._input_weights = Buffer(self.dtype)

    def fits(self, T, B, stackable, count):
        return super().fits(T, B, stackable) and len(self.parts) == count

    def share_out(self, scale, *matrices):
        """``matrices``, each (4H, any) times ``scale`` (4H, 1), side by side, a part's rows together: (parts, R', columns).

        With all units in one part, [W b U] as the equations have it. Valid until :meth:`transposed`.
        """
        return self._share_out(self._weights, scale, *matrices)

    def share_out_input(self, scale, U):
        """The same of a ``U`` that is not stacked."""
        return self._share_out(self._input_weights, scale, U)

    def _share_out(self, buffer, scale, *matrices):
        parts, columns = len(self.parts), sum(matrix.shape[1] for matrix in matrices)
        out = buffer.array(parts, 4, self.H // parts, columns)
        start = 0
        for matrix in matrices:
            stop = start + matrix.shape[1]
            # Rows in the order gate, part, unit become rows in the order part, gate, unit.
            by_gate, scales = (a.reshape(4, parts, self.H // parts, -1) for a in (matrix, scale))
            np.multiply(by_gate, scales, out=out[..., start:stop].swapaxes(0, 1))
            start = stop
        return out.reshape(parts, -1, columns)

    def start_back(self):
        """Make the parts ready for the way back; return dh and dc of after the end: zeros."""
        for part in self.parts:
            part.start_back(self)
        return np.zeros((self.H, self.B), self.dtype), np.zeros((self.H, self.B), self.dtype)


class Part:
    """What a tape keeps of the units ``rows``: per step the gates o i f g and the cell before it, c₋₁; and tanh(c).

    One thread computes the steps of one part; as a rule all units are one part.
    """

    def __init__(self, tape, rows):
        T, B, H = tape.T, tape.B, rows.stop - rows.start
        self.rows = rows
        self.gates = tape.empty(T + 1, 5, H, B)
        self.tanh_c = tape.empty(T, H, B)
        self.products = tape.empty(2, H, B)
        self.c = [gates[4] for gates in self.gates]  # c[t] is the cell before step t
        self.cells = [(*cell_views(self.gates[t]), self.products, self.c[t + 1], self.tanh_c[t], tape.h[rows, t + 1])
                      for t in range(T)]
        self.z = [views[0] for views in self.cells]
        self.outputs = Buffer(tape.dtype)
        self.steps_back = None

    def start_back(self, tape):
        """Make the views of the backward pass, if it is the first."""
        if self.steps_back is not None:
            return
        _, _, H, B = self.gates.shape
        self.slopes = tape.empty(max(len(block) for block in tape.blocks), 5, H, B)
        self.dh, self.spare = tape.empty(H, B), tape.empty(H, B)
        dz = tape.dz.reshape(4, tape.H, tape.T, B)[:, self.rows]
        self.steps_back = [(slopes[0], slopes[1:4], slopes[4], self.gates[t, 2],
                            tape.dz[:, t], dz[0, :, t], dz[1:, :, t])
                           for block in tape.blocks for slopes, t in zip(self.slopes, block)]

    def to_differentiate(self, block):
        """Of the steps of ``block``: gates, tanh(c), and room for their slopes."""
        steps = slice(block.start, block.stop)
        return self.gates[steps], self.tanh_c[steps], self.slopes[:len(block)]


def cell_views(gates):
    """The first arguments of ``cell``, z oif i_f g_c_ o, in an array (5, H, B): o i f g and c₋₁."""
    _, H, B = gates.shape
    return gates[:4].reshape(4 * H, B), gates[:3], gates[1:3], gates[3:], gates[0]
