"""Writing text: sampling one symbol after another from what the network predicts.

Darknet's way (``test_char_rnn``, ``sample_array``): the softmax has a temperature, probabilities
below 1e-4 are cut to 0 and the rest renormalised, and the symbol is the first at which a uniform
number, less the probabilities in index order, is no longer above 0. :class:`Sampling` adds what
steers the text: whole characters only, the likeliest symbols only, no repetition.
"""

from collections import deque
from numbers import Real
from typing import Any

import numpy as np

from pydarknet.darknet.randomness import CRandom, is_whole
from pydarknet.errors import InputError, WeightsError
from pydarknet.system.threads import blas_limited
from pydarknet.text import utf8 as utf_8

CUTOFF = np.array(1e-4, np.float32)  # an array of no dimension: numpy compares with it in half the time of a number
NOTHING = np.zeros((), np.float32)
TINY = np.finfo(np.float32).tiny
NEVER = 2.0  # as the least probability of a symbol: it isn't written, however likely
DEFAULT_SEED = b"\n\n"
DEFAULT_TEMPERATURE = 0.7
COLD = 0.5  # below this temperature what the mask of UTF-8 leaves may be 0 in float32, if a forbidden byte is likelier
LITTLE = 0.1  # of p left by the mask of UTF-8: it is renormalised before the cut-off then, not only after it
WINDOW = 64  # symbols that count as a repetition
MOST = 1e30  # times that a repetition becomes likelier: the sum of all p must stay finite in float32
OVERFLOW = (
    "the network's output is not a finite number: its weights overflow, as after a training that "
    "diverged, or (with batch_normalize) one of too few iterations to measure the statistics"
)


