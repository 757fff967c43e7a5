"""Darknet's recurrent layers transcribed slowly: the connected layers it builds them of, one product at a time.

Rows are streams, as in Darknet; every sublayer has its own matrix, biases and batch norm, and keeps
what it saw at each step. Only the algorithm is Darknet's: its defects (the design's table) are put
right. Nothing here comes from the package, so that the fused layers have something to be held against.
"""

import numpy as np

EPSILON = 1e-6


def logistic(x):
    return 1 / (1 + np.exp(-x))


# name: (function, derivative from input and output)
ACTIVATIONS = {
    "linear": (lambda x: x, lambda x, y: np.ones_like(x)),
    "logistic": (logistic, lambda x, y: y * (1 - y)),
    "loggy": (lambda x: 2 * logistic(x) - 1, lambda x, y: (1 - y * y) / 2),
    "tanh": (np.tanh, lambda x, y: 1 - y * y),
    "leaky": (lambda x: np.where(x > 0, x, 0.1 * x), lambda x, y: np.where(x > 0, 1, 0.1)),
}


class ConnectedOracle:
    """One connected layer inside a recurrent one: y = activation(scale ẑ + b), or without batch norm of W x + b.

    ``forward`` pushes a step, ``backward`` pops the last: steps go out in the reverse order, as in Darknet.
    """

    def __init__(self, weights, biases, scales=None, activation="linear"):
        self.weights, self.biases = np.array(weights, float), np.array(biases, float)
        self.scales = None if scales is None else np.array(scales, float)
        self.f, self.df = ACTIVATIONS[activation]
        self.weight_gradients = np.zeros_like(self.weights)
        self.bias_gradients = np.zeros_like(self.biases)
        self.scale_gradients = np.zeros_like(self.biases)
        self.rolling_mean = np.zeros_like(self.biases)
        self.rolling_variance = np.zeros_like(self.biases)
        self.steps = []

    def forward(self, x):
        z = x @ self.weights.T
        norm = None
        if self.scales is not None:
            z, norm = self._normalize(z)
        a = z + self.biases
        y = self.f(a)
        self.steps.append((x.copy(), norm, a, y))
        return y

    def backward(self, dy):
        x, norm, a, y = self.steps.pop()
        dz = dy * self.df(a, y)
        self.bias_gradients += dz.sum(axis=0)
        if norm is not None:
            dz = self._denormalize(dz, *norm)
        self.weight_gradients += dz.T @ x
        return dz @ self.weights

    def _normalize(self, z):
        B, H = z.shape
        out, x_norm = np.empty_like(z), np.empty_like(z)
        mean, variance = np.empty(H), np.empty(H)
        for i in range(H):
            mean[i] = sum(z[b, i] for b in range(B)) / B
            variance[i] = sum((z[b, i] - mean[i]) ** 2 for b in range(B)) / (B - 1)
            for b in range(B):
                x_norm[b, i] = (z[b, i] - mean[i]) / (np.sqrt(variance[i]) + EPSILON)
                out[b, i] = x_norm[b, i] * self.scales[i]
        self.rolling_mean = 0.99 * self.rolling_mean + 0.01 * mean
        self.rolling_variance = 0.99 * self.rolling_variance + 0.01 * variance
        return out, (z, x_norm, mean, variance)

    def _denormalize(self, dy, z, x_norm, mean, variance):
        """The three parts of Darknet's backward_batchnorm_layer, by the chain rule of ``_normalize``."""
        B, H = dy.shape
        dz = np.empty_like(dy)
        for i in range(H):
            self.scale_gradients[i] += sum(dy[b, i] * x_norm[b, i] for b in range(B))
            d = dy[:, i] * self.scales[i]
            deviation = np.sqrt(variance[i])
            mean_delta = -d.sum() / (deviation + EPSILON)
            variance_delta = -(d * (z[:, i] - mean[i])).sum() / (deviation + EPSILON) ** 2 / (2 * deviation)
            for b in range(B):
                dz[b, i] = (d[b] / (deviation + EPSILON) + mean_delta / B
                            + variance_delta * 2 * (z[b, i] - mean[i]) / (B - 1))
        return dz


def lstm(net, x, h, c, dy):
    """``net`` holds wi wf wo wg ui uf uo ug; x (T, B, D), h and c (B, H), dy (T, B, H).

    Returns a dict: y, the last h and c, dx, dh0, dc0.
    """
    y, dx, tape = np.empty(dy.shape), np.empty(x.shape), []
    for t in range(len(x)):
        i = logistic(net["wi"].forward(h) + net["ui"].forward(x[t]))
        f = logistic(net["wf"].forward(h) + net["uf"].forward(x[t]))
        o = logistic(net["wo"].forward(h) + net["uo"].forward(x[t]))
        g = np.tanh(net["wg"].forward(h) + net["ug"].forward(x[t]))
        c_before, c = c, f * c + i * g
        h = o * np.tanh(c)
        y[t] = h
        tape.append((i, f, o, g, c_before, c))
    result = {"y": y, "h": h, "c": c, "dx": dx}
    dh, dc = np.zeros_like(h), np.zeros_like(c)
    for t in reversed(range(len(x))):
        i, f, o, g, c_before, c = tape[t]
        dh = dy[t] + dh
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        deltas = {"o": dh * np.tanh(c) * o * (1 - o), "g": dc * i * (1 - g * g),
                  "i": dc * g * i * (1 - i), "f": dc * c_before * f * (1 - f)}
        dc = dc * f
        dh = sum(net["w" + gate].backward(delta) for gate, delta in deltas.items())
        dx[t] = sum(net["u" + gate].backward(delta) for gate, delta in deltas.items())
    return result | {"dh0": dh, "dc0": dc}


