"""Everything that `launch.show` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.types import BadInput
from launch.common.flags import ADVANCED
from launch.common.settings import Design


@dataclass(frozen=True)
class ShowConfig:
    """Show dialogues as one self-contained page, or one of them in the terminal, or the tokens of a training row."""

    trajectories: Path | None = None
    """JSON Lines of dialogues, or a folder of launch.train, which is the same as run_dir."""
    run_dir: Path | None = None
    """Folder of launch.train whose dialogues, candidates and pairs are shown; with trajectories only the last two."""
    ranked: Path | None = None
    """Candidates with the critic's advantages, about the dialogues."""
    turn_pairs: Path | None = None
    """Pairs of turns, about the dialogues."""
    pairs: Path | None = None
    """Pairs of dialogues, about the dialogues."""
    baseline: Path | None = None
    """Dialogues of another policy on the same tasks."""
    model: str | None = None
    """embedded, embedded-frontend or a Hugging Face directory that has the texts of tokens; none: the run's model."""
    grade: bool = False
    """Grade rows without a reward, or without a record of what their tests expected and got."""
    pictures: bool = False
    """Render the pages of frontend dialogues and show them."""
    limit: int = 0
    """Dialogues of each file that are shown, the first ones; 0: all."""
    output: Path | None = None
    """The page to write."""
    terminal: bool = False
    """Print one dialogue, of line `row`."""
    tokens: Path | None = None
    """File of dialogues, pairs, candidates or ranked rows, of which line `row` is printed token by token."""
    row: int = 1
    """Line of the file, from 1."""
    counted: Literal["all", "last"] = "all"
    """Turns that count in a pair that has text only; last: that of turn pairs."""
    design: Annotated[Design, ADVANCED] = field(default_factory=Design)

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
