"""The network as a whole: what goes in and comes out, its state, and what a cfg may not ask for."""

import os
import warnings

import numpy as np
import pytest
from runs import LAYERS, cfg_text, write_cfg

from pydarknet import load_network, sharing
from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.darknet.dialect import Dialect
from pydarknet.errors import CfgError, CfgWarning, InputError, WeightsError
from pydarknet.network import Network
from pydarknet.sharing import Sharing
from pydarknet.system import threads
from pydarknet.system.memory import memory_at_hand

DROPOUT = LAYERS.replace("[connected]", "[dropout]\nprobability=.4\n[connected]")


def symbols(T, B, seed=0):
    return np.random.default_rng(seed).integers(64, size=(T, B))


def state_of(network, streams):
    return [{name: array.copy() for name, array in layer.state(streams).items()} for layer in network.layers]


def same(a, b):
    return all(np.array_equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


@pytest.mark.parametrize("layers", [LAYERS, DROPOUT, LAYERS.replace("lstm", "gru"), LAYERS.replace("lstm", "rnn")])
def test_predict_gives_probabilities_and_carries_the_state(tmp_path, layers):
    network = load_network(write_cfg(tmp_path, layers), srand=1)
    x = symbols(23, 3)
    whole = network.predict(x)
    assert whole.shape == (23, 3, 64) and whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=2), 1, atol=1e-5)  # 64 float32 terms
    network.reset_state()
    pieces = [network.predict(x[a:b]) for a, b in ((0, 1), (1, 9), (9, 23))]
    # The same sums, in matrix products of another width, whose order of summation may differ.
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)
    network.reset_state()
    step = network.stepper(streams=3)
    np.testing.assert_allclose(np.stack([step(row).copy() for row in x]), whole, atol=1e-6)


def test_predict_in_blocks_is_predict(tmp_path, monkeypatch):
    network = load_network(write_cfg(tmp_path), srand=1)
    whole = network.predict(symbols(50, 3))
    monkeypatch.setattr("pydarknet.network.ROWS_AT_ONCE", 12)
    network.reset_state()
    np.testing.assert_allclose(network.predict(symbols(50, 3)), whole, atol=1e-6)


