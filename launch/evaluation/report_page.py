"""The report of `launch.evaluate` as one page that opens from the disk and needs nothing else."""

from __future__ import annotations

from markupsafe import Markup

from colbench_env.statistics import Bin
from launch.evaluation import report_text as text
from launch.evaluation.report_data import Evaluation
from launch.reporting.html import template
from launch.reporting.paper_numbers import PAPER
from launch.reporting.plots import bars
from launch.reporting.result_plots import Plot, turn_plots
from launch.reporting.result_tables import result_rows, verdict_rows

MOST_DEFECTS = 200  # on the page; all of them are on the terminal and in the JSON file


def page(evaluation: Evaluation) -> str:
    """Render the page as HTML."""
    return template("evaluate.html").render(
        evaluation=evaluation,
        conclusion=text.conclusion(evaluation),
        policies=list(evaluation.results.policies),
        lines=result_rows(evaluation.results),
        verdicts=verdict_rows(evaluation.results),
        plots_drawn=[*turn_plots(evaluation.results), length_plot(evaluation)],
        comparison=text.comparison_rows(evaluation.results.difference) if evaluation.results.difference else (),
        parts=text.part_rows(evaluation),
        flags=text.flag_rows(evaluation),
        best=text.best_rows(evaluation),
        health=text.health_rows(evaluation.simulator),
        paper=PAPER[evaluation.results.benchmark],
        metric_names=evaluation.results.metric_names,
        ours=text.own_rows(evaluation),
        making=text.making_rows(evaluation),
        most_defects=MOST_DEFECTS,
    )


def length_plot(evaluation: Evaluation) -> Plot:
    """Plot how often the agent's turns have which length."""
    bins, unit = evaluation.lengths.bins, evaluation.lengths.unit
    drawn = {number: (part.count, str(part.count)) for number, part in enumerate(bins)}
    svg = bars("lengths", {"evaluated": drawn}, "turns", f"{unit} in a turn", [_tick(part) for part in bins])
    return Plot(f"Length of the agent's turns, {unit}", Markup(svg))


def _tick(part: Bin) -> str:
    """Format a bin as a label of an axis.

    In: Bin(2000, 4999, 1)   Out: "2k-"
    """
    low = part.low
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if low >= size:
            return f"{low // size}{unit}–"
    return str(low) if part.low == part.high else f"{low}–"
