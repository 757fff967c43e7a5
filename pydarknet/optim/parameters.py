"""One block of values, one of gradients: every parameter of a network is a named view into both.

A layer makes its :class:`Parameter` objects with memory of their own, so that it works alone. A
network then gathers them with :class:`ParameterBlock`: the values move into one contiguous array,
the gradients into a second, the rolling statistics of batch norm into a third, and the layers' names
become views. An update is then a few operations on whole runs of the block, a gradient norm one dot
product, a checkpoint three arrays.
"""

from dataclasses import dataclass

import numpy as np


class Parameter:
    """A named array that training moves, and its gradient of the same shape.

    ``decayed`` says whether weight decay pulls it towards zero: Darknet decays weight matrices,
    never biases or scales (``update_connected_layer``).
    """

    def __init__(self, name, shape, decayed, dtype=np.float32):
        self.name = name
        self.decayed = decayed
        self.value = np.zeros(shape, dtype)
        self.gradient = np.zeros(shape, dtype)

    def __repr__(self):
        return f"Parameter({self.name!r}, {self.value.shape})"


class Statistic:
    """A named array that training measures rather than moves: the rolling mean or variance of a batch norm."""

    def __init__(self, name, shape, dtype=np.float32):
        self.name = name
        self.value = np.zeros(shape, dtype)

    def __repr__(self):
        return f"Statistic({self.name!r}, {self.value.shape})"


@dataclass(frozen=True)
class Group:
    """A contiguous run of the block whose parameters are updated alike."""

    run: slice
    decayed: bool
    learning_rate: float  # Darknet's `learning_rate` of a layer: a factor on the network's rate


class ParameterBlock:
    """The parameters and rolling statistics of all layers, moved into contiguous arrays.

    ``values`` and ``gradients`` are one-dimensional and of equal length; the layers' parameters are
    views into them, grouped by what the update does with them (:attr:`groups`): decayed matrices
    first, then the rest. ``statistics`` holds what batch norm has measured.
    """

    def __init__(self, layers, dtype):
        owned = [(p, layer.learning_rate) for layer in layers for p in layer.parameters]
        owned.sort(key=lambda pair: (not pair[0].decayed, pair[1]))  # stable: cfg order within a group
        self._parameters = [p for p, _ in owned]
        self.groups = []
        start = 0
        for parameter, learning_rate in owned:
            stop = start + parameter.value.size
            self._extend_groups(slice(start, stop), parameter.decayed, learning_rate)
            start = stop
        self.move_values(np.empty(start, dtype))
        self.move_gradients(np.empty(start, dtype))

        measured = [s for layer in layers for s in layer.statistics]
        self.statistics = np.zeros(sum(s.value.size for s in measured), dtype)
        start = 0
        for statistic in measured:
            view = self.statistics[start : start + statistic.value.size].reshape(statistic.value.shape)
            view[...] = statistic.value
            statistic.value = view
            start += view.size

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
        for parameter, view in self._views(memory):
            view[...] = parameter.value
            parameter.value = view

    def move_gradients(self, memory):
        """Make ``memory`` the home of the gradients."""
        self.gradients = memory
        for parameter, view in self._views(memory):
            view[...] = parameter.gradient
            parameter.gradient = view

    def _views(self, memory):
        start = 0
        for parameter in self._parameters:
            stop = start + parameter.value.size
            yield parameter, memory[start:stop].reshape(parameter.value.shape)
            start = stop

    def clear_gradients(self):
        """Set every gradient to zero: the layers' ``backward`` adds to them."""
        self.gradients.fill(0)

    def gradient_norm(self):
        """The Euclidean norm of the whole gradient."""
        return float(np.sqrt(np.dot(self.gradients, self.gradients)))