def test_streams_do_not_touch(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    x, y = symbols(9, 4), symbols(9, 4)
    y[:, 2] = symbols(9, 1, seed=5)[:, 0]
    a = network.predict(x)
    network.reset_state()
    b = network.predict(y)
    # The last bits of the others may differ: the input product goes over the symbols that occur in any stream.
    differs = np.abs(a - b).max(axis=(0, 2)) > 1e-5
    assert differs.tolist() == [False, False, True, False]


def test_reset_state(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    network.predict(symbols(9, 4))
    network.reset_state(1)
    assert [bool(row.any()) for row in network.layers[0].state(4)["h"]] == [True, False, True, True]
    network.reset_state()
    assert not network.layers[0].state(4)["c"].any()


def test_side_state_leaves_the_state_alone(tmp_path):
    network = load_network(write_cfg(tmp_path, DROPOUT), srand=1)
    network.train_call(symbols(5, 2), symbols(5, 2, seed=1))
    before, random = state_of(network, 2), network.dropout_random.bit_generator.state
    with network.side_state():
        assert not network.layers[0].state(2)["h"].any()
        first = network.predict(symbols(7, 5))
    assert same(state_of(network, 2), before)
    with pytest.raises(InputError), network.side_state():
        network.predict(symbols(7, 2))
        network.predict(symbols(7, 2) + 64)
    assert same(state_of(network, 2), before)
    assert network.dropout_random.bit_generator.state == random
    with network.side_state():
        np.testing.assert_array_equal(network.predict(symbols(7, 5)), first)


def test_nats_are_those_of_predict(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    x, truth = symbols(6, 3), symbols(6, 3, seed=1)
    nats = network.nats(x, truth)
    network.reset_state()
    p = np.take_along_axis(network.predict(x), truth[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(nats, -np.log(p.astype(float)), rtol=1e-6)


def test_train_call_counts_and_returns_the_sum(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    loss = network.train_call(symbols(5, 2), symbols(5, 2, seed=1))
    assert network.seen == 10 and network.parameters.gradients.any()
    assert loss == pytest.approx(10 * np.log(64), rel=0.05)
    again = load_network(write_cfg(tmp_path), srand=1)
    nats = again.train_call(symbols(5, 2), symbols(5, 2, seed=1), each=True)
    assert nats.shape == (5, 2) and nats.dtype == np.float64 and nats.sum() == pytest.approx(loss)


@pytest.mark.parametrize(("values", "bad"), [([0, 64], 64), ([-3, 5], -3), ([1, 70], 70)])
def test_the_symbol_that_cannot_be_is_named(tmp_path, values, bad):
    network = load_network(write_cfg(tmp_path))
    with pytest.raises(InputError, match=f"^symbol {bad} is outside 0..63"):
        network.predict(np.array([values]))


def test_a_state_that_no_network_has_is_refused(tmp_path):
    """Each variance has its own place among the statistics; one of 0 is as it begins."""
    layers = "[lstm]\noutput=7\nbatch_normalize=1\n[connected]\noutput=64\nbatch_normalize=1\n[softmax]\n"
    network = load_network(write_cfg(tmp_path, layers))
    facts = network.facts()
    network.check(facts, network.arrays())
    for layer in network.layers:
        for statistic in layer.statistics:
            statistic.value[-1] = -1
            if "variance" in statistic.name:
                with pytest.raises(ValueError, match=f"holds a negative variance, in {statistic.name}"):
                    network.check(facts, network.arrays())
            else:
                network.check(facts, network.arrays())
            statistic.value[-1] = 0
    network.check(facts | {"seen": 2**63 - 1}, network.arrays())
    for seen in (-1, 2**63, 1.0, True, None):
        with pytest.raises(ValueError, match="has no usable 'seen'"):
            network.check(facts | {"seen": seen}, network.arrays())


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 2)),
        np.zeros(3, int),
        np.full((3, 2), 64),
        np.full((3, 2), -1),
        [[1.5]],
        [["a"]],
        np.full((2, 2), 2**40),
        [[1], [2, 3]],
        [[2**70]],
        np.zeros((3, 0), int),
    ],
)
def test_symbols_that_cannot_be(tmp_path, bad):
    network = load_network(write_cfg(tmp_path))
    for call in (network.predict, lambda x: network.train_call(x, x)):
        with pytest.raises(InputError, match="symbols must be integers of shape|is outside 0..63: the cfg has inputs=64"):
            call(bad)


def test_sizes_come_from_the_cfg_or_the_call(tmp_path):
    cfg = write_cfg(tmp_path, batch=6, subdivisions=3, time_steps=9)
    network = load_network(cfg)
    assert (network.streams, network.time_steps, network.subdivisions, network.inputs) == (2, 9, 3, 64)
    network = load_network(cfg, batch=5, time_steps=4)
    assert (network.streams, network.time_steps) == (5, 4)
    for name in ("batch", "time_steps"):
        with pytest.raises(InputError, match=f"{name} is 0; it must be a whole number from 1"):
            load_network(cfg, **{name: 0})
    with pytest.raises(InputError, match="dialect 'darknet' is not one of pjreddie, alexeyab"):
        load_network(cfg, dialect="darknet")


LAST = "[connected]\noutput=5\nactivation=linear\n"


def minimal(options="", layers=LAST):
    return parse_cfg_text(f"[net]\ninputs=5\n{options}{layers}[softmax]\n", "a.cfg")


def test_a_cfg_that_says_nothing_has_darknets_defaults():
    network = Network(minimal())
    assert (network.streams, network.time_steps, network.subdivisions) == (1, 1, 1)
    assert (network.jump, network.seen, network.dtype, network.dialect.value) == (1 / 64, 0, np.float32, "pjreddie")
    assert network.streams_here is network.sharing is None
    loaded = load_network(minimal())
    assert (loaded.streams, loaded.dtype, loaded.dialect) == (1, np.float32, network.dialect)


@pytest.mark.parametrize("key", ["batch", "subdivisions", "time_steps", "height", "width", "channels", "inputs", "jump"])
def test_sizes_end_somewhere(key):
    count = key in ("batch", "subdivisions", "time_steps")
    with pytest.raises(CfgError, match=rf"^a\.cfg:2: \[net\] {key}=.* is too small: it must be at least {int(count)}$"):
        Network(parse_cfg_text(f"[net]\n{key}={0 if count else -1}\n" + "inputs=5\n" * (key != "inputs") + LAYERS, "a.cfg"))
    assert Network(minimal(f"{key}=1\n" if key != "inputs" else "")).streams == 1
    if key == "jump":
        assert Network(minimal("jump=0\n")).jump == 0
        with pytest.raises(CfgError, match=r"jump=1.01 is too large: it must be at most 1"):
            Network(minimal("jump=1.01\n"))


def test_settings_and_names_of_dialects_and_dtypes(tmp_path):
    cfg = write_cfg(tmp_path)
    network = load_network(cfg, dialect="alexeyab", dtype="float64", settings=["net.time_steps=3", "0.output=9"])
    assert (network.time_steps, network.layers[0].outputs) == (3, 9)
    assert (network.dialect.value, network.dtype, network.parameters.values.dtype) == ("alexeyab", np.float64, np.float64)
    network.save_weights(tmp_path / "a.weights")
    network.save_weights(tmp_path / "p.weights", dialect="pjreddie")
    settings = ["0.output=9"]
    assert load_network(cfg, tmp_path / "a.weights", settings=settings).dialect is network.dialect
    assert load_network(cfg, tmp_path / "p.weights", settings=settings).dialect.value == "pjreddie"
    for dialect in ("pjreddie", network.dialect):  # whatever the header says
        loaded = load_network(cfg, tmp_path / "a.weights", dialect=dialect, settings=settings)
        assert {loaded.dialect, *(layer.dialect for layer in loaded.layers)} == {Dialect(dialect)}


@pytest.mark.parametrize("first", ["", "dropout", "dropout lstm", "activation gru", "dropout batchnorm dropout"])
def test_one_step_at_a_time_is_predict_whatever_comes_first(first):
    network = Network(minimal(layers="".join(f"[{name}]\n" for name in first.split()) + LAST), srand=1)
    x = symbols(6, 3) % 5
    expected = network.predict(x)
    assert np.ptp(expected) > 0
    for temperature, power in ((None, 1), (0.5, 2)):  # p at another temperature
        network.reset_state()
        step = network.stepper(3, temperature)
        right = expected**power / (expected**power).sum(axis=2, keepdims=True)
        np.testing.assert_allclose([step(row).copy() for row in x], right, rtol=1e-5)


def test_a_layers_output_is_that_of_the_layers_up_to_it():
    network = Network(minimal(layers="[lstm]\noutput=3\n[gru]\noutput=4\n" + LAST), srand=1)
    x = symbols(6, 2) % 5
    outputs = []
    for number in range(3):
        network.reset_state()
        outputs.append(network.layer_output(number, x).copy())
    assert [output.shape[2] for output in outputs] == [3, 4, 5]
    network.reset_state()
    np.testing.assert_allclose(network.loss.probabilities(outputs[2]), network.predict(x), rtol=1e-6)


def test_srand_draws_the_same_weights(tmp_path):
    cfg = write_cfg(tmp_path)
    a, b, c = (load_network(cfg, srand=n).parameters.values for n in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    bound = np.sqrt(2 / 64)  # Darknet's, of the layer with 64 inputs
    weights = load_network(cfg, srand=1).layers[0].matrices["ui"].weights
    assert 0.9 * bound < np.abs(weights).max() <= bound


def test_height_width_and_channels_are_inputs(tmp_path):
    network = load_network(write_cfg(tmp_path, inputs=None, height=1, width=16, channels=4))
    assert network.inputs == 64


@pytest.mark.parametrize(
    ("layers", "net", "line", "message"),
    [
        (LAYERS, dict(inputs=None), 1, r"\[net\] no `inputs`: give the number of symbols"),
        (LAYERS, dict(batch=5), 3, r"\[net\] batch=5 is not divisible by subdivisions=2"),
        ("", {}, 1, r"\[net\] the network must end in \[softmax\]"),
        (LAYERS.replace("[softmax]", ""), {}, 13, r"\[connected\] the network must end in \[softmax\]"),
        (LAYERS + "[cost]\n[cost]\n", {}, 18, r"must end in \[softmax\]"),
        ("[softmax]" + LAYERS, {}, 10, r"\[softmax\] only the end of the network may be a softmax or a cost"),
        (
            LAYERS.replace("output=64", "output=63"),
            {},
            16,
            r"\[softmax\] 63 outputs come in, but the network has inputs=64: the layer before needs output=64",
        ),
        (LAYERS.replace("output=7", "output=0"), {}, 12, "output=0 is too small: it must be at least 1"),
        (
            LAYERS.replace("output=7", "output=2000000000"),
            {},
            12,
            r"\[lstm\] the parameters up to here need \d+(,\d{3}){5,} bytes of memory, and [\d,]+ can be had",
        ),
        (LAYERS.replace("[connected]", "[connected]\noutput=1000000000\n[connected]"), {}, 14, "need .* bytes of memory"),
        (LAYERS, dict(inputs=2000000000), 12, "need .* bytes of memory"),
        ("[gru]\noutput=2000000000\n[softmax]", {}, 11, "need .* bytes of memory"),
        ("[rnn]\nhidden=2000000000\n[softmax]", {}, 10, "need .* bytes of memory"),
    ],
)
def test_cfgs_that_make_no_network(layers, net, line, message):
    with pytest.raises(CfgError, match=rf"^a\.cfg:{line}: .*{message}"):
        Network(parse_cfg_text(cfg_text(layers, **net), "a.cfg"))


def test_unknown_keys_are_warned_about_and_those_for_images_are_not(tmp_path):
    cfg = write_cfg(tmp_path, momenta=".9")
    with pytest.warns(CfgWarning, match=r"tiny.cfg:10: \[net\] Unused field: 'momenta = .9': is it 'momentum'") as caught:
        load_network(cfg)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_network(write_cfg(tmp_path, angle=7, hue=".1", max_crop=3))


def test_weights_survive(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    network.train_call(symbols(5, 2), symbols(5, 2, seed=1))
    network.save_weights(tmp_path / "a.weights")
    other = load_network(write_cfg(tmp_path), tmp_path / "a.weights")
    assert other.seen == 10 and np.array_equal(other.parameters.values, network.parameters.values)


def test_memory_at_hand():
    """As far as the system tells: at least what this test already uses, at most what any machine has."""
    assert 50 << 20 < memory_at_hand() < 1 << 50


def test_a_stream_that_is_not_there(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    network.predict(symbols(3, 2))
    before = state_of(network, 2)
    with pytest.raises(InputError, match="stream 2 is beyond"):
        network.reset_state(stream=2)
    assert same(before, state_of(network, 2))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch": 0}, "batch is 0"),
        ({"batch": 1.5}, "batch is 1.5"),
        ({"time_steps": "2"}, "time_steps is '2'"),
        ({"srand": -1}, "srand is -1"),
        ({"dtype": "int32"}, "dtype 'int32' is neither"),
        ({"dtype": "nonsense"}, "dtype 'nonsense' is neither"),
        ({"dialect": "tiny"}, "dialect 'tiny'"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        load_network(write_cfg(tmp_path), **options)


def test_symbols_and_truth_are_of_one_shape(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    for call in (network.train_call, network.nats):
        with pytest.raises(InputError, match="one shape"):
            call(symbols(3, 2), symbols(4, 2))


RNN = "[rnn]\noutput=5\nactivation=tanh\n[connected]\noutput=64\n[softmax]\n"


def test_an_rnn_takes_the_size_that_the_file_that_is_read_has(tmp_path):
    cfg = write_cfg(tmp_path, RNN)
    of_a, of_p = tmp_path / "a.weights", tmp_path / "p.weights"
    alexeyabs, pjreddies = load_network(cfg, srand=1, dialect="alexeyab"), load_network(cfg, srand=2)
    alexeyabs.seen = 40
    alexeyabs.save_weights(of_a)
    pjreddies.save_weights(of_p)
    assert of_a.stat().st_size < of_p.stat().st_size
    network = load_network(cfg)
    for path, states, written in ((of_a, 1, alexeyabs), (of_p, 5, pjreddies), (of_a, 1, alexeyabs)):
        network.load_weights(path)
        assert network.layers[0].state_size == states
        assert (network.dialect, network.seen) == (written.dialect, written.seen)
        network.reset_state()
        written.reset_state()
        np.testing.assert_array_equal(network.predict(symbols(4, 2)), written.predict(symbols(4, 2)))
        network.save_weights(tmp_path / "again.weights")
        assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()
    before = network.layers
    of_p.write_bytes(of_p.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="too short"):
        network.load_weights(of_p)
    assert network.layers is before and network.layers[0].state_size == 1


def test_paths_may_be_bytes(tmp_path):
    network = load_network(os.fsencode(write_cfg(tmp_path)), srand=1)
    network.save_weights(os.fsencode(tmp_path / "tiny.weights"))
    network.load_weights(os.fsencode(tmp_path / "tiny.weights"))


def test_no_steps_is_an_input_error(tmp_path):
    network = load_network(write_cfg(tmp_path), srand=1)
    none = np.zeros((0, 2), int)
    for call in (network.nats, network.train_call):
        with pytest.raises(InputError, match=r"at least one step and one stream, not int64 of shape \(0, 2\)"):
            call(none, none)
    with pytest.raises(InputError, match="at least one step"):
        network.layer_output(0, none)
    assert network.predict(none).shape == (0, 2, 64)  # nothing follows nothing


def test_a_loss_beyond_the_smallest_float32_is_told(tmp_path):
    """-ln p of a symbol whose p underflows: 87.3 nats is no bound."""
    network = load_network(write_cfg(tmp_path), srand=1)
    network.layers[-1].biases.value[:] = np.where(np.arange(64) == 3, 1000, 0)
    truth = np.full((2, 2), 5)
    loss = network.train_call(symbols(2, 2), truth)
    assert loss == pytest.approx(4000, rel=1e-2)


def test_the_temperature_of_a_softmax_is_in_its_gradient(tmp_path):
    """(p - onehot) / τ: exact, where Darknet leaves the division out. Documented in losses.py."""
    cfg = write_cfg(tmp_path, LAYERS.replace("[softmax]", "[softmax]\ntemperature=2"))
    network = load_network(cfg, srand=1, dtype="float64")
    x, y = symbols(3, 2), symbols(3, 2, seed=2)
    network.train_call(x, y)
    gradient = network.layers[-1].biases.gradient.copy()
    network.reset_state()
    p = network.predict(x)
    p[np.arange(3)[:, None], np.arange(2), y] -= 1
    np.testing.assert_allclose(gradient, p.sum(axis=(0, 1)) / 2, rtol=1e-9, atol=1e-12)


def watch(monkeypatch, network, look):
    """What ``look(team)`` gives whenever the first layer is run forward."""
    seen = []
    forward = network.layers[0].forward
    monkeypatch.setattr(network.layers[0], "forward", lambda x, train, team: seen.append(look(team)) or forward(x, train, team))
    return seen


@pytest.mark.skipif(threads.blas_threads() is None, reason="NumPy's matrix library has no such setting")
def test_the_matrix_library_keeps_to_one_thread_while_a_call_runs(tmp_path, monkeypatch):
    network = load_network(write_cfg(tmp_path))
    symbols = np.zeros((5, 2), int)
    before = threads.blas_threads()
    _, set_threads = threads._functions()
    set_threads(2)
    try:
        counts = watch(monkeypatch, network, lambda team: threads.blas_threads())
        network.train_call(symbols, symbols)
        network.predict(symbols)
        assert counts == [1, 1]
        assert threads.blas_threads() == 2
    finally:
        set_threads(before)


def test_own_threads_share_out_a_call_where_they_pay(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "blas_threads", lambda: 3)
    monkeypatch.setattr(sharing, "THREADS_PAY", [(1, 4)])
    monkeypatch.setattr(sharing, "THREADS_PAY_IN_TRAINING", [(1, 2)])
    network = load_network(write_cfg(tmp_path))
    counts = watch(monkeypatch, network, lambda team: team.count)
    network.train_call(np.zeros((5, 2), int), np.zeros((5, 2), int))
    network.predict(np.zeros((5, 2), int))
    network.predict(np.zeros((5, 4), int))
    network.sharing = Sharing(threads=2)  # as told
    network.predict(np.zeros((5, 2), int))
    assert counts == [3, 1, 3, 2]


END = "[connected]\noutput=64\nactivation=linear\n[softmax]\n"


@pytest.mark.parametrize("layer", ["lstm", "gru", "rnn", "crnn\nsize=1\nhidden=5"])
def test_calls_of_other_shapes_and_teams_do_not_meet(tmp_path, layer):
    """What a layer keeps of a call (T, B) is no place for one of (B, T), or of other threads."""
    kind, *options = layer.split("\n")
    cfg = write_cfg(tmp_path, "\n".join([f"[{kind}]", "output=6", *options, END]))

    def gradients(network, T, B, count, seed):
        network.sharing = Sharing(threads=count)
        network.reset_state()
        network.parameters.clear_gradients()
        loss = network.train_call(symbols(T, B, seed), symbols(T, B, seed + 1))
        return loss, network.parameters.gradients.copy(), network.predict(symbols(T, B, seed))

    used = load_network(cfg, srand=1)
    for seed, (T, B, count) in enumerate([(3, 2, 1), (2, 3, 1), (6, 1, 1), (2, 3, 2), (2, 3, 3), (2, 3, 1), (3, 2, 2)]):
        fresh = gradients(load_network(cfg, srand=1), T, B, count, seed)
        for found, expected in zip(gradients(used, T, B, count, seed), fresh):
            np.testing.assert_array_equal(found, expected)


def test_behind_a_part_of_the_streams_the_network_runs_all_again(tmp_path):
    layers = "[lstm]\noutput=4\n[dropout]\n[connected]\noutput=5\nactivation=linear\n[softmax]\n"
    (tmp_path / "net.cfg").write_text(f"[net]\ninputs=5\nbatch=6\ntime_steps=3\n{layers}")
    network, other = (load_network(tmp_path / "net.cfg", srand=1) for _ in range(2))
    symbols = np.arange(18).reshape(3, 6) % 5
    with network.part_of_streams(slice(2, 5)):
        network.train_call(symbols[:, 2:5], symbols[:, 2:5])
    network.reset_state()
    network.dropout_random.bit_generator.state = other.dropout_random.bit_generator.state
    np.testing.assert_array_equal(
        network.train_call(symbols, symbols, each=True), other.train_call(symbols, symbols, each=True)
    )
