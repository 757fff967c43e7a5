"""A network as an ONNX graph: one file that onnxruntime, and whatever else reads ONNX, computes with.

The graph takes ``symbols``, int64 (T, B), and each recurrent state, ``layers.0.h`` and ``layers.0.c``, float32 (B, H). It
gives ``probabilities``, float32 (T, B, V), and the new states, ``layers.0.h.next`` and so on, which go into the next call.
T and B are free. Batch norm is folded into the matrices, and dropout does nothing.

LSTM and GRU are ONNX's own operators: with ``linear_before_reset=0`` its GRU is Darknet's. An RNN, whose two products
Darknet activates apart, is a Scan over the steps. A new layer is an entry in :data:`OPERATORS`.
"""

from contextlib import contextmanager

import numpy as np

from pydarknet import __version__
from pydarknet.errors import InputError, WeightsError
from pydarknet.interop.activations import FORMULAS
from pydarknet.interop.extras import need
from pydarknet.interop.metadata import metadata
from pydarknet.interop.tensors import NORM, tensors
from pydarknet.layers.batchnorm import fold, inference_scale
from pydarknet.system.files import reported, show, write_atomically

OPSET, IR = 17, 8  # of 2022: old enough for most readers
LARGEST = 2**31 - 2**20  # bytes that fit in one file, which is a protocol buffer
CHECKED = 1000  # characters that an export is compared over


def write_onnx(network, path):
    """Write ``network`` to ``path``, atomically; return the largest difference of a probability from the network's own.

    It is taken over 1,000 random characters; None where onnxruntime is missing. Raises InputError for a layer that has no
    operator, or a missing package; WeightsError when the network is too large for the format, or the file can't be written.
    """
    data = onnx_model(network, show(path)).SerializeToString()
    found = difference(network, data)
    with reported(WeightsError, path, "cannot write the model"):
        write_atomically(path, [data])
    return found


def onnx_model(network, name="pydarknet"):
    """The checked ``onnx.ModelProto`` of ``network``; ``name`` is what messages call it. Raises as :func:`write_onnx` does."""
    onnx = need("onnx", "onnx")
    size = 4 * (network.parameters.values.size + network.parameters.statistics.size)
    if size > LARGEST:
        raise WeightsError(f"{name}: {size:,} bytes of parameters are too many for an .onnx file: export .safetensors instead")
    for number, layer in enumerate(network.layers):
        if layer.type not in OPERATORS:
            raise InputError(f"layer {number} [{layer.type}]: there is no ONNX operator for it")
    graph = Graph(onnx)
    x = graph.one_hot(graph.input("symbols", onnx.TensorProto.INT64, ("T", "B")), network.inputs)
    parameters = tensors(network)
    for number, layer in enumerate(network.layers):
        prefix = f"layers.{number}."
        own = {key.removeprefix(prefix): array for key, array in parameters.items() if key.startswith(prefix)}
        x = OPERATORS[layer.type](graph, layer, prefix, own, x)
    if network.loss.temperature != 1:
        x = x / network.loss.temperature
    graph.output(graph.add("Softmax", x, axis=-1), "probabilities", ("T", "B", network.inputs), first=True)
    model = graph.model(metadata(network))
    onnx.checker.check_model(model, full_check=True)
    return model


def difference(network, model):
    """The largest difference of a probability between ``model``, a graph's bytes, and ``network`` over 1,000 random characters.

    None where onnxruntime is missing. The network's own state stays as it is.
    """
    try:
        runtime = need("onnxruntime", "onnx")
    except InputError:
        return None
    symbols = np.random.default_rng(0).integers(0, network.inputs, (CHECKED, 1))
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    state = {given.name: np.zeros((1, given.shape[1]), np.float32) for given in session.get_inputs()[1:]}
    (probabilities,) = session.run(["probabilities"], {"symbols": symbols, **state})
    with network.side_state():
        return float(np.abs(probabilities - network.predict(symbols)).max())


