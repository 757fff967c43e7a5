"""Gradients held against finite differences, in float64, for the tests.

A derivative is the sixth-order central difference of seven points. With steps of 1e-5 what the
formula leaves out is nothing, for batch norm too, and rounding, 1e-16 of the loss over the step, is
near 1e-10: the bound of 1e-7 has room for it. A kink of an activation is met only by a sum that
stands within some 3e-5 of it.
"""

import numpy as np

from pydarknet.layers.layer import OneHot

STEP = 1e-5
STENCIL = ((1, 45 / 60), (2, -9 / 60), (3, 1 / 60))  # (distance in steps, weight), antisymmetric
TOLERANCE = 1e-7


def derivative(loss, array, index):
    """d(loss)/d(array[index]) of the function ``loss()``, which reads ``array``."""
    original = array[index]
    total = 0.0
    for distance, weight in STENCIL:
        for sign in (1, -1):
            array[index] = original + sign * distance * STEP
            total += sign * weight * loss()
    array[index] = original
    return total / STEP


def compare(name, ours, loss, array, elements=None, random=None):
    """Hold ``ours``, the gradient of ``array``, against differences of ``loss``; return the relative error.

    ``elements`` of the array, drawn by ``random``, are looked at, all of them by default. The error
    is the largest difference over the largest gradient of the tensor. AssertionError names the
    tensor and prints both sides at the worst element.
    """
    assert ours is not None, f"{name}: no gradient came back"
    assert ours.shape == array.shape, f"{name}: the gradient has shape {ours.shape}, not {array.shape}"
    indices = list(np.ndindex(array.shape))
    if elements is not None and elements < len(indices):
        indices = [indices[n] for n in random.choice(len(indices), elements, replace=False)]
    numbers = np.array([derivative(loss, array, index) for index in indices])
    gradient = np.array([ours[index] for index in indices])
    scale = max(np.abs(ours).max(), np.abs(numbers).max())
    if scale < 1e-9:  # nothing depends on it, to within the differences' own error
        return 0.0
    worst = int(np.argmax(np.abs(gradient - numbers)))
    error = abs(gradient[worst] - numbers[worst]) / scale
    assert error < TOLERANCE, (
        f"{name}{list(indices[worst])}: backward says {gradient[worst]:.12g}, finite differences "
        f"{numbers[worst]:.12g}: {error:.2e} of the largest gradient {scale:.6g}, allowed {TOLERANCE:.0e}"
    )
    return error


def check_layer(layer, x, random, before=None, elements=None, want_state=True):
    """Check every gradient of a float64 ``layer`` for the input ``x``: (T, B, D) or a OneHot.

    The loss is Σ dy ∘ y with a random dy, from a random initial state. Parameters, the input when it
    is dense, and the initial states are all checked. ``before()`` runs before every forward pass
    (a dropout sets its random numbers back there). Returns the relative error of each tensor by name.
    """
    assert layer.dtype == np.float64
    T, B, _ = x.shape
    initial = (
        {name: random.standard_normal(array.shape[::-1]).T for name, array in layer.state(B).items()} if want_state else {}
    )
    state = {name: array.copy() for name, array in initial.items()}

    def forward():
        if before is not None:
            before()
        for name, array in state.items():
            layer.state(B)[name][...] = array
        return layer.forward(x, train=True)

    dy = random.standard_normal((layer.outputs, T, B)).transpose(1, 2, 0)
    filled = 0.25  # backward must add to what is there
    for parameter in layer.parameters:
        parameter.gradient.fill(filled)
    forward()
    dx = layer.backward(dy.copy())
    dx = None if dx is None else dx.copy()  # a view into the layer's memory, which the differences use
    gradients = {p.name: p.gradient - filled for p in layer.parameters}
    state_gradients = {name: getattr(layer, f"d{name}0").copy() for name in state}

    def loss():
        return float(np.sum(dy * forward()))

    errors = {}
    for parameter in layer.parameters:
        errors[parameter.name] = compare(
            f"{layer.type} {parameter.name}", gradients[parameter.name], loss, parameter.value, elements, random
        )
    for name in state:
        errors[name + "0"] = compare(f"{layer.type} initial {name}", state_gradients[name], loss, state[name], elements, random)
    if isinstance(x, OneHot):
        assert dx is None, f"{layer.type}: a one-hot input has no gradient"
    else:
        errors["x"] = compare(f"{layer.type} x", dx, loss, x, elements, random)
    return errors


def check_network(network, symbols, truth, factor=1.0, before=None):
    """Check the gradients of a float64 ``network`` through ``train_call``, from its state as it is.

    ``factor`` is what the gradient is of the loss: 2 behind a ``[cost]``. Returns errors by layer and name.
    """
    B = symbols.shape[1]
    initial = [{name: array.copy() for name, array in layer.state(B).items()} for layer in network.layers]

    def loss():
        if before is not None:
            before()
        for layer, state in zip(network.layers, initial):
            for name, array in state.items():
                layer.state(B)[name][...] = array
        return factor * network.train_call(symbols, truth)

    network.parameters.clear_gradients()
    loss()
    gradients = network.parameters.gradients.copy()
    errors = {}
    start = network.parameters.gradients.__array_interface__["data"][0]
    for number, layer in enumerate(network.layers):
        for parameter in layer.parameters:
            offset = (parameter.gradient.__array_interface__["data"][0] - start) // gradients.itemsize
            ours = gradients[offset : offset + parameter.value.size].reshape(parameter.value.shape)
            name = f"layer {number} [{layer.type}] {parameter.name}"
            errors[name] = compare(name, ours, loss, parameter.value)
    return errors
