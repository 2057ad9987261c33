"""What a critic's scores are worth, as a table: from truth/truth.json of a run (`launch.training.stages.truth`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launch.reporting.metric_names import percent
from launch.reporting.result_tables import TableRow

FIGURES = (
    ("rank_correlation", "rank correlation with the success of continuations"),
    ("reliability", "the same between two halves of the continuations"),
    ("top_half", "upper half by score that is the upper half by success"),
)


def critic_table(truths: Mapping[str, Any]) -> tuple[list[str], list[TableRow]]:
    """Return what was judged ("score", "learned", "pmi") and a row for each figure; nothing without stage truth.

    truths: what truth.json holds, {} where there is none.
    """
    if not truths:
        return [], []
    judged = list(truths.values())
    rows = [TableRow(told, [_number(truth[name]) for truth in judged]) for name, told in FIGURES]
    for name, count in judged[0]["counts"].items():
        cells = [_share(truth["preferences"][name]) for truth in judged]
        rows.append(TableRow(f"{name} ({count} positions)", cells))
    return list(truths), rows


def _number(estimate: Mapping[str, float | None]) -> str:
    mean, low, high = (estimate[name] for name in ("mean", "low", "high"))
    return "n/a" if mean is None else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _share(estimate: Mapping[str, float | None]) -> str:
    mean, low, high = (estimate[name] for name in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return "n/a"
    return f"{percent(mean)} [{100 * low:.1f}, {100 * high:.1f}]"
