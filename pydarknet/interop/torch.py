"""A network as a PyTorch module that computes the same, with gradients, on any device.

LSTM layers are ``torch.nn.LSTM``. Darknet's GRU multiplies its candidate's matrix with r ∘ h₋₁, where PyTorch's applies r
after the product, and Darknet's RNN activates its two products apart: these are modules of their own, which loop over the
steps in Python. Every module takes and gives (T, B, features), and a recurrent one its state as ``torch.nn.LSTM`` does.

Like any module it has two modes. In that of :meth:`~torch.nn.Module.eval`, in which it comes, it computes what
:meth:`Network.predict <pydarknet.network.Network.predict>` does: batch norm is folded into the matrices, and nothing is
dropped. In that of ``train()`` it computes what ``train_call`` does: batch norm measures, and moves its rolling statistics.
A new layer is an entry in :data:`MODULES`.
"""

from pydarknet.darknet.dialect import PJREDDIE
from pydarknet.errors import InputError
from pydarknet.interop.activations import FORMULAS
from pydarknet.interop.extras import missing
from pydarknet.interop.tensors import take, tensors
from pydarknet.layers.batchnorm import EPSILON, MOMENTUM, NOISE, fold, inference_scale

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError as error:
    raise missing("torch", error) from None


def to_torch(network):
    """A :class:`Module` that computes what ``network`` does, with copies of its parameters; float64 if it is.

    Raises InputError for a layer that has no module.
    """
    module = Module(network)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors(network).items()})
    return module.eval()


def from_torch(module, network):
    """Set the parameters and rolling statistics of ``network`` to those of ``module``, which :func:`to_torch` made of it.

    Raises WeightsError, with the network as it was, for a module of another network or numbers that are not finite.
    """
    take(network, {name: tensor.detach().cpu().double().numpy() for name, tensor in module.state_dict().items()}, "the module")


class Module(nn.Module):
    """A whole network. Attributes: ``layers``, a module for each of its layers; ``inputs`` V; ``temperature``."""

    def __init__(self, network):
        super().__init__()
        for number, layer in enumerate(network.layers):
            if layer.type not in MODULES:
                raise InputError(f"layer {number} [{layer.type}]: there is no PyTorch module for it")
        self.inputs, self.temperature = network.inputs, network.loss.temperature
        dtype = getattr(torch, network.dtype.name)
        self.layers = nn.ModuleList(MODULES[layer.type](layer).to(dtype) for layer in network.layers)
        self._recurrent = [layer.recurrent for layer in network.layers]
        self._ends_gradient = [layer.stopbackward for layer in network.layers]

    def forward(self, symbols, state=None):
        """Log-probabilities of the next symbol after each of the ``symbols``: integers (T, B) to (T, B, V), and the state.

        The state is a list with an entry for each layer: (h, c) of an LSTM, h of a GRU or an RNN, each (1, B, H), and None
        of the others. ``None`` for the state, or an entry of it, is zeros. Detach it between calls that are trained on.
        """
        dtype = next((parameter.dtype for parameter in self.parameters()), torch.float32)
        x = functional.one_hot(symbols.long(), self.inputs).to(dtype)
        state = list(state) if state is not None else [None] * len(self.layers)
        for number, layer in enumerate(self.layers):
            if self._recurrent[number]:
                x, state[number] = layer(x, state[number])
            else:
                x = layer(x)
            if self._ends_gradient[number]:  # the cfg's `stopbackward`: nothing flows back into this layer
                x = x.detach()
        return torch.log_softmax(x / self.temperature, dim=-1), state


