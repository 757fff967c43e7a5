"""Tools for weights files of recurrent networks: average, denormalize, partial, convert, statistics, ops.

Each function takes a loaded :class:`~pydarknet.network.Network`; the file formats are in
:mod:`pydarknet.darknet.weights`. Source: the commands of those names in Darknet's ``examples/darknet.c``,
which know connected and GRU layers, but neither LSTM nor RNN.
"""

import copy
import re
import warnings
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.darknet.weights import read_header, write_weights
from pydarknet.errors import CfgWarning, InputError, WeightsError
from pydarknet.network import Network
from pydarknet.system.files import reported, show, write_atomically


def check_complete(network):
    """Raise WeightsError unless all the weights came from the file.

    A layer with ``dontload=1`` has random ones, which a tool must not pass on for trained ones.
    """
    for section, layer in zip(network.cfg.layers, network.layers):
        if layer.dontload and not layer.dontsave and layer.stored(network.dialect):
            raise WeightsError(
                f"{section.path}:{section.line}: [{section.name}] dontload=1: these weights are not read, "
                "so there are none to write; take the line out, or add dontsave=1"
            )


def average(network, paths, dialect=None):
    """Give ``network`` the mean of all the numbers in the weights files ``paths``, each weighing the same.

    Unlike Darknet's it takes in every kind of layer, and the batch norm of each. ``seen`` becomes the
    first file's; ``dialect`` overrides what the headers say. Raises WeightsError for a file that does
    not fit, or is of another dialect than the first, InputError where there are none.
    """
    if not paths:
        raise InputError("no weights files to average: give at least one")
    sums: list[np.ndarray] = []
    for path in paths:
        if dialect is None and read_header(path).dialect is not read_header(paths[0]).dialect:
            raise WeightsError(f"{show(path)}: is of another dialect than {show(paths[0])}: convert one of them first")
        network.load_weights(path, dialect)
        # In float64, so that the mean of equal numbers is that number. They are not added to
        # zero, for 0 + -0 would be 0.
        values = [array.astype(np.float64) for array in _blocks(network)]
        if not sums:
            sums, seen = values, network.seen
        else:
            sums = [total + value for total, value in zip(sums, values)]
    network.seen = seen
    for array, total in zip(_blocks(network), sums):
        array[...] = total / len(paths)


def _blocks(network):
    return network.parameters.values, network.parameters.statistics


def denormalized(network):
    """A network without ``batch_normalize`` that computes what ``network`` does at inference.

    Of a matrix W with its bias b and its batch norm, y = scale (W x - mean) / d + b, it has the weights
    scale W / d and the bias b - scale mean / d, with d as in :mod:`pydarknet.layers.batchnorm`. A
    ``[batchnorm]`` section is a layer of its own and stays as it is, in Darknet also. (There
    d = √(variance + 1e-6), which is not what its networks compute with.)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CfgWarning)  # the network has been warned about already
        cfg = parse_cfg_text(network.cfg.as_text(), network.cfg.path)
        for section in cfg.layers:
            section.options.pop("batch_normalize", None)
        plain = Network(cfg, dialect=network.dialect, dtype=network.dtype)
    plain.seen = network.seen
    for layer, plain_layer in zip(network.layers, plain.layers):
        for name, matrix in layer.matrices.items():
            plain_matrix = plain_layer.matrices[name]
            plain_matrix.weights[...], plain_matrix.biases[...] = matrix.folded(network.dialect)
        if not layer.matrices:
            for stored, plain_stored in zip(layer.stored(network.dialect), plain_layer.stored(network.dialect)):
                plain_stored.array[...] = stored.array
    return plain


def write_denormalized_cfg(network, path):
    """Write the cfg of ``network`` to ``path``, unchanged but for settings and ``batch_normalize=0``. Raises WeightsError."""
    with reported(WeightsError, path, "cannot write the cfg"):
        if network.cfg.changed:
            cfg = copy.deepcopy(network.cfg)
            for number, section in enumerate(cfg.layers):
                if section.has("batch_normalize"):
                    cfg.set(f"{number}.batch_normalize=0")
            write_atomically(path, [cfg.text_as_set().encode("utf-8", "surrogateescape")])
            return
        with open(network.cfg.path, "rb") as file:
            pieces = re.split(rb"(\r\n|\r|\n)", file.read())  # lines and, between them, their ends
        for section in network.cfg.layers:
            if section.has("batch_normalize"):
                _, line = section.options["batch_normalize"]
                pieces[2 * (line - 1)] = b"batch_normalize=0"
        write_atomically(path, pieces)


def write_partial(network, path, count):
    """Write the weights of the first ``count`` layers, with ``seen`` 0 as Darknet does.

    Raises InputError for a count that the network does not have, WeightsError when it cannot be written.
    """
    if not 1 <= count <= len(network.cfg.layers):
        raise InputError(f"{count} layers: the network has from 1 to {len(network.cfg.layers)}")
    write_weights(network.layers[:count], path, 0, network.dialect)


def convert(network, path, dialect):
    """Write the weights to ``path`` in ``dialect``; return what :func:`differences` says of it.

    Raises WeightsError for what the dialect's file has no room for.
    """
    for number, layer in enumerate(network.layers):
        room = {name for name, _ in layer.stored(dialect)}
        for name, array in layer.stored(network.dialect):
            if name not in room and array.any():
                raise WeightsError(f"layer {number} [{layer.type}]: {name} has no place in a file of {dialect.value}")
    network.save_weights(path, dialect)
    return differences(network, dialect)


def differences(network, dialect):
    """Sentences that say where the network computes something else, or does not fit, when read as ``dialect``."""
    if dialect is network.dialect:
        return
    for number, (section, layer) in enumerate(zip(network.cfg.layers, network.layers)):
        for sentence in layer.differences(section, dialect):
            yield f"layer {number} [{section.name}]: {sentence}"


class Statistics(NamedTuple):
    """Of one stored array: the root of the mean square (Darknet prints it as MSE), mean, deviation and range."""

    layer: int
    type: str
    name: str
    size: int
    rms: float
    mean: float
    deviation: float
    least: float
    greatest: float


def statistics(network):
    """Yield :class:`Statistics` of everything that the weights file holds.

    Source: ``print_statistics``, which looks at the first H of a matrix's numbers only, and
    ``statistics_net``, which looks at layers with batch norm only.
    """
    for number, layer in enumerate(network.layers):
        for name, array in layer.stored(network.dialect):
            x = array.astype(np.float64)
            yield Statistics(
                number,
                layer.type,
                name,
                x.size,
                float(np.sqrt(np.mean(x * x))),
                float(x.mean()),
                float(x.std()),
                float(x.min()),
                float(x.max()),
            )


class Operations(NamedTuple):
    """Of one layer: its output (T, B, features) in training, the numbers it learns, and multiply-adds a character."""

    layer: int
    type: str
    shape: tuple
    parameters: int
    multiply_adds: int


def operations(network):
    """Yield :class:`Operations` of each layer.

    As in Darknet's ``numops`` only the products of matrices count, that of the first layer with its
    one-hot input also, although pydarknet looks it up; Darknet counts a multiply-add as two.
    """
    shape = network.time_steps, network.streams
    for number, (section, layer) in enumerate(zip_longest(network.cfg.layers, network.layers)):
        stored = layer.stored(network.dialect) if layer else []  # the softmax and the cost learn nothing
        learned = sum(array.size for name, array in stored if "rolling_" not in name)
        products = sum(array.size for _, array in stored if array.ndim > 1)
        yield Operations(number, section.type, (*shape, layer.outputs if layer else network.inputs), learned, products)
