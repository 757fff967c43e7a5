"""Curves as lines of braille for a terminal, and as inline SVG for a page."""

from html import escape

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character: 4 rows, 2 columns
STYLES = ("36", "33", "35", "32", "34", "31")
COLOURS = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#d55e00")  # Okabe and Ito's, for every eye
MARGIN = 8  # columns of the numbers on the left


def bounds(curves):
    """(least x, greatest x, least y, greatest y), never two alike."""
    xs, ys = ([point[n] for _, points in curves for point in points] for n in (0, 1))
    low, high = min(ys), max(ys)
    return min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, low, high if high > low else low + 0.1


def braille(curves, width, height, label, colours=False):
    """The lines of a chart of ``curves`` [(name, [(x, y)])], ``width`` columns by ``height`` rows of dots' characters."""
    left, right, low, high = bounds(curves)
    columns = max(10, width - MARGIN - 1)
    cells = [[(0, 0)] * columns for _ in range(height)]
    for number, (_, points) in enumerate(curves):
        last = None
        for x, y in points:
            place = (
                round((x - left) / (right - left) * (2 * columns - 1)),
                round((high - y) / (high - low) * (4 * height - 1)),
            )
            for px, py in _between(last or place, place):
                bits, _ = cells[py // 4][px // 2]
                cells[py // 4][px // 2] = bits | DOTS[py % 4][px % 2], number
            last = place
    lines = []
    for row, line in enumerate(cells):
        mark = high - (high - low) * row / max(1, height - 1)
        head = f"{mark:{MARGIN - 1}.3f} " if row % 4 == 0 or row == height - 1 else " " * MARGIN
        lines.append(head + "│" + "".join(_cell(bits, number, colours) for bits, number in line).rstrip())
    ends = f"{left:,.0f}", f"{right:,.0f} {label}"
    lines.append(" " * MARGIN + "└" + "─" * columns)
    lines.append(" " * (MARGIN + 1) + ends[0] + ends[1].rjust(columns - len(ends[0])))
    for number, (name, points) in enumerate(curves):
        key = f"\033[{STYLES[number % len(STYLES)]}m━\033[0m" if colours else "━"
        lines.append(f"{'':{MARGIN + 1}}{key} {name}: {points[-1][1]:.4f} bits, least {min(y for _, y in points):.4f}")
    return lines


def _between(start, end):
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for n in range(steps + 1):
        yield tuple(round(a + (b - a) * n / steps) for a, b in zip(start, end))


def _cell(bits, number, colours):
    if not bits:
        return " "
    return f"\033[{STYLES[number % len(STYLES)]}m{chr(0x2800 + bits)}\033[0m" if colours else chr(0x2800 + bits)


def svg(curves, label, unit, width=860, height=360):
    """The chart as an SVG element; ``label`` is what x counts, and y is in bits per ``unit``."""
    left, right, low, high = bounds(curves)
    x0, y0, w, h = 56, 12, width - 72, height - 60
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss in bits per {unit}">']
    for n in range(6):
        y, value = y0 + h * n / 5, high - (high - low) * n / 5
        parts.append(f'<line x1="{x0}" x2="{x0 + w}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{x0 - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        x = x0 + w * n / 5
        parts.append(f'<text x="{x:.1f}" y="{y0 + h + 20}" text-anchor="middle">{left + (right - left) * n / 5:,.0f}</text>')
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
