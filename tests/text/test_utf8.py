"""The automaton of UTF-8 against Python's strict decoder."""

import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydarknet.errors import InputError
from pydarknet.text.corpus import Corpus
from pydarknet.text.utf8 import ALLOWED, FOLLOWING, START, Utf8Watch, bytes_per_character, is_utf8, state_after, unit_of


def is_valid(data):
    try:
        data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    return True


def ends_whole(data):
    try:
        return state_after(data) == START
    except InputError:
        return False


def test_every_character_of_unicode_is_whole_and_its_beginnings_are_not():
    for code in itertools.chain(range(0x3000), range(0x3000, 0x110000, 61), (0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF)):
        if not 0xD800 <= code < 0xE000:
            data = chr(code).encode()
            assert state_after(data) == START
            assert all(state_after(data[:cut]) != START for cut in range(1, len(data)))


@pytest.mark.parametrize(
    "bad",
    [
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5",
        b"\xff",
        b"\x80",
    ],
)
def test_what_is_not_utf8(bad):
    assert not is_valid(bad)
    with pytest.raises(InputError, match="makes no character of UTF-8"):
        state_after(bad)


def test_all_pairs_and_triples_that_matter():
    edges = [
        0,
        0x7F,
        0x80,
        0x8F,
        0x90,
        0x9F,
        0xA0,
        0xBF,
        0xC0,
        0xC1,
        0xC2,
        0xDF,
        0xE0,
        0xE1,
        0xEC,
        0xED,
        0xEE,
        0xEF,
        0xF0,
        0xF1,
        0xF3,
        0xF4,
        0xF5,
        0xFF,
    ]
    for size in (1, 2, 3):
        for data in map(bytes, itertools.product(edges, repeat=size)):
            assert ends_whole(data) is is_valid(data), data


@given(st.binary(max_size=12))
def test_any_bytes(data):
    assert ends_whole(data) is is_valid(data)


def test_a_character_can_always_be_finished():
    """From every state there is a way back to the start within three bytes: the mask never leads into a corner."""
    distance = {START: 0}
    for _ in range(3):
        for state, row in enumerate(FOLLOWING):
            known = [distance[following] for following in row if following in distance]
            if known:
                distance.setdefault(state, 1 + min(known))
    assert sorted(distance) == list(range(len(FOLLOWING))) and max(distance.values()) <= 3
    assert ALLOWED.any(axis=1).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"plain", 1),
        ("für".encode(), 4 / 3),
        ("für".encode()[2:], 1),  # it begins inside the ü
        ("漢字".encode()[:-1], 3),  # and ends inside a character
        ("漢字".encode()[1:], 3),
        (b"f\xfcr", None),
        (b"\xfc\xfc", None),
        ("é".encode() * (1 << 20), 2),
    ],
)
def test_bytes_per_character(text, expected):
    assert bytes_per_character(Corpus.from_symbols(text)) == expected


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("plain", True),
        ("für ", True),
        ("漢字", True),
        (b"for 10 \xa4", False),
        ("ça coûte".encode("latin-1"), False),
        (b"\xff\xfeA\0" + "n".encode("utf-16-le") * 50, False),
        ("plain".encode("utf-16-le"), False),
    ],
)
def test_whether_a_text_is_utf8(text, right, pieces):
    """Wherever the text is cut; and a stray byte among many characters makes no other encoding."""
    data = text * 1000 if isinstance(text, bytes) else (text * 1000).encode() + b"\xff" * (not text.isascii())
    for cut in range(3):
        corpus = Corpus.from_symbols(data[cut:])
        for part in corpus.split(0.1, 5) if pieces > 1 else [corpus]:
            assert is_utf8(part) is right
            assert unit_of(part) == ("character" if text == "plain" else "byte")


@pytest.mark.parametrize("size", range(1200, 1220))
def test_bytes_per_character_of_stretches_that_cut_characters(size):
    text = ("漢字かな交じり文。" * 100).encode()[:size]
    for part in Corpus.from_symbols(text).split(0.1, 5):
        assert len(part.stretches()) == 5 and bytes_per_character(part) == 3
    part = Corpus.from_symbols(b"\xff" + text).slice(1, size)
    assert bytes_per_character(part) == 3 and len(part.stretches()) == 1
    assert bytes_per_character(Corpus.from_symbols(b"ab\xff" * 400).split(0.1, 5)[1]) is None


@pytest.mark.parametrize(("text", "right"), [("aä€😀".encode(), True), (b"", True), (b"a\xe2\x82", False), (b"\x80a", False),
                                             (b"a\xffb", False), (b"\xed\xa0\x80", False)])  # fmt: skip
def test_whether_bytes_are_utf8_however_they_come(monkeypatch, text, right):
    for size in (1, 2, 3, 100):
        watch = Utf8Watch()
        file = watch.reading(io.BytesIO(text))
        assert b"".join(iter(lambda file=file, size=size: file.read(size), b"")) == text
        assert watch.is_utf8 is right
        monkeypatch.setattr("pydarknet.text.corpus.BLOCK", size)
        if len(text) > 1:
            watch = Utf8Watch()
            watch.read(Corpus.from_symbols(text))
            assert watch.is_utf8 is right
    for parts, whole in (((b"\xff", b"good"), False), ((b"\xe2", b"\x82\xac"), True)):
        watch = Utf8Watch()
        for part in parts:
            watch.see(part)
        assert watch.is_utf8 is whole


def test_the_unit_is_a_character_where_all_is_ascii(monkeypatch):
    monkeypatch.setattr("pydarknet.text.corpus.BLOCK", 4)
    for text, unit in ((b"plain text", "character"), ("plain text, für".encode(), "byte"), (b"p\0l\0a\0i\0n\0", "byte")):
        assert unit_of(Corpus.from_symbols(text)) == unit
    assert unit_of(Corpus.from_symbols([1, 2, 3])) == "token"
