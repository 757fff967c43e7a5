"""Darknet's ``[crnn]`` on text: an :class:`~pydarknet.layers.rnn.RNN` whose three layers are convolutions.

A step of a text is an image of 1 x 1 pixels with D channels, and a 1 x 1 convolution of that is a
connected layer. What is left of the convolution is the order of the weights file. Source: AlexeyAB's
``src/crnn_layer.c`` and ``cfg/crnn.train.cfg``; pjreddie's fork has 3 x 3 kernels only.
"""

from pydarknet.layers.base import Stored
from pydarknet.layers.rnn import RNN


class CRNN(RNN):
    """A recurrent layer of 1 x 1 convolutions; parameters and attributes are the RNN's."""

    type = "crnn"

    def stored(self, dialect):
        """Of each convolution: biases, batch norm, then weights (H, D, 1, 1) (``save_convolutional_weights``).

        The four dimensions also say that a transposed file (see :mod:`pydarknet.darknet.weights`) does not
        transpose these: Darknet does so with connected matrices only.
        """
        fields = []
        for layer in self._layers:
            biases, weights, *norm = layer.stored(dialect)
            fields += [biases, *norm, Stored(weights.name, weights.array[:, :, None, None])]
        return fields
