"""The network: a cfg's sections as layers, run forward and backward as one.

See :mod:`pydarknet.layers.base` for the legend (T steps, B streams, V symbols, N = T * B) and the
layout of activations inside; what goes in and comes out here is Darknet's, (T, B) and (T, B, V).
"""

from contextlib import contextmanager, nullcontext
from numbers import Integral

import numpy as np

from pydarknet.darknet.cfg import parse_cfg
from pydarknet.darknet.dialect import PJREDDIE, Dialect
from pydarknet.darknet.randomness import generator
from pydarknet.darknet.weights import fits, read_header, read_weights, write_weights
from pydarknet.errors import InputError
from pydarknet.layers.base import OneHot
from pydarknet.layers.elementwise import Dropout
from pydarknet.layers.losses import Cost, Softmax, softmax
from pydarknet.layers.registry import Context, build_layer
from pydarknet.optim.optimizers import OptimizerOptions
from pydarknet.optim.parameters import ParameterBlock
from pydarknet.optim.schedules import Schedule
from pydarknet.system.memory import check_layer_memory
from pydarknet.system.threads import blas_threads, taking_over

# What Darknet reads from [net] for images; it means nothing for text.
IMAGE_KEYS = (
    "max_crop min_crop max_ratio min_ratio center angle aspect saturation exposure hue flip blur "
    "mixup cutmix mosaic mosaic_bound letter_box gaussian_noise notruth random clip"
).split()
JUMP = 1 / 64  # the chance of a stream to jump before a call: `rand() % 64 == 0` in Darknet
LARGE_PRODUCT = 1 << 25  # multiplications of W h in a step: from there threads of our own pay (benchmarks/README.md)
MOST_OWN_THREADS = 4  # on more cores it has not been measured
COLUMNS_AT_ONCE = 4096  # of predict: bounds its memory however long the text