class BatchNorm(nn.Module):
    """Batch normalisation with Darknet's rolling statistics; the equations are in :mod:`pydarknet.layers.batchnorm`."""

    def __init__(self, features, dialect):
        super().__init__()
        self.dialect = dialect
        self.scales = nn.Parameter(torch.ones(features))
        self.register_buffer("rolling_mean", torch.zeros(features))
        self.register_buffer("rolling_variance", torch.zeros(features))

    def folded(self, weight, bias):
        """The weight and bias that at inference do what these and the norm do."""
        return fold(weight, bias, self.scales, self.rolling_mean, self.rolling_variance, self.dialect)

    def forward(self, z, features=slice(None)):
        """scale ẑ while training: all rows of ``z`` (..., F) together; ``features`` are those that z holds."""
        rolling_mean, rolling_variance = self.rolling_mean[features], self.rolling_variance[features]
        rows = z.flatten(0, -2)
        if len(rows) == 1:  # nothing to average over: the rolling statistics, as constants
            square = (rows[0].detach() - rolling_mean) ** 2
            deviations = rows - _roll(rolling_mean, rows[0])
            s = _roll(rolling_variance, square).sqrt()
        else:
            mean = rows.mean(dim=0)
            deviations = rows - mean
            deviations = deviations - deviations.mean(dim=0)
            noise = NOISE * torch.finfo(rows.dtype).eps * rows.detach().abs().amax(dim=0)
            deviations = deviations * (deviations.detach().abs() > noise)
            variance = (deviations**2).sum(dim=0) / (len(rows) - 1)
            _roll(rolling_mean, mean)
            _roll(rolling_variance, variance)
            s = torch.where(variance > 0, variance, 1.0).sqrt()  # where it is 0, so are the deviations
        return (self.scales[features] * deviations / (s + EPSILON)).view_as(z)


def _roll(rolling, measured):
    """Move the ``rolling`` statistic in place, by a hundredth; return what it is now."""
    return rolling.mul_(MOMENTUM).add_((1 - MOMENTUM) * measured.detach()).clone()


class Product(nn.Linear):
    """W x + b, or of a layer with batch norm scale ẑ + b: all rows of the input together."""

    def __init__(self, inputs, outputs, dialect, normalized):
        super().__init__(inputs, outputs)
        self.norm = BatchNorm(outputs, dialect) if normalized else None

    def forward(self, x):
        if self.norm is None:
            return super().forward(x)
        if not self.training:
            return functional.linear(x, *self.norm.folded(self.weight, self.bias))
        return self.norm(functional.linear(x, self.weight)) + self.bias


class Connected(Product):
    """Darknet's ``[connected]``: an ``nn.Linear``, then the activation."""

    def __init__(self, layer):
        super().__init__(layer.inputs, layer.outputs, layer.dialect, bool(layer.statistics))
        self.activation = layer.activation.name

    def forward(self, x):
        return FORMULAS[self.activation](torch, super().forward(x))


class NormalizedLSTM(nn.LSTM):
    """A ``torch.nn.LSTM`` with ``batch_normalize``: while training each product is normalised over the streams of its step."""

    def __init__(self, layer):
        super().__init__(layer.inputs, layer.outputs)
        self.norm_ih, self.norm_hh = (BatchNorm(4 * layer.outputs, layer.dialect) for _ in range(2))

    def forward(self, x, state=None):
        if state is None:
            zeros = x.new_zeros(1, x.shape[1], self.hidden_size)
            state = zeros, zeros
        if not self.training:
            U, b_u = self.norm_ih.folded(self.weight_ih_l0, self.bias_ih_l0)
            W, b_w = self.norm_hh.folded(self.weight_hh_l0, self.bias_hh_l0)
            y, h, c = torch.lstm(x, state, [U, W, b_u, b_w], True, 1, 0.0, False, False, False)
            return y, (h, c)
        (h,), (c,) = state
        b, y = self.bias_ih_l0 + self.bias_hh_l0, []
        for Ux in x @ self.weight_ih_l0.T:
            z = self.norm_ih(Ux) + self.norm_hh(h @ self.weight_hh_l0.T) + b
            i, f, g, o = z.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            y.append(h)
        return torch.stack(y), (h[None], c[None])


def lstm(layer):
    """``torch.nn.LSTM`` itself, unless the layer has batch norm."""
    return NormalizedLSTM(layer) if layer.statistics else nn.LSTM(layer.inputs, layer.outputs)


