"""The layer contract and the shape legend, stated once.

The legend, used with the same letters in code, docstrings and tests:

    T  steps      B  streams     D  inputs     H  outputs (hidden)     V  symbols     N = T * B

Inside the network *streams are columns*: an activation is an array (features, T, B), of which one
step is a matrix (features, B) and the whole a matrix (features, N) with the element of step t and
stream b in column t*B + b, so that a layer reads as its equation, ``z = U @ x + W @ h + b``. In
memory the features of a column stand side by side, (T, B, features), which is Darknet's order
(:func:`activation_array`). The first layer's input is a :class:`OneHot`: integer symbols (T, B) that
stand for columns of zeros with a single one.

The contract. A layer owns four separate things:

* ``parameters`` (:class:`~pydarknet.optim.parameters.Parameter`: value and gradient) and ``statistics``;
* its recurrent state, per stream, carried from one call to the next (:meth:`Layer.state`);
* the tape that ``forward`` writes and ``backward`` reads, made once per shape (T, B);
* nothing else: no optimizer, no file.

``forward(x, train)`` returns the output; ``backward(dy)`` adds d(loss)/d(parameter) to the gradients
and returns d(loss)/d(input). Outputs are views into the tape, valid until the next ``forward``.
Gradients are of descent everywhere; Darknet's ascending ``delta`` is minus ours.
"""

import math
from typing import NamedTuple

import numpy as np

from pydarknet.darknet.dialect import PJREDDIE
from pydarknet.optim.parameters import Parameter


class OneHot:
    """Integer symbols (T, B) read as one-hot columns of ``size`` rows; never written out unless asked.

    ``ones`` (T, B), when given, holds what stands in place of the one of each column: dropout makes
    it 0 or 1 / (1 - p).
    """

    def __init__(self, symbols, size, ones=None):
        self.symbols = symbols
        self.size = size
        self.ones = ones
        self.shape = (size, *symbols.shape)

    def dense(self, dtype):
        """The array (size, T, B) of zeros and ones."""
        x = activation_array(*self.shape, dtype, make=np.zeros)
        flat(x)[self.symbols.reshape(-1), np.arange(self.symbols.size)] = 1 if self.ones is None else self.ones.reshape(-1)
        return x

    def compact(self):
        """The symbols that occur, ascending (V',), and the same columns as a OneHot of V' rows."""
        occurs = np.zeros(self.size, bool)
        occurs[self.symbols.reshape(-1)] = True
        used, row = np.flatnonzero(occurs), np.cumsum(occurs) - 1
        return used, OneHot(row[self.symbols], used.size, self.ones)


class Buffer:
    """Memory that is made once and used again for arrays of any shape that fits."""

    def __init__(self, dtype):
        self._memory = np.empty(0, dtype)

    def array(self, *shape):
        """An array of ``shape`` with arbitrary content, valid until the next call."""
        size = math.prod(shape)
        if self._memory.size < size:
            self._memory = np.empty(size, self._memory.dtype)
        return self._memory[:size].reshape(shape)

    def activation(self, features, T, B):
        """The same as an activation (features, T, B), in the order of :func:`activation_array`."""
        return self.array(T, B, features).transpose(2, 0, 1)


class Layer:
    """What every layer has. ``inputs`` and ``outputs`` are its numbers of features."""

    type = ""  # the cfg's section name
    takes_one_hot = False  # whether forward accepts a OneHot as it is
    gives_one_hot = False  # whether its output is a OneHot again

    def __init__(self, inputs, outputs, dtype=np.float32):
        self.inputs = inputs
        self.outputs = outputs
        self.state_size = outputs  # rows of each recurrent state
        self.dtype = np.dtype(dtype)
        self.dialect = PJREDDIE
        self.learning_rate = 1.0
        self.shares_units = False  # whether its recurrence can run on threads of our own (pydarknet.system.threads)
        self.dontload = self.dontsave = self.stopbackward = False
        self.parameters = []
        self.statistics = []
        self._state = {}

    def _parameter(self, name, shape, decayed):
        parameter = Parameter(name, shape, decayed, self.dtype)
        self.parameters.append(parameter)
        return parameter

    def forward(self, x, train=False):
        """The output (H, T, B) for the input ``x`` (D, T, B); with ``train`` the tape keeps what backward needs."""
        raise NotImplementedError

    def backward(self, dy, want_dx=True):
        """Add to the gradients; return d(loss)/d(input) (D, T, B), or None when it is not wanted.

        ``dy`` is d(loss)/d(output), (H, T, B), for the last ``forward``; the layer may overwrite it.
        """
        raise NotImplementedError

    def stepper(self, streams, one_hot):
        """A function ``step(x) -> y`` for one time step, (D, B) -> (H, B), that leaves no tape.

        With ``one_hot`` its ``x`` is the symbols (B,). The weights are prepared when the stepper is
        made, not when it is called, so it is for a network that is not being trained meanwhile. It
        reads and advances the layer's own state; the array it returns is overwritten by the next call.
        """
        raise NotImplementedError

    def _state_names(self):
        return ()

    @property
    def recurrent(self):
        """Whether it has a state."""
        return bool(self._state_names())

    def state(self, streams):
        """The recurrent state by name, each (state_size, B); it starts at zero when the number of streams is new."""
        for name in self._state_names():
            if name not in self._state or self._state[name].shape[1] != streams:
                self._state[name] = np.zeros((self.state_size, streams), self.dtype)
        return self._state

    def reset_state(self, stream=None):
        """Forget: set the state of one stream, or of all, to zero."""
        for array in self._state.values():
            array[:, slice(None) if stream is None else stream] = 0

    def swap_state(self, state):
        """Take ``state``, as :meth:`state` gives it, for the recurrent state; return the one before."""
        before, self._state = self._state, state
        return before

    @property
    def initial_draws(self):
        """How many random numbers Darknet draws to initialise this layer: one a weight, none for biases."""
        return sum(p.value.size for p in self.parameters if p.decayed)

    def stored(self, dialect):
        """What ``dialect``'s weights file keeps of this layer: :class:`Stored` arrays in the file's order."""
        return []


