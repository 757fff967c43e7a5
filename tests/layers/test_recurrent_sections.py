"""What [gru], [rnn], [crnn] and [batchnorm] sections become, and what the weights file keeps of them."""

import warnings

import numpy as np
import pytest

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.errors import CfgError, CfgWarning
from pydarknet.layers.connected import Connected
from pydarknet.network import Network

END = "[connected]\noutput=5\nactivation=linear\n[softmax]\n"

# AlexeyAB's cfg/crnn.train.cfg with its sizes cut down and nothing else changed.
STOCK_CRNN = """[net]
subdivisions=2
inputs=5
batch = 8
momentum=0.9
decay=0.001
max_batches = 2000
time_steps=6
learning_rate=0.1
policy=steps
steps=1000,1500
scales=.1,.1

[rnn]
batch_normalize=1
output = 6
hidden=7
activation=leaky

[crnn]
batch_normalize=1
size=1
pad=0
output = 8
hidden=9
activation=leaky

[connected]
output=5
activation=leaky

[softmax]

[cost]
type=sse

"""


def build(section, dialect=PJREDDIE, dtype=np.float32):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no option that is read may be reported as unused
        return Network(
            parse_cfg_text(f"[net]\ninputs=5\nbatch=3\n{section}{END}", "test.cfg"), dialect=dialect, srand=1, dtype=dtype
        )


def layout(layer, dialect):
    return [(name, array.shape) for name, array in layer.stored(dialect)]


@pytest.mark.parametrize(
    "options, dialect, hidden",
    [
        ("output=4\n", PJREDDIE, 4),
        ("output=4\n", ALEXEYAB, 1),
        ("output=4\nhidden=3\n", PJREDDIE, 3),
        ("output=4\nhidden=3\n", ALEXEYAB, 3),
    ],
)
def test_state_of_an_rnn_is_as_large_as_the_dialect_says(options, dialect, hidden):
    layer = build("[rnn]\n" + options, dialect).layers[0]
    assert layer.state(2)["h"].shape == (2, hidden)
    assert layer.self_layer.weights.value.shape == (hidden, hidden)
    assert layer.output_layer.weights.value.shape == (4, hidden)


@pytest.mark.parametrize(
    "options, activation, self_activation, shortcut",
    [
        ("", "logistic", "logistic", False),
        ("activation=tanh\nshortcut=1\n", "tanh", "tanh", True),
        ("activation=leaky\nlogistic=1\n", "leaky", "logistic", False),
        ("activation=leaky\nlogistic=2\n", "leaky", "loggy", False),
    ],
)
def test_activations_of_an_rnn(options, activation, self_activation, shortcut):
    layer = build("[rnn]\noutput=4\n" + options, ALEXEYAB).layers[0]
    assert [part.activation.name for part in (layer.input_layer, layer.self_layer, layer.output_layer)] == [
        activation,
        self_activation,
        activation,
    ]
    assert layer.shortcut is shortcut


def test_logistic_of_an_rnn_is_0_1_or_2():
    with pytest.raises(CfgError, match=r"test.cfg:6: \[rnn\] logistic=3"):
        build("[rnn]\noutput=4\nlogistic=3\n", ALEXEYAB)


def test_pjreddies_fork_has_no_logistic():
    with pytest.raises(CfgWarning, match="Unused field: 'logistic = 1'"):
        build("[rnn]\noutput=4\nactivation=tanh\nlogistic=1\n", PJREDDIE)


def test_gru_options():
    layer = build("[gru]\noutput=4\ntanh=1\nbatch_normalize=1\n").layers[0]
    assert not layer.logistic_candidate and layer.u_norm is not None
    assert build("[gru]\noutput=4\n").layers[0].logistic_candidate
    assert build("[gru]\noutput=4\ntanh=1\n", ALEXEYAB).layers[0].logistic_candidate


