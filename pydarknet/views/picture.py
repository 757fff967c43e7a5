"""Curves as a picture, through matplotlib."""

import io
import os

from pydarknet.errors import InputError
from pydarknet.system.files import show
from pydarknet.views.chart import COLOURS

PICTURES = (".svg", ".png")


def check_picture(path):
    """Raise InputError if no picture can be drawn under that name, or none at all: there is no matplotlib."""
    if not os.fsdecode(path).lower().endswith(PICTURES):
        raise InputError(f"{show(path)}: the picture's name must end in .svg or .png")
    try:
        import matplotlib  # noqa: F401 (whether it is there)
    except ImportError:
        raise InputError("a picture needs matplotlib: pip install matplotlib, or leave it out") from None
    except Exception as error:  # of many types, for what the user's settings of matplotlib say
        raise InputError(f"matplotlib does not start: {error}: mend MPLBACKEND or its matplotlibrc") from None


def picture(path, drawn, label, unit):
    """The bytes of a picture, of the kind that ``path`` is named after, of the curves ``drawn`` [(name, [(x, y)])].

    ``label`` is what x counts; y is in bits per ``unit``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines = [axes.plot(*zip(*points), color=COLOURS[number % len(COLOURS)])[0] for number, (_, points) in enumerate(drawn)]
    axes.set(xlabel=label, ylabel=f"bits per {unit}")
    axes.grid(alpha=0.3)
    for text, (name, _) in zip(axes.legend(lines, ["?"] * len(lines)).get_texts(), drawn):
        text.set(text=name, parse_math=False)  # a $ would begin a formula, and a label with _ in front be left out
    data = io.BytesIO()
    figure.savefig(data, format=os.path.splitext(os.fsdecode(path))[1][1:].lower(), dpi=144)
    return data.getvalue()
