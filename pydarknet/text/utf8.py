"""UTF-8 a byte at a time: which bytes may follow, so that only whole characters are ever written.

The states are those of table 3-7 of the Unicode Standard, "Well-Formed UTF-8 Byte Sequences": what the next
byte may be depends on how many bytes the character still needs and, for four leading bytes, on these.
"""

import codecs

import numpy as np

from pydarknet.errors import InputError

START, ONE, TWO, THREE, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4 = range(8)  # START: between two characters
_RULES = {  # state: (first byte, last byte, the state after them)
    START: (
        (0x00, 0x7F, START),
        (0xC2, 0xDF, ONE),
        (0xE0, 0xE0, AFTER_E0),
        (0xE1, 0xEC, TWO),
        (0xED, 0xED, AFTER_ED),
        (0xEE, 0xEF, TWO),
        (0xF0, 0xF0, AFTER_F0),
        (0xF1, 0xF3, THREE),
        (0xF4, 0xF4, AFTER_F4),
    ),
    ONE: ((0x80, 0xBF, START),),
    TWO: ((0x80, 0xBF, ONE),),
    THREE: ((0x80, 0xBF, TWO),),
    AFTER_E0: ((0xA0, 0xBF, ONE),),  # below, a shorter form would do
    AFTER_ED: ((0x80, 0x9F, ONE),),  # above are the surrogates of UTF-16
    AFTER_F0: ((0x90, 0xBF, TWO),),
    AFTER_F4: ((0x80, 0x8F, TWO),),  # above, Unicode ends
}
# [state][byte]: the state after the byte, None where it may not stand
FOLLOWING: list[list[int | None]] = [[None] * 256 for _ in _RULES]
for _state, _rules in _RULES.items():
    for _first, _last, _next in _rules:
        FOLLOWING[_state][_first : _last + 1] = [_next] * (_last + 1 - _first)
ALLOWED = np.array([[following is not None for following in row] for row in FOLLOWING])  # (states, 256)


def state_after(data):
    """The state after the bytes ``data``, whose last character may be unfinished. Raises InputError if they are no UTF-8."""
    state = START
    for position, byte in enumerate(data):
        state = FOLLOWING[state][byte]
        if state is None:
            raise InputError(f"byte {position} (0x{byte:02x}) makes no character of UTF-8 with those before it")
    return state


def bytes_per_character(corpus):
    """How many bytes a character of UTF-8 has in ``corpus``, a text of bytes, in the mean; None if it is no UTF-8.

    The text may begin and end inside a character, and so may each of the stretches that it was joined from.
    """
    size, characters = 0, 0
    for stretch in corpus.stretches():
        try:
            counted = _count(stretch)
        except UnicodeDecodeError:
            return None
        size, characters = size + counted[0], characters + counted[1]
    return size / characters if characters else None


class Utf8Watch:
    """Whether the bytes of a text, read through it in order, are UTF-8: ``is_utf8``, so far."""

    def __init__(self):
        self.is_utf8 = True
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def see(self, data, final=False):
        """Look at the next bytes; with ``final`` no character may be left unfinished."""
        try:
            self._decoder.decode(data, final)
        except UnicodeDecodeError:
            self.is_utf8 = False
            self._decoder.reset()

    def reading(self, file):
        """``file``, whose bytes are seen as they are read."""
        return _Watched(file, self)

    def read(self, corpus):
        """See all of a :class:`~pydarknet.text.corpus.Corpus` of bytes."""
        for _, symbols in corpus.blocks():
            self.see(_bytes(symbols))
        self.see(b"", final=True)


class _Watched:
    def __init__(self, file, watch):
        self._file, self._watch = file, watch

    def read(self, count):
        data = self._file.read(count)
        self._watch.see(data, final=not data)
        return data


def unit_of(corpus):
    """What a symbol of ``corpus`` is to a reader: a "token"; a "character" of ASCII; of any other text a "byte"."""
    return "character" if corpus.unit == "byte" and is_utf8(corpus) and is_ascii(corpus) else corpus.unit


def is_ascii(corpus):
    """Whether all of ``corpus``, a text of bytes, is ASCII."""
    return all(symbols.max() < 128 for _, symbols in corpus.blocks())


def is_utf8(corpus):
    """Whether ``corpus``, a text of bytes, is UTF-8, but for a stray byte here and there.

    At the beginning of each of its stretches no more bytes belong to no character than there are characters of several bytes;
    and not every fourth byte is NUL, as in UTF-16.
    """
    stray = several = 0
    for stretch in corpus.stretches():
        _, symbols = next(stretch.blocks())
        data = _bytes(symbols)
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")  # what is unfinished at the end stays in it
        characters = decoder.decode(_from_a_character_on(data)).encode("utf-32-le", "surrogatepass")
        found = np.frombuffer(characters, "<u4")
        escaped = int(np.count_nonzero((found >= 0xDC80) & (found <= 0xDCFF)))
        stray += len(data) if 4 * data.count(0) > len(data) else escaped
        several += int(np.count_nonzero(found > 0x7F)) - escaped
    return stray <= several


def _bytes(symbols):
    return symbols.astype(np.uint8).tobytes()


def _from_a_character_on(data):
    """``data`` without the rest of a character that may stand at its beginning."""
    return data[next((n for n in range(min(4, len(data))) if data[n] & 0xC0 != 0x80), 0) :]


def _count(corpus):
    """The number of bytes of whole characters, and of these. Raises UnicodeDecodeError."""
    decoder, characters, whole = codecs.getincrementaldecoder("utf-8")(), 0, 0
    for start, symbols in corpus.blocks():
        data = _bytes(symbols) if start else _from_a_character_on(_bytes(symbols))
        whole += len(data)
        characters += len(decoder.decode(data))
    return whole - len(decoder.getstate()[0]), characters