@pytest.mark.parametrize(
    "options, line, what",
    [
        ("output=4\n", 4, "kernels of 3x3, the default"),
        ("size=3\npad=1\n", 5, "kernels of 3x3;"),
        ("size=1\npadding=1\n", 6, "padding=1"),
        ("size=1\nstride=2\n", 6, "stride=2"),
        ("size=1\ngroups=2\n", 6, "groups=2"),
        ("size=1\nxnor=1\n", 6, "xnor=1"),
        ("output_filters=4\n", 5, "output_filters is for pjreddie's 3x3 kernels"),
        ("size=1\nhidden_filters=4\n", 6, "hidden_filters is for pjreddie's 3x3 kernels"),
    ],
)
def test_crnn_other_than_1x1_is_an_error_with_its_line(options, line, what):
    with pytest.raises(CfgError, match=rf"^test.cfg:{line}: \[crnn\] {what}.* a step .* only 1x1 kernels are supported"):
        build("[crnn]\n" + options)


def test_crnn_options():
    layer = build("[crnn]\nsize=1\npad=1\nstride=1\ndilation=2\noutput=4\nhidden=3\nactivation=leaky\nshortcut=1\n").layers[0]
    assert (layer.outputs, layer.state_size, layer.shortcut) == (4, 3, True)
    assert build("[crnn]\nsize=1\noutput=4\n").layers[0].state_size == 1
    assert build("[crnn]\nsize=1\noutput=4\nhidden=1\n").layers[0].state_size == 1


@pytest.mark.parametrize("section", ["[rnn]\n", "[crnn]\nsize=1\n"])
def test_a_state_has_a_size(section):
    with pytest.raises(CfgError, match="hidden=0"):
        build(section + "hidden=0\n")


@pytest.mark.parametrize(
    "dialect, order", [(PJREDDIE, "wz wr wh uz ur uh"), (ALEXEYAB, "uz ur uh wz wr wh")], ids=["pjreddie", "alexeyab"]
)
def test_file_order_of_a_gru(dialect, order):
    layer = build("[gru]\noutput=4\nbatch_normalize=1\n").layers[0]
    expected = []
    for name in order.split():
        inputs = 4 if name[0] == "w" else 5
        expected += [
            (f"{name}.biases", (4,)),
            (f"{name}.weights", (4, inputs)),
            (f"{name}.scales", (4,)),
            (f"{name}.rolling_mean", (4,)),
            (f"{name}.rolling_variance", (4,)),
        ]
    assert layout(layer, dialect) == expected


@pytest.mark.parametrize("norm", [0, 1])
def test_file_order_and_activation_of_connected(norm):
    layer = build(f"[connected]\noutput=4\nbatch_normalize={norm}\n").layers[0]
    assert layout(layer, PJREDDIE) == layout(layer, ALEXEYAB)
    kept = {"biases": (4,), "weights": (4, 5)} | dict.fromkeys(("scales", "rolling_mean", "rolling_variance"), (4,))
    assert layout(layer, PJREDDIE) == list(kept.items())[: 5 if norm else 2]
    assert list(layer.matrices) == ["connected"]
    assert layer.activation.name == Connected(5, 4).activation.name == "logistic" and Connected(5, 4).norm is None
    assert build("[connected]\nactivation=relu\n").layers[0].activation.name == "relu"


@pytest.mark.parametrize("dialect", [PJREDDIE, ALEXEYAB], ids=["pjreddie", "alexeyab"])
def test_file_order_of_rnn_and_crnn(dialect):
    rnn = build("[rnn]\noutput=4\nhidden=3\nbatch_normalize=1\n").layers[0]
    crnn = build("[crnn]\nsize=1\noutput=4\nhidden=3\nbatch_normalize=1\n").layers[0]
    sizes = {"input": (3, 5), "self": (3, 3), "output": (4, 3)}
    connected, convolutional = [], []
    for name, (rows, columns) in sizes.items():
        biases, weights = (f"{name}.biases", (rows,)), (f"{name}.weights", (rows, columns))
        norm = [(f"{name}.{kind}", (rows,)) for kind in ("scales", "rolling_mean", "rolling_variance")]
        connected += [biases, weights, *norm]
        convolutional += [biases, *norm, (f"{name}.weights", (rows, columns, 1, 1))]
    assert layout(rnn, dialect) == connected
    assert layout(crnn, dialect) == convolutional


