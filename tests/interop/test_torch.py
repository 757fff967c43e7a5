"""The PyTorch module: the same values, gradients and rolling statistics as the network, and the way back."""

import numpy as np
import pytest
from interop_cases import DIALECTS, LAYERS, V, assert_close, gradients, make, symbols

from pydarknet import load_network
from pydarknet.errors import WeightsError
from pydarknet.interop.tensors import tensors
from pydarknet.layers.activations import ACTIVATIONS

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")


def module_of(network):
    from pydarknet.interop.torch import to_torch

    return to_torch(network)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_thousand_characters_in_one_call_and_step_by_step(tmp_path, name, dialect):
    cfg, weights, _ = make(tmp_path, name, dialect)
    network, text = load_network(cfg, weights), symbols(1000, 2)
    module, expected = module_of(network), network.predict(text)
    assert expected.std(axis=0).max() > 0.004  # what comes depends on what came
    with torch.no_grad():
        log_p, _ = module(torch.from_numpy(text))
        state, steps = None, []
        for step in torch.from_numpy(text[:100]):
            p, state = module(step[None], state)
            steps.append(p[0])
    assert np.abs(log_p.exp().numpy() - expected).max() < 1e-5
    assert np.abs(torch.stack(steps).exp().numpy() - expected[:100]).max() < 1e-5


# In float64 both are exact to some 1e-14; what is amplified over the steps stays below this.
FLOAT64 = 1e-10


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "all"])  # its dropout draws
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.filterwarnings("ignore:batch norm over a single stream")
def test_gradients_and_rolling_statistics_of_training(tmp_path, name, dialect, B):
    cfg, weights, _ = make(tmp_path, name, dialect)
    network = load_network(cfg, weights, batch=B, dtype=np.float64)
    module, text = module_of(network).train(), symbols(12, B)
    state = None
    for start in (0, 6):  # the second call begins with a state, through which nothing flows
        given, truth = text[start : start + 5], text[start + 1 : start + 6]
        network.train_call(given, truth)
        log_p, state = module(torch.from_numpy(given), state)
        torch.nn.functional.nll_loss(log_p.flatten(0, 1), torch.from_numpy(truth).flatten(), reduction="sum").backward()
        state = detached(state)
    statistics = {name: array for name, array in tensors(network).items() if "rolling_" in name}
    theirs = module.state_dict()
    for key, array in statistics.items():
        assert_close(key, array, theirs[key].numpy(), FLOAT64)
    ours = gradients(network)
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert_close(key, ours.pop(key), parameter.grad.numpy(), FLOAT64)
        else:
            assert not ours.pop(key).any()
    assert not ours


def detached(state):
    if state is None or isinstance(state, torch.Tensor):
        return state if state is None else state.detach()
    return type(state)(map(detached, state))


def test_gradients_in_float32(tmp_path):
    cfg, weights, _ = make(tmp_path, "lstm")
    network, text = load_network(cfg, weights), symbols(41, 8)
    module = module_of(network)
    network.train_call(text[:-1], text[1:])
    log_p, _ = module(torch.from_numpy(text[:-1]))
    torch.nn.functional.nll_loss(log_p.flatten(0, 1), torch.from_numpy(text[1:]).flatten(), reduction="sum").backward()
    ours = gradients(network)
    for key, parameter in module.named_parameters():
        assert_close(key, ours[key], parameter.grad.numpy(), 1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(tmp_path, name):
    """At every kink and on both sides of it, and far out."""
    from pydarknet.interop.activations import FORMULAS

    x = np.concatenate([np.arange(-12, 12.1, 0.125), np.linspace(-12, 12, 997), [-400.0, 400.0]])
    ours = ACTIVATIONS[name].forward(x)
    theirs = torch.from_numpy(x).requires_grad_()
    y = FORMULAS[name](torch, theirs)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), ours, rtol=1e-12, atol=1e-15)
    slope = ACTIVATIONS[name].backward(np.ones_like(x), ours, x)
    np.testing.assert_allclose(theirs.grad.numpy(), slope, rtol=1e-9, atol=1e-12)


