"""Metrics of a stage in three forms (JSON Lines, TensorBoard, a line of text), and warnings when training collapses."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
from tensorboardX import SummaryWriter

from sweet_jax import processes
from sweet_jax.losses import Metrics

Values = Mapping[str, float]


def to_floats(metrics: Metrics) -> dict[str, float]:
    """The metrics divided, as plain numbers, the loss first: waits for the devices once."""
    values = {name: ratio.value for name, ratio in jax.device_get(dict(metrics)).items()}
    return {name: values[name] for name in sorted(values, key=lambda name: (name != "loss", name))}


def format_line(stage: str, step: int, total: int, values: Values) -> str:
    """One line that a person and a script can read.

    In:  "critic", 12, 300, {"loss": 0.693147, "lr": 2e-07}
    Out: "stage=critic step=12/300 loss=0.6931 lr=2e-07"
    """
    numbers = "".join(f" {name}={value:.4g}" for name, value in values.items())
    return f"stage={stage} step={step}/{total}{numbers}"


class MetricsLog:
    """Writes `DIRECTORY/metrics.jsonl` and TensorBoard events of one stage.

    A stage continued at `resume_step` first removes the rows from that step on, and a last line cut off by a kill: no
    step is there twice. Of several processes only the first one writes. OSError if the disk refuses.
    """

    def __init__(self, directory: Path, stage: str, resume_step: int | None = None):
        self.path = Path(directory) / "metrics.jsonl"
        self.stage = stage
        self._writes = processes.is_process_0()
        if not self._writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._keep_before(resume_step or 0)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=resume_step)

    def _keep_before(self, resume_step: int) -> None:
        lines = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _is_before(line, resume_step)]
        beside = self.path.with_suffix(".tmp")
        beside.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        os.replace(beside, self.path)

    def write(self, step: int, total: int, values: Values) -> str:
        """Appends one row and returns its line of text (`format_line`); names become tags `STAGE/NAME`."""
        if not self._writes:
            return format_line(self.stage, step, total, values)
        row = {"stage": self.stage, "step": step, "total": total, **{name: float(x) for name, x in values.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{self.stage}/{name}", value, step)
        return format_line(self.stage, step, total, values)

    def close(self) -> None:
        """Writes out what TensorBoard still holds."""
        if self._writes:
            self._file.close()
            self._board.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_before(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] < step
    except ValueError:
        return False


class Diverged(RuntimeError):
    """A loss or a gradient is no longer a number; training on would only write it into the parameters."""


def mostly_perfect(accuracies: Sequence[float]) -> str:
    """The warning of a stage whose preference accuracy was 1.0 at most of its logged steps, "" for any other.

    In: [0.9, 1.0, 1.0]   Out: "preference accuracy was 1.0 at 2 of 3 logged steps: ..."
    """
    perfect = sum(accuracy == 1.0 for accuracy in accuracies)
    if len(accuracies) < 3 or 2 * perfect <= len(accuracies):
        return ""
    return (
        f"preference accuracy was 1.0 at {perfect} of {len(accuracies)} logged steps: the pairs are told apart without "
        "effort, and over-fitting is likely; use fewer steps or harder pairs"
    )


@dataclass
class CollapseWatch:
    """Looks for the known ways in which training goes wrong. Each method returns the warnings it found, each once.

    total: the steps of the stage; replies and data are told as they become known.
    """

    total: int
    early_share: float = 0.1
    perfect_steps: int = 3
    shortest_share: float = 0.5
    _said: set[str] = field(default_factory=set)
    _first_length: float | None = None
    _perfect: int = 0

    def step(self, step: int, values: Values) -> list[str]:
        """After update number `step` (from 1). Raises Diverged for a value that is not finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at step {step} of {self.total}: lower the learning rate")
        accuracy = values.get("rewards/accuracies")
        self._perfect = self._perfect + 1 if accuracy == 1.0 else 0
        early = step <= self.early_share * self.total
        if early and self._perfect >= min(self.perfect_steps, max(1, int(self.early_share * self.total))):
            return self._once(
                "accuracy",
                f"preference accuracy is 1.0 at step {step} of {self.total}, over-fitting: use less data",
            )
        return []

    def replies(self, mean_tokens: float) -> list[str]:
        """After dialogues were sampled; the first call sets the length to compare with."""
        if self._first_length is None:
            self._first_length = mean_tokens
        if mean_tokens < self.shortest_share * self._first_length:
            return self._once(
                "length",
                f"replies shrank from {self._first_length:.1f} to {mean_tokens:.1f} tokens: the policy collapses",
            )
        return []

    def rows(self, total: int, uncounted: int = 0, truncated: int = 0) -> list[str]:
        """When the rows of a stage are made."""
        warnings: list[str] = []
        if uncounted:
            warnings += self._once("uncounted", f"{uncounted} of {total} rows have no counted token and teach nothing")
        if truncated:
            warnings += self._once("truncated", f"{truncated} of {total} rows were longer than the limit and were cut")
        return warnings

    def compilations(self, count: int, expected: int) -> list[str]:
        """After a step; `expected`: how many batch shapes there are."""
        if count <= expected:
            return []
        return self._once("compiled", f"the train step was compiled {count} times, {expected} expected: shapes change")

    def _once(self, kind: str, message: str) -> list[str]:
        if kind in self._said:
            return []
        self._said.add(kind)
        return [message]