class Value:
    """A tensor of a :class:`Graph` by its name, with the arithmetic of formulas; the graph is the ``m`` of these."""

    def __init__(self, graph, name):
        self.graph, self.name = graph, name

    def _with(self, operator, *operands):
        return self.graph.add(operator, *operands)

    def __add__(self, other):
        return self._with("Add", self, other)

    def __radd__(self, other):
        return self._with("Add", other, self)

    def __sub__(self, other):
        return self._with("Sub", self, other)

    def __rsub__(self, other):
        return self._with("Sub", other, self)

    def __mul__(self, other):
        return self._with("Mul", self, other)

    def __rmul__(self, other):
        return self._with("Mul", other, self)

    def __truediv__(self, other):
        return self._with("Div", self, other)

    def __gt__(self, other):
        return self._with("Greater", self, other)

    def __lt__(self, other):
        return self._with("Less", self, other)

    def __ge__(self, other):
        return self._with("GreaterOrEqual", self, other)

    def __matmul__(self, other):
        return self._with("MatMul", self, other)


class Graph:
    """An ONNX graph that grows node by node. Numbers and arrays become its initializers, under names or numbered."""

    def __init__(self, onnx):
        self.onnx = onnx
        self.nodes, self.inputs, self.outputs, self._initializers, self._count = [], [], [], {}, 0

    def add(self, operator, *operands, outputs=1, **attributes):
        """A node; its output as a :class:`Value`, or those when there are several. An operand None is left out."""
        names = ["" if operand is None else self.value(operand).name for operand in operands]
        made = [self._unused(operator.lower()) for _ in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, names, made, name=made[0], **attributes))
        values = [Value(self, name) for name in made]
        return values[0] if outputs == 1 else values

    def value(self, operand, name=None):
        """The operand as a :class:`Value`: it is one, or an array, or a number, which becomes a float32."""
        if isinstance(operand, Value):
            return operand
        array = np.asarray(operand)
        if array.dtype.kind == "f" or isinstance(operand, int):  # the 1 of a formula is a number like its others
            array = array.astype(np.float32)
        if name is None:  # a number of a formula: once is enough
            name = f"constant {array.dtype} {array.tolist()}"
        if name not in self._initializers:
            self._initializers[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return Value(self, name)

    def input(self, name, kind, shape):
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))
        return Value(self, name)

    def output(self, value, name, shape, first=False):
        """Give ``value`` out as float32 under ``name``."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value.name], [name], name=name))
        made = self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)
        self.outputs.insert(0 if first else len(self.outputs), made)

    def state(self, layer, prefix, name):
        """The input for the state ``name`` of a layer, (B, H)."""
        return self.input(prefix + name, self.onnx.TensorProto.FLOAT, ("B", layer.state_size))

    def next_state(self, layer, prefix, name, value):
        self.output(value, f"{prefix}{name}.next", ("B", layer.state_size))

    def one_hot(self, symbols, size):
        return self.add("OneHot", symbols, np.int64(size), np.array([0.0, 1.0], np.float32), axis=-1)

    @contextmanager
    def body(self):
        """While it lasts, nodes, inputs and outputs are those of a subgraph: yields a function that makes it of its name."""
        kept = self.nodes, self.inputs, self.outputs
        self.nodes, self.inputs, self.outputs = [], [], []
        try:
            yield lambda name: self.onnx.helper.make_graph(self.nodes, name, self.inputs, self.outputs)
        finally:
            self.nodes, self.inputs, self.outputs = kept

    def model(self, properties):
        """The ``onnx.ModelProto`` of the graph."""
        graph = self.onnx.helper.make_graph(
            self.nodes, "pydarknet", self.inputs, self.outputs, list(self._initializers.values())
        )
        opset = self.onnx.helper.make_opsetid("", OPSET)
        model = self.onnx.helper.make_model(
            graph, opset_imports=[opset], ir_version=IR, producer_name="pydarknet", producer_version=__version__
        )
        self.onnx.helper.set_model_props(model, properties)
        return model

    def _unused(self, name):
        self._count += 1
        return f"{name} {self._count}"

    # What formulas ask of `m`

    def where(self, condition, x, y):
        return self.add("Where", condition, x, y)

    def clamp(self, x, min=None, max=None):
        return self.add("Clip", x, min, max)

    def sigmoid(self, x):
        return self.add("Sigmoid", x)

    def tanh(self, x):
        return self.add("Tanh", x)

    def exp(self, x):
        return self.add("Exp", x)

    def floor(self, x):
        return self.add("Floor", x)


# The layers: what each adds to the graph for its input x (T, B, D), and returns for its output (T, B, H). `own` holds its
# tensors by the names of pydarknet.interop.tensors, `prefix` is what makes such a name one of the whole network.


def _folded(layer, own, weight, bias, norm):
    """The weight and bias of inference, (H, D) and (H,)."""
    if f"{norm}.scales" not in own:
        return own[weight], own[bias]
    scales, mean, variance = (own[f"{norm}.{kind}"] for kind in NORM)
    return fold(own[weight], own[bias], scales, mean, variance, layer.dialect)


def _gated(graph, layer, prefix, own, x, order, operator, suffix="", **attributes):
    """The ``operator`` of a layer whose tensors hold its gates in PyTorch's order; ``order`` picks ONNX's from them."""

    def arranged(array):
        gates = np.split(array, len(order))
        return np.concatenate([gates[gate] for gate in order])

    U, b_u = map(arranged, _folded(layer, own, f"weight_ih{suffix}", f"bias_ih{suffix}", "norm_ih"))
    W, b_w = map(arranged, _folded(layer, own, f"weight_hh{suffix}", f"bias_hh{suffix}", "norm_hh"))
    named = (("weight_ih", U[None]), ("weight_hh", W[None]), ("biases", np.concatenate([b_u, b_w])[None]))
    weights = [graph.value(array, prefix + name) for name, array in named]
    states = [graph.add("Unsqueeze", graph.state(layer, prefix, name), [0]) for name in layer.states]
    y, *after = graph.add(
        operator, x, *weights, None, *states, outputs=1 + len(states), hidden_size=layer.outputs, **attributes
    )
    for name, value in zip(layer.states, after):
        graph.next_state(layer, prefix, name, graph.add("Squeeze", value, [0]))
    return graph.add("Squeeze", y, [1])  # its direction


def _lstm(graph, layer, prefix, own, x):
    return _gated(graph, layer, prefix, own, x, (0, 3, 1, 2), "LSTM", "_l0")  # i f g o -> i o f g


def _gru(graph, layer, prefix, own, x):
    candidate = "Sigmoid" if layer.logistic_candidate else "Tanh"
    return _gated(  # r z q -> z r q
        graph, layer, prefix, own, x, (1, 0, 2), "GRU", activations=["Sigmoid", candidate], linear_before_reset=0
    )


def _product(graph, layer, prefix, own, x, part=""):
    """W x + b, where ``part`` begins the names of the tensors."""
    weight, bias = _folded(layer, own, f"{part}weight", f"{part}bias", f"{part}norm")
    return x @ graph.value(weight.T, f"{prefix}{part}weight.T") + graph.value(bias, f"{prefix}{part}bias")


def _rnn(graph, layer, prefix, own, x):
    phi, psi = (FORMULAS[part.activation.name] for part in (layer.input_layer, layer.self_layer))
    a = phi(graph, _product(graph, layer, prefix, own, x, "input."))
    h0, size, kind = graph.state(layer, prefix, "h"), layer.state_size, graph.onnx.TensorProto.FLOAT
    with graph.body() as subgraph:
        h, a_t = (graph.input(prefix + name, kind, ("B", size)) for name in ("h before", "a of the step"))
        e = psi(graph, _product(graph, layer, prefix, own, h, "self."))
        h_next = a_t + e + h if layer.shortcut else a_t + e
        for name in ("h after", "h of the step"):
            graph.output(h_next, prefix + name, ("B", size))
        step = subgraph("step")
    last, states = graph.add("Scan", h0, a, outputs=2, body=step, num_scan_inputs=1)
    graph.next_state(layer, prefix, "h", last)
    return phi(graph, _product(graph, layer, prefix, own, states, "output."))


def _connected(graph, layer, prefix, own, x):
    return FORMULAS[layer.activation.name](graph, _product(graph, layer, prefix, own, x))


def _batchnorm(graph, layer, prefix, own, x):
    scale = inference_scale(own["scales"], own["rolling_variance"], layer.dialect)
    shift = own["bias"] - scale * own["rolling_mean"]
    return x * graph.value(scale, f"{prefix}scale") + graph.value(shift, f"{prefix}bias")


OPERATORS = {  # by layer type
    "lstm": _lstm,
    "gru": _gru,
    "rnn": _rnn,
    "crnn": _rnn,
    "connected": _connected,
    "batchnorm": _batchnorm,
    "dropout": lambda graph, layer, prefix, own, x: x,
    "activation": lambda graph, layer, prefix, own, x: FORMULAS[layer.activation.name](graph, x),
}
