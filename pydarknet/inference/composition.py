"""A text that is written together with a network: what stands so far, how it could go on, and the way back.

The network's states after each piece are kept, so that going on, and taking a piece back, read nothing again.
"""

from dataclasses import dataclass

import numpy as np

from pydarknet.darknet.randomness import CRandom
from pydarknet.errors import InputError
from pydarknet.inference.sample import DEFAULT_SEED, generate

BEGINNING = DEFAULT_SEED.decode()  # what the network reads before the text


@dataclass(frozen=True)
class _Stand:
    """``text`` so far, and the network's ``states`` after all but its last character."""

    text: str
    states: list


class Composition:
    """A text that ``network`` and its user write in turn.

    ``text`` is all that stands. :meth:`continuations` proposes how it could go on, :meth:`add` appends a piece, the user's
    own or one of those, and :meth:`undo` takes the last piece back. ``controls`` (temperature, top_k, top_p, min_p,
    repetition_penalty) are those of :func:`~pydarknet.inference.sample.generate` and may change at any time. Raises
    InputError for a network over tokens.
    """

    def __init__(self, network, srand=None, **controls):
        if network.inputs > 256:
            raise InputError(f"the network has {network.inputs} symbols, which are tokens: only text can be written together")
        self.network, self.controls = network, controls
        self._random = CRandom(srand)
        self._stands = [_Stand("", self._read([], BEGINNING[:-1]))]

    @property
    def text(self):
        return self._stands[-1].text

    def add(self, piece):
        """Append ``piece``. Raises InputError for a character that the network has no symbol for."""
        stand = self._stands[-1]
        last = (stand.text or BEGINNING)[-1]
        self._check(piece)
        if piece:
            self._stands.append(_Stand(stand.text + piece, self._read(stand.states, last + piece[:-1])))

    def undo(self):
        """Take the last piece back; return whether there was one."""
        if len(self._stands) == 1:
            return False
        self._stands.pop()
        return True

    def continuations(self, count=3, length=120):
        """``count`` texts of up to ``length`` characters that could follow, of whole words. Another call gives others."""
        stand = self._stands[-1]
        last = (stand.text or BEGINNING)[-1].encode()
        with self.network.side_state():
            steps = generate(
                self.network,
                last,
                length,
                random=self._random,
                streams=count,
                states=stand.states,
                **{"utf8": True, **self.controls},
            )
            rows = np.array(list(steps))
        texts = [bytes(int(s) for s in column if s >= 0).decode() for column in rows.T]
        return [_of_whole_words(text) for text in texts]

    def _check(self, text):
        inputs = self.network.inputs
        bad = [c for c in text if "\ud800" <= c <= "\udfff" or max(c.encode()) >= inputs]
        if bad:
            raise InputError(f"the network has {inputs} symbols, and none for {_shown(bad[0])}")

    def _read(self, states, text):
        """The states, one dict a layer, after ``text`` that is read from ``states`` on ([]: empty ones)."""
        symbols = text.encode()
        with self.network.side_state(), np.errstate(over="ignore", invalid="ignore"):
            for layer, state in zip(self.network.layers, states):
                layer.swap_state({name: array.copy() for name, array in state.items()})
            step = self.network.stepper(1)
            for symbol in symbols:
                step(np.array([symbol]))
            return [{name: array.copy() for name, array in layer.state(1).items()} for layer in self.network.layers]


def _of_whole_words(text):
    """``text`` without the word at its end, which may not be finished; as it is where that would be half of it."""
    words = text[: max(text.rfind(" "), text.rfind("\n"), 0)]
    return words if len(words) > len(text) // 2 else text


def _shown(character):
    return repr(character) if character.isprintable() else ascii(character)
