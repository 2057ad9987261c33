"""Metrics of a stage in three forms (JSON Lines, TensorBoard, a line of text), and warnings when training collapses."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
from tensorboardX import SummaryWriter

from colbench_env.replace_file import replace_file
from sweet_jax import processes
from sweet_jax.losses import Metrics

Values = Mapping[str, float]


def to_floats(metrics: Metrics) -> dict[str, float]:
    """Divide the metrics and return plain numbers, the loss first. Waits for the devices once."""
    values = {name: metric.value for name, metric in jax.device_get(dict(metrics)).items()}
    return {name: values[name] for name in sorted(values, key=lambda name: (name != "loss", name))}


def format_line(stage: str, step: int, total: int, values: Values) -> str:
    """Format one line that a person and a script can read.

    In:  "critic", 12, 300, {"loss": 0.693147, "lr": 2e-07}
    Out: "stage=critic step=12/300 loss=0.6931 lr=2e-07"
    """
    numbers = "".join(f" {name}={value:.4g}" for name, value in values.items())
    return f"stage={stage} step={step}/{total}{numbers}"


class MetricsLog:
    """Writer of `DIRECTORY/metrics.jsonl` and of TensorBoard events, for one stage; only process 0 writes.

    A stage continued at `resume_step` first removes the lines from that step on, and a last line cut off by a kill: no
    step is logged twice. OSError if the disk refuses.
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
        with replace_file(self.path) as file:
            file.write("".join(line + "\n" for line in lines).encode())

    def write(self, step: int, total: int, values: Values) -> str:
        """Append the values of one step and return their line of text (`format_line`); tags are `STAGE/NAME`."""
        if not self._writes:
            return format_line(self.stage, step, total, values)
        row = {"stage": self.stage, "step": step, "total": total, **{name: float(x) for name, x in values.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{self.stage}/{name}", value, step)
        return format_line(self.stage, step, total, values)

    def close(self) -> None:
        """Flush TensorBoard and close the files."""
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
    """A loss or a gradient is no longer finite; another update would write it into the parameters."""


def mostly_perfect(accuracies: Sequence[float]) -> str:
    """Word the warning for a stage whose preference accuracy was 1.0 at most of its logged steps, "" for any other.

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
    """A watch for the known ways in which training goes wrong. Each method returns new warnings, each warning once.

    total: updates of the stage.
    early_share: fraction of them in which a perfect accuracy is a warning.
    perfect_steps: logged steps in a row with accuracy 1.0 that make it one.
    shortest_share: fraction of the first mean length below which replies are too short, and dialogues of the first
    mean number of turns.
    largest_log_ratio: nats a token, above which a network has left its reference.
    lowest_fall: fraction of the first log-prob of the chosen rows by which it may fall, and at least 5 nats a row.
    """

    total: int
    early_share: float = 0.1
    perfect_steps: int = 3
    shortest_share: float = 0.5
    largest_log_ratio: float = 3.0
    lowest_fall: float = 0.5
    _reported: set[str] = field(default_factory=set)
    _first_lengths: dict[str, float] = field(default_factory=dict)
    _first_chosen: float | None = None
    _perfect: int = 0

    def step(self, step: int, values: Values) -> list[str]:
        """Check the metrics of update number `step` (from 1). Raises Diverged for a value that is not finite."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at step {step} of {self.total}: lower the learning rate")
        accuracy = values.get("rewards/accuracies")
        self._perfect = self._perfect + 1 if accuracy == 1.0 else 0
        warnings = self._likelihoods(step, values)
        early = step <= self.early_share * self.total
        if early and self._perfect >= min(self.perfect_steps, max(1, int(self.early_share * self.total))):
            warnings += self._once(
                "accuracy",
                f"preference accuracy is 1.0 at step {step} of {self.total}, over-fitting: use less data",
            )
        return warnings

    def _likelihoods(self, step: int, values: Values) -> list[str]:
        """Check that the network stays near its reference and that the chosen rows do not become unlikely."""
        warnings, size, chosen = [], values.get("log_ratios/abs"), values.get("logps/chosen")
        if size is not None and size > self.largest_log_ratio:
            warnings += self._once(
                "ratios",
                f"log-ratios are {size:.1f} nats a token at step {step} of {self.total}: the network has left its "
                "reference; a higher beta, a lower learning rate or fewer steps hold it",
            )
        if chosen is not None:
            self._first_chosen = chosen if self._first_chosen is None else self._first_chosen
            if chosen < self._first_chosen - max(5.0, self.lowest_fall * abs(self._first_chosen)):
                warnings += self._once(
                    "chosen",
                    f"the log-prob of the chosen rows fell from {self._first_chosen:.1f} to {chosen:.1f} at step "
                    f"{step} of {self.total}: the loss makes both sides unlikely; a higher nll_coef holds them",
                )
        return warnings

    def replies(self, mean_tokens: float) -> list[str]:
        """Check the mean reply length of sampled dialogues, in tokens; the first call sets the one to compare with."""
        return self._length("replies", mean_tokens, "tokens")

    def turns(self, mean_turns: float) -> list[str]:
        """Check the mean number of agent turns of a policy's dialogues; the first call sets the one to compare with."""
        return self._length("dialogues", mean_turns, "agent turns")

    def _length(self, what: str, mean: float, unit: str) -> list[str]:
        first = self._first_lengths.setdefault(what, mean)
        if mean >= self.shortest_share * first:
            return []
        return self._once(what, f"{what} shrank from {first:.1f} to {mean:.1f} {unit}: the policy collapses")

    def rows(self, total: int, without_action_tokens: int = 0, truncated: int = 0) -> list[str]:
        """Check the rows of a stage: how many of `total` have no action token, and how many were truncated."""
        warnings: list[str] = []
        if without_action_tokens:
            warnings += self._once(
                "actions", f"{without_action_tokens} of {total} rows have no action token and teach nothing"
            )
        if truncated:
            warnings += self._once("truncated", f"{truncated} of {total} rows were longer than the limit and were cut")
        return warnings

    def compilations(self, count: int, expected: int) -> list[str]:
        """Check how often the train step was compiled. expected: the number of batch shapes."""
        if count <= expected:
            return []
        return self._once("compiled", f"the train step was compiled {count} times, {expected} expected: shapes change")

    def _once(self, kind: str, message: str) -> list[str]:
        if kind in self._reported:
            return []
        self._reported.add(kind)
        return [message]
