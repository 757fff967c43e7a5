"""Every gradient of every layer against finite differences, and what must hold of all layers alike."""

import tracemalloc
import warnings

import numpy as np
import pytest
from gradients import check_layer, check_network

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers import input_product
from pydarknet.layers.activation_layer import ActivationLayer
from pydarknet.layers.activations import ACTIVATIONS
from pydarknet.layers.batchnorm import BatchNormLayer
from pydarknet.layers.connected import Connected
from pydarknet.layers.crnn import CRNN
from pydarknet.layers.dropout import Dropout
from pydarknet.layers.gated import Gated
from pydarknet.layers.gru import GRU
from pydarknet.layers.layer import OneHot
from pydarknet.layers.lstm import LSTM
from pydarknet.layers.rnn import RNN
from pydarknet.network import Network
from pydarknet.system.threads import ALONE

D, H, T, B, O = 5, 4, 7, 3, 6  # all distinct; O outputs of an RNN with H hidden


def lstm(norm=False, dtype=np.float64):
    return LSTM(D, H, norm, dtype, np.random.default_rng(1))


def gru(norm=False, dtype=np.float64):
    return GRU(D, H, False, norm, dtype, np.random.default_rng(2))


def gru_tanh(norm=False, dtype=np.float64):
    return GRU(D, H, True, norm, dtype, np.random.default_rng(3))


def rnn(norm=False, dtype=np.float64, cls=RNN, **options):
    return cls(D, O, H, batch_normalize=norm, dtype=dtype, random=np.random.default_rng(4), **options)


def rnn_leaky_shortcut(norm=False, dtype=np.float64):
    return rnn(norm, dtype, activation="leaky", shortcut=True)


def rnn_loggy(norm=False, dtype=np.float64):
    return rnn(norm, dtype, activation="tanh", self_activation="loggy")


def rnn_logistic(norm=False, dtype=np.float64):
    return rnn(norm, dtype, activation="elu", self_activation="logistic", shortcut=True)


def rnn_mish(norm=False, dtype=np.float64):
    return rnn(norm, dtype, activation="mish")  # its derivative needs the sum that went in


def crnn(norm=False, dtype=np.float64):
    return rnn(norm, dtype, cls=CRNN, activation="leaky")


def connected(norm=False, dtype=np.float64):
    return Connected(D, H, "tanh", norm, dtype, np.random.default_rng(5))


RECURRENT = [lstm, gru, gru_tanh, rnn, rnn_leaky_shortcut, rnn_loggy, rnn_logistic, rnn_mish, crnn]
every_layer = pytest.mark.parametrize("make", [*RECURRENT, connected], ids=lambda make: make.__name__)
recurrent = pytest.mark.parametrize("make", RECURRENT, ids=lambda make: make.__name__)
with_and_without_norm = pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])


def moved(layer, random):
    """The layer with every parameter and rolling statistic away from its initial value."""
    for parameter in layer.parameters:
        parameter.value += 0.3 * random.standard_normal(parameter.value.shape)
    for statistic in layer.statistics:
        statistic.value[...] = random.uniform(0.2, 2, statistic.value.shape)
    return layer


def dense(random, streams=B, steps=T):
    return np.ascontiguousarray(random.standard_normal((D, steps, streams)).transpose(1, 2, 0))


def distinct_symbols(random, steps=T, streams=B):
    """Symbols (T, B), no two alike in a step: equal rows would have no variance to normalise by."""
    return np.array([random.permutation(D)[:streams] for _ in range(steps)])


def copied(layer, make, norm):
    """A fresh layer with the same parameters and statistics."""
    twin = make(norm)
    for mine, theirs in zip((*twin.parameters, *twin.statistics), (*layer.parameters, *layer.statistics)):
        mine.value[...] = theirs.value
    twin.dialect = layer.dialect
    return twin


# Finite differences


@with_and_without_norm
@every_layer
def test_gradients_of_a_dense_input(make, norm):
    random = np.random.default_rng(10)
    check_layer(moved(make(norm), random), dense(random), random)


