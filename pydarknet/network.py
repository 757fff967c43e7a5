"""The network: a cfg's sections as layers, run forward and backward as one.

See :mod:`pydarknet.layers.layer` for the legend (T steps, B streams, V symbols, N = T * B) and the shape of arrays.
"""

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from pydarknet.darknet.cfg import Cfg, parse_cfg
from pydarknet.darknet.dialect import PJREDDIE, Dialect
from pydarknet.darknet.randomness import check_state, generator, is_whole
from pydarknet.darknet.weights import fits, is_written, read_header, read_weights, write_weights
from pydarknet.errors import InputError
from pydarknet.layers.layer import OneHot
from pydarknet.layers.losses import softmax
from pydarknet.layers.registry import Context, build_layers, build_loss, split
from pydarknet.optim.optimizers import OptimizerOptions
from pydarknet.optim.parameters import ParameterBlock
from pydarknet.optim.schedules import Schedule
from pydarknet.sharing import ONE_THREAD, Sharing, sharing_of_a_call
from pydarknet.system.files import show
from pydarknet.system.memory import check_layer_memory
from pydarknet.system.threads import blas_limited, team_of
from pydarknet.traces import Trace
from pydarknet.traces import trace as traced

# What Darknet reads from [net] for images; it means nothing for text.
IMAGE_KEYS = (
    "max_crop min_crop max_ratio min_ratio center angle aspect saturation exposure hue flip blur "
    "mixup cutmix mosaic mosaic_bound letter_box gaussian_noise notruth random clip"
).split()
JUMP = 1 / 64  # the chance of a stream to jump before a call: `rand() % 64 == 0` in Darknet
Path = str | bytes | os.PathLike
ROWS_AT_ONCE = 4096  # of predict: bounds its memory however long the text


