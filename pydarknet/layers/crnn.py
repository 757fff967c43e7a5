"""Darknet's ``[crnn]`` on text: an :class:`~pydarknet.layers.rnn.RNN` whose three layers are convolutions.

A step of a text is an image of 1 x 1 pixels with D channels, and a 1 x 1 convolution of that is a
connected layer. What is left of the convolution is the order of the weights file. Source: AlexeyAB's
``src/crnn_layer.c`` and ``cfg/crnn.train.cfg``; pjreddie's fork has 3 x 3 kernels only.
"""

from pydarknet.layers.activations import activation_of
from pydarknet.layers.layer import Stored
from pydarknet.layers.rnn import RNN

SUPPORTED = ("a step of a text is one pixel, so only 1x1 kernels are supported: "
             "size=1, without padding, stride, groups or xnor")


class CRNN(RNN):
    """A recurrent layer of 1 x 1 convolutions; parameters and attributes are the RNN's."""

    type = "crnn"

    @classmethod
    def from_section(cls, section, context):
        for key in ("output_filters", "hidden_filters"):
            if section.has(key):
                raise section.error(f"{key} is for pjreddie's 3x3 kernels; {SUPPORTED}", key)
        size = section.integer("size", 3)
        if size != 1:
            default = "" if section.has("size") else ", the default"
            raise section.error(f"kernels of {size}x{size}{default}; {SUPPORTED}", "size")
        padding = section.integer("padding", 0)
        if not section.flag("pad") and padding:  # pad=1 means size / 2 instead, which is none
            raise section.error(f"padding={padding}; {SUPPORTED}", "padding")
        for key, only in (("stride", 1), ("groups", 1), ("xnor", 0)):
            value = section.integer(key, only)
            if value != only:
                raise section.error(f"{key}={value}; {SUPPORTED}", key)
        section.ignore("dilation")  # a single pixel has none
        return cls(context.inputs, section.integer("output", 1, minimum=1), section.integer("hidden", 1, minimum=1),
                   activation_of(section, "logistic"), shortcut=section.flag("shortcut"),
                   batch_normalize=section.flag("batch_normalize"), dtype=context.dtype)

    def stored(self, dialect):
        """Of each convolution: biases, batch norm, then weights (H, D, 1, 1) (``save_convolutional_weights``).

        The four dimensions also say that a transposed file (see :mod:`pydarknet.darknet.weights`) does not
        transpose these: Darknet does so with connected matrices only.
        """
        arrays = []
        for matrix in self.matrices.values():
            biases, weights, *norm = matrix.stored()
            arrays += [biases, *norm, Stored(weights.name, weights.array[:, :, None, None])]
        return arrays
