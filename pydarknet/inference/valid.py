"""How well a network predicts a text, as Darknet's ``valid`` and ``validtactic`` measure it.

Of a text x₀ x₁ ... xₙ every character but the first is scored, given all that stand before it:

    bits per character  = -Σ log₂ p(xₖ | x₀ ... xₖ₋₁) / n
    perplexity          = 2 ^ bits per character
    word perplexity     = 2 ^ (-Σ log₂ p / words)     words = 1 + the blanks, tabs and newlines scored

The network starts with an empty state and reads a seed, "\\n\\n" in Darknet, before the text. Source:
``valid_char_rnn`` and ``valid_tactic_rnn`` in Darknet's ``examples/rnn.c``, which sum in float32 and
stop at a byte 255. Letters: T steps, B streams.
"""

import math
from dataclasses import dataclass

import numpy as np

from pydarknet.errors import InputError, TextError, WeightsError
from pydarknet.inference.sample import DEFAULT_SEED, OVERFLOW
from pydarknet.system.memory import check_memory, step_memory

BLOCK = 512  # steps at once, and
COLUMNS = 4096  # steps * streams at once: the memory needed does not depend on the text's length
NEW_WORD = np.array([ord(" "), ord("\n"), ord("\t")])


@dataclass(frozen=True)
class Score:
    """How well ``characters`` characters of ``words`` words were predicted: -ln p, summed, is ``nats``.

    To Darknet each symbol is a character, of a text of bytes each byte. ``utf8_characters`` are those that
    begin among them if the text is UTF-8, in which a character may take several bytes.
    """

    characters: int
    words: int
    nats: float
    utf8_characters: int = 0

    @property
    def nats_per_character(self):
        return self.nats / self.characters

    @property
    def bits_per_character(self):
        return self.nats_per_character / math.log(2)

    @property
    def nats_per_utf8_character(self):
        return self.nats / self.utf8_characters if self.utf8_characters else math.inf

    @property
    def bits_per_utf8_character(self):
        return self.nats_per_utf8_character / math.log(2)

    @property
    def perplexity(self):
        return _exp(self.nats_per_character)

    @property
    def word_perplexity(self):
        """Infinite, as in C, where it is beyond the greatest number: in a long text of a single word."""
        return _exp(self.nats / self.words)


def valid_lines(characters, words, nats):
    """Yield the line that Darknet's ``valid`` prints after every character, for running totals, each (n,)."""
    each = nats / characters
    columns = characters, each / math.log(2), _exp(each), _exp(nats / words)
    for row in zip(*(column.tolist() for column in columns)):
        yield "%d BPC: %4.4f   Perplexity: %4.4f    Word Perplexity: %4.4f\n" % row


def tactic_lines(characters, words, nats):
    """Yield the line that Darknet's ``validtactic`` prints after every character that counts."""
    columns = characters, words, _exp(nats / characters), _exp(nats / words)
    for row in zip(*(column.tolist() for column in columns)):
        yield "%d %d Perplexity: %4.4f    Word Perplexity: %4.4f\n" % row


def _exp(x):
    with np.errstate(over="ignore"):
        return np.exp(x)


class Tally:
    """The running score of a text whose characters all count: Darknet's ``valid``.

    With ``tokens`` every symbol is a word, for a token's number says nothing about blanks.
    """

    def __init__(self, tokens=False):
        self.characters, self.nats = 0, 0.0
        self.utf8_characters = 0
        self.words = 0 if tokens else 1
        self._tokens = tokens

    @property
    def score(self):
        """The :class:`Score` so far. Raises TextError when nothing has been scored."""
        if not self.characters:
            raise TextError("there is nothing to score: the text needs at least two characters")
        return Score(self.characters, self.words, self.nats, self.utf8_characters)

    def add(self, before, after, nats):
        """Count the characters ``after`` (n,), which follow ``before`` (n,) and cost ``nats`` (n,).

        Returns the running characters, words and nats after each of those that count, three arrays.
        """
        new_word = np.ones(len(after), bool) if self._tokens else np.isin(after, NEW_WORD)
        self.utf8_characters += int(np.count_nonzero(after & 0xC0 != 0x80))  # all bytes but those within a character
        return self._count(nats, self.words + np.cumsum(new_word))

    def _count(self, nats, words):
        characters = self.characters + np.arange(1, len(nats) + 1)
        total = self.nats + np.cumsum(nats)
        if len(nats):
            self.characters, self.words, self.nats = int(characters[-1]), int(words[-1]), float(total[-1])
        return characters, words, total


