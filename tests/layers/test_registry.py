"""The table of layers: names, sizes, and a new layer in one file and one line."""

import textwrap
import warnings

import numpy as np
import pytest

from pydarknet import Corpus, Trainer
from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.errors import CfgError, CfgWarning
from pydarknet.layers.registry import FLAGS, LAYERS, OF_IMAGES, UNSUPPORTED, section_types
from pydarknet.network import Network, load_network

END = "[connected]\noutput=5\nactivation=linear\n[softmax]\n"

# A minimal gated unit (G. Zhou et al., 2016) with its candidate's matrix left out, as a user would write it:
#     f = σ(U x + W h₋₁ + b)     g = tanh(U x + W h₋₁ + b)     h = f ∘ h₋₁ + (1 - f) ∘ g
TOY = """
import numpy as np

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.layers.activations import sigmoid
from pydarknet.layers.gated import Gated


class Toy(Gated):
    type = "toy"
    gates = "fg"
    together = ("fg",)
    states = ("h",)
    slopes_of = "fg"
    passes_by = True
    file_order = {PJREDDIE: "wf wg uf ug".split(), ALEXEYAB: "uf ug wf wg".split()}

    @classmethod
    def from_section(cls, section, context):
        return cls(context.inputs, section.integer("output", 1, minimum=1), section.flag("batch_normalize"), context.dtype)

    def forward_step(self, s):
        sigmoid(s.f)
        np.tanh(s.g, out=s.g)
        np.subtract(s.h_, s.g, out=s.spare)
        np.multiply(s.f, s.spare, out=s.spare)
        np.add(s.g, s.spare, out=s.h)

    def backward_step(self, s):
        np.multiply(s.slope_f, s.dh, out=s.dz_f)
        np.multiply(s.slope_g, s.dh, out=s.dz_g)
        np.multiply(s.f, s.dh, out=s.passed)

    def slopes(self, s):
        s.slope_f[...] = (s.h_ - s.g) * s.f * (1 - s.f)
        s.slope_g[...] = (1 - s.f) * (1 - s.g * s.g)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The one file, and the one line."""
    (tmp_path / "toy_layer.py").write_text(textwrap.dedent(TOY))
    monkeypatch.syspath_prepend(tmp_path)
    from toy_layer import Toy

    monkeypatch.setattr("pydarknet.layers.registry.LAYERS", [*LAYERS, Toy])
    return Toy


def build(section, **options):
    text = f"[net]\ninputs=5\nbatch=3\ntime_steps=6\nmax_batches=60\nlearning_rate=.01\nadam=1\n{section}{END}"
    return Network(parse_cfg_text(text, "x.cfg"), srand=1, **options)


@pytest.mark.parametrize("norm", [0, 1])
def test_a_new_layer_is_one_file_and_one_line(toy, tmp_path, norm):
    """It trains, is saved and read again, writes text, and its gradients are right."""
    from gradients import check_layer

    random = np.random.default_rng(1)
    check_layer(toy(3, 4, norm, np.float64, random), random.standard_normal((7, 5, 3)), random)

    network = build(f"[toy]\noutput=4\nbatch_normalize={norm}\n")
    assert (network.layers[0].type, network.layers[0].outputs) == ("toy", 4)
    assert sum(p.size for p in network.layers[0].parameters) == 2 * 4 * (5 + 4 + 2 + 2 * norm)
    trainer = Trainer(network, Corpus.from_symbols(np.arange(200) % 5), srand=1)
    losses = [step.loss for step in trainer.run()]
    assert losses[-1] < 0.7 * losses[0]
    network.save_weights(tmp_path / "toy.weights")
    again = build(f"[toy]\noutput=4\nbatch_normalize={norm}\n")
    again.load_weights(tmp_path / "toy.weights")
    network.reset_state()
    symbols = random.integers(5, size=(9, 3))
    np.testing.assert_array_equal(again.predict(symbols), network.predict(symbols))
    again.reset_state()
    step = again.stepper(3)
    network.reset_state()
    np.testing.assert_allclose([step(row).copy() for row in symbols], network.predict(symbols), rtol=1e-4)


@pytest.mark.parametrize(("name", "type_"), sorted(section_types().items()))
def test_every_name_has_its_type(name, type_):
    end = "" if type_ in ("softmax", "cost") else f"[{name}]\n" + ("size=1\n" if type_ == "crnn" else "")
    if name == "soft":
        network = Network(parse_cfg_text(f"[network]\ninputs=5\n{END.replace('softmax', 'soft')}", "x.cfg"))
        assert network.cfg.layers[-1].type == "softmax"
    elif end:
        assert build(end).layers[0].type == type_