class Network:
    """A recurrent network over V symbols, made of a cfg (see :func:`load_network`).

    Attributes: ``cfg``; ``layers``, the softmax and cost included; ``inputs`` V; ``streams`` B,
    ``time_steps`` T, ``subdivisions`` and ``jump`` of training; ``schedule`` and ``optimizer_options``;
    ``seen``, the samples trained on so far; ``dialect``; ``parameters`` (:class:`~pydarknet.optim.parameters.ParameterBlock`).
    """

    def __init__(self, cfg, batch=None, time_steps=None, dialect=PJREDDIE, srand=None, dtype=np.float32):
        net = cfg.net
        self.cfg = cfg
        self.dialect = dialect
        self.dtype = as_dtype(dtype)
        self.seen = 0
        self._read_sizes(net, batch, time_steps)
        self.schedule = Schedule.from_section(net)
        self.optimizer_options = OptimizerOptions.from_section(net)
        self.jump = net.number("jump", JUMP, minimum=0, maximum=1)
        net.ignore(*IMAGE_KEYS)
        check_layer_memory(cfg, self.inputs, self.dtype.itemsize)
        self._weights_random = generator(srand, "weights")
        self.dropout_random = generator(srand, "dropout")
        self._take(self._layers_of(dialect))
        cfg.warn_unused()

    def _layers_of(self, dialect):
        layers, inputs = [], self.inputs
        for section in self.cfg.layers:
            layer = build_layer(section, Context(inputs, self.dtype, dialect, self._weights_random, self.dropout_random))
            layers.append(layer)
            inputs = layer.outputs
        return layers

    def _take(self, layers):
        self.layers = layers
        self._take_end_off(self.cfg)
        self.parameters = ParameterBlock(layers, self.dtype)

    def _read_sizes(self, net, batch, time_steps):
        self.subdivisions = net.integer("subdivisions", 1, minimum=1)
        cfg_batch = net.integer("batch", 1, minimum=1)
        if cfg_batch % self.subdivisions:
            raise net.error(f"batch={cfg_batch} is not divisible by subdivisions={self.subdivisions}", "batch")
        cfg_steps = net.integer("time_steps", 1, minimum=1)
        for name, value in (("batch", batch), ("time_steps", time_steps)):
            if value is not None and not (isinstance(value, Integral) and value >= 1):
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1")
        self.streams = batch or cfg_batch // self.subdivisions
        self.time_steps = time_steps or cfg_steps
        image = [net.integer(key, 0, minimum=0) for key in ("height", "width", "channels")]
        self.inputs = net.integer("inputs", image[0] * image[1] * image[2], minimum=0)
        if self.inputs < 1:
            raise net.error("no `inputs`: give the number of symbols, `inputs=256` for bytes")

    def _take_end_off(self, cfg):
        """Split the layers into the body, which is run, and the end: softmax, perhaps cost."""
        body = list(self.layers)
        scale = body.pop().scale if body and isinstance(body[-1], Cost) else 0.0
        if not body or not isinstance(body[-1], Softmax):
            where = cfg.layers[-1] if cfg.layers else cfg.net
            raise where.error("the network must end in [softmax] (a [cost] may follow)")
        self._softmax = body.pop()
        self._loss_scale = scale if self._softmax.noloss else scale + 1.0
        self.body = body
        for layer, section in zip(self.layers, cfg.layers):
            if isinstance(layer, (Cost, Softmax)) and layer in body:
                raise section.error("only the end of the network may be a softmax or a cost")
        if self._softmax.outputs != self.inputs:
            section = cfg.layers[len(body)]
            raise section.error(
                f"{self._softmax.outputs} outputs come in, but the network has inputs={self.inputs}: "
                f"the layer before needs output={self.inputs}"
            )

    # Running

    def predict(self, symbols):
        """Probabilities of the next symbol, (T, B, V) float32, after each of the ``symbols``, integers (T, B).

        The recurrent state of the B streams is carried from call to call. Raises InputError for
        symbols that are not integers of 0..V-1 in two dimensions.
        """
        symbols = self._checked(symbols)
        T, B = symbols.shape
        out = np.empty((T, B, self.inputs), self.dtype)
        size = max(1, COLUMNS_AT_ONCE // max(B, 1))
        for t in range(0, T, size):
            piece = symbols[t : t + size]
            p = self._softmax.forward(self._forward(piece, train=False))
            out[t : t + size] = p.reshape(self.inputs, *piece.shape).transpose(1, 2, 0)
        return out

    def train_call(self, symbols, truth, each=False):
        """Forward and backward for ``symbols`` and the symbols that follow them, ``truth``, both (T, B).

        Adds d(loss)/d(parameter) to the gradients, advances ``seen`` by N and returns the loss: the
        cross-entropy in nats, summed over the N samples, or with ``each`` of each of them, (T, B)
        float64. Raises InputError as ``predict`` does.
        """
        symbols, truth = self.checked_pair(symbols, truth)
        shape, truth = truth.shape, truth.reshape(-1)
        x = self._forward(symbols, train=True)
        self._softmax.forward(x)
        loss = self._softmax.nats(x, truth).reshape(shape) if each else self._softmax.loss(truth)
        self._backward(self._softmax.backward_from_truth(truth, self._loss_scale).reshape(x.shape))
        self.seen += truth.size
        return loss

    def nats(self, symbols, truth):
        """-ln p of each symbol of ``truth``, which follow ``symbols``, both (T, B): (T, B) float64, in nats.

        The state is carried as in ``predict``, which it spares the (T, B, V) probabilities. Raises
        InputError as ``predict`` does.
        """
        symbols, truth = self.checked_pair(symbols, truth)
        return self._softmax.nats(self._forward(symbols, train=False), truth.reshape(-1)).reshape(truth.shape)

    def layer_output(self, number, symbols):
        """What layer ``number`` puts out after each of the ``symbols`` (T, B): (T, B, H), valid until the next call.

        The state of this layer and of those before it is carried as in ``predict``.
        """
        return self._forward(self._checked(symbols), train=False, layers=number + 1).transpose(1, 2, 0)

    def _forward(self, symbols, train, layers=None):
        x = OneHot(symbols, self.inputs)
        with self._threads(symbols.shape[1]):
            for layer in self.body[:layers]:
                if isinstance(x, OneHot) and not layer.takes_one_hot:
                    x = x.dense(self.dtype)
                x = layer.forward(x, train)
        return x.dense(self.dtype) if isinstance(x, OneHot) else x

    def _backward(self, dy):
        # `stopbackward` ends the way back before its own layer (Darknet's backward_network).
        first = max((n + 1 for n, layer in enumerate(self.body) if layer.stopbackward), default=0)
        with self._threads(dy.shape[2]):
            for layer in reversed(self.body[first:]):
                dy = layer.backward(dy, want_dx=layer is not self.body[first])
                if dy is None:
                    break

    def _threads(self, streams):
        """The context of the layers' work: whose threads share it out."""
        recurrent = [layer for layer in self.body if layer.recurrent]
        count = blas_threads() or 1
        suits = 1 < count <= MOST_OWN_THREADS and all(layer.shares_units and layer.outputs % count == 0 for layer in recurrent)
        large = any(4 * layer.outputs**2 * streams >= LARGE_PRODUCT for layer in recurrent)
        return taking_over() if suits and large else nullcontext()

    def _checked(self, symbols):
        try:
            symbols = np.asarray(symbols)
        except (ValueError, OverflowError):  # rows of different lengths, numbers beyond 64 bits
            raise InputError("symbols must be integers of shape (T, B)") from None
        if symbols.ndim != 2 or symbols.dtype.kind not in "iu" or not symbols.shape[1]:
            raise InputError(
                "symbols must be integers of shape (T, B) with at least one stream, "
                f"not {symbols.dtype} of shape {symbols.shape}"
            )
        if symbols.size and not 0 <= symbols.min() <= symbols.max() < self.inputs:
            bad = symbols.min() if symbols.min() < 0 else symbols.max()
            raise InputError(f"symbol {bad} is outside 0..{self.inputs - 1}: the cfg has inputs={self.inputs}")
        return symbols

    def checked_pair(self, symbols, truth):
        """The two as arrays of integers. Raises InputError if they aren't, are out of range, or differ in shape."""
        symbols, truth = self._checked(symbols), self._checked(truth)
        if symbols.shape != truth.shape:
            raise InputError(f"symbols {symbols.shape} and what follows them {truth.shape} must be of one shape (T, B)")
        return symbols, truth

    def stepper(self, streams=1, temperature=None):
        """A function of symbols (B,) that returns the probabilities (V, B) of what follows; fast for one step.

        It is for a network that is not trained meanwhile, advances the network's state, and its
        result is overwritten by the next call. ``temperature`` takes the place of the softmax's own.
        Numpy may warn of an "over": e⁻ᶻ of a gate that is shut (z < -88), whose σ is 0 then.
        """
        steps, one_hot = [], True
        for layer in self.body:
            if one_hot and not layer.takes_one_hot:
                steps.append(self._dense_column)
                one_hot = False
            steps.append(layer.stepper(streams, one_hot))
            one_hot = one_hot and layer.gives_one_hot
        if one_hot:
            steps.append(self._dense_column)
        temperature = self._softmax.temperature if temperature is None else temperature
        out = np.empty((self.inputs, streams), self.dtype)

        def step(symbols):
            x = symbols
            for layer_step in steps:
                x = layer_step(x)
            return softmax(x, temperature, out=out)

        return step

    def _dense_column(self, symbols):
        return OneHot(symbols[None], self.inputs).dense(self.dtype)[:, 0]

    def reset_state(self, stream=None):
        """Forget: set the recurrent state of one stream, or of all, to zero.

        Raises InputError for a stream beyond those of the last call.
        """
        for layer in self.body:
            try:
                layer.reset_state(stream)
            except IndexError:
                raise InputError(f"stream {stream} is beyond those of the last call") from None

    @contextmanager
    def side_state(self):
        """While it lasts the network has an empty recurrent state; then the one it had before is back."""
        kept = [layer.swap_state({}) for layer in self.layers]
        try:
            yield
        finally:
            for layer, state in zip(self.layers, kept):
                layer.swap_state(state)

    @contextmanager
    def part_of_streams(self, part):
        """While it lasts, calls are of these streams alone: ``part``, a slice of the network's B.

        Their states are views of the whole's, and dropout treats them as it would among the others.
        """
        whole = [
            layer.swap_state({name: array[:, part] for name, array in layer.state(self.streams).items()})
            for layer in self.layers
        ]
        dropouts = [layer for layer in self.layers if isinstance(layer, Dropout)]
        for layer in dropouts:
            layer.part = part, self.streams
        try:
            yield
        finally:
            for layer, state in zip(self.layers, whole):
                layer.swap_state(state)
            for layer in dropouts:
                layer.part = None

    # Files

    def load_weights(self, path, dialect=None):
        """Read a Darknet weights file; ``dialect`` overrides what its header says.

        The forks disagree about the state's size of an ``[rnn]`` without ``hidden``: if the file is for
        the other size, ``layers`` and ``parameters`` become new objects, so read it before making a
        trainer. Raises WeightsError, with the network as it was.
        """
        dialect = as_dialect(dialect) or read_header(path).dialect
        layers = self.layers
        sizes_differ = any(s.type == "rnn" and not s.has("hidden") for s in self.cfg.layers)
        if sizes_differ and dialect is not self.dialect and not fits(layers, path, dialect):
            layers = self._layers_of(dialect)
        header = read_weights(layers, path, dialect)
        if layers is not self.layers:
            self._take(layers)
        self.seen = header.seen
        self._set_dialect(dialect)

    def save_weights(self, path, dialect=None):
        """Write a Darknet weights file, atomically, in the network's dialect unless another is given."""
        write_weights(self.layers, path, self.seen, as_dialect(dialect) or self.dialect)

    def _set_dialect(self, dialect):
        self.dialect = dialect
        for layer in self.layers:
            layer.dialect = dialect


def load_network(cfg, weights=None, batch=None, time_steps=None, dialect=None, srand=None, dtype=np.float32):
    """The network of the cfg file ``cfg``, with the weights file ``weights`` when one is given.

    ``batch`` is the number of streams of a call, in place of the cfg's batch / subdivisions, and
    ``time_steps`` the number of steps. ``dialect`` ("pjreddie" or "alexeyab") overrides what the
    header of the weights says. ``srand`` seeds the initial weights and the dropout. Unknown keys of
    the cfg are warned about (CfgWarning). Raises CfgError, WeightsError or InputError.
    """
    dialect = as_dialect(dialect)
    parsed = parse_cfg(cfg)
    written_by = dialect or (read_header(weights).dialect if weights is not None else PJREDDIE)
    network = Network(parsed, batch, time_steps, written_by, srand, dtype)
    if weights is not None:
        network.load_weights(weights, dialect)
    return network


def as_dtype(dtype):
    """The numpy dtype float32 or float64. Raises InputError for any other."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise InputError(f"dtype {dtype!r} is neither float32 nor float64")
    return found


def as_dialect(name):
    """The :class:`~pydarknet.darknet.dialect.Dialect` called ``name``; None stays None. Raises InputError."""
    try:
        return None if name is None else Dialect(name)
    except ValueError:
        raise InputError(f"dialect {name!r} is not one of {', '.join(d.value for d in Dialect)}") from None