def gru(net, x, h, dy, candidate):
    """``net`` holds wz wr wh uz ur uh; ``candidate`` is the name of its activation. As :func:`lstm`."""
    f, df = ACTIVATIONS[candidate]
    y, dx, tape = np.empty(dy.shape), np.empty(x.shape), []
    for t in range(len(x)):
        z = logistic(net["wz"].forward(h) + net["uz"].forward(x[t]))
        r = logistic(net["wr"].forward(h) + net["ur"].forward(x[t]))
        a = net["wh"].forward(r * h) + net["uh"].forward(x[t])
        q = f(a)
        tape.append((z, r, a, q, h))
        h = z * h + (1 - z) * q
        y[t] = h
    result = {"y": y, "h": h, "dx": dx}
    dh = np.zeros_like(h)
    for t in reversed(range(len(x))):
        z, r, a, q, h_before = tape[t]
        dh = dy[t] + dh
        delta_h = dh * (1 - z) * df(a, q)
        delta_z = dh * (h_before - q) * z * (1 - z)
        forgot = net["wh"].backward(delta_h)
        delta_r = forgot * h_before * r * (1 - r)
        dh = dh * z + forgot * r + net["wr"].backward(delta_r) + net["wz"].backward(delta_z)
        dx[t] = net["uh"].backward(delta_h) + net["ur"].backward(delta_r) + net["uz"].backward(delta_z)
    return result | {"dh0": dh}


def rnn(net, x, h, dy, shortcut):
    """``net`` holds input, self and output. As :func:`lstm`."""
    y, dx = np.empty(dy.shape), np.empty(x.shape)
    for t in range(len(x)):
        new = net["input"].forward(x[t]) + net["self"].forward(h)
        h = h + new if shortcut else new
        y[t] = net["output"].forward(h)
    result = {"y": y, "h": h, "dx": dx}
    dh = np.zeros_like(h)
    for t in reversed(range(len(x))):
        dh = dh + net["output"].backward(dy[t])
        dx[t] = net["input"].backward(dh)
        through = net["self"].backward(dh)
        dh = through + dh if shortcut else through
    return result | {"dh0": dh}


def compare(name, ours, theirs, tolerance):
    """Hold ``ours`` against the oracle's: the largest difference over the largest value; returns it."""
    assert ours.shape == theirs.shape, f"{name}: shape {ours.shape}, the oracle's is {theirs.shape}"
    difference = np.abs(ours - theirs)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    error = difference[worst] / np.abs(theirs).max()
    assert error < tolerance, (
        f"{name}{[int(n) for n in worst]}: {ours[worst]:.9g}, the oracle has {theirs[worst]:.9g}: "
        f"{error:.1e} of its largest value, allowed {tolerance:.0e}")
    return error


def array_of(matrix, kind):
    """The rolling statistic or the gradient of a Matrix that the oracle calls ``kind``."""
    owners = {"weight_gradients": matrix._weights, "bias_gradients": matrix._biases,
              "scale_gradients": matrix.norm and matrix.norm.scales}
    return owners[kind].gradient[matrix._rows] if kind in owners else getattr(matrix, kind)


def check_against(layer, matrices, run, random, T, B, tolerance):
    """Hold a whole training call of ``layer`` against ``run(net, x, **states, dy)``; return the largest error.

    ``matrices`` are the layer's Matrix objects by Darknet's name, with the activation of each.
    """
    for parameter in layer.parameters:
        parameter.value += (0.3 * random.standard_normal(parameter.value.shape)).astype(layer.dtype)
    net = {name: ConnectedOracle(m.weights, m.biases, m.scales if m.norm else None, activation)
           for name, (m, activation) in matrices.items()}
    x = random.standard_normal((layer.inputs, T, B)).transpose(1, 2, 0).astype(layer.dtype)
    dy = random.standard_normal((layer.outputs, T, B)).transpose(1, 2, 0).astype(layer.dtype)
    states = {}
    for name, array in layer.state(B).items():
        array[...] = random.standard_normal(array.shape[::-1]).T
        states[name] = array.astype(float)
    theirs = run(net, x.astype(float), *states.values(), dy.astype(float))

    errors = [compare("y", layer.forward(x, train=True), theirs["y"], tolerance)]
    dx = layer.backward(dy.copy())
    errors.append(compare("dx", dx, theirs["dx"], tolerance))
    for name in states:
        errors.append(compare(f"last {name}", layer.state(B)[name], theirs[name], tolerance))
        errors.append(compare(f"d{name}0", getattr(layer, f"d{name}0"), theirs[f"d{name}0"], tolerance))
    kinds = ["weight_gradients", "bias_gradients"]
    for name, (matrix, _) in matrices.items():
        norm = ["scale_gradients", "rolling_mean", "rolling_variance"] if matrix.norm else []
        for kind in kinds + norm:
            errors.append(compare(f"{name}.{kind}", array_of(matrix, kind), getattr(net[name], kind), tolerance))
    return max(errors)