@with_and_without_norm
@every_layer
def test_gradients_of_a_one_hot_input(make, norm):
    random = np.random.default_rng(11)
    check_layer(moved(make(norm), random), OneHot(distinct_symbols(random), D), random)


@pytest.mark.parametrize("ones", [False, True])
@every_layer
def test_the_gradient_of_one_hot_input_added_up(monkeypatch, make, ones):
    """What is done with more columns: the sum of those of each symbol, in place of a product."""
    monkeypatch.setattr(input_product, "SMALL", 0)
    random = np.random.default_rng(11)
    symbols = random.integers(D - 1, size=(T, B))  # the last never occurs
    x = OneHot(symbols, D, random.choice([0, 2.0], size=symbols.shape) if ones else None)
    check_layer(moved(make(False), random), x, random)


@with_and_without_norm
@recurrent
def test_gradients_over_several_blocks_of_steps(make, norm):
    streams, steps = 100, 5
    random = np.random.default_rng(12)
    layer = moved(make(norm), random)
    check_layer(layer, dense(random, streams, steps), random, elements=6)
    if isinstance(layer, Gated):
        assert [block.stop - block.start for block in layer._tape.blocks] == [2, 2, 1]


@with_and_without_norm
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradients_of_connected_with_every_activation(activation, norm):
    random = np.random.default_rng(13)
    layer = moved(Connected(D, H, activation, norm, np.float64), random)
    check_layer(layer, 2 * dense(random), random)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradients_of_an_activation_layer(activation):
    random = np.random.default_rng(14)
    check_layer(ActivationLayer(D, activation, np.float64), 3 * dense(random), random)


def test_gradients_of_a_batchnorm_layer():
    random = np.random.default_rng(15)
    layer = moved(BatchNormLayer(D, np.float64), random)
    layer.dialect = ALEXEYAB  # pjreddie's file has no biases, and so they are not trained there
    check_layer(layer, dense(random), random)


def test_biases_of_a_batchnorm_layer_stay_out_of_pjreddies_dialect():
    random = np.random.default_rng(16)
    layer = BatchNormLayer(D, np.float64)
    layer.forward(dense(random), train=True)
    layer.backward(random.standard_normal((T, B, D)))
    assert not layer.biases.gradient.any()
    assert [name for name, _ in layer.stored(PJREDDIE)] == ["scales", "rolling_mean", "rolling_variance"]
    assert [name for name, _ in layer.stored(ALEXEYAB)] == ["biases", "scales", "rolling_mean", "rolling_variance"]


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_gradients_of_dropout_with_its_mask_held(probability):
    random = np.random.default_rng(17)
    layer = Dropout(D, probability, np.float64)

    def same_mask():
        layer.random = np.random.default_rng(3)

    check_layer(layer, dense(random), random, before=same_mask)


# The checker itself


class Planted(LSTM):
    """An LSTM with an error of 0.1 % in one gradient."""

    def __init__(self, where):
        super().__init__(D, H, dtype=np.float64, random=np.random.default_rng(1))
        self.where = where

    def backward(self, dy, want_dx=True, team=ALONE):
        before = {parameter.name: parameter.gradient.copy() for parameter in self.parameters}
        dx = super().backward(dy, want_dx)
        for parameter in self.parameters:
            if parameter.name == self.where:
                parameter.gradient += 0.001 * (parameter.gradient - before[self.where])
        if self.where == "x":
            dx = dx * 1.001
        if self.where == "initial c":
            self.dc0 = self.dc0 * 1.001
        return dx


@pytest.mark.parametrize("where", ["U", "W", "u.biases", "w.biases", "x", "initial c"])
def test_checker_catches_an_error_of_a_thousandth(where):
    random = np.random.default_rng(18)
    with pytest.raises(AssertionError, match=rf"lstm {where}\[.*\]: backward says .*, finite differences "):
        check_layer(Planted(where), dense(random), random)


