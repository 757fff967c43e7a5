"""The table of layers, and the way from a cfg's sections to layers and a loss.

A new layer is a file with a class and a line in :data:`LAYERS`: the class reads its own section.
"""

import difflib
from dataclasses import dataclass, replace
from typing import Any

from pydarknet.darknet.dialect import Dialect
from pydarknet.layers.activation_layer import ActivationLayer
from pydarknet.layers.batchnorm import BatchNormLayer
from pydarknet.layers.connected import Connected
from pydarknet.layers.crnn import CRNN
from pydarknet.layers.dropout import Dropout
from pydarknet.layers.gru import GRU
from pydarknet.layers.layer import Layer
from pydarknet.layers.losses import read_loss
from pydarknet.layers.lstm import LSTM
from pydarknet.layers.rnn import RNN

LAYERS: list[type[Layer]] = [
    LSTM,
    GRU,
    RNN,
    CRNN,
    Connected,
    BatchNormLayer,
    Dropout,
    ActivationLayer,
]


LOSSES = {"softmax": "softmax", "soft": "softmax", "cost": "cost"}  # names and types of the sections that end a network

# Everything else that either fork's string_to_layer_type knows: layers for images.
UNSUPPORTED = frozenset(
    """
    avg avgpool contrastive conv conv_lstm convolutional crop deconv deconvolutional detection empty
    Gaussian_yolo history implicit iseg l2norm local local_avg local_avgpool logistic lrn max maxpool
    normalization region reorg reorg3d route sam scale_channels shortcut silence upsample yolo
    """.split()
)

FLAGS = ("dontload", "dontsave", "stopbackward")  # of every layer
OF_IMAGES = ("clip", "onlyforward", "smooth", "truth")  # which Darknet reads for every layer, and which mean nothing here


@dataclass(frozen=True)
class Context:
    """What building a layer needs beyond its section: the features that come in, and the network's own settings."""

    inputs: int
    dtype: Any
    dialect: Dialect
    dropout_random: Any = None


def split(cfg):
    """The sections of the layers, that of the softmax that ends the network, and that of the cost after it or None.

    Gives each section its canonical type. Raises CfgError for a section that is no layer of pydarknet, and when the
    network ends otherwise.
    """
    for section in cfg.layers:
        section.type = _type_of(section)
    body = list(cfg.layers)
    cost = body.pop() if body and body[-1].type == "cost" else None
    if not body or body[-1].type != "softmax":
        where = cfg.layers[-1] if cfg.layers else cfg.net
        raise where.error("the network must end in [softmax] (a [cost] may follow)")
    softmax = body.pop()
    for section in body:
        if section.type in LOSSES.values():
            raise section.error("only the end of the network may be a softmax or a cost")
    return body, softmax, cost


def section_types():
    """The names that a section may have in a cfg, abbreviations among them, each with its canonical type."""
    return {name: layer.type for layer in LAYERS for name in (layer.type, *layer.abbreviations)} | LOSSES


def _type_of(section):
    types = section_types()
    if section.name in types:
        return types[section.name]
    if section.name in UNSUPPORTED:
        raise section.error("is a Darknet layer not supported by pydarknet, "
                            "which has the recurrent ones and what goes with them")
    near = difflib.get_close_matches(section.name.lower()[:40], types, n=1)
    hint = f"is it [{near[0]}] that you mean?" if near else f"there are {', '.join(sorted(types))}"
    raise section.error(f"is not a section of Darknet: {hint}")


def build_layers(sections, context):
    """The layers of ``sections``, the first with the inputs of ``context``. They have taken no memory yet. Raises CfgError."""
    classes = {layer.type: layer for layer in LAYERS}
    layers = []
    for section in sections:
        layer = classes[section.type].from_section(section, context)
        layer.dialect = context.dialect
        # What Darknet's parse_network_cfg reads for every layer.
        layer.learning_rate = section.number("learning_rate", 1.0)
        if layer.input_weights is not None:  # our own: a column of a one-hot input's matrix learns only where its symbol stands
            layer.input_weights.rate = section.number("input_rate", 1.0, minimum=0)
        if layer.state_weights is not None:  # our own too
            layer.state_weights.dropout = section.number("weight_dropout", 0.0, minimum=0, maximum=0.99)
        layer.dontload, layer.dontsave, layer.stopbackward = (section.flag(key) for key in FLAGS)
        section.ignore(*OF_IMAGES)
        layers.append(layer)
        context = replace(context, inputs=layer.outputs)
    return layers


def build_loss(softmax, cost, outputs, inputs, dtype):
    """The loss of the sections ``softmax`` and ``cost`` (or None) after a last layer of ``outputs``. Raises CfgError."""
    if outputs != inputs:
        raise softmax.error(f"{outputs} outputs come in, but the network has inputs={inputs}: "
                            f"the layer before needs output={inputs}")
    for section in filter(None, (softmax, cost)):
        section.ignore("learning_rate", *FLAGS, *OF_IMAGES)
    return read_loss(softmax, cost, inputs, dtype)