def test_lstm_layers_are_torchs_own(tmp_path):
    _, _, network = make(tmp_path, "lstm")
    assert [type(layer) for layer in module_of(network).layers[:2]] == [torch.nn.LSTM] * 2
    assert isinstance(module_of(make(tmp_path, "lstm, batch norm")[2]).layers[0], torch.nn.LSTM)


def test_stopbackward_and_dropout(tmp_path):
    _, _, network = make(tmp_path, "[lstm]\noutput=7\n[dropout]\nprobability=.4\n[lstm]\nstopbackward=1\noutput=5")
    module, text = module_of(network), torch.from_numpy(symbols(300, 2))
    kept = module.train().layers[1](torch.ones(10000))
    assert kept.unique().tolist() == [0, pytest.approx(1 / 0.6)] and kept.mean() == pytest.approx(1, abs=0.05)
    assert not torch.equal(module(text)[0], module(text)[0]) and torch.equal(module.eval()(text)[0], module(text)[0])
    module(text)[0].sum().backward()
    assert all(p.grad is None for layer in module.layers[:3] for p in layer.parameters())
    assert all(p.grad is not None for p in module.layers[3].parameters())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_there_and_back_is_the_same_file(tmp_path, name, dialect):
    from pydarknet.interop.torch import from_torch

    cfg, weights, network = make(tmp_path, name, dialect)
    other = load_network(cfg, dialect=dialect, srand=5)
    other.seen = network.seen
    from_torch(module_of(network), other)
    other.save_weights(tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == weights.read_bytes()


def test_what_pytorch_has_trained_comes_back(tmp_path):
    from pydarknet.interop.torch import from_torch

    _, _, network = make(tmp_path, "gru, batch norm")
    module, text = module_of(network).train(), torch.from_numpy(symbols(30, 4))
    before = network.predict(text.numpy())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (-module(text[:-1])[0].gather(2, text[1:, :, None]).mean()).backward()
        optimizer.step()
    from_torch(module, network)
    network.reset_state()
    after = network.predict(text.numpy())
    assert np.abs(after - before).max() > 0.01
    assert np.abs(after - module.eval()(text)[0].detach().exp().numpy()).max() < 1e-5


def test_a_module_of_another_network_is_refused(tmp_path):
    from pydarknet.interop.torch import from_torch

    _, _, network = make(tmp_path, "lstm")
    before = network.parameters.values.copy()
    for name, message in (
        ("gru", "has no tensor layers.0.weight_ih_l0"),
        ("[lstm]\noutput=6\n[lstm]\noutput=5", r"layers.0.weight_ih_l0 has the shape \(24, 19\), the network needs \(28, 19\)"),
        ("lstm, batch norm", "tensor layers.0.norm_ih.scales has no place"),
    ):
        with pytest.raises(WeightsError, match=message):
            from_torch(module_of(make(tmp_path, name)[2]), network)
    module = module_of(network)
    module.layers[2].bias.data[0] = float("nan")
    with pytest.raises(WeightsError, match="tensor layers.2.bias holds numbers that are not finite"):
        from_torch(module, network)
    assert (network.parameters.values == before).all()


def test_a_module_takes_any_integers_and_half_the_precision(tmp_path):
    from pydarknet.interop.torch import from_torch

    _, _, network = make(tmp_path, "lstm")
    module, text = module_of(network), symbols(20, 1)
    expected = network.predict(text)
    assert np.abs(module(torch.from_numpy(text.astype(np.uint8)))[0].detach().exp().numpy() - expected).max() < 1e-5
    from_torch(module.bfloat16(), network)
    network.reset_state()
    assert 1e-4 < np.abs(network.predict(text) - expected).max() < 0.1
    assert module(torch.from_numpy(text))[0].dtype == torch.bfloat16 and V == 19
