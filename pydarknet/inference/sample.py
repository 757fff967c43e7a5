"""Writing text: sampling one symbol after another from what the network predicts.

Darknet's way (``test_char_rnn``, ``sample_array``): the softmax has a temperature, probabilities
below 1e-4 are cut to 0 and the rest renormalised, and the symbol is the first at which a uniform
number, less the probabilities in index order, is no longer above 0.
"""

import numpy as np

from pydarknet.darknet.randomness import CRandom
from pydarknet.errors import InputError, WeightsError

CUTOFF = 1e-4
DEFAULT_SEED = b"\n\n"
DEFAULT_TEMPERATURE = 0.7


def sample(probabilities, uniform):
    """One symbol from ``probabilities`` (V,), which are overwritten, with the number ``uniform`` of 0..1.

    Raises WeightsError for probabilities that are not numbers.
    """
    p = probabilities
    likeliest = p.argmax()
    p[p < CUTOFF] = 0
    total = p.sum()
    if not np.isfinite(total):
        raise WeightsError(
            "the network's output is not a finite number: its weights overflow, as after a training that "
            "diverged, or (with batch_normalize) one of too few iterations to measure the statistics"
        )
    if total == 0:  # so many symbols that each is below the cut-off; Darknet divides by zero here
        return int(likeliest)
    p *= p.dtype.type(1 / total)
    p[0] = uniform - p[0]
    left = np.subtract.accumulate(p) <= 0
    return int(left.argmax()) if left.any() else len(p) - 1


def generate(network, seed=DEFAULT_SEED, length=1000, temperature=DEFAULT_TEMPERATURE, random=None, streams=1):
    """Return an iterator of ``length`` symbols that go on from ``seed``, one array (B,) a step for ``streams`` B texts.

    ``seed`` holds symbols, bytes or integers; an empty one stands for symbol 0, as in Darknet.
    ``random`` is a :class:`~pydarknet.darknet.randomness.CRandom`; the same seed gives the same text. The
    network starts with an empty state. Raises InputError for a temperature that is not above 0 and
    for symbols of the seed that the network does not have.
    """
    if not temperature > 0:
        raise InputError(f"temperature {temperature:g} is not above 0")
    symbols = list(seed) or [0]
    if not 0 <= min(symbols) <= max(symbols) < network.inputs:
        bad = min(symbols) if min(symbols) < 0 else max(symbols)
        raise InputError(f"symbol {bad} of the seed is outside 0..{network.inputs - 1}: the cfg has inputs={network.inputs}")
    return _symbols_after(symbols, network, length, temperature, random or CRandom(), streams)


def _symbols_after(symbols, network, length, temperature, random, streams):
    network.reset_state()
    stepper = network.stepper(streams, temperature)

    def step(symbols):
        with np.errstate(over="ignore", invalid="ignore"):  # said once, by sample()
            return stepper(symbols)

    last = np.empty(streams, np.int64)
    for symbol in symbols:
        last[:] = symbol
        p = step(last)
    for n in range(length):
        if n:
            p = step(last)
        for stream in range(streams):
            last[stream] = sample(p[stream].copy(), random.uniform())
        yield last.copy()


def generate_tactic(network, prompt, length=1000, temperature=DEFAULT_TEMPERATURE, random=None):
    """Yield the symbols that go on from ``prompt``, up to ``length``, as far as the end of the tactic.

    That is a newline behind a full stop; it is not yielded. Parameters and errors are those of
    :func:`generate`, and InputError for an empty prompt. Source: ``test_tactic_rnn``.
    """
    if not len(prompt):
        raise InputError("the prompt is empty: give the text that the tactic is to follow")
    last = None
    for step in generate(network, prompt, length, temperature, random):
        symbol = int(step[0])
        if last == ord(".") and symbol == ord("\n"):
            return
        yield symbol
        last = symbol


def darknet_random(network, srand):
    """The generator in the state that Darknet's has when it begins to write: it has initialised the weights with it."""
    random = CRandom(srand)
    random.skip(sum(layer.initial_draws for layer in network.layers))
    return random
