"""Fuzz target: any bytes as a file of tokens, whose numbers must be those of a literal reading; and as a vocabulary."""

import re

from shared import as_file

from pydarknet.errors import TextError
from pydarknet.text import tokens
from pydarknet.text.corpus import Corpus
from pydarknet.text.tokens import BYTE_ORDER_MARK, LARGEST_TOKEN, read_tokens

SEEDS = [
    b"\xef\xbb\xbf4 5\n",
    b"0 1 2 3\n",
    b"2147483647\t7\r\n\v\f 12",
    b"1 2\n3 x4",
    b"00000000012 5",
    b"2147483648 1",
    b"a\r\n<NEWLINE>\r\n\r\nc\r\n",
    b"99999999999999999999 1",
    b"-1 +2 3.5",
]
tokens._TOKEN_BLOCK = 64  # so that short files too are read in several blocks


def one_input(data):
    path = as_file(data)
    vocabulary = None
    if data:
        vocabulary = read_tokens(path)
        assert len(vocabulary) == data.count(b"\n") + (not data.endswith(b"\n"))
    words = data.removeprefix(BYTE_ORDER_MARK).split()
    good = len(words) > 1 and all(re.fullmatch(rb"[0-9]{1,10}", word) and int(word) <= LARGEST_TOKEN for word in words)
    try:
        corpus = Corpus.open(path, tokenized=True)
    except TextError:
        assert not good, f"refused: {data!r}"
        raise
    assert good, f"not refused: {data!r}"
    assert corpus.symbols(0, len(corpus)).tolist() == [int(word) for word in words]