@pytest.mark.parametrize("section", ["[lstm]\n", "[gru]\n", "[rnn]\n", "[crnn]\nsize=1\n", "[connected]\n"])
def test_the_keys_of_every_layer_with_weights(section):
    plain = build(section).layers[0]
    assert plain.outputs == 1 and not plain.statistics  # Darknet's defaults
    layer = build(section + "output=6\nbatch_normalize=1\n", dtype="float64").layers[0]
    assert layer.outputs == 6 and layer.statistics
    assert (plain.dtype, layer.dtype) == (np.float32, np.float64)
    assert build(section + "output=1\nbatch_normalize=0\n").layers[0].outputs == 1
    with pytest.raises(CfgError, match="output=0 is too small: it must be at least 1"):
        build(section + "output=0\n")


def keys_of(layer):
    return (layer.learning_rate, layer.input_weights.rate, layer.state_weights.dropout, *(getattr(layer, key) for key in FLAGS))


def test_the_keys_of_every_layer():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keys_of(build("[lstm]\n").layers[0]) == (1, 1, 0, False, False, False)
        some = "learning_rate=.5\ninput_rate=0\nweight_dropout=.99\n" + "".join(f"{key}=7\n" for key in OF_IMAGES)
        assert keys_of(build(f"[lstm]\n{some}").layers[0]) == (0.5, 0, 0.99, False, False, False)
        for key in FLAGS:
            layer = build(f"[lstm]\n{key}=1\n").layers[0]
            assert [flag for flag in FLAGS if getattr(layer, flag)] == [key]
    with pytest.raises(CfgError, match="^x.cfg:9: .*input_rate=-1.0 is too small"):
        build("[lstm]\ninput_rate=-1\n")
    for key in ("input_rate", "weight_dropout"):  # of a layer without weights they mean nothing
        with pytest.warns(CfgWarning, match=f"^x.cfg:9: .*Unused field: '{key} = .5'"):
            build(f"[dropout]\n{key}=.5\n")


@pytest.mark.parametrize("dialect", [PJREDDIE, ALEXEYAB])
def test_layers_fit_one_behind_the_other_and_are_of_one_dialect(dialect):
    layers = build("[lstm]\noutput=4\n[dropout]\n[gru]\noutput=3\n", dialect=dialect).layers
    assert [(layer.inputs, layer.outputs) for layer in layers] == [(5, 4), (4, 4), (4, 3), (3, 5)]
    assert all(layer.dialect is dialect for layer in layers)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LSTM", r"x.cfg:8: \[LSTM\] is not a section of Darknet: is it \[lstm\] that you mean\?"),
        ("", r"x.cfg:8: \[\] is not a section of Darknet: there are activation, "),
        ("a\x1bb", r"x.cfg:8: \[a\\x1bb\] is not a section"),
        *((name, rf"x.cfg:8: \[{name}\] is a Darknet layer not supported by pydarknet") for name in sorted(UNSUPPORTED)),
    ],
)
def test_a_section_that_is_no_layer_is_named(name, said):
    with pytest.raises(CfgError, match=said):
        build(f"[{name}]\noutput=4\n")


@pytest.mark.parametrize(
    ("section", "matrix"), [("lstm", "U"), ("gru", "U"), ("rnn", "input.weights"), ("connected", "weights")]
)
def test_input_rate_is_a_factor_on_the_rate_of_the_input_matrix_alone(tmp_path, section, matrix):
    layers = f"[{section}]\noutput=6\nactivation=tanh\nlearning_rate=.5\n{{}}[connected]\noutput=6\n[softmax]\n"
    layers = layers if section in ("rnn", "connected") else layers.replace("activation=tanh\n", "")
    steps = []
    for number, factor in enumerate(("", "input_rate=3\n")):
        path = tmp_path / f"{number}.cfg"
        path.write_text("[net]\ninputs=6\ndecay=0\nlearning_rate=.1\n" + layers.format(factor))
        network = load_network(path, srand=1, dtype="float64")
        before = {p.name: p.value.copy() for p in network.layers[0].parameters}
        symbols = np.arange(6)[:, None]
        network.train_call(symbols, symbols[::-1])
        network.optimizer_options.make(network.parameters).update(network.parameters, 0.1, 6)
        steps.append({p.name: p.value - before[p.name] for p in network.layers[0].parameters})
    plain, fast = steps
    for name in plain:
        np.testing.assert_allclose(fast[name], plain[name] * (3 if name == matrix else 1), rtol=1e-9, atol=1e-12)  # rounding
    assert abs(plain[matrix]).max() > 1e-6
