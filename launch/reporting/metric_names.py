"""What the rewards of each benchmark measure, and how figures are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from colbench_env.statistics import Estimate
from colbench_env.types import BenchmarkName


@dataclass(frozen=True)
class MetricNames:
    """How a benchmark calls its figures.

    name: its key in METRIC_NAMES. benchmark: whose rules and scale of rewards hold. reward: the mean reward; unit: what
    is written after a hundred times its value. success: the answers with a reward of 1. headline: which of the two is
    first in a sentence. verdicts: what is counted by verdict.
    """

    name: str
    benchmark: BenchmarkName
    reward: str
    unit: str
    success: str
    headline: Literal["reward", "success"]
    verdicts: str

    @property
    def headline_name(self) -> str:
        """The headline's figure, as the first word of a sentence."""
        return (self.success if self.headline == "success" else self.reward).capitalize()

    @property
    def headline_unit(self) -> str:
        """What is written after the headline's figure."""
        return " %" if self.headline == "success" else self.unit


_ALL = (
    MetricNames("backend", "backend", "tests passed", " %", "success", "success", "Verdicts on single tests"),
    MetricNames(
        "frontend", "frontend", "similarity x 100", "", "same as the reference", "reward", "How pages were shown"
    ),
    MetricNames("plugin", "backend", "reward x 100", "", "of reward 1", "reward", "Verdicts on single tests"),
)
METRIC_NAMES: Mapping[str, MetricNames] = {names.name: names for names in _ALL}
"""Of the two benchmarks, and of tasks of either with the reward of a plugin."""


def percent(value: float, unit: str = " %") -> str:
    """Format a share as a percentage.

    In: 0.125   Out: "12.5 %"
    """
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}{unit}"


def share(estimate: Estimate, unit: str = " %") -> str:
    """Format an estimated share with its interval.

    In: Estimate(0.5, 0.25, 0.75)   Out: "50.0 % [25.0, 75.0]"
    """
    if math.isnan(estimate.mean):
        return "n/a"
    return f"{percent(estimate.mean, unit)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate) -> str:
    """Format an estimated difference of shares with its interval.

    In: Estimate(0.5, 0.25, 0.75)   Out: "+50.0 points [+25.0, +75.0]"
    """
    if math.isnan(estimate.mean):
        return "n/a"
    return f"{100 * estimate.mean:+.1f} points [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def p_value(p: float) -> str:
    """Format a p-value.

    In: 0.0234   Out: "p = 0.023"
    """
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def duration(seconds: float) -> str:
    """Format seconds.

    In: 754.2   Out: "12 min 34 s"
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"
