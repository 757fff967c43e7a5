"""How the characters of a text are shown on a terminal or a page, and the columns that they take there."""

import unicodedata


def shown_as(character):
    """A character as it can be shown: one that can't be seen, but for blanks, or that a terminal would obey, as an escape.

    One of a byte that is no UTF-8, read with ``surrogateescape``, is ``\\xff``, which no character beyond ASCII is.
    """
    if character == "\n":
        return " "  # so that its colour can be seen
    if character == "\t" or character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{number:04x}" if 0x80 <= number <= 0xFF else character.encode("unicode_escape").decode()


def columns_of(shown):
    """The columns that a text without control characters takes on a terminal."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown
    )


def cut(shown, width):
    """As much of such a text as fits into ``width`` columns."""
    used = 0
    for place, character in enumerate(shown):
        used += columns_of(character)
        if used > width:
            return shown[:place]
    return shown


def rows(characters, values, width):
    """Yield rows of (what is shown of a character, its value), each at most ``width`` columns.

    A newline ends its row, and has its column in it: no other character takes the last one.
    """
    row: list[tuple[str, float]] = []
    used = 0
    for character, value in zip(characters, values):
        shown = shown_as(character).expandtabs(4)
        columns = columns_of(shown)
        if row and used + columns > width - (character != "\n"):
            yield row
            row, used = [], 0
        row.append((shown, value))
        used += columns
        if character == "\n":
            yield row
            row, used = [], 0
    if row:
        yield row
