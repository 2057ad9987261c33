"""The figures of docs/reproduction.md as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from colbench_env.statistics import Estimate

_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "reproduction", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#dddddd",
    "text.color": "#333333", "axes.labelcolor": "#333333", "xtick.color": "#333333", "ytick.color": "#333333",
}  # fmt: skip
_COLOURS = ("#8a8a8a", "#0b62a4")
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def draw_methods(rows: Sequence[tuple[str, Estimate, Sequence[float]]]) -> str:
    """Draw each method's success with its interval, and a dot for each seed. Returns SVG."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.6 + 0.32 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, (_, estimate, seeds) in enumerate(reversed(rows)):
            axes.plot(seeds, [place] * len(seeds), "o", color=_COLOURS[0], markersize=3, alpha=0.7)
            axes.plot([estimate.low, estimate.high], [place, place], color=_COLOURS[1], linewidth=1.6)
            axes.plot(estimate.mean, place, "D", color=_COLOURS[1], markersize=5)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
        axes.set_xlabel("success on held-out tasks, %")
        axes.set_xlim(left=0)
        return _svg(figure)


def draw_lines(lines: Mapping[str, Sequence[tuple[int, Estimate]]], x: str, log: bool = False) -> str:
    """Draw success with its interval over a number, a line for each name. Returns SVG."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for (name, points), colour in zip(lines.items(), _COLOURS if len(lines) > 1 else _COLOURS[1:], strict=False):
            numbers, means = [number for number, _ in points], [estimate.mean for _, estimate in points]
            errors = [
                [estimate.mean - estimate.low for _, estimate in points],
                [estimate.high - estimate.mean for _, estimate in points],
            ]
            axes.errorbar(numbers, means, errors, marker="o", markersize=4, capsize=3, color=colour, label=name)
        if log:
            axes.set_xscale("log", base=2)
        ticks = sorted({number for points in lines.values() for number, _ in points})
        axes.set_xticks(ticks, [str(number) for number in ticks])
        axes.minorticks_off()
        axes.set_xlabel(x)
        axes.set_ylabel("success on held-out tasks, %")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