class Network:
    """A recurrent network over V symbols, made of a cfg (see :func:`load_network`).

    Attributes: ``cfg``; ``layers``, and the ``loss`` after them; ``inputs`` V; ``streams`` B,
    ``time_steps`` T, ``subdivisions`` and ``jump`` of training; ``schedule`` and ``optimizer_options``;
    ``seen``, the samples trained on so far; ``dialect``; ``parameters`` (:class:`~pydarknet.optim.parameters.ParameterBlock`);
    ``sharing`` (:class:`~pydarknet.sharing.Sharing`), who shares out the work of a call: None for what suits its size.
    """

    def __init__(
        self,
        cfg: Cfg,
        batch: int | None = None,
        time_steps: int | None = None,
        dialect: Dialect = PJREDDIE,
        srand: int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        net = cfg.net
        self.cfg = cfg
        self.dialect = dialect
        self.dtype = as_dtype(dtype)
        self.seen = 0
        self.sharing: Sharing | None = None
        self.streams_here: int | None = None  # of those that training runs in this process, where other hosts run the rest
        self._read_sizes(net, batch, time_steps)
        self.schedule = Schedule.from_section(net)
        self.optimizer_options = OptimizerOptions.from_section(net)
        self.jump = net.number("jump", JUMP, minimum=0, maximum=1)
        net.ignore(*IMAGE_KEYS)
        self._weights_random = generator(srand, "weights")
        self.dropout_random = generator(srand, "dropout")
        self._build(dialect)
        cfg.warn_unused()

    def _build(self, dialect):
        sections, softmax_section, cost_section = split(self.cfg)
        self.layers = build_layers(sections, Context(self.inputs, self.dtype, dialect, self.dropout_random))
        check_layer_memory(sections, self.layers)
        outputs = self.layers[-1].outputs if self.layers else self.inputs
        self.loss = build_loss(softmax_section, cost_section, outputs, self.inputs, self.dtype)
        self.parameters = ParameterBlock(self.layers, self.dtype)
        for layer in self.layers:
            layer.initialize(self._weights_random)

    def _read_sizes(self, net, batch, time_steps):
        self.subdivisions = net.integer("subdivisions", 1, minimum=1)
        cfg_batch = net.integer("batch", 1, minimum=1)
        if cfg_batch % self.subdivisions:
            raise net.error(f"batch={cfg_batch} is not divisible by subdivisions={self.subdivisions}", "batch")
        cfg_steps = net.integer("time_steps", 1, minimum=1)
        for name, value in (("batch", batch), ("time_steps", time_steps)):
            if value is not None and not (is_whole(value) and value >= 1):
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1")
        self.streams = batch or cfg_batch // self.subdivisions
        self.time_steps = time_steps or cfg_steps
        image = [net.integer(key, 0, minimum=0) for key in ("height", "width", "channels")]
        self.inputs = net.integer("inputs", image[0] * image[1] * image[2], minimum=0)
        if self.inputs < 1:
            raise net.error("no `inputs`: give the number of symbols, `inputs=256` for bytes")

    def __repr__(self) -> str:
        """A table: each layer with its shape and how many numbers it learns."""
        shape = f"{self.time_steps} steps x {self.streams} streams"
        rows = [("layer", "type", "in", "out", "parameters")]
        for number, layer in enumerate(self.layers):
            learned = sum(parameter.size for parameter in layer.parameters)
            rows.append((str(number), layer.type, str(layer.inputs), str(layer.outputs), f"{learned:,}"))
        rows.append(("", "total", "", "", f"{self.parameters.values.size:,}"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
        head = f"Network of {show(self.cfg.path)}: {self.inputs} symbols, {shape}, {self.seen:,} characters seen"
        return "\n".join([head, *lines])

    # Running

    def generate(self, seed: str | bytes = "", length: int = 1000, **options: Any) -> str:
        """Text that goes on from ``seed``, ``length`` characters of it, without the seed: a ``str`` of a network over bytes.

        ``options`` are ``srand`` and those of :class:`pydarknet.inference.sample.Sampling`: ``temperature``, ``top_k`` and so
        on. The network's own recurrent state stays as it is. Raises InputError.
        """
        from pydarknet.inference.sample import generate_text  # it is one floor up: what uses a trained network

        return generate_text(self, seed, length, **options)

    def predict(self, symbols: Any) -> np.ndarray:
        """Probabilities of the next symbol, (T, B, V) float32, after each of the ``symbols``, integers (T, B).

        The recurrent state of the B streams is carried from call to call. Raises InputError for
        symbols that are not integers of 0..V-1 in two dimensions.
        """
        symbols = self._checked(symbols, least_steps=0)
        T, B = symbols.shape
        out = np.empty((T, B, self.inputs), self.dtype)
        size = max(1, ROWS_AT_ONCE // B)
        for t in range(0, T, size):
            out[t : t + size] = self.loss.probabilities(self._forward(symbols[t : t + size]))
        return out

    def train_call(self, symbols: Any, truth: Any, each: bool = False) -> Any:
        """Forward and backward for ``symbols`` and the symbols that follow them, ``truth``, both (T, B).

        Adds d(loss)/d(parameter) to the gradients, advances ``seen`` by N and returns the loss: the
        cross-entropy in nats, summed over the N samples, or with ``each`` of each of them, (T, B)
        float64. Raises InputError as ``predict`` does, and for T = 0.
        """
        symbols, truth = self.checked_pair(symbols, truth)
        with self._team(symbols, train=True) as team:
            x = self._forward_layers(symbols, True, team)
            nats, dy = self.loss.nats_and_gradient(x, truth)
            self._backward(dy, team)
        self.seen += truth.size
        return nats if each else float(nats.sum())

    def nats(self, symbols: Any, truth: Any) -> np.ndarray:
        """-ln p of each symbol of ``truth``, which follow ``symbols``, both (T, B): (T, B) float64, in nats.

        The state is carried as in ``predict``, which it spares the (T, B, V) probabilities. Raises
        InputError as ``train_call`` does.
        """
        symbols, truth = self.checked_pair(symbols, truth)
        return self.loss.nats(self._forward(symbols), truth)

    def layer_output(self, number: int, symbols: Any) -> np.ndarray:
        """What layer ``number`` puts out after each of the ``symbols`` (T, B): (T, B, H), valid until the next call.

        The state of this layer and of those before it is carried as in ``predict``.
        """
        return self._forward(self._checked(symbols), layers=number + 1)

    def trace(self, text: str | bytes | Any, names: Any = None) -> Trace:
        """What each recurrent layer computes while the network reads ``text``, by layer and name: ``trace[0]["h"]``, (T, H).

        ``text`` is a string (its UTF-8 is read), bytes, or integers (T,). The names are those of
        :class:`~pydarknet.traces.Trace`: i, f, o, g, c, tanh_c and h of an LSTM, r, z, q and h of a GRU, h of an RNN; with
        ``names`` only these are kept. It starts with an empty state, and the network's own is left as it was. Raises
        InputError as ``predict`` does.
        """
        return traced(self, text, names)

    def _forward(self, symbols, layers=None):
        with self._team(symbols) as team:
            return self._forward_layers(symbols, False, team, layers)

    def _forward_layers(self, symbols, train, team, layers=None):
        x = OneHot(symbols, self.inputs)
        for layer in self.layers[:layers]:
            if isinstance(x, OneHot) and not layer.takes_one_hot:
                x = x.dense(self.dtype)
            x = layer.forward(x, train, team)
        return x.dense(self.dtype) if isinstance(x, OneHot) else x

    def _backward(self, dy, team):
        # `stopbackward` ends the way back before its own layer (Darknet's backward_network).
        first = max((n + 1 for n, layer in enumerate(self.layers) if layer.stopbackward), default=0)
        for layer in reversed(self.layers[first:]):
            dy = layer.backward(dy, layer is not self.layers[first], team)
            if dy is None:
                break

    @contextmanager
    def _team(self, symbols, train=False):
        """The threads that share out a call; while it lasts the matrix library keeps to one (:mod:`pydarknet.sharing`)."""
        sharing = self.sharing or sharing_of_a_call(self.layers, symbols.shape[1], train)
        with blas_limited(1), team_of(sharing.threads) as team:
            if team.count < sharing.threads:
                warnings.warn("no more threads can be started: one does all the work", stacklevel=5)
                self.sharing = ONE_THREAD
            yield team

    def _checked(self, symbols: Any, least_steps: int = 1) -> np.ndarray:
        try:
            symbols = np.asarray(symbols)
        except (ValueError, OverflowError):  # rows of different lengths, numbers beyond 64 bits
            raise InputError("symbols must be integers of shape (T, B)") from None
        if symbols.ndim != 2 or symbols.dtype.kind not in "iu" or not symbols.shape[1] or len(symbols) < least_steps:
            raise InputError(
                f"symbols must be integers of shape (T, B) with at least {'one step and ' * least_steps}one stream, "
                f"not {symbols.dtype} of shape {symbols.shape}"
            )
        if symbols.size and not 0 <= symbols.min() <= symbols.max() < self.inputs:
            bad = symbols.min() if symbols.min() < 0 else symbols.max()
            raise InputError(f"symbol {bad} is outside 0..{self.inputs - 1}: the cfg has inputs={self.inputs}")
        return symbols

    def checked_pair(self, symbols: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
        """The two as arrays of integers. Raises InputError if they aren't, are out of range, or differ in shape."""
        symbols, truth = self._checked(symbols), self._checked(truth)
        if symbols.shape != truth.shape:
            raise InputError(f"symbols {symbols.shape} and what follows them {truth.shape} must be of one shape (T, B)")
        return symbols, truth

    def stepper(self, streams: int = 1, temperature: float | None = None) -> Callable[[np.ndarray], np.ndarray]:
        """A function of symbols (B,) that returns the probabilities (B, V) of what follows; fast for one step.

        It is for a network that is not trained meanwhile, advances the network's state, and its
        result is overwritten by the next call. ``temperature`` takes the place of the softmax's own.
        Numpy may warn of an "over": e⁻ᶻ of a gate that is shut (z < -88), whose σ is 0 then.
        """
        steps, one_hot = [], True
        for layer in self.layers:
            if one_hot and not layer.takes_one_hot:
                steps.append(self._dense_rows)
                one_hot = False
            steps.append(layer.stepper(streams, one_hot))
            one_hot = one_hot and layer.gives_one_hot
        if one_hot:
            steps.append(self._dense_rows)
        temperature = self.loss.temperature if temperature is None else temperature
        out = np.empty((streams, self.inputs), self.dtype)

        def step(symbols):
            x = symbols
            for layer_step in steps:
                x = layer_step(x)
            return softmax(x, temperature, out=out)

        return step

    def _dense_rows(self, symbols):
        return OneHot(symbols[None], self.inputs).dense(self.dtype)[0]

    def reset_state(self, stream: int | np.ndarray | None = None) -> None:
        """Forget: set the recurrent state of one stream, or of all, to zero.

        Raises InputError for a stream beyond those of the last call.
        """
        for layer in self.layers:
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
        whole, sharing, self.sharing = [], self.sharing, ONE_THREAD
        for layer in self.layers:
            whole.append(layer.swap_state({name: array[part] for name, array in layer.state(self.streams).items()}))
            layer.streams_part = part, self.streams
        try:
            yield
        finally:
            self.sharing = sharing
            for layer, state in zip(self.layers, whole):
                layer.swap_state(state)
                layer.streams_part = None

    # Files

    def load_weights(self, path: Path, dialect: Dialect | str | None = None) -> None:
        """Read a Darknet weights file; ``dialect`` overrides what its header says.

        With another dialect ``layers`` and ``parameters`` become new objects, for it decides about them too
        (the state's size of an ``[rnn]`` without ``hidden``); so read it before making a trainer. Raises
        WeightsError, with the network as it was.
        """
        dialect = as_dialect(dialect) or read_header(path).dialect
        before = self.layers, self.loss, self.parameters
        if dialect is not self.dialect:  # it decides about the layers' sizes too
            self._build(dialect)
            if not fits(self.layers, path, dialect) and fits(before[0], path, dialect):
                self.layers, self.loss, self.parameters = before
        try:
            header = read_weights(self.layers, path, dialect)
        except Exception:
            self.layers, self.loss, self.parameters = before
            raise
        self.seen = header.seen
        self._set_dialect(dialect)

    def save_weights(self, path: Path, dialect: Dialect | str | None = None) -> None:
        """Write a Darknet weights file, atomically, in the network's dialect unless another is given."""
        write_weights(self.layers, path, self.seen, as_dialect(dialect) or self.dialect)

    def is_saved(self, path: Path) -> bool:
        """Whether the file at ``path`` is, to the byte, what :meth:`save_weights` would write."""
        return is_written(self.layers, path, self.seen, self.dialect)

    # What a run goes on from (pydarknet.training.run_state)

    def arrays(self):
        """Every array that a run changes, by name: the memory itself."""
        states = {
            f"layer {number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in layer.state(self.streams).items()
        }
        return {"values": self.parameters.values, "statistics": self.parameters.statistics, **states}

    def facts(self):
        """The rest of its state in a run, as JSON can hold it."""
        return {
            "dialect": self.dialect.value,
            "seen": self.seen,
            "random": {"dropout": self.dropout_random.bit_generator.state},
        }

    def check(self, facts, arrays):
        """Raise ValueError for a state that this network cannot have."""
        if facts.get("dialect") != self.dialect.value:
            raise ValueError(f"is of the dialect {facts.get('dialect')!r}, and this network is of {self.dialect.value!r}")
        seen = facts.get("seen")
        if type(seen) is not int or not 0 <= seen < 2**63:
            raise ValueError("has no usable 'seen', the number of characters trained on")
        check_state(facts, "dropout")
        start = 0
        for statistic in (statistic for layer in self.layers for statistic in layer.statistics):
            values = arrays["statistics"][start : start + statistic.size]
            if statistic.name.endswith("variance") and (values < 0).any():
                raise ValueError(f"holds a negative variance, in {statistic.name}")
            start += statistic.size

    def take(self, facts):
        """Go on from the ``facts``; the arrays are in place."""
        self.seen = facts["seen"]
        self.dropout_random.bit_generator.state = facts["random"]["dropout"]

    def _set_dialect(self, dialect):
        self.dialect = dialect
        for layer in self.layers:
            layer.dialect = dialect


def load_network(
    cfg: Path | Cfg,
    weights: Path | None = None,
    batch: int | None = None,
    time_steps: int | None = None,
    dialect: Dialect | str | None = None,
    srand: int | None = None,
    dtype: DTypeLike = np.float32,
    settings: Iterable[str] = (),
) -> Network:
    """The network of ``cfg``, a file or a :class:`~pydarknet.darknet.cfg.Cfg`, with the weights file ``weights`` if given.

    ``batch`` is the number of streams of a call, in place of the cfg's batch / subdivisions, and
    ``time_steps`` the number of steps. ``dialect`` ("pjreddie" or "alexeyab") overrides what the
    header of the weights says. ``srand`` seeds the initial weights and the dropout. ``settings`` take the place of
    the cfg's options: ``["net.learning_rate=.002"]`` (:meth:`pydarknet.darknet.cfg.Cfg.set`). Unknown keys of
    the cfg are warned about (CfgWarning). Raises CfgError, WeightsError or InputError.
    """
    dialect = as_dialect(dialect)
    parsed = cfg if isinstance(cfg, Cfg) else parse_cfg(cfg)
    for setting in settings:
        parsed.set(setting)
    written_by = dialect or (read_header(weights).dialect if weights is not None else PJREDDIE)
    network = Network(parsed, batch, time_steps, written_by, srand, dtype)
    if weights is not None:
        network.load_weights(weights, dialect)
    return network


def as_dtype(dtype: DTypeLike) -> np.dtype:
    """The numpy dtype float32 or float64. Raises InputError for any other."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise InputError(f"dtype {dtype!r} is neither float32 nor float64")
    return found


def as_dialect(name: Dialect | str | None) -> Dialect | None:
    """The :class:`~pydarknet.darknet.dialect.Dialect` called ``name``; None stays None. Raises InputError."""
    try:
        return None if name is None else Dialect(name)
    except ValueError:
        raise InputError(f"dialect {name!r} is not one of {', '.join(d.value for d in Dialect)}") from None