class GRU(nn.Module):
    """Darknet's GRU; the equations are in :mod:`pydarknet.layers.gru`. The gates stand in the order r z q."""

    def __init__(self, layer):
        super().__init__()
        D, H = layer.inputs, layer.outputs
        self.outputs, self.candidate = H, "logistic" if layer.logistic_candidate else "tanh"
        for name, shape in (("weight_ih", (3 * H, D)), ("weight_hh", (3 * H, H)), ("bias_ih", (3 * H,)), ("bias_hh", (3 * H,))):
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        if layer.statistics:
            self.norm_ih, self.norm_hh = (BatchNorm(3 * H, layer.dialect) for _ in range(2))
        self.normalized = bool(layer.statistics)

    def forward(self, x, h=None):
        H, measuring = self.outputs, self.normalized and self.training
        h = x.new_zeros(x.shape[1], H) if h is None else h[0]
        U, W, b_u, b_w = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        if self.normalized and not measuring:
            (U, b_u), (W, b_w) = self.norm_ih.folded(U, b_u), self.norm_hh.folded(W, b_w)
        products, b = x @ U.T, b_u + b_w
        if measuring:
            products = torch.stack([self.norm_ih(Ux) for Ux in products])
        rz, q, y = slice(0, 2 * H), slice(2 * H, 3 * H), []

        def times_w(v, gates):
            Wv = v @ W[gates].T
            return self.norm_hh(Wv, gates) if measuring else Wv

        for Ux in products + b:
            r, z = torch.sigmoid(Ux[:, rz] + times_w(h, rz)).chunk(2, dim=1)
            candidate = FORMULAS[self.candidate](torch, Ux[:, q] + times_w(r * h, q))
            h = z * h + (1 - z) * candidate
            y.append(h)
        return torch.stack(y), h[None]


class RNN(nn.Module):
    """Darknet's ``[rnn]`` and ``[crnn]``; the equations are in :mod:`pydarknet.layers.rnn`."""

    def __init__(self, layer):
        super().__init__()
        D, H, outputs = layer.inputs, layer.state_size, layer.outputs
        for name, shape in (("input", (D, H)), ("self", (H, H)), ("output", (H, outputs))):
            self.add_module(name, Product(*shape, layer.dialect, bool(layer.statistics)))
        self.hidden, self.shortcut = H, layer.shortcut
        self.activation, self.self_activation = layer.input_layer.activation.name, layer.self_layer.activation.name

    def forward(self, x, h=None):
        h = x.new_zeros(x.shape[1], self.hidden) if h is None else h[0]
        phi, psi, recurrent = FORMULAS[self.activation], FORMULAS[self.self_activation], self.get_submodule("self")
        states = []
        for a in phi(torch, self._by_step(self.input, x)):
            h = a + psi(torch, recurrent(h)) + (h if self.shortcut else 0)
            states.append(h)
        return phi(torch, self._by_step(self.output, torch.stack(states))), h[None]

    @staticmethod
    def _by_step(product, x):
        """The ``product`` of each step of ``x``: batch norm takes the streams of a step together."""
        return product(x) if product.norm is None or not product.training else torch.stack([product(step) for step in x])


class BatchNormLayer(BatchNorm):
    """Darknet's ``[batchnorm]``: scale ẑ + b, all rows of the call together. pjreddie's file keeps no b: it stays 0."""

    def __init__(self, layer):
        super().__init__(layer.outputs, layer.dialect)
        self.bias = nn.Parameter(torch.zeros(layer.outputs), requires_grad=layer.dialect is not PJREDDIE)

    def forward(self, z, features=slice(None)):
        if self.training:
            return super().forward(z) + self.bias
        scale = inference_scale(self.scales, self.rolling_variance, self.dialect)
        return scale * z + (self.bias - scale * self.rolling_mean)


class Activation(nn.Module):
    """Darknet's ``[activation]``."""

    def __init__(self, layer):
        super().__init__()
        self.activation = layer.activation.name

    def forward(self, x):
        return FORMULAS[self.activation](torch, x)


class DrawnDropout(nn.Module):
    """Drops what the ``layer`` itself would, by its own numbers; of ``one_hot`` rows, each whole or not at all."""

    def __init__(self, layer, one_hot):
        super().__init__()
        self.layer, self.one_hot = layer, one_hot

    def forward(self, x):
        if not self.training or self.layer.probability == 0:
            return x
        mask = torch.from_numpy(self.layer.draw(tuple(x.shape[:2] if self.one_hot else x.shape))).to(x.device)
        return x * (mask[:, :, None] if self.one_hot else mask)


MODULES = {  # by layer type, what makes the module of a layer
    "lstm": lstm,
    "gru": GRU,
    "rnn": RNN,
    "crnn": RNN,
    "connected": Connected,
    "batchnorm": BatchNormLayer,
    "dropout": lambda layer: nn.Dropout(layer.probability),
    "activation": Activation,
}
