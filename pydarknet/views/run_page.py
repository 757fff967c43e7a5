"""A page of a run: its curves, figures, samples and cfg, self-contained, without scripts or requests."""

from html import escape

from pydarknet.views.chart import svg
from pydarknet.views.runs import curves, label_of

STAGES = 6  # samples that are shown
STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --page: #fdfdfc; --dim: #6b6b6b; --line: #ddd }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e2; --page: #161618; --dim: #98989c; --line: #35353a } }
body { color: var(--ink); background: var(--page); max-width: 58rem; margin: 2rem auto; padding: 0 1rem;
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem }
h3 { font-size: .9rem; color: var(--dim); margin-bottom: .2rem }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--dim) }
td { padding: .1rem 1.5rem .1rem 0; font-variant-numeric: tabular-nums } td:first-child { color: var(--dim) }
pre { border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem; overflow: auto; white-space: pre-wrap;
  font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace }
"""


def page(run, axis="iterations"):
    """The HTML of a :class:`~pydarknet.views.runs.Run`."""
    rows = "".join(f"<tr><td>{escape(name)}<td>{escape(value)}</tr>" for name, value in figures(run))
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(run.name)}</title><style>{STYLE}</style></head><body><h1>{escape(run.name)}</h1>",
        f"<h2>Loss, bits per {run.unit}</h2>{svg(curves([run], axis), label_of(axis, run.unit), run.unit)}",
        f"<h2>Figures</h2><table>{rows}</table>",
    ]
    if run.samples:
        parts.append("<h2>What it wrote</h2>")
        parts += [f"<h3>iteration {iteration}</h3><pre>{escape(text)}</pre>" for iteration, text in stages(run.samples)]
    if isinstance(run.header.get("cfg"), str):
        parts.append(f"<h2>The cfg</h2><pre>{escape(run.header['cfg'])}</pre>")
    return "".join(parts) + "</body></html>\n"


def stages(samples):
    """Some of the samples, evenly spread, the first and the last among them."""
    if len(samples) <= STAGES:
        return samples
    return [samples[round(n * (len(samples) - 1) / (STAGES - 1))] for n in range(STAGES)]


def figures(run):
    """[(name, value)] of what can be told about the run in a line."""
    last, unit = max(run.training), run.unit
    found = [("iterations", f"{last:,}"), ("training loss at the end", f"{run.training[last]:.4f} bits per {unit}")]
    if run.held_out:
        best = min(run.held_out, key=run.held_out.__getitem__)
        found.append(("best on the held-out text", f"{run.held_out[best]:.4f} bits per {unit}, iteration {best:,}"))
    if last in run.characters:
        found.append((f"{unit}s trained on", f"{run.characters[last]:,}"))
    seconds = run.time.get(last)
    if seconds:
        found.append(("time", f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d} of training"))
        if last in run.characters:
            found.append(("speed", f"{run.characters[last] / seconds:,.0f} {unit}s a second"))
    names = {"characters_of_text": f"{unit}s of text", "held_out": f"{unit}s held out"}
    for key, value in run.header.items():
        if key in names and type(value) is int:
            found.append((names[key], f"{value:,}"))
        elif key not in ("cfg", "unit") and isinstance(value, (str, int, float)):
            found.append((key.replace("_", " "), str(value)))
    return found
