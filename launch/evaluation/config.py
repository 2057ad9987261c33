"""Everything that `launch.evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.types import BadInput, BenchmarkName
from launch.common.flags import Only
from launch.common.settings import Design

STDOUT = Path("-")


@dataclass(frozen=True)
class EvaluateConfig:
    """Grade the answers of dialogues, programs in a sandbox or pages in a browser, and report what they are worth."""

    trajectories: Path
    """JSON Lines of dialogues; a row that has a reward keeps it, unless regrade."""
    benchmark: BenchmarkName = "backend"
    """Python functions, or web pages, which are rendered and compared."""
    tasks: Path | None = None
    """Tasks that supply reference and tests to dialogues without them, found by problem_description."""
    grader: Annotated[Literal["strict", "official", "plugin"], Only(benchmark="backend")] = "strict"
    """Answers are run as modules, or as the released grader does; or a plugin's function gives the reward."""
    plugin: str | None = None
    """Modules (FILE.py, module, entry point) that bring a reward: docs/plugins.md."""
    regrade: bool = False
    """Grade rows that have a reward, too."""
    workers: Annotated[int, Only(benchmark="backend")] = 2
    """Answers graded side by side."""
    unsafe: Annotated[bool, Only(benchmark="backend")] = False
    """Grade even where nothing isolates the answers."""
    references: Annotated[bool, Only(benchmark="backend")] = True
    """Run the references as well: chance level, doubtful tasks, references that never end."""
    suspected: Path | None = None
    """Text with ids of tasks that an audit suspects, or rows of --tasks from 0: figures without them as well."""
    samples: int = 0
    """Samples of each task in the file, sample-major; 0: found out."""
    output: Path | None = None
    """Graded rows, appended as they are graded; the same command again goes on where it was killed."""
    json: Path | None = None
    """All numbers as JSON; "-" or no value: standard output (the text then goes to standard error)."""
    html: Path | None = None
    """The report as one page."""
    baseline: Path | None = None
    """Dialogues of another policy on the same tasks, to compare with."""
    pairs: Path | None = None
    """Pairs of dialogues to write, in the released layout."""
    privileged: bool = True
    """Put the reference in front of these pairs."""
    model: Path | None = None
    """Hugging Face directory whose tokenizer counts tokens, and writes prompts of pairs, where rows have none."""
    fail_under: float | None = None
    """Exit with status 1 if the fraction of tasks solved (frontend: the mean similarity) is below this."""
    design: Annotated[Design, Only(benchmark="frontend")] = field(default_factory=Design)

    def __post_init__(self) -> None:
        if self.samples < 0 or self.workers < 1:
            raise BadInput(
                f"--samples={self.samples} and --workers={self.workers}: at least 0 (found out), and at least 1"
            )
        if self.fail_under is not None and not 0 <= self.fail_under <= 1:
            raise BadInput(f"--fail-under={self.fail_under:g} is no share, expected 0 to 1, as in 0.35")
        if self.suspected is not None and self.suspected.suffix == ".jsonl":
            raise BadInput(f"--suspected={self.suspected}: expected a text with ids or numbers, not rows")
        named: dict[Path, str] = {}
        for name in ("trajectories", "tasks", "suspected", "baseline", "output", "json", "html", "pairs"):
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
