"""Curves as lines of braille for a terminal, and as inline SVG for a page."""

import math
from html import escape
from string import ascii_lowercase

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character: 4 rows, 2 columns
STYLES = ("36", "33", "35", "32", "34", "31")
COLOURS = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#d55e00")  # Okabe and Ito's, for every eye
TICKS = 6  # spaces between them at most


def bounds(curves):
    """(least x, greatest x, least y, greatest y), never two alike, nor as good as alike."""
    xs, ys = ([point[n] for _, points in curves for point in points] for n in (0, 1))
    return *_apart(min(xs), max(xs), 1), *_apart(min(ys), max(ys), 0.1)


def _apart(low, high, least):
    return low, high if high - low > 1e-9 * max(1, abs(high)) else low + least * max(1, abs(low))


def ticks(low, high, most):
    """[(number, as text)] of the round numbers from ``low`` to ``high``, at most ``most`` + 1 of them."""
    least = (high - low) / most
    power = math.floor(math.log10(least))
    factor = next(n for n in (1, 2, 5, 10) if n * 10.0**power >= least * (1 - 1e-9))
    step, decimals = factor * 10.0**power, max(0, -power - (factor == 10))
    numbers = (n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))
    return [(number, f"{number:,.{decimals}f}") for number in numbers]


def whole_ticks(low, high, most):
    """The same for what is counted: whole numbers, unless there is less than one from ``low`` to ``high``."""
    return ticks(low, high, min(most, int(high - low)) or most)


def braille(curves, width, height, label, colours=False):
    """The lines of a chart of ``curves`` [(name, [(x, y)])], ``width`` columns by ``height`` rows of dots' characters.

    Where there are several, each has a letter, which stands in it here and there.
    """
    left, right, low, high = bounds(curves)

    def row_of(y):
        return round((high - y) / (high - low) * (4 * height - 1))

    heads = {row_of(y) // 4: text for y, text in ticks(low, high, max(2, min(TICKS, height // 3)))}
    margin = max(map(len, heads.values()), default=0)
    columns = max(10, width - margin - 2)

    def column_of(x):
        return round((x - left) / (right - left) * (2 * columns - 1))

    cells = [[(0, 0)] * columns for _ in range(height)]
    letters: dict[tuple[int, int], int] = {}  # (row, column): of which curve
    for number, (_, points) in enumerate(curves):
        last, rows = None, {}
        for x, y in points:
            place = column_of(x), row_of(y)
            for px, py in _between(last or place, place):
                bits, _ = cells[py // 4][px // 2]
                cells[py // 4][px // 2] = bits | DOTS[py % 4][px % 2], number
                rows[px // 2] = py // 4
            last = place
        if len(curves) > 1:
            letters |= dict.fromkeys(_places_of_letter(rows, number, len(curves), columns), number)
    lines = []
    for row, line in enumerate(cells):
        shown = (_cell(bits, number, letters.get((row, column)), colours) for column, (bits, number) in enumerate(line))
        lines.append(f"{heads.get(row, ''):>{margin}} │" + "".join(shown).rstrip())
    lines += [f"{'':{margin}} {line}" for line in _axis(left, right, columns, column_of, label)]
    for number, (name, points) in enumerate(curves):
        key = _styled(ascii_lowercase[number % 26] if len(curves) > 1 else "━", number, colours)
        lines.append(f"{'':{margin + 2}}{key} {name}: {points[-1][1]:.4f} bits, least {min(y for _, y in points):.4f}")
    return lines


def _axis(left, right, columns, column_of, label):
    """Three lines: the axis with its ticks, their numbers, and what they count."""
    axis, numbers = "─" * columns, ""
    for x, text in whole_ticks(left, right, max(1, min(TICKS, columns // 15))):
        column = column_of(x) // 2
        start = max(0, min(column - len(text) // 2, columns - len(text)))
        if start > len(numbers) or not numbers:
            axis = axis[:column] + "┴" + axis[column + 1 :]
            numbers = numbers.ljust(start) + text
    return "└" + axis, " " + numbers, " " + label.rjust(columns)


def _places_of_letter(rows, number, count, columns):
    """[(row, column)] of a curve's letter, where ``rows`` {column: row} it goes; no two curves have it in one column.

    One that has none of its columns, being short, has it at its end.
    """
    every = max(count, columns // 4)
    mine = [column for column in rows if column % every == number * every // count] or [max(rows)]
    return [(rows[column], column) for column in mine]


def _between(start, end):
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for n in range(steps + 1):
        yield tuple(round(a + (b - a) * n / steps) for a, b in zip(start, end))


def _cell(bits, number, letter, colours):
    if letter is not None:
        return _styled(ascii_lowercase[letter % 26], letter, colours)
    return _styled(chr(0x2800 + bits), number, colours) if bits else " "


def _styled(text, number, colours):
    return f"\033[{STYLES[number % len(STYLES)]}m{text}\033[0m" if colours else text


def svg(curves, label, unit, width=860, height=360):
    """The chart as an SVG element; ``label`` is what x counts, and y is in bits per ``unit``."""
    left, right, low, high = bounds(curves)
    x0, y0, w, h = 56, 12, width - 72, height - 60
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss in bits per {unit}">']
    for value, text in ticks(low, high, TICKS):
        y = y0 + (high - value) / (high - low) * h
        parts.append(f'<line x1="{x0}" x2="{x0 + w}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{x0 - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in whole_ticks(left, right, TICKS):
        x = x0 + (value - left) / (right - left) * w
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y0}" y2="{y0 + h}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{x:.1f}" y="{y0 + h + 20}" text-anchor="middle">{text}</text>')
    parts.append(f'<text x="{x0 + w / 2}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>')
    for number, (name, points) in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(
            f"{x0 + (x - left) / (right - left) * w:.1f},{y0 + (high - y) / (high - low) * h:.1f}" for x, y in points
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(
            f'<text x="{x0 + w - 6}" y="{y0 + 16 + 17 * number}" text-anchor="end" style="fill:{colour};font-weight:600">'
            f"{escape(name)}</text>"
        )
    return "".join(parts) + "</svg>"
