"""The layer contract and the shape legend, stated once.

The legend, used with the same letters in code, docstrings and tests:

    T  steps      B  streams     D  inputs     H  outputs (hidden)     V  symbols     N = T * B

*Shape is memory.* An activation is an array (T, B, features), C-contiguous: a step is one run of
memory, and element (t, b) stands at row t*B + b of the matrix (N, features), which is Darknet's order.
A product with a weight matrix U (H, D) is ``x @ U.T``, which the equations write U x. The first
layer's input is a :class:`OneHot`: integer symbols (T, B) that stand for rows of zeros with a single one.

The contract. A layer owns three separate things, and no optimizer and no file:

* ``parameters`` (:class:`~pydarknet.optim.parameters.Parameter`: value and gradient) and ``statistics``;
* its recurrent state, per stream, carried from one call to the next (:meth:`Layer.state`);
* the tape that ``forward`` fills and ``backward`` consumes, made once per shape (T, B).

``forward(x, train)`` returns the output; ``backward(dy)`` adds d(loss)/d(parameter) to the gradients
and returns d(loss)/d(input). Outputs are views into the tape, valid until the next ``forward``.
Gradients are of descent everywhere; Darknet's ascending ``delta`` is minus ours. Both methods are
handed the :class:`~pydarknet.system.threads.Team` of threads that shares out the work.

A new layer is one file with a subclass of :class:`Layer` and one line in :mod:`pydarknet.layers.registry`.
"""

import math
from typing import NamedTuple

import numpy as np

from pydarknet.darknet.dialect import PJREDDIE
from pydarknet.optim.parameters import Parameter
from pydarknet.system.threads import ALONE


class OneHot:
    """Integer symbols (T, B) read as one-hot rows of ``size`` numbers; they are never written out unless asked.

    ``ones`` (T, B), when given, holds what stands in place of each one: dropout makes it 0 or 1 / (1 - p).
    """

    def __init__(self, symbols, size, ones=None):
        self.symbols, self.size, self.ones = symbols, size, ones
        self.shape = (*symbols.shape, size)

    def dense(self, dtype):
        """The array (T, B, size) of zeros and ones."""
        x = np.zeros((self.symbols.size, self.size), dtype)
        x[np.arange(len(x)), self.symbols.reshape(-1)] = 1 if self.ones is None else self.ones.reshape(-1)
        return x.reshape(self.shape)


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


