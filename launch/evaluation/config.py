"""Everything that `launch.evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from colbench_env.types import BadInput, BenchmarkName
from launch.common.settings import Design

STDOUT = Path("-")


@dataclass(frozen=True)
class EvaluateConfig:
    """Grades the answers of dialogues, programs in a sandbox or pages in a browser, and reports what they are worth.

    trajectories: JSON Lines of trajectories. A row that has a reward keeps it, unless `regrade`. tasks: tasks that
    supply reference and tests to trajectories without them, found by problem_description.
    grader: "strict", or "official": as the released grader scores. workers: answers graded side by side. unsafe: grade
    even where nothing isolates the answers. references: run the references as well, for the chance level, the flags of
    doubtful tasks and the references that never end.
    benchmark: "backend" (Python functions) or "frontend" (web pages, rendered and compared as `design` says: grader,
    workers, unsafe and references are then of no use).
    samples: the file has so many samples of each task, sample-major; 0: found out.
    output: the graded rows, appended as they are graded; the same command again goes on where it was killed. json: all
    numbers, "-" for standard output (the text then goes to standard error). html: the report as one page.
    baseline: trajectories of another policy on the same tasks, to compare with.
    pairs: trajectory pairs in the released layout, with the reference in front unless --no-privileged.
    model: a Hugging Face directory whose tokenizer counts tokens where rows have no counts, and writes the prompts of
    pairs where rows have none.
    fail_under: exit with status 1 if the share of tasks solved (frontend: the mean similarity) is below this.
    """

    trajectories: Path
    benchmark: BenchmarkName = "backend"
    tasks: Path | None = None
    grader: Literal["strict", "official"] = "strict"
    regrade: bool = False
    workers: int = 2
    unsafe: bool = False
    references: bool = True
    samples: int = 0
    output: Path | None = None
    json: Path | None = None
    html: Path | None = None
    baseline: Path | None = None
    pairs: Path | None = None
    privileged: bool = True
    model: Path | None = None
    fail_under: float | None = None
    design: Design = field(default_factory=Design)

    def __post_init__(self) -> None:
        if self.samples < 0 or self.workers < 1:
            raise BadInput(
                f"--samples={self.samples} and --workers={self.workers}: at least 0 (found out), and at least 1"
            )
        if self.fail_under is not None and not 0 <= self.fail_under <= 1:
            raise BadInput(f"--fail-under={self.fail_under:g} is no share, expected 0 to 1, as in 0.35")
        named: dict[Path, str] = {}
        for name in ("trajectories", "tasks", "baseline", "output", "json", "html", "pairs"):
            path: Path | None = getattr(self, name)
            if path is None or path == STDOUT:
                continue
            other = named.setdefault(path.resolve(), name)
            if other != name and name in OUTPUTS:
                raise BadInput(f"--{other} and --{name} are the same file {path}: give the output a file of its own")

    @property
    def outputs(self) -> dict[str, Path]:
        """The files that are written, by the names of their flags."""
        paths = {name: getattr(self, name) for name in OUTPUTS}
        return {name: path for name, path in paths.items() if path is not None and path != STDOUT}


OUTPUTS = ("output", "json", "html", "pairs")
