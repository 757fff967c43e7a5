"""From a cfg's section to a layer: which class a section names, and which options it reads."""

from pydarknet.darknet.dialect import PJREDDIE
from pydarknet.layers.activations import ACTIVATIONS
from pydarknet.layers.batchnorm import BatchNormLayer
from pydarknet.layers.connected import Connected
from pydarknet.layers.crnn import CRNN
from pydarknet.layers.elementwise import ActivationLayer, Dropout
from pydarknet.layers.gru import GRU
from pydarknet.layers.losses import Cost, Softmax
from pydarknet.layers.lstm import LSTM
from pydarknet.layers.rnn import RNN

CRNN_SUPPORTED = ("a step of a text is one pixel, so only 1x1 kernels are supported: "
                  "size=1, without padding, stride, groups or xnor")


class Context:
    """What building a layer needs beyond its section: the features that come in, and the network's own."""

    def __init__(self, inputs, dtype, dialect, random, dropout_random):
        self.inputs = inputs
        self.dtype = dtype
        self.dialect = dialect
        self.random = random
        self.dropout_random = dropout_random


def build_layer(section, context):
    """The layer that ``section`` describes. Raises CfgError when the section does not make sense."""
    builder = BUILDERS.get(section.type)
    if builder is None:
        raise section.error("this layer is not built yet")
    layer = builder(section, context)
    layer.dialect = context.dialect
    _read_common_options(section, layer)
    return layer


def _read_common_options(section, layer):
    # What Darknet's parse_network_cfg reads for every layer.
    layer.learning_rate = section.number("learning_rate", 1.0)
    layer.dontload = section.flag("dontload")
    layer.dontsave = section.flag("dontsave")
    layer.stopbackward = section.flag("stopbackward")
    section.ignore("clip", "onlyforward", "smooth", "truth")


def _activation(section, default):
    return section.choice("activation", default, list(ACTIVATIONS))


def _lstm(section, context):
    return LSTM(context.inputs, section.integer("output", 1, minimum=1),
                batch_normalize=section.flag("batch_normalize"),
                dtype=context.dtype, random=context.random)


def _gru(section, context):
    return GRU(context.inputs, section.integer("output", 1, minimum=1), tanh=section.flag("tanh"),
               batch_normalize=section.flag("batch_normalize"),
               dtype=context.dtype, random=context.random)


def _rnn(section, context):
    outputs = section.integer("output", 1, minimum=1)
    # pjreddie's fork has no `hidden`, its state is as large as the output; AlexeyAB's default is 1.
    hidden = section.integer("hidden", outputs if context.dialect is PJREDDIE else 1, minimum=1)
    self_activation = (None, "logistic", "loggy")[section.integer("logistic", 0, minimum=0, maximum=2)]
    return RNN(context.inputs, outputs, hidden, _activation(section, "logistic"), self_activation,
               section.flag("shortcut"), section.flag("batch_normalize"),
               dtype=context.dtype, random=context.random)


def _crnn(section, context):
    for key in ("output_filters", "hidden_filters"):
        if section.has(key):
            raise section.error(f"{key} is for pjreddie's 3x3 kernels; {CRNN_SUPPORTED}", key)
    size = section.integer("size", 3)
    if size != 1:
        raise section.error(f"kernels of {size}x{size}{'' if section.has('size') else ', the default'}; "
                            f"{CRNN_SUPPORTED}", "size")
    padding = section.integer("padding", 0)
    if not section.flag("pad") and padding:  # pad=1 means size / 2 instead, which is none
        raise section.error(f"padding={padding}; {CRNN_SUPPORTED}", "padding")
    for key, only in (("stride", 1), ("groups", 1), ("xnor", 0)):
        value = section.integer(key, only)
        if value != only:
            raise section.error(f"{key}={value}; {CRNN_SUPPORTED}", key)
    section.ignore("dilation")  # of a single pixel there is none
    return CRNN(context.inputs, section.integer("output", 1, minimum=1), section.integer("hidden", 1, minimum=1),
                _activation(section, "logistic"), None,
                section.flag("shortcut"), section.flag("batch_normalize"),
                dtype=context.dtype, random=context.random)


def _batchnorm(section, context):
    return BatchNormLayer(context.inputs, dtype=context.dtype)


def _connected(section, context):
    return Connected(context.inputs, section.integer("output", 1, minimum=1),
                     activation=_activation(section, "logistic"),
                     batch_normalize=section.flag("batch_normalize"),
                     dtype=context.dtype, random=context.random)


def _dropout(section, context):
    return Dropout(context.inputs, section.number("probability", 0.5, minimum=0, maximum=1),
                   dtype=context.dtype, random=context.dropout_random)


def _activation_layer(section, context):
    return ActivationLayer(context.inputs, _activation(section, "linear"), dtype=context.dtype)


def _softmax(section, context):
    if section.integer("groups", 1) != 1:
        raise section.error("groups of symbols have no meaning for one true symbol at a time; remove the line", "groups")
    section.ignore("spatial")
    temperature = section.number("temperature", 1.0)
    if temperature <= 0:
        raise section.error("temperature must be above 0", "temperature")
    return Softmax(context.inputs, temperature, section.flag("noloss"), dtype=context.dtype)


def _cost(section, context):
    # Alike for probabilities and a truth without masked elements.
    section.choice("type", "sse", ["sse", "masked", "smooth"])
    section.ignore("ratio", "noobj", "thresh")
    return Cost(context.inputs, section.number("scale", 1.0), dtype=context.dtype)


BUILDERS = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn": _rnn,
    "crnn": _crnn,
    "connected": _connected,
    "batchnorm": _batchnorm,
    "dropout": _dropout,
    "activation": _activation_layer,
    "softmax": _softmax,
    "cost": _cost,
}
