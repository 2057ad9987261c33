"""Everything that `launch.show` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from colbench_env.types import BadInput
from launch.common.settings import Design


@dataclass(frozen=True)
class ShowConfig:
    """Shows dialogues as one self-contained page, or one of them in the terminal, or the tokens of a training row.

    trajectories: JSON Lines of trajectories, or a folder of `launch.train`, which is the same as run_dir.
    run_dir: a folder of `launch.train`: where it has them, its graded and evaluated dialogues, ranked candidates, turn
    pairs and trajectory pairs are shown; with `trajectories` only the latter three, which must be about those.
    ranked, turn_pairs, pairs: candidates with the critic's advantages, turn pairs, trajectory pairs about the
    trajectories. baseline: trajectories of another policy on the same tasks.
    model: "embedded", "embedded-frontend" or a Hugging Face directory whose tokenizer has the texts of the tokens; the
    default is the model of the run directory, given or above the file. Without one, token ids stand as numbers.
    pictures: of frontend dialogues, render the pages (as `design` says) and show them.
    grade: grade every row without a reward, or without a record of what its tests expected and got; pages without a
    reward as `design` says.
    limit: show the first so many trajectories of each file only; 0: all.
    output: the page. terminal: one episode in the terminal, of line `row` (from 1).
    tokens: a file of trajectories, pairs, candidates or ranked rows, of which line `row` is shown token by token.
    counted: of a pair that has text only, whether "all" agent turns count or the "last" alone (turn pairs).
    """

    trajectories: Path | None = None
    run_dir: Path | None = None
    ranked: Path | None = None
    turn_pairs: Path | None = None
    pairs: Path | None = None
    baseline: Path | None = None
    model: str | None = None
    grade: bool = False
    pictures: bool = False
    limit: int = 0
    output: Path | None = None
    terminal: bool = False
    tokens: Path | None = None
    row: int = 1
    counted: Literal["all", "last"] = "all"
    design: Design = field(default_factory=Design)

    def __post_init__(self) -> None:
        if self.limit < 0 or self.row < 1:
            raise BadInput(f"--limit={self.limit} and --row={self.row}: expected at least 0 (all), and at least 1")
        if self.tokens is None and self.trajectories is None and self.run_dir is None:
            raise BadInput("nothing to show: expected --trajectories=FILE, --run-dir=DIR or --tokens=FILE")
        if (self.output is not None) + self.terminal + (self.tokens is not None) != 1:
            raise BadInput("expected one of --output=FILE.html, --terminal and --tokens=FILE")
        joined = (self.ranked, self.turn_pairs, self.pairs, self.baseline)
        if self.trajectories is None and any(path is not None for path in joined):
            raise BadInput(
                "--ranked, --turn-pairs, --pairs, --baseline: about which file? expected --trajectories=FILE"
            )
