"""Everything that `launch.data check` and `launch.data convert` can be told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from colbench_env.types import BadInput

Kind = Literal["backend", "frontend", "trajectories", "critic-pairs", "turn-pairs", "candidates", "ranked"]
FormatName = Literal["rows", "messages", "sharegpt", "trl", "verifiers", "openenv"]


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


@dataclass(frozen=True)
class ConvertConfig:
    """Convert a file of dialogues or pairs from a format of other tools to our rows, or back: all of it or nothing.

    docs/conversion.md says what each format holds and what is refused.
    """

    file: tyro.conf.Positional[Path]
    """JSON Lines, a .parquet file, or a directory of datasets (parquet files, or what save_to_disk wrote)."""
    source: Annotated[FormatName, tyro.conf.arg(name="from")]
    """Format of the file; rows: ours, as the released files have them."""
    to: FormatName
    """Format to write; one of the two is rows."""
    output: Path
    """NAME.parquet: Parquet; a name without an ending: a directory for load_dataset; any other name: JSON Lines."""
    kind: Kind | None = None
    """Kind of our rows; none: the first row that is of a known kind tells."""
    model: Path | None = None
    """Hugging Face directory whose chat template the texts of pairs are written in; for trl alone."""
    split: str = ""
    """Split of a directory: the one that is read, and the name of the one that is written (train)."""
    skip_defective: bool = False
    """Leave out rows that cannot be converted, each named and all counted; without it they end the command."""

    def __post_init__(self) -> None:
        if "rows" not in (self.source, self.to):
            raise BadInput(f"--from={self.source} and --to={self.to}: one of the two must be rows")
        pairs = "trl" in (self.source, self.to)
        if pairs and self.model is None:
            raise BadInput("--model is needed for trl: the texts of pairs are written in the chat template of a model")
        if self.model is not None and not pairs:
            raise BadInput(f"--model={self.model}: is for trl alone, whose pairs are texts in a chat template")
        if self.split and not re.fullmatch(r"\w+(\.\w+)*", self.split):
            raise BadInput(f"--split={self.split}: expected the name of a split, such as train or test")
        if self.split and self.output.suffix and not self.file.is_dir():
            raise BadInput(f"--split={self.split}: neither {self.file} nor {self.output} is a directory of splits")
        if self.output.resolve() == self.file.resolve():
            raise BadInput(f"--output={self.output}: is the file that is read, expected one of its own")