@pytest.mark.parametrize("dialect", ["pjreddie", "alexeyab"])
@pytest.mark.parametrize(
    "section",
    [
        "[gru]\noutput=4\n",
        "[gru]\noutput=4\nbatch_normalize=1\n",
        "[rnn]\noutput=4\nhidden=3\n",
        "[rnn]\noutput=4\nhidden=3\nbatch_normalize=1\n",
        "[crnn]\nsize=1\noutput=4\nhidden=3\n",
        "[crnn]\nsize=1\noutput=4\nhidden=3\nbatch_normalize=1\n",
        "[batchnorm]\n",
    ],
    ids=["gru", "gru norm", "rnn", "rnn norm", "crnn", "crnn norm", "batchnorm"],
)
def test_weights_survive_a_round_trip(section, dialect, tmp_path):
    dialect = type(PJREDDIE)(dialect)
    random = np.random.default_rng(4)
    network, again = build(section, dialect), build(section, dialect)
    for _, array in network.layers[0].stored(dialect):
        array[...] = random.uniform(0.5, 2, array.shape)  # writes through the views
    first, second = tmp_path / "first.weights", tmp_path / "second.weights"
    network.save_weights(first)
    again.load_weights(first)
    again.save_weights(second)
    assert first.read_bytes() == second.read_bytes()
    symbols = random.integers(0, 5, (7, 3))
    np.testing.assert_array_equal(network.predict(symbols), again.predict(symbols))


THREE = [f"{name}.{kind}" for name in ("input", "self", "output") for kind in ("biases", "weights", "norm.scales")]


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("[connected]\noutput=5\nbatch_normalize=1", ["biases", "weights", "norm.scales"]),
        ("[lstm]\noutput=5\nbatch_normalize=1", ["W", "U", "w.biases", "u.biases", "w.scales", "u.scales"]),
        ("[gru]\noutput=5\nbatch_normalize=1", ["W", "U", "w.biases", "u.biases", "w.scales", "u.scales"]),
        ("[rnn]\noutput=5\nbatch_normalize=1", THREE),
        ("[crnn]\nsize=1\noutput=5\nbatch_normalize=1", THREE),
        ("[batchnorm]", ["biases", "norm.scales"]),
    ],
)
def test_names_of_what_is_learned_and_that_only_matrices_decay(section, names):
    """Darknet's updates take ``decay`` off ``weight_updates`` alone."""
    (layer,) = build(section + "\n").layers[:1]
    assert {p.name: p.decayed for p in layer.parameters} == {name: not name.endswith(("biases", "scales")) for name in names}


def test_stock_crnn_cfg_builds_and_learns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = Network(parse_cfg_text(STOCK_CRNN, "crnn.train.cfg"), srand=1)
    symbols = np.random.default_rng(5).integers(0, 5, (7, network.streams))
    losses = []
    for _ in range(100):
        network.parameters.clear_gradients()
        network.reset_state()
        losses.append(network.train_call(symbols[:-1], symbols[1:]))
        # Larger steps jump, with batch norm over four streams, and where to depends on the machine's rounding.
        network.parameters.values -= 0.005 * network.parameters.gradients
    assert losses[-1] < 0.6 * losses[0], losses  # 0.1 to 0.4 with five seeds


@pytest.mark.parametrize("section", ["lstm", "gru", "rnn"])
def test_batch_norm_of_a_single_stream_uses_the_rolling_statistics(section):
    """Stock rnn.cfg and gru.cfg have batch=1 and time_steps=1; Darknet computes 0/0 there."""
    text = (
        f"[net]\ninputs=7\nbatch=1\ntime_steps=1\n[{section}]\noutput=5\nhidden=5\nbatch_normalize=1\n"
        if section == "rnn"
        else f"[net]\ninputs=7\nbatch=1\ntime_steps=1\n[{section}]\noutput=5\nbatch_normalize=1\n"
    )
    network = Network(parse_cfg_text(text + "[connected]\noutput=7\nactivation=linear\n[softmax]\n", "one.cfg"), srand=1)
    symbols = np.random.default_rng(1).integers(7, size=40)
    with pytest.warns(UserWarning, match="single stream"):
        losses = [network.train_call(symbols[n : n + 1, None], symbols[n + 1 : n + 2, None]) for n in range(39)]
    assert np.isfinite(losses).all()
    assert np.isfinite(network.parameters.gradients).all() and network.parameters.gradients.any()
    assert (network.parameters.statistics != 0).mean() > 0.9
    assert np.isfinite(network.predict(symbols[:, None])).all()
