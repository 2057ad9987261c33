"""What `report.json` holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.reporting.json_values import to_json_value
from launch.reporting.result_tables import Results
from launch.training.entropy import TurnEntropy

FORMAT = 3  # of report.json


PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "grain", "numpy", "matplotlib")


@dataclass(frozen=True)
class Report:
    """Everything that a run reports, as `report.json` has it.

    command: makes this run; next_commands: what to try after it. stages: the note of each finished stage, in order.
    last_start_seconds: of the last start that had something to do. warnings: of all starts. peak_memory_gib: the
    highest of all starts that wrote a report. parameters: of the network. max_turns: of the agent in a dialogue.
    entropy: of each policy by turn.
    """

    results: Results
    command: str
    next_commands: Sequence[str]
    graders: Sequence[str]
    settings: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    last_start_seconds: float | None
    warnings: Sequence[str]
    peak_memory_gib: float
    parameters: int | None
    max_turns: int
    entropy: Mapping[str, Sequence[TurnEntropy]]
    devices: str
    mesh: str
    versions: Mapping[str, str]
    written: str

    @property
    def stage_seconds(self) -> float:
        """What the finished stages took together."""
        return round(sum(note.get("seconds", 0.0) for note in self.stages.values()), 1)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        rest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "results"}
        head = {"format": FORMAT, **self.results.to_json(), "stage_seconds": self.stage_seconds}
        return head | to_json_value(rest)