def test_checker_catches_a_gradient_that_is_overwritten_rather_than_added():
    class Overwriting(Connected):
        def backward(self, dy, want_dx=True, team=ALONE):
            self.biases.gradient[...] = 0
            return super().backward(dy, want_dx)

    random = np.random.default_rng(19)
    with pytest.raises(AssertionError, match="connected biases"):
        check_layer(Overwriting(D, H, "tanh", dtype=np.float64), dense(random), random)


# Whole networks

V = 5

BODIES = {
    "one-hot": "[lstm]\noutput=4\n[connected]\noutput=5\nactivation=linear\n",
    "one-hot norm": "[gru]\noutput=4\nbatch_normalize=1\ntanh=1\n[connected]\noutput=5\nbatch_normalize=1\nactivation=tanh\n",
    "dense": "[activation]\nactivation=tanh\n[rnn]\noutput=4\nhidden=3\nactivation=tanh\n"
    "[connected]\noutput=5\nactivation=linear\n",
    "deep": "[rnn]\noutput=3\nhidden=4\nactivation=tanh\n[dropout]\nprobability=.4\n[batchnorm]\n[lstm]\noutput=4\n"
    "[crnn]\nsize=1\noutput=4\nhidden=3\nactivation=tanh\n[connected]\noutput=5\nactivation=linear\n",
}


def network(body, end="[softmax]\n"):
    cfg = parse_cfg_text(f"[net]\ninputs={V}\nbatch=3\ntime_steps=6\n{body}{end}", "test.cfg")
    # AlexeyAB's dialect, in which a [batchnorm] layer trains its biases too.
    net = Network(cfg, dialect=ALEXEYAB, srand=5, dtype=np.float64)
    net.parameters.values += 0.5 * np.random.default_rng(6).standard_normal(net.parameters.values.size)
    return net


def symbols_and_truth(random, steps=6):
    return (np.array([random.permutation(V)[:B] for _ in range(steps)]), random.integers(0, V, (steps, B)))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_gradients_of_a_network_with_a_carried_state(body):
    random = np.random.default_rng(20)
    net = network(body)

    def same_mask():
        for layer in net.layers:
            if isinstance(layer, Dropout):
                layer.random = np.random.default_rng(3)

    same_mask()
    net.train_call(*symbols_and_truth(random))
    assert any(array.any() for layer in net.layers for array in layer.state(B).values())  # a state to begin with
    check_network(net, *symbols_and_truth(random), before=same_mask)


def test_cost_doubles_the_gradient_but_not_the_loss():
    random = np.random.default_rng(21)
    batch = symbols_and_truth(random)
    plain, doubled = network(BODIES["one-hot"]), network(BODIES["one-hot"], "[softmax]\n[cost]\ntype=sse\n")
    assert plain.train_call(*batch) == doubled.train_call(*batch)
    np.testing.assert_allclose(doubled.parameters.gradients, 2 * plain.parameters.gradients, rtol=1e-13)
    check_network(doubled, *batch, factor=2)


def test_noloss_leaves_the_gradient_to_the_cost():
    random = np.random.default_rng(24)
    batch = symbols_and_truth(random)
    plain = network(BODIES["one-hot"])
    cost = network(BODIES["one-hot"], "[softmax]\nnoloss=1\n[cost]\ntype=smooth\nscale=3\n")
    assert plain.train_call(*batch) == cost.train_call(*batch)
    np.testing.assert_allclose(cost.parameters.gradients, 3 * plain.parameters.gradients, rtol=1e-13)


def test_temperature_of_the_softmax():
    random = np.random.default_rng(22)
    check_network(network(BODIES["one-hot"], "[softmax]\ntemperature=.7\n"), *symbols_and_truth(random))


