"""The parameters of a network as named tensors: what the module, the ``.safetensors`` file and the graph have in common.

The names are PyTorch's, with ``layers.N.`` before each, N the number of the layer from 0. A tensor of a gated layer holds
the matrices of its gates one below the other, in the order ``i f g o`` or ``r z n``:

    lstm       weight_ih_l0 (4H, D)  weight_hh_l0 (4H, H)  bias_ih_l0 (4H)  bias_hh_l0 (4H), as of torch.nn.LSTM
    gru        weight_ih (3H, D)     weight_hh (3H, H)     bias_ih (3H)     bias_hh (3H), as no nn.GRU computes
    rnn, crnn  input.weight (H, D)   self.weight (H, H)    output.weight (O, H), each with a .bias
    connected  weight (H, D)         bias (H)
    batchnorm  scales (H)            bias (H)              rolling_mean (H)  rolling_variance (H)

With ``batch_normalize`` there are ``norm_ih.scales``, ``norm_ih.rolling_mean`` and ``norm_ih.rolling_variance``, and
``norm_hh``'s, of a gated layer, or ``norm.scales`` and so on beside a ``weight``. They are Darknet's own numbers, unfolded.
A new layer is an entry in :data:`NAMES`.
"""

import numpy as np

from pydarknet.darknet.dialect import Dialect
from pydarknet.errors import InputError, WeightsError

NORM = "scales", "rolling_mean", "rolling_variance"
PRODUCT = {"weight": ["weights"], "bias": ["biases"], **{f"norm.{kind}": [kind] for kind in NORM}}


def _gated(gates, suffix):
    """The names of a layer with ``gates``, Darknet's letters in PyTorch's order: u takes x, w takes h."""
    names: dict[str, list[str]] = {}
    for side, letter in (("ih", "u"), ("hh", "w")):
        kinds = {f"weight_{side}{suffix}": "weights", f"bias_{side}{suffix}": "biases"}
        kinds |= {f"norm_{side}.{kind}": kind for kind in NORM}
        names |= {name: [f"{letter}{gate}.{kind}" for gate in gates] for name, kind in kinds.items()}
    return names


_RNN = {f"{part}.{name}": [f"{part}.{kind}"] for part in ("input", "self", "output") for name, (kind,) in PRODUCT.items()}

NAMES: dict[str, dict[str, list[str]]] = {  # by layer type, each tensor's name and which arrays of the weights file it holds
    "lstm": _gated("ifgo", "_l0"),
    "gru": _gated("rzh", ""),
    "rnn": _RNN,
    "crnn": _RNN,
    "connected": PRODUCT,
    "batchnorm": {"bias": ["biases"], **{kind: [kind] for kind in NORM}},
    "dropout": {},
    "activation": {},
}


def views(network):
    """Yield (name, arrays): a tensor and the network's own arrays that it holds, each as a matrix or a vector."""
    for number, layer in enumerate(network.layers):
        if layer.type not in NAMES:
            raise InputError(f"layer {number} [{layer.type}]: there is no export of this layer")
        # A file of pjreddie's has no room for the biases of a [batchnorm]; a tensor has.
        stored = {name: array for dialect in Dialect for name, array in layer.stored(dialect)}
        for name, held in NAMES[layer.type].items():
            if held[0] in stored:
                yield f"layers.{number}.{name}", [_matrix(stored[each]) for each in held]


def _matrix(array):
    return array[:, :, 0, 0] if array.ndim == 4 else array  # a crnn's 1x1 kernels


def tensors(network):
    """{name: array} of all parameters and rolling statistics; the arrays are copies. Raises InputError."""
    return {name: np.concatenate(arrays) for name, arrays in views(network)}


def take(network, given, source):
    """Set the parameters of ``network`` to the tensors ``given``, {name: array}, which messages say are of ``source``.

    Raises WeightsError, with the network as it was, for a tensor that is missing, unknown, of another shape, or not finite.
    """
    held = dict(views(network))
    checked = {}
    for name, arrays in held.items():
        if name not in given:
            raise WeightsError(f"{source}: has no tensor {name}, which the network needs: is it of another cfg?")
        checked[name] = _checked(name, given[name], (sum(map(len, arrays)), *arrays[0].shape[1:]), source)
    for name in given:
        if name not in held:
            raise WeightsError(f"{source}: tensor {name} has no place in the network: is it of another cfg?")
    for name, arrays in held.items():
        row = 0
        for array in arrays:
            array[...] = checked[name][row : row + len(array)]
            row += len(array)


def _checked(name, array, shape, source):
    if array.shape != shape:
        raise WeightsError(f"{source}: tensor {name} has the shape {array.shape}, the network needs {shape}: of another cfg?")
    if array.dtype.kind != "f":
        raise WeightsError(f"{source}: tensor {name} is of {array.dtype}: it must hold floating-point numbers")
    with np.errstate(over="ignore"):  # what is too large for a float32 becomes infinite, which the next line tells
        finite = np.isfinite(array.astype(np.float32)).all()
    if not finite:
        raise WeightsError(f"{source}: tensor {name} holds numbers that are not finite: is it of a run that diverged?")
    if name.endswith("rolling_variance") and (array < 0).any():
        raise WeightsError(f"{source}: tensor {name} holds numbers below 0, which no variance is")
    return array
