"""Characters on a terminal: what is shown of them, their columns, and rows of them."""

import pytest

from pydarknet.views.characters import columns_of, cut, rows, shown_as


@pytest.mark.parametrize("text, columns", [("ab", 2), ("漢字！", 6), ("e\u0301", 1), ("ที่", 1), ("हिन्दी", 5), ("a\u20dd", 1)])
def test_columns_of_what_is_wide_or_stands_above_another(text, columns):
    assert columns_of(text) == columns


def test_as_much_as_fits():
    assert [cut("a漢字", width) for width in range(6)] == ["", "a", "a", "a漢", "a漢", "a漢字"]


@pytest.mark.parametrize(
    "character, shown",
    [
        ("a", "a"),
        ("é", "é"),
        ("\u3000", "\u3000"),
        ("\n", " "),
        ("\t", "\t"),
        ("\x1b", r"\x1b"),
        ("\x9b", r"\u009b"),
        ("\udcff", r"\xff"),  # a byte that is no UTF-8
        ("\u202e", r"\u202e"),
    ],
)
def test_what_a_terminal_would_obey_is_an_escape(character, shown):
    assert shown_as(character) == shown


def _rows(text, width):
    return [("".join(shown for shown, _ in row), [value for _, value in row]) for row in rows(text, range(len(text)), width)]


def test_a_row_has_room_for_the_newline_that_ends_it():
    assert _rows("abc\ndefg\n", 4) == [("abc ", [0, 1, 2, 3]), ("def", [4, 5, 6]), ("g ", [7, 8])]
    assert _rows("a漢b", 4) == [("a漢", [0, 1]), ("b", [2])]
    assert _rows("ab\x1bc", 5) == [("ab", [0, 1]), (r"\x1b", [2]), ("c", [3])]
    assert _rows("", 4) == []


def test_a_character_wider_than_a_row_has_one_to_itself():
    assert _rows("a\x1bb", 2) == [("a", [0]), (r"\x1b", [1]), ("b", [2])]