def test_stopbackward_trains_only_the_layers_above():
    """``backward_network`` of both forks breaks before the layer's own backward."""
    random = np.random.default_rng(23)
    batch = symbols_and_truth(random)
    body = "[lstm]\noutput=4\n[gru]\noutput=4\n{}[rnn]\noutput=4\n[connected]\noutput=5\nactivation=linear\n"
    whole, stopped = network(body.format("")), network(body.format("stopbackward=1\n"))
    whole.train_call(*batch)
    stopped.train_call(*batch)
    for still in (*stopped.layers[0].parameters, *stopped.layers[1].parameters):
        assert not still.gradient.any(), still
    for layer, same in zip(stopped.layers[2:], whole.layers[2:]):
        for ours, theirs in zip(layer.parameters, same.parameters):
            assert ours.gradient.any(), ours
            np.testing.assert_array_equal(ours.gradient, theirs.gradient)


# What holds of all layers alike. float64 here: sums of a handful of numbers, taken in another order,
# differ by a few units of 1e-16.
SAME = {"rtol": 1e-12, "atol": 1e-14}


@with_and_without_norm
@recurrent
def test_a_sequence_cut_in_pieces_equals_the_whole(make, norm):
    random = np.random.default_rng(30)
    layer, x = moved(make(norm), random), dense(random)
    for train in [False] if norm else [False, True]:
        layer.reset_state()
        whole = layer.forward(x, train).copy()
        end = {name: array.copy() for name, array in layer.state(B).items()}
        layer.reset_state()
        pieces = [layer.forward(x[start:stop], train).copy() for start, stop in ((0, 3), (3, 4), (4, T))]
        np.testing.assert_allclose(np.concatenate(pieces), whole, **SAME)
        for name, array in layer.state(B).items():
            np.testing.assert_allclose(array, end[name], **SAME)


@pytest.mark.parametrize("dialect", [PJREDDIE, ALEXEYAB], ids=lambda dialect: dialect.value)
@with_and_without_norm
@every_layer
def test_stepper_equals_forward(make, norm, dialect):
    random = np.random.default_rng(31)
    layer, x = moved(make(norm), random), dense(random)
    layer.dialect = dialect
    whole = layer.forward(x).copy()
    layer.reset_state()
    step = layer.stepper(B, one_hot=False)
    np.testing.assert_allclose(np.stack([step(x[t]).copy() for t in range(T)]), whole, **SAME)

    symbols = random.integers(0, D, (T, B))
    layer.reset_state()
    whole = layer.forward(OneHot(symbols, D)).copy()
    layer.reset_state()
    step = layer.stepper(B, one_hot=True)
    np.testing.assert_allclose(np.stack([step(symbols[t]).copy() for t in range(T)]), whole, **SAME)


@pytest.mark.parametrize("dialect", [PJREDDIE, ALEXEYAB], ids=lambda dialect: dialect.value)
@every_layer
def test_norm_at_inference_is_a_scale_of_the_weights_and_a_bias(make, dialect):
    """scale (z - rolling mean) / d + b, by the d of each fork; also once a training call of the same shape has been."""
    random = np.random.default_rng(34)
    layer, plain, x = moved(make(True), random), make(False), dense(random)
    layer.dialect = plain.dialect = dialect
    layer.forward(x, True)
    for name, matrix in layer.matrices.items():
        variance = matrix.rolling_variance
        d = np.sqrt(variance) + 1e-6 if dialect is PJREDDIE else np.sqrt(variance + 1e-5)
        plain.matrices[name].weights[...] = matrix.weights * (matrix.scales / d)[:, None]
        plain.matrices[name].biases[...] = matrix.biases - matrix.rolling_mean * matrix.scales / d
        for found, expected in zip(matrix.folded(dialect), (plain.matrices[name].weights, plain.matrices[name].biases)):
            np.testing.assert_allclose(found, expected, **SAME)
    layer.reset_state()
    np.testing.assert_allclose(layer.forward(x), plain.forward(x), **SAME)


def test_stepper_of_a_batchnorm_layer_equals_forward():
    random = np.random.default_rng(32)
    layer, x = moved(BatchNormLayer(D, np.float64), random), dense(random)
    step = layer.stepper(B, one_hot=False)
    np.testing.assert_allclose(np.stack([step(x[t]).copy() for t in range(T)]), layer.forward(x), **SAME)


