"""One block of values, one of gradients: every parameter of a network is a named view into both.

A layer declares :class:`Parameter` objects: names and shapes. A network then gathers them with
:class:`ParameterBlock`: the values lie in one contiguous array, the gradients in a second, the rolling
statistics of batch norm in a third, and the layers' names are views. An update is then a few operations
on whole runs of the block, a gradient norm one dot product, a checkpoint three arrays.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


class Statistic:
    """A named array that training measures rather than moves: the rolling mean or variance of a batch norm.

    It takes memory of its own, filled with ``initial``, when it is first read, unless a block has given it a home by then.
    """

    def __init__(self, name, shape, dtype=np.float32, initial=0):
        self.name, self.shape, self.size = name, shape, math.prod(shape)
        self.dtype, self.initial = np.dtype(dtype), initial
        self._value = None

    @property
    def value(self):
        if self._value is None:
            self._value = np.full(self.shape, self.initial, self.dtype)
        return self._value

    @value.setter
    def value(self, array):  # also of `value += ...`
        self.value[...] = array

    def move_value(self, home):
        """Make ``home``, an array of as many numbers, the memory of the value."""
        home = home.reshape(self.shape)
        home[...] = self.initial if self._value is None else self._value
        self._value = home

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r}, {self.shape})"


class Parameter(Statistic):
    """A named array that training moves, and its gradient of the same shape.

    ``decayed`` says whether weight decay pulls it towards zero: Darknet decays weight matrices,
    never biases or scales (``update_connected_layer``). ``rate`` is a factor on the layer's own,
    and ``dropout`` the probability of each of its numbers to be left out of an update.
    """

    def __init__(self, name, shape, decayed, dtype=np.float32, initial=0):
        super().__init__(name, shape, dtype, initial)
        self.decayed, self.rate, self.dropout = decayed, 1.0, 0.0
        self._gradient = None

    @property
    def gradient(self):
        if self._gradient is None:
            self._gradient = np.zeros(self.shape, self.dtype)
        return self._gradient

    @gradient.setter
    def gradient(self, array):
        self.gradient[...] = array

    def move_gradient(self, home):
        """Make ``home`` the memory of the gradient."""
        home = home.reshape(self.shape)
        home[...] = 0 if self._gradient is None else self._gradient
        self._gradient = home


@dataclass(frozen=True)
class Group:
    """A contiguous run of the block whose parameters are updated alike."""

    run: slice
    decayed: bool
    learning_rate: float  # a factor on the network's rate: Darknet's `learning_rate` of a layer, times the parameter's own


class ParameterBlock:
    """The parameters and rolling statistics of all layers, moved into contiguous arrays.

    ``values`` and ``gradients`` are one-dimensional and of equal length; the layers' parameters are
    views into them, grouped by what the update does with them (:attr:`groups`): decayed matrices
    first, then the rest. ``statistics`` holds what batch norm has measured.
    """

    def __init__(self, layers, dtype):
        owned = [(p, layer.learning_rate * p.rate) for layer in layers for p in layer.parameters]
        owned.sort(key=lambda pair: (not pair[0].decayed, pair[1]))  # stable: cfg order within a group
        self._parameters = [p for p, _ in owned]
        self.groups = []
        self._thinned = []  # (run, dropout) of the parameters that have some
        self.begun = 0  # how often the gradients were cleared: in between, whoever sums them leaves the values alone
        start = 0
        for parameter, learning_rate in owned:
            run = slice(start, start + parameter.size)
            self._extend_groups(run, parameter.decayed, learning_rate)
            if parameter.dropout:
                self._thinned.append((run, parameter.dropout))
            start += parameter.size
        self.move_values(np.empty(start, dtype))
        self.move_gradients(np.empty(start, dtype))
        measured = [s for layer in layers for s in layer.statistics]
        self.statistics = np.empty(sum(s.size for s in measured), dtype)
        _move(Statistic.move_value, measured, self.statistics)

    def _extend_groups(self, run, decayed, learning_rate):
        if self.groups:
            last = self.groups[-1]
            if (last.decayed, last.learning_rate) == (decayed, learning_rate):
                self.groups[-1] = Group(slice(last.run.start, run.stop), decayed, learning_rate)
                return
        self.groups.append(Group(run, decayed, learning_rate))

    def move_values(self, memory):
        """Make ``memory``, an array of the block's length, the home of the values."""
        self.values = memory
        _move(Statistic.move_value, self._parameters, memory)

    def move_gradients(self, memory):
        """Make ``memory`` the home of the gradients."""
        self.gradients = memory
        _move(Parameter.move_gradient, self._parameters, memory)

    def clear_gradients(self):
        """Set every gradient to zero: the layers' ``backward`` adds to them."""
        self.gradients.fill(0)
        self.begun += 1

    @property
    def thinned_bytes(self):
        """What :meth:`thinned` keeps: the values of before, and the mask."""
        return 2 * sum(self.values[run].nbytes for run, _ in self._thinned)

    @contextmanager
    def thinned(self, random):
        """While it lasts, numbers that ``random``, a numpy Generator, picks are zero: DropConnect, for the calls of one update.

        w' = w ∘ m with m = 0 with probability p, else 1 / (1 - p); at the end the values are as they were, and the gradient,
        which is that of w', becomes that of w: dw = dw' ∘ m. p is the parameter's ``dropout``. Sources: L. Wan et al.,
        "Regularization of neural networks using DropConnect", 2013; S. Merity et al., "Regularizing and optimizing LSTM
        language models", 2018, who drop weights of the matrix that multiplies the state.
        """
        kept = []
        for run, p in self._thinned:
            values = self.values[run]
            mask = (random.random(values.size, dtype=np.float32) >= p) * values.dtype.type(1 / (1 - p))
            kept.append((run, values.copy(), mask))
        try:
            for run, _, mask in kept:
                self.values[run] *= mask
            yield
        finally:  # in what memory is theirs by then
            for run, values, _ in kept:
                self.values[run] = values
        for run, _, mask in kept:
            self.gradients[run] *= mask

    def gradient_of(self, array):
        """The gradient of ``array``, a contiguous part of the values."""
        start = (array.ctypes.data - self.values.ctypes.data) // self.values.itemsize
        return self.gradients[start : start + array.size].reshape(array.shape)

    def gradient_norm(self):
        """The Euclidean norm of the whole gradient."""
        with np.errstate(over="ignore"):
            square = float(np.dot(self.gradients, self.gradients))
        if square < np.finfo(self.gradients.dtype).max:
            return math.sqrt(square)
        return float(np.linalg.norm(self.gradients.astype(np.float64)))  # the squares of float32 overflow at 1e19


def _move(move, owners, memory):
    """Give the arrays of ``owners`` their homes in ``memory``, one after the other."""
    start = 0
    for owner in owners:
        move(owner, memory[start : start + owner.size])
        start += owner.size