class Layer:
    """What every layer has. ``inputs`` and ``outputs`` are its numbers of features.

    Its parameters take memory when they are first read, or when a network gathers them: a layer that
    is only built says how large it would be.
    """

    type: str = ""  # the cfg's section name
    abbreviations: tuple[str, ...] = ()  # Darknet's other names for it
    takes_one_hot = False  # whether forward accepts a OneHot as it is
    gives_one_hot = False  # whether its output is a OneHot again
    draws = False  # whether it draws random numbers while training
    states: tuple[str, ...] = ()  # the names of its recurrent states

    def __init__(self, inputs, outputs, dtype=np.float32):
        self.inputs, self.outputs = inputs, outputs
        self.state_size = outputs  # features of each recurrent state
        self.dtype = np.dtype(dtype)
        self.dialect = PJREDDIE
        self.learning_rate = 1.0  # a factor on the network's
        self.dontload = self.dontsave = self.stopbackward = False
        self.streams_part = None  # where only a part of the streams is run: (their slice, the number of all)
        self.parameters, self.statistics = [], []
        self.input_weights = None  # the parameter that multiplies its input, if it has one
        self.state_weights = None  # and that which multiplies its state
        self.matrices = {}  # Darknet's connected layers by name, in the order of pjreddie's file
        self._state = {}

    @classmethod
    def from_section(cls, section, context):
        """The layer that a cfg's ``section`` describes, after the features and settings of ``context``
        (:class:`~pydarknet.layers.registry.Context`). Raises CfgError."""
        raise NotImplementedError

    def forward(self, x, train=False, team=ALONE):
        """The output (T, B, H) for the input ``x`` (T, B, D); with ``train`` the tape keeps what backward needs."""
        raise NotImplementedError

    def backward(self, dy, want_dx=True, team=ALONE):
        """Add to the gradients; return d(loss)/d(input) (T, B, D), or None when it is not wanted.

        ``dy`` is d(loss)/d(output), (T, B, H), for the last ``forward``; the layer may overwrite it.
        """
        raise NotImplementedError

    def stepper(self, streams, one_hot):
        """A function ``step(x) -> y`` for one time step, (B, D) -> (B, H), that leaves no tape.

        With ``one_hot`` its ``x`` is the symbols (B,). The weights are prepared when the stepper is
        made, not when it is called, so it is for a network that is not being trained meanwhile. It
        reads and advances the layer's own state; the array it returns is overwritten by the next call.
        """
        raise NotImplementedError

    def trace(self):
        """What a recurrent layer computed at each step of the last ``forward``, by name, each (T, B, state_size)."""
        raise NotImplementedError

    # Parameters

    def _parameter(self, name, shape, decayed, initial=0):
        parameter = Parameter(name, shape, decayed, self.dtype, initial)
        self.parameters.append(parameter)
        return parameter

    def initialize(self, random):
        """Draw the weights as Darknet does: uniform in +-sqrt(2 / D) (``make_connected_layer``); biases stay 0."""
        for matrix in self.matrices.values():
            bound = np.sqrt(2.0 / matrix.weights.shape[1])
            matrix.weights[...] = random.uniform(-bound, bound, matrix.weights.shape)

    def stored(self, dialect):
        """What ``dialect``'s weights file keeps of this layer: :class:`Stored` arrays in the file's order."""
        return [array for matrix in self.matrices.values() for array in matrix.stored()]

    @property
    def initial_draws(self):
        """How many random numbers Darknet draws to initialise this layer: one a weight, none for biases."""
        return sum(p.size for p in self.parameters if p.decayed)

    def tape_bytes(self, T, B):
        """Bytes that the tape keeps of T steps of B streams, at least; here those of the output."""
        return T * B * self.outputs * self.dtype.itemsize

    def differences(self, section, dialect):
        """Sentences that say what the layer, made from ``section``, computes differently when it is read as ``dialect``."""
        if self.statistics:
            yield "the epsilon of batch norm differs (1e-6 and 1e-5): the outputs change a little"

    def stop_drawing(self):
        """Train without random numbers from now on."""

    # State

    @property
    def recurrent_weights(self):
        """How many weights multiply its state at each step."""
        return 0

    @property
    def recurrent(self):
        """Whether it has a state."""
        return bool(self.states)

    def state(self, streams):
        """The recurrent state by name, each (B, state_size); it starts at zero when the number of streams is new."""
        for name in self.states:
            if name not in self._state or len(self._state[name]) != streams:
                self._state[name] = np.zeros((streams, self.state_size), self.dtype)
        return self._state

    def reset_state(self, stream=None):
        """Forget: set the state of ``stream``, an index or an array of them, or of all, to zero. Raises IndexError beyond the B
        streams of the last call."""
        for array in self._state.values():
            array[slice(None) if stream is None else stream] = 0

    def swap_state(self, state):
        """Take ``state``, as :meth:`state` gives it, for the recurrent state; return the one before."""
        before, self._state = self._state, state
        return before


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
        self.name, self.norm = name, norm
        self._weights, self._biases, self._rows = weights, biases, rows

    weights = property(lambda self: self._weights.value[self._rows])
    biases = property(lambda self: self._biases.value[self._rows])
    scales = property(lambda self: self.norm.scales.value[self._rows])
    rolling_mean = property(lambda self: self.norm.rolling_mean.value[self._rows])
    rolling_variance = property(lambda self: self.norm.rolling_variance.value[self._rows])

    def folded(self, dialect):
        """The weights and biases that compute at inference what these and batch norm do."""
        if self.norm is None:
            return self.weights, self.biases
        return self.norm.fold(self.weights, self.biases, dialect, self._rows)

    def stored(self):
        """Biases, weights and, with batch norm, scales and rolling statistics (``save_connected_weights``)."""
        kinds = ["biases", "weights"] + ["scales", "rolling_mean", "rolling_variance"] * (self.norm is not None)
        prefix = self.name and f"{self.name}."
        return [Stored(prefix + kind, getattr(self, kind)) for kind in kinds]


def flat(x):
    """The matrix (N, features) of an activation (T, B, features): the same memory."""
    return x.reshape(-1, x.shape[-1])
