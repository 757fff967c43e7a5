"""Token files: texts that are whole numbers, and vocabularies that say what each stands for.

Darknet's counterparts are ``read_tokenized_data`` and ``read_tokens`` in ``examples/rnn.c`` (pjreddie/darknet).
"""

import numpy as np

from pydarknet.errors import TextError
from pydarknet.system.files import open_regular, reported, show

LARGEST_TOKEN = 2**31 - 1
_TOKEN_DIGITS = len(str(LARGEST_TOKEN))
_BLANKS = (b" ", b"\t", b"\n", b"\v", b"\f", b"\r")
_TOKEN_BLOCK = 1 << 18  # bytes parsed at a time: its temporary arrays stay in the processor's cache
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which editors of Windows put before a text
CANNOT_READ, ADVICE = "cannot read this text", "; check the name and its permissions"


def read_tokens(path):
    """Read a vocabulary (Darknet's ``-tokens``): line n, counted from 0, is the text of token n, as bytes.

    The line ``<NEWLINE>`` stands for the newline itself; nothing else is escaped (``read_tokens`` in
    examples/rnn.c, whose ``print_symbol`` writes a blank after every token). A blank line is an empty
    token. If all lines end in CR LF, the CR is dropped too.

    Raises TextError: a file that is missing, unreadable or empty.
    """
    with reported(TextError, path, CANNOT_READ, ADVICE), open_regular(path) as file:
        lines = file.read().removeprefix(BYTE_ORDER_MARK).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise TextError(f"{show(path)}: the vocabulary is empty; it needs one token a line")
    if all(line.endswith(b"\r") for line in lines):
        lines = [line[:-1] for line in lines]
    return [b"\n" if line == b"<NEWLINE>" else line for line in lines]


def read_token_file(path):
    """Read the whole numbers of a file as an int32 array.

    Darknet (``read_tokenized_data`` in examples/rnn.c) stops at the first word that is not a number, as
    if the text ended there, and lets numbers overflow; here both are errors with file and line.
    """
    tokens, line, rest = bytearray(), 1, b""  # a bytearray grows in place: no second copy at the end
    with reported(TextError, path, CANNOT_READ, ADVICE), open_regular(path) as file:
        if file.read(3) != BYTE_ORDER_MARK:
            file.seek(0)
        while block := file.read(_TOKEN_BLOCK):
            block = rest + block
            cut = 1 + max(map(block.rfind, _BLANKS))  # the last word may go on in the next block,
            if len(block) - cut > _TOKEN_DIGITS:  # unless it is too long for a token as it is
                cut = len(block)
            tokens += _parse_tokens(block[:cut], path, line)
            line += block.count(b"\n", 0, cut)
            rest = block[cut:]
    tokens += _parse_tokens(rest, path, line)
    return np.frombuffer(tokens, np.int32)


def _parse_tokens(block, path, line):
    """The whole numbers in a block of text, whose first line has the number ``line``, as the bytes of int32."""
    digits = np.frombuffer(block, np.uint8) - np.uint8(ord("0"))  # below "0" wraps round to over 9
    is_digit = digits < 10
    edges = np.flatnonzero(np.diff(is_digit, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]  # words of digits
    lengths = ends - starts
    values = np.zeros(len(starts), np.int64)
    for place in range(min(lengths.max(initial=0), _TOKEN_DIGITS)):
        # A word without this place reads a digit of something else, which where() then drops.
        values += np.where(lengths > place, digits[ends - 1 - place].astype(np.int64), 0) * 10**place
    # Bytes 9 to 13 and 32 are the blanks of C's isspace(), which fscanf() goes by.
    raw = np.frombuffer(block, np.uint8)
    foreign = np.flatnonzero(~is_digit & (raw != 32) & (raw - np.uint8(9) > 4))
    too_large = starts[(lengths > _TOKEN_DIGITS) | (values > LARGEST_TOKEN)]
    if len(foreign) or len(too_large):
        at = int(min([*foreign[:1], *too_large[:1]]))
        begin = 1 + max(block.rfind(blank, 0, at) for blank in _BLANKS)
        line += block.count(b"\n", 0, at)
        word = repr(block[begin : begin + 40].split()[0])[1:]  # without the b of b'x1'
        raise TextError(f"{show(path)}:{line}: {word} is not a token (a whole number from 0 to {LARGEST_TOKEN})")
    return values.astype(np.int32).tobytes()