@every_layer
def test_training_forward_equals_inference_without_norm(make):
    random = np.random.default_rng(33)
    layer, x = moved(make(), random), dense(random)
    trained = layer.forward(x, train=True).copy()
    layer.reset_state()
    np.testing.assert_allclose(layer.forward(x), trained, **SAME)


@with_and_without_norm
@every_layer
def test_one_hot_equals_its_dense_rows(make, norm):
    random = np.random.default_rng(34)
    layer, x = moved(make(norm), random), OneHot(distinct_symbols(random), D)
    twin = copied(layer, make, norm)
    y = layer.forward(x, train=True)
    np.testing.assert_allclose(y, twin.forward(x.dense(np.float64), train=True), **SAME)
    dy = random.standard_normal(y.shape)
    layer.backward(dy.copy())
    twin.backward(dy.copy())
    for ours, theirs in zip(layer.parameters, twin.parameters):
        np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=1e-10, atol=1e-12, err_msg=ours.name)


@pytest.mark.parametrize("dropped", [False, True], ids=["whole", "with symbols dropped"])
@pytest.mark.parametrize("different", [1, 7, 150, 250, 300])
def test_one_hot_equals_its_dense_rows_with_few_symbols_and_with_many(different, dropped):
    random = np.random.default_rng(39)
    layer, twin = (LSTM(300, H, dtype=np.float64, random=np.random.default_rng(1)) for _ in range(2))
    symbols = random.permutation(random.permutation(300)[np.arange(60 * 6) % different]).reshape(60, 6)
    assert np.unique(symbols).size == different
    x = OneHot(symbols, 300)
    if dropped:
        x = Dropout(300, 0.3, np.float64, np.random.default_rng(2)).forward(x, train=True)
        assert (
            set(np.unique(x.ones)) == {0, 1 / 0.7}
            and 0 < np.count_nonzero(x.ones) == np.count_nonzero(x.dense(np.float64)) < x.ones.size
        )
    np.testing.assert_allclose(layer.forward(x, train=True), twin.forward(x.dense(np.float64), train=True), **SAME)
    dy = random.standard_normal((60, 6, H))
    layer.backward(dy.copy())
    twin.backward(dy.copy())
    np.testing.assert_allclose(layer.U.gradient, twin.U.gradient, rtol=1e-10, atol=1e-12)


@with_and_without_norm
@every_layer
def test_streams_and_steps_may_change_between_calls(make, norm):
    random = np.random.default_rng(35)
    layer = moved(make(norm), random)
    for steps, streams in ((T, B), (2, 5), (T, 5), (T, B)):
        twin = copied(layer, make, norm)
        x = dense(random, streams, steps)
        if steps == T and streams == 5:  # as many streams as before: the state goes on
            for name, array in twin.state(streams).items():
                array[...] = layer.state(streams)[name]
        y, fresh = layer.forward(x, train=True), twin.forward(x, train=True)
        np.testing.assert_allclose(y, fresh, **SAME)
        dy = random.standard_normal(y.shape)
        for parameter in layer.parameters:
            parameter.gradient.fill(0)
        np.testing.assert_allclose(layer.backward(dy.copy()), twin.backward(dy.copy()), **SAME)
        for ours, theirs in zip(layer.parameters, twin.parameters):
            np.testing.assert_allclose(ours.gradient, theirs.gradient, **SAME, err_msg=ours.name)


@with_and_without_norm
@every_layer
def test_backward_without_dx(make, norm):
    random = np.random.default_rng(36)
    layer, x = moved(make(norm), random), dense(random)
    twin = copied(layer, make, norm)
    dy = random.standard_normal(layer.forward(x, train=True).shape)
    twin.forward(x, train=True)
    assert layer.backward(dy.copy(), want_dx=False) is None
    assert twin.backward(dy.copy()).shape == x.shape
    for ours, theirs in zip(layer.parameters, twin.parameters):
        np.testing.assert_array_equal(ours.gradient, theirs.gradient, err_msg=ours.name)


