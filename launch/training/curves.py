"""The metrics of a stage as curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from colbench_env.types import BadInput

Curve = Sequence[tuple[int, float]]
"""(step, value) of every logged step."""
NO_METRICS = {"stage", "step", "total"}
"""What a line of metrics.jsonl holds beside metrics."""


def read_curves(path: Path) -> Mapping[str, Curve]:
    """Read each metric of a metrics.jsonl; {} without a file. Raises BadInput for a line that is no row of metrics."""
    found: dict[str, list[tuple[int, float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], start=1):
        try:
            row = json.loads(line)
            for name in row.keys() - NO_METRICS:
                found.setdefault(name, []).append((int(row["step"]), float(row[name])))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadInput(f"{path}:{number}: expected a JSON object with 'step' and metrics") from None
    return found


def lines_after(path: Path, step: int) -> list[tuple[int, dict[str, float]]]:
    """Read the lines of a metrics.jsonl after a step, as (step, values); a line that a kill has cut off is no line."""
    found: list[tuple[int, dict[str, float]]] = []
    for line in reversed(path.read_text(encoding="utf-8").splitlines() if path.exists() else []):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step:
            break
        found.append((row["step"], {name: value for name, value in row.items() if name not in NO_METRICS}))
    return found[::-1]