class Stored(NamedTuple):
    """One array of a weights file: its name (``wi.biases``) and the view that holds it."""

    name: str
    array: np.ndarray


class Matrix:
    """One of Darknet's connected layers: a weight matrix and what the file keeps with it, as views.

    ``weights`` (H, D) row-major, ``biases`` (H,) and, with batch norm, ``scales``, ``rolling_mean``
    and ``rolling_variance``, each (H,). ``rows`` picks a gate out of a fused matrix.
    """

    def __init__(self, name, weights, biases, norm=None, rows=slice(None)):
        self.name = name
        self._weights, self._biases, self._norm, self._rows = weights, biases, norm, rows

    @property
    def weights(self):
        return self._weights.value[self._rows]

    @property
    def biases(self):
        return self._biases.value[self._rows]

    @property
    def weight_gradients(self):
        return self._weights.gradient[self._rows]

    @property
    def bias_gradients(self):
        return self._biases.gradient[self._rows]

    @property
    def batch_normalize(self):
        return self._norm is not None

    @property
    def scales(self):
        return self._norm.scales.value[self._rows]

    @property
    def scale_gradients(self):
        return self._norm.scales.gradient[self._rows]

    @property
    def rolling_mean(self):
        return self._norm.rolling_mean.value[self._rows]

    @property
    def rolling_variance(self):
        return self._norm.rolling_variance.value[self._rows]

    def stored(self):
        """Biases, weights and, with batch norm, scales and rolling statistics (``save_connected_weights``)."""
        arrays = [("biases", self.biases), ("weights", self.weights)]
        if self.batch_normalize:
            arrays += [("scales", self.scales), ("rolling_mean", self.rolling_mean),
                       ("rolling_variance", self.rolling_variance)]
        return [Stored(f"{self.name}.{kind}", array) for kind, array in arrays]


def activation_array(features, T, B, dtype, make=np.empty):
    """An activation (features, T, B) with the features of each column side by side in memory.

    So each step is one run of memory, and all steps together are one matrix.
    """
    return make((T, B, features), dtype).transpose(2, 0, 1)


def flat(x):
    """The matrix (features, N) of an activation (features, T, B): the same memory."""
    return x.reshape(x.shape[0], -1)


def as_it_lies(x):
    """``x`` (..., H, B) with its axes as they lie in memory, (..., B, H): NumPy is twice as fast with small arrays then."""
    return x.swapaxes(-1, -2)


def by_gate(z, gates):
    """Rows of several gates (gates * H, ...) as an array (gates, H, ...): the same memory."""
    return z.reshape(gates, len(z) // gates, *z.shape[1:])


def by_part(matrix, gates, parts):
    """Rows in the order gate, part, unit (R, ...) as an array (parts, gates, H', ...): the same memory."""
    return matrix.reshape(gates, parts, len(matrix) // (gates * parts), *matrix.shape[1:]).swapaxes(0, 1)


def steps_per_block(T, B):
    """How many steps a recurrent layer treats at once outside its recurrence.

    Enough for a matrix product to run at full speed (256 columns) and few enough for the block to
    stay in the processor's cache.
    """
    return max(1, min(T, 256 // B))


def uniform_weights(random, weights):
    """Fill ``weights`` (H, D) as Darknet does: uniform in +-sqrt(2 / D) (``make_connected_layer``)."""
    bound = np.sqrt(2.0 / weights.shape[1])
    weights[...] = random.uniform(-bound, bound, weights.shape)