class TacticTally(Tally):
    """The running score of the tactics in a text of proofs: Darknet's ``validtactic``.

    A tactic begins after ``>>`` and ends before the newline that follows a full stop; only what
    stands between counts, and each tactic is a word.
    """

    def __init__(self):
        super().__init__()
        self._inside, self._begun = False, self.words

    @property
    def score(self):
        if not self.characters:
            raise TextError("there is nothing to score: the text holds no tactic, which begins after >>")
        return super().score

    def add(self, before, after, nats):
        ends = (before == ord(".")) & (after == ord("\n"))
        starts = (before == ord(">")) & (after == ord(">"))
        # Whether a tactic is going on after each pair is what the last start or end said.
        last = np.maximum.accumulate(np.where(starts | ends, np.arange(len(nats)), -1))
        inside = np.where(last >= 0, starts[last], self._inside)
        inside_before = np.concatenate([[self._inside], inside[:-1]])
        counts = inside_before & ~ends
        words = self._begun + np.cumsum(starts & ~inside_before)
        if len(nats):
            self._inside, self._begun = bool(inside[-1]), int(words[-1])
        return self._count(nats[counts], words[counts])


def surprise(network, blocks, seed=DEFAULT_SEED, nats=None):
    """Yield (before, after, nats) for the ``blocks`` of a text: characters, those that follow, and their -ln p.

    ``blocks`` is :func:`blocks_of_file` or :func:`blocks_of_corpus`; ``seed``, bytes or integers, is
    read first; ``nats`` takes the place of ``network.nats`` (:mod:`~pydarknet.inference.dynamic_evaluation`). All three
    are arrays (n,). Raises InputError for symbols that the network does not have, and for more streams than the
    memory has room for; WeightsError if its output overflows.
    """
    seed = np.array(list(seed), np.int64)[:, None]
    primed = False
    for before, after, counted in blocks:
        if not primed:
            streams = before.shape[1]
            check_memory(step_memory(network, streams), f"{streams} streams", "give fewer")
            network.reset_state()
            with np.errstate(over="ignore", invalid="ignore"):
                network.predict(np.repeat(seed, streams, axis=1))
            primed = True
        with np.errstate(over="ignore", invalid="ignore"):  # said by what follows
            costs = (nats or network.nats)(before, after)
        if not np.isfinite(costs).all():
            raise WeightsError(OVERFLOW)
        yield before[counted].reshape(-1), after[counted].reshape(-1), costs[counted].reshape(-1)


def blocks_of_file(file):
    """Yield (before, after, counted) of the bytes of a binary ``file``, read as they are needed, in one stream."""
    last = b""
    while data := file.read(BLOCK if last else BLOCK + 1):
        text = np.frombuffer(last + data, np.uint8).astype(np.int64)[:, None]
        if len(text) > 1:
            yield text[:-1], text[1:], ...
        last = data[-1:]


def blocks_of_corpus(corpus, vocabulary, streams=1):
    """Yield (before, after, counted) of a :class:`~pydarknet.text.corpus.Corpus`, cut into ``streams`` equal pieces.

    The pieces are read side by side, (T, B), many times faster than one after the other; but after
    each cut the network does not know what stood before it. Raises TextError for a symbol that is
    not below ``vocabulary``, InputError for more streams than there are characters to score.
    """
    scored = len(corpus) - 1
    if not 1 <= streams <= scored:
        raise InputError(f"{streams} streams: from 1 to {scored} are possible, as the text has {scored} characters to score")
    length = -(-scored // streams)
    starts = np.arange(streams, dtype=np.int64) * length
    size = max(1, min(BLOCK, COLUMNS // streams))
    for t in range(0, length, size):
        steps = min(size, length - t)
        text = corpus.gather(starts + t, steps, vocabulary)
        positions = starts + t + np.arange(steps)[:, None]
        yield text[:-1], text[1:], positions < scored  # the last piece may be shorter
