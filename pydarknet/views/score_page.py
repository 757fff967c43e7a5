"""A page of a scored text: self-contained, without scripts or requests."""

from bisect import bisect_right
from html import escape
from itertools import groupby

from pydarknet.views.characters import shown_as

LEVELS = (3, 5, 8, 12)  # bits from which a character is marked more and more

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --page: #fff; --dim: #767676;
  --c1: #fff3b0; --c2: #ffd08a; --c3: #ff9d7a; --c4: #d7263d; --on4: #fff }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --page: #161616; --dim: #8d8d8d;
  --c1: #4a4212; --c2: #6b430d; --c3: #8a2f14; --c4: #e5383b } }
body { color: var(--text); background: var(--page); margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem;
  font: 15px/1.5 system-ui, sans-serif }
table { border-collapse: collapse; font: 14px/1.5 ui-monospace, Menlo, Consolas, monospace }
td { padding: 0 .6rem 0 0; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere }
td.n { color: var(--dim); text-align: right; white-space: nowrap; user-select: none }
th { color: var(--dim); font-weight: normal; text-align: right; padding-right: .6rem }
th:last-child { text-align: left }
a { color: inherit } tr:target { outline: 2px solid var(--c3) }
.l1 { background: var(--c1) } .l2 { background: var(--c2) } .l3 { background: var(--c3) }
.l4 { background: var(--c4); color: var(--on4) }
"""


def level(bits):
    """How much a character of so many ``bits`` is marked: from 0, not at all, to ``len(LEVELS)``."""
    return bisect_right(LEVELS, bits)


def page(name, lines, top):
    """The HTML of the text ``name``: its ``lines`` (:class:`~pydarknet.inference.score.Line`), the ``top`` ones first."""
    bits, characters = sum(line.total for line in lines), sum(len(line.bits) for line in lines) - 1
    legend = " ".join(f'<span class="l{n}">from {least} bits</span>' for n, least in enumerate(LEVELS, 1))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(name)}: where it surprises the network</title><style>{STYLE}</style></head><body>
<h1>{escape(name)}</h1>
<p>{len(lines)} lines, {characters} characters scored, {bits:.1f} bits, {bits / characters:.4f} bits per character. A character
with 12 bits was one in 4096 to the network, given all that stands before it. {legend}</p>
<h2>The most surprising lines</h2>
{_table(top, link=True)}
<h2>The text</h2>
{_table(lines, link=False)}
</body></html>
"""


def _table(lines, link):
    rows = "\n".join(_row(line, link) for line in lines)
    return f"<table><tr><th>line<th>bits<th>per char.<th>text</tr>\n{rows}\n</table>"


def _row(line, link):
    number = f'<a href="#L{line.number}">{line.number}</a>' if link else str(line.number)
    place = "" if link else f' id="L{line.number}"'
    return (
        f'<tr{place}><td class="n">{number}<td class="n">{line.total:.1f}<td class="n">{line.mean:.2f}<td>{_marked(line)}</tr>'
    )


def _marked(line):
    """The characters; neighbours of one level stand in one element."""
    pairs = [(shown_as(character), level(bits)) for character, bits in zip(line.characters, line.bits.tolist())]
    parts = []
    for number, group in groupby(pairs, key=lambda pair: pair[1]):
        text = escape("".join(shown for shown, _ in group))
        parts.append(f'<span class="l{number}">{text}</span>' if number else text)
    return "".join(parts)
