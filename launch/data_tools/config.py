"""Everything that `launch.data check` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from colbench_env.types import BadInput

Kind = Literal["backend", "frontend", "trajectories", "critic-pairs", "turn-pairs", "candidates", "ranked"]


@dataclass(frozen=True)
class CheckConfig:
    """Name each defective row of a file (FILE:LINE: what) and print what the file holds; exit status 2 if one is.

    A task that is flagged (random, nan, comparison, missing-module) is not defective.
    """

    file: tyro.conf.Positional[Path]
    """JSON Lines of rows."""
    kind: Kind | None = None
    """Kind of the rows; none: the first row that is of a known kind tells."""
    model: Path | None = None
    """Hugging Face directory in whose tokens lengths are counted as well."""
    run: bool = True
    """Run each reference of tasks with tests twice in the grader's sandbox."""
    workers: int = 2
    """References run side by side."""
    json: bool = False
    """Print one JSON object instead of text."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise BadInput(f"workers is {self.workers}, it must be at least 1")