@with_and_without_norm
@every_layer
def test_weight_decay_pulls_at_the_matrices_alone(make, norm):
    layer = make(norm)
    assert [p.decayed for p in layer.parameters] == [len(p.shape) == 2 for p in layer.parameters]
    for named in (layer.parameters, layer.statistics):
        assert len({owner.name for owner in named}) == len(named)


@with_and_without_norm
@every_layer
def test_a_layer_computes_in_its_own_dtype(make, norm):
    random = np.random.default_rng(41)
    layer, x = make(norm, np.float32), dense(random).astype(np.float32)
    for inputs in (x, OneHot(distinct_symbols(random), D)):
        y = layer.forward(inputs, train=True)
        dx = layer.backward(np.ones_like(y))
        arrays = [y, y if dx is None else dx, layer.forward(inputs), *layer.state(B).values()]
        step = layer.stepper(B, one_hot=inputs is not x)
        arrays += [step(x[0] if inputs is x else inputs.symbols[0]), *(p.gradient for p in layer.parameters)]
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@every_layer
def test_what_a_layer_keeps_of_a_call_is_told_before(make):
    """As far as it is much: a network that would not fit is refused by it before it takes memory."""
    layer, x = make(), dense(np.random.default_rng(40), 100, 50)
    for parameter in layer.parameters:
        assert parameter.value is not parameter.gradient  # they have their memory now
    tracemalloc.start()
    layer.backward(np.ones_like(layer.forward(x, train=True)))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert layer.tape_bytes(50, 100) <= used < 2.5 * layer.tape_bytes(50, 100)  # 1.4 to 2.3 were seen


@pytest.mark.parametrize(("make", "gates"), [(lstm, 4), (gru, 3), (rnn, 1), (crnn, 1), (connected, 0)])
def test_a_recurrent_layer_says_how_many_weights_its_state_meets(make, gates):
    layer = make()
    assert (layer.recurrent, layer.recurrent_weights) == (gates > 0, gates * H * H)
    assert layer.initial_draws == sum(matrix.weights.size for matrix in layer.matrices.values())


@recurrent
def test_reset_of_one_stream_leaves_the_others(make):
    random = np.random.default_rng(37)
    layer, x = moved(make(), random), dense(random)
    layer.forward(x)
    before = {name: array.copy() for name, array in layer.state(B).items()}
    layer.reset_state(stream=1)
    for name, array in layer.state(B).items():
        assert not array[1].any()
        np.testing.assert_array_equal(array[[0, 2]], before[name][[0, 2]])


def test_candidate_of_a_gru_follows_the_dialect_of_the_moment():
    random = np.random.default_rng(38)
    x = dense(random)
    layer, logistic = moved(gru_tanh(), random), gru()
    for ours, theirs in zip(logistic.parameters, layer.parameters):
        ours.value[...] = theirs.value
    expected = logistic.forward(x).copy()
    assert np.abs(layer.forward(x) - expected).max() > 0.1  # pjreddie's: tanh
    layer.reset_state()
    layer.dialect = ALEXEYAB
    np.testing.assert_array_equal(layer.forward(x), expected)


@pytest.mark.parametrize("make", [lstm, gru, gru_tanh])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gates_that_are_wide_open_or_shut_are_one_or_zero(make, dtype):
    layer = make(dtype=dtype)
    gates = [name for name in ("uo", "ui", "uf", "ur", "uz") if name in layer.matrices]
    x = np.random.default_rng(2).standard_normal((T, B, D)).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bias in (-2000, 2000):  # e^2000 is beyond float64
            for name in gates:
                layer.matrices[name].biases[:] = bias
            layer.reset_state()
            y = layer.forward(x, train=True).copy()
            assert np.isfinite(layer.backward(np.ones_like(y))).all()
            open_ = {LSTM: bias > 0, GRU: bias < 0}[type(layer)]  # an update gate z of 1 keeps the state: 0
            assert (y != 0).all() if open_ else (y == 0).all()
