"""What an experiment tracker has to do, and what it is given."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

TRAINED = ("start", "critic", "policy")
"""The stages that have metrics."""
IN_EVERY_LINE = "lr"
"""A metric that every line of a metrics.jsonl has."""


@dataclass(frozen=True)
class RunToTrack:
    """A run as its tracker gets to know it. id: in the tracker, None where it is new there."""

    project: str
    name: str
    id: str | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class TrackedReport:
    """What is sent when a run has ended. plots: name -> SVG, each a file of its own. dialogues: rows of `columns`."""

    files: Sequence[Path]
    plots: Mapping[str, str]
    columns: list[str]
    dialogues: list[list[Any]]


class Tracker(Protocol):
    """A run that is open in a tracker. Whatever goes wrong there is raised, as any exception."""

    id: str
    """With which the run is gone on with."""

    @property
    def place(self) -> str:
        """Where a person finds the run, without secrets."""
        ...

    def last_step(self, stage: str) -> int:
        """Return the last step whose metrics the tracker holds, 0 where there is none."""
        ...

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add the metrics of one step, as STAGE/NAME."""
        ...

    def log_result(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Say what a stage has ended with, as result/STAGE/NAME; a second call with the same changes nothing."""
        ...

    def log_report(self, report: TrackedReport) -> None:
        """Add the report, its plots and the dialogues."""
        ...

    def close(self, failed: bool) -> None:
        """Send what is left and end the run, until it is opened again."""
        ...


def flat(block: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings under their whole names.

    In: {"critic": {"beta": 0.1}, "seed": 42}, "."   Out: ("critic.beta", 0.1), ("seed", 42)
    """
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from flat(value, separator, f"{prefix}{name}{separator}")
        else:
            yield prefix + name, value


def result_numbers(note: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in the note of a finished stage.

    In: {"step": 20, "success": {"0": 0.25}, "from": "a.jsonl"}   Out: {"step": 20.0, "success/0": 0.25}
    """
    numbers = ((name, value) for name, value in flat(note, "/") if not isinstance(value, bool))
    return {name: float(value) for name, value in numbers if isinstance(value, int | float)}


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, without secrets and cut where it is long, or its kind."""
    said = without_secrets(str(error).strip().partition("\n")[0])
    return textwrap.shorten(said, 300, placeholder=" ...") or type(error).__name__


def without_secrets(text: str) -> str:
    """Leave scheme, host and path of the addresses in a text.

    In: "no answer from https://me:secret@host/api?token=1"   Out: "no answer from https://host/api"
    """
    return re.sub(r"(?<=\S)[?#][^\s'\")]+", "", re.sub(r"(?<=://)[^\s/]*@", "", text))