class Sampling:
    """The rule by which a symbol is chosen from the probabilities p of all.

    In this order: p is taken at ``temperature``; of symbols among the last 64 it is divided by
    ``repetition_penalty``; with ``utf8`` bytes that can't go on with the character are left out, so that the
    text is whole characters; what is below 1e-4 is left out, as in Darknet, and p renormalised (and before
    the cut-off too, if ``utf8`` has left less than a tenth). Then a symbol
    stays if fewer than ``top_k`` are likelier, if those that are likelier have less than ``top_p`` together,
    and if it has at least ``min_p`` times the likeliest one's probability. One is drawn from those that stay;
    at temperature 0 the likeliest is taken. Raises InputError for a number out of its range.
    """

    def __init__(
        self, temperature=DEFAULT_TEMPERATURE, *, utf8=False, top_k=None, top_p=None, min_p=None, repetition_penalty=None
    ):
        for name, value in (
            ("temperature", temperature),
            ("top_k", top_k),
            ("top_p", top_p),
            ("min_p", min_p),
            ("repetition_penalty", repetition_penalty),
        ):
            if value is not None and not isinstance(value, Real):
                raise InputError(f"{name} is {value!r}; it must be a number")
        with np.errstate(over="ignore"):
            self.temperature = float(np.float32(temperature))  # one too small for float32 is 0
        self.utf8 = utf8
        self.top_k, self.top_p, self.min_p = top_k, top_p, min_p
        self.repetition_penalty = None if repetition_penalty == 1 else repetition_penalty
        for name, right, what in (
            ("temperature", temperature >= 0, "a number from 0"),
            ("top_k", top_k is None or (is_whole(top_k) and top_k >= 1), "a whole number from 1"),
            ("top_p", top_p is None or 0 < top_p <= 1, "above 0 and at most 1"),
            ("min_p", min_p is None or 0 <= min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", repetition_penalty is None or 0 < repetition_penalty < np.inf, "above 0"),
        ):
            if not right:
                raise InputError(f"{name} is {getattr(self, name):g}; it must be {what}")

    @property
    def greedy(self):
        """Whether the likeliest symbol is taken, without a random number."""
        return self.temperature == 0

    @property
    def softmax_temperature(self):
        """The temperature at which the network's softmax gives the p that :meth:`choose` takes."""
        return 1.0 if self.greedy or self.cold else self.temperature

    @property
    def cold(self):
        """Whether the temperature is applied here, after the mask, and not by the softmax."""
        return self.utf8 and 0 < self.temperature < COLD

    @property
    def _narrows(self):
        return self.top_k is not None or self.top_p is not None or self.min_p is not None

    def choose(self, p, random, least=CUTOFF):
        """The symbol chosen from ``p`` (V,) with numbers from ``random``; ``least`` is what each needs, one or (V,).

        With the temperature alone it is the one that Darknet's ``sample_array`` draws.

        Raises WeightsError for probabilities that are not numbers.
        """
        if self.greedy:
            return _likeliest(p, least)
        kept = _kept(p, least)
        if kept is None:  # so many symbols that each is below the cut-off; Darknet divides by zero here
            return _likeliest(p, least)
        if self.top_k is not None and 2 * self.top_k * kept[kept.argmax()] < 1:  # what stays has less than half of p
            return self._pick_of_those_that_stay(kept, random.uniform())
        symbol = _pick(kept, random.uniform())
        if not (self.utf8 or self._narrows):
            return symbol
        symbol = _possible(kept, symbol)
        # Of those that stay, one is drawn as it should be if what is drawn from all is kept when it stays, and
        # drawn again from them when not. It seldom is, and to see that one symbol stays costs less than
        # to find them all (benchmarks/generation.py).
        if self._narrows and not self._stays(kept, kept[symbol]):
            symbol = self._pick_of_those_that_stay(kept, random.uniform())
        return symbol

    def _stays(self, p, own):
        """Whether a symbol of the probability ``own`` is one to draw from; the first test of each is quick and often enough."""
        likelier = None
        if self.top_p is not None and own + self.top_p <= 1:
            likelier = p[p > own]
            if np.add.reduce(likelier) >= self.top_p:
                return False
        if self.top_k is not None and own * self.top_k < 1:
            count = np.count_nonzero(p > own) if likelier is None else len(likelier)
            if count >= self.top_k:
                return False
        return self.min_p is None or own >= self.min_p * p[p.argmax()]

    def _pick_of_those_that_stay(self, p, uniform):
        order = p.argsort()[::-1]
        falling = p[order]
        together = np.add.accumulate(falling)
        least = falling[0] * (self.min_p or 0)
        if self.top_k is not None:
            least = max(least, falling[min(self.top_k, len(p)) - 1])
        if self.top_p is not None:
            least = max(least, falling[min(np.count_nonzero(together < self.top_p), len(p) - 1)])
        count = np.count_nonzero(falling >= max(least, TINY))
        return int(order[min(np.count_nonzero(together < uniform * together[count - 1]), count - 1)])


class _Text:
    """What is particular to one of the texts: its place in a character, and the symbols that would be a repetition.

    ``least`` is what each symbol needs, by the place in a character, with ``utf8``.
    """

    def __init__(self, rule, seed, length, symbols, least):
        self.rule, self.left = rule, length
        self._state = utf_8.state_after(seed) if rule.utf8 else utf_8.START
        self._least = least
        self._factor = min(1 / rule.repetition_penalty, MOST) if rule.repetition_penalty else None
        if self._factor:
            self._factors, self._counts = np.ones(symbols, np.float32), [0] * symbols
            self._recent: deque[int] = deque()
            for symbol in seed[-WINDOW:]:
                self._remember(symbol)

    @property
    def ended(self):
        return not self.left and self._state == utf_8.START

    def next(self, p, random):
        """The symbol that goes on, chosen from ``p`` (V,)."""
        if self.rule.cold:
            p = _cooled(p, self._least[self._state] < NEVER, self.rule.temperature)
        if self._factor:
            p = p * self._factors
        symbol = self.rule.choose(p, random, self._least[self._state] if self.rule.utf8 else CUTOFF)
        if self._factor:
            self._remember(symbol)
        if self.rule.utf8:
            begun, self._state = self._state, utf_8.FOLLOWING[self._state][symbol]
            self.left -= begun == utf_8.START
        else:
            self.left -= 1
        return symbol

    def _remember(self, symbol):
        if len(self._recent) == WINDOW:
            old = self._recent.popleft()
            self._counts[old] -= 1
            if not self._counts[old]:
                self._factors[old] = 1
        self._recent.append(symbol)
        self._counts[symbol] += 1
        self._factors[symbol] = self._factor


def generate(
    network, seed=DEFAULT_SEED, length=1000, temperature=DEFAULT_TEMPERATURE, random=None, streams=1, states=(), **controls
):
    """Return an iterator of the symbols that go on from ``seed``, one array (B,) a step for ``streams`` B texts.

    ``seed`` holds symbols, bytes or integers; an empty one stands for symbol 0, as in Darknet. ``temperature``
    and ``controls`` are those of :class:`Sampling`; ``random`` is a
    :class:`~pydarknet.darknet.randomness.CRandom`, and the same seed of it gives the same text. The network
    starts with an empty state, or with ``states``, those of each layer for one stream (what it has read before
    the seed). Each text has ``length`` symbols, with ``utf8`` as many characters, before which
    the last one of the seed is finished; -1 stands for a text that has ended while others go on. Raises
    InputError for a length or a control out of its range, for symbols of the seed that the network does not have, and with
    ``utf8`` for a seed that isn't UTF-8 and for a network over tokens.
    """
    rule = Sampling(temperature, **controls)
    if not (is_whole(length) and length >= 0):
        raise InputError(f"length is {length!r}; it must be a whole number from 0")
    symbols = list(seed) or [0]
    if not 0 <= min(symbols) <= max(symbols) < network.inputs:
        bad = min(symbols) if min(symbols) < 0 else max(symbols)
        raise InputError(f"symbol {bad} of the seed is outside 0..{network.inputs - 1}: the cfg has inputs={network.inputs}")
    if rule.utf8 and network.inputs > 256:
        raise InputError(f"utf8 is for networks over bytes: the cfg has inputs={network.inputs}")
    least: Any = np.where(utf_8.ALLOWED[:, : network.inputs], CUTOFF, np.float32(NEVER)) if rule.utf8 else None
    texts = [_Text(rule, symbols, length, network.inputs, least) for _ in range(streams)]
    return _symbols_after(symbols, network, texts, random or CRandom(), states)


def _symbols_after(symbols, network, texts, random, states):
    with blas_limited(1):  # its threads bring nothing to one step, and wait for each other beside another program
        yield from _symbols_of_steps(symbols, network, texts, random, states)


def _symbols_of_steps(symbols, network, texts, random, states):
    network.reset_state()
    if states:
        for layer, state in zip(network.layers, states):
            layer.swap_state({name: array.repeat(len(texts), axis=0) for name, array in state.items()})

    def quiet():
        return np.errstate(over="ignore", invalid="ignore")  # said once, as a WeightsError

    with quiet():
        stepper = network.stepper(len(texts), texts[0].rule.softmax_temperature)

    def step(symbols):
        with quiet():
            return stepper(symbols)

    last = np.empty(len(texts), np.int64)
    for symbol in symbols:
        last[:] = symbol
        p = step(last)
    while not all(text.ended for text in texts):
        written = np.array([-1 if text.ended else text.next(p[n], random) for n, text in enumerate(texts)])
        yield written
        if not all(text.ended for text in texts):
            p = step(np.maximum(written, 0))


def _kept(p, least):
    """``p`` without what is below ``least``, renormalised; None if nothing is left. Raises WeightsError."""
    kept = p * (p >= least)
    total = np.add.reduce(kept)  # kept.sum(), without its detour
    if not LITTLE < total < np.inf:
        if not np.isfinite(total):
            raise WeightsError(OVERFLOW)
        if np.ndim(least):  # the mask has left little, in which the cut-off would be a large part
            allowed = np.where(least < NEVER, p, 0)
            if allowed.any():
                return _kept(allowed / allowed.sum(), least)
        if total == 0:
            return None
    kept *= kept.dtype.type(1 / total)
    return kept


def _cooled(p, allowed, temperature):
    """The ``allowed`` (V,) of the probabilities ``p`` (V,) of temperature 1 at another ``temperature``."""
    p = np.where(allowed, np.maximum(p, np.finfo(p.dtype).tiny), 0)
    p = (p / p.max()) ** (1 / temperature)
    return p / p.sum()


def _pick(p, uniform):
    """The first symbol at which ``uniform`` less the probabilities ``p`` (V,) is no longer above 0; the last if none is."""
    first = p[0]
    p[0] = uniform - first
    symbol = int(np.count_nonzero(np.subtract.accumulate(p) > NOTHING))
    p[0] = first
    return min(symbol, len(p) - 1)


def _possible(p, symbol):
    """``symbol``; where a uniform number of 0, or rounding, has led to one that must not be written, the nearest that may."""
    if p[symbol] > 0:
        return symbol
    possible = np.flatnonzero(p)
    return int(possible[0] if symbol < possible[0] else possible[-1])


def _likeliest(p, least):
    symbol = int(np.where(np.less(least, NEVER), p, -1).argmax())
    if not np.isfinite(p[symbol]):
        raise WeightsError(OVERFLOW)
    return symbol


def generate_text(network, seed="", length=1000, srand=None, **controls):
    """The text that goes on from ``seed``, a str of ``length`` characters, without the seed.

    ``controls`` are those of :func:`generate`. The network's own state stays as it is. Raises InputError, also for a network
    whose symbols are no bytes.
    """
    if network.inputs > 256:
        raise InputError(
            f"the network has {network.inputs} symbols, which are tokens: inference.sample.generate gives their numbers"
        )
    data = seed.encode() if isinstance(seed, str) else bytes(seed)
    random = darknet_random(network, srand)
    with network.side_state():
        steps = list(generate(network, data or DEFAULT_SEED, length, random=random, **{"utf8": True, **controls}))
    return bytes(int(step[0]) for step in steps if step[0] >= 0).decode("utf-8", "replace")


def generate_tactic(network, prompt, length=1000, temperature=DEFAULT_TEMPERATURE, random=None):
    """Yield the symbols that go on from ``prompt``, up to ``length``, as far as the end of the tactic.

    That is a newline after a full stop; it is not yielded. Parameters and errors are those of
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
