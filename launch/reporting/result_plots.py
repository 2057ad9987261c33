"""Plots of results, with what each shows."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from launch.reporting.plots import bars
from launch.reporting.result_tables import Results


@dataclass(frozen=True)
class Plot:
    """A drawing and what it shows."""

    title: str
    svg: Markup


def turn_plots(results: Results) -> list[Plot]:
    """Plot success by number of turns, and how often each number of turns came up."""
    counts = {name: summary.by_turns for name, summary in results.policies.items()}
    metric_names = results.metric_names
    figure, unit = metric_names.headline_name, metric_names.headline_unit.replace(" ", ", ")
    success = {
        name: {c.turns: (100 * c.share(metric_names.headline), str(c.counted)) for c in given if c.counted}
        for name, given in counts.items()
    }
    dialogues = {name: {c.turns: (c.dialogues, str(c.dialogues)) for c in given} for name, given in counts.items()}
    return [
        Plot(
            f"{figure} by number of turns (of how many dialogues)",
            Markup(bars("success", success, figure.lower() + unit)),
        ),
        Plot("Dialogues by number of turns", Markup(bars("turns", dialogues, "dialogues"))),
    ]
