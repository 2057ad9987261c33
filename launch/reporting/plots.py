"""The plots of a report as inline SVG: no files, no fonts, no colours of their own.

Text and lines take the page's colours (the CSS variables in `_COLOURS`), so that one drawing fits light and dark pages.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INCHES = (4.2, 2.5)
MOST_POINTS = 100  # longer curves are drawn as means of equal stretches
_INK, _GRID, _BEFORE, _AFTER = "#010101", "#020202", "#030303", "#040404"
_COLOURS = {_INK: "var(--muted)", _GRID: "var(--line)", _BEFORE: "var(--start)", _AFTER: "var(--trained)"}
_LIGHT = "--muted:#5c6670;--line:#dfe3e6;--start:#8595a8;--trained:#0b7f70;background:#ffffff"  # as in style.css
_NAMESPACES = ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def curve(name: str, points: Sequence[tuple[int, float]]) -> str:
    """Draw one metric, given as (step, value), as SVG. `name` is unique on the page."""
    figure, axes = _figure()
    with rc_context(_STYLE):
        marker = "o" if len(points) < 10 else ""  # a line of one point is not seen
        axes.plot(*zip(*_thin(points), strict=True), color=_AFTER, linewidth=1.6, marker=marker, markersize=3)
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # a MaxNLocator
        axes.set_xlabel("step")
    return _svg(figure, name)


def bars(
    name: str,
    groups: Mapping[str, Mapping[int, tuple[float, str]]],
    y: str,
    x: str = "agent turns",
    ticks: Sequence[str] = (),
) -> str:
    """Draw bars over whole numbers as SVG: for each group (one or two) number -> (height, label of the bar).

    y, x: labels of the axes.
    ticks: labels at 0, 1, ... in place of the numbers.
    """
    figure, axes = _figure()
    width = 0.8 / len(groups)
    with rc_context(_STYLE):
        for index, (group, given) in enumerate(groups.items()):
            shift = (index - (len(groups) - 1) / 2) * width
            heights, labels = [height for height, _ in given.values()], [label for _, label in given.values()]
            drawn = axes.bar([number + shift for number in given], heights, width, color=_colour(group), label=group)
            axes.bar_label(drawn, labels, fontsize=6.5, padding=1)
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks, fontsize=7)
        else:
            axes.set_xticks(sorted({number for given in groups.values() for number in given}))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)  # the labels stand above the bars
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return _svg(figure, name)


def standalone(svg: str) -> str:
    """Return a drawing of this module as a file of its own, in the colours of a light page."""
    tag, _, drawing = svg.partition(">")
    return f"{tag}{_NAMESPACES}><style>:root{{{_LIGHT}}}</style>{drawing}"


def _colour(group: str) -> str:
    return _BEFORE if group in ("start", "baseline") else _AFTER


def _figure() -> tuple[Figure, Axes]:
    # Its first import builds a cache of fonts and says so in warnings that are of no use here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with rc_context(_STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        return figure, figure.add_subplot()


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Return the points; where there are more than MOST_POINTS, the means of equal stretches of them."""
    size = -(-len(points) // MOST_POINTS)
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an element of a page: no XML header, no metadata, ids that start with `name`."""
    buffer = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = re.sub(r' (xmlns(:xlink)?|width|height)="[^"]*"', "", text[text.index("<svg") :], count=4)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for placeholder, colour in _COLOURS.items():
        text = text.replace(placeholder, colour)
    return text
