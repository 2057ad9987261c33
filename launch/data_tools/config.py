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
    """Names each defective row of a file (FILE:LINE: what) and prints what the file holds. Exit status 2 if one is.

    file: JSON Lines. kind: of its rows; without it the first row that is of a known kind tells. Pairs whose text begins
    as the released critic rows do, with the reference, are critic pairs, all other pairs turn pairs.
    model: a Hugging Face directory; lengths are then counted in its tokens as well.
    run: tasks with tests have their reference run twice in the grader's sandbox; --no-run only reads.
    workers: references run side by side. json: print one JSON object instead of text.
    A task that is flagged (random, nan, comparison, missing-module) is not defective.
    """

    file: tyro.conf.Positional[Path]
    kind: Kind | None = None
    model: Path | None = None
    run: bool = True
    workers: int = 2
    json: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise BadInput(f"workers is {self.workers}, it must be at least 1")
