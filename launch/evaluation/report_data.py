"""All numbers of an evaluation, and how they are collected from graded dialogues."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colbench_env.design.page_images import SideBySide
from colbench_env.flags import Flag
from colbench_env.samples import Layout
from colbench_env.simulator_health import SimulatorHealth, is_spoilt, simulator_health
from colbench_env.statistics import BestOf, Bin, Estimate, best_of, bootstrap, compare, histogram, summarise
from colbench_env.types import Trajectory
from launch.common.benchmarks import Benchmark
from launch.evaluation.reference_audit import ReferenceAudit
from launch.reporting.json_values import to_json_value
from launch.reporting.paper_numbers import PAPER, paper_differences
from launch.reporting.result_tables import Results

if TYPE_CHECKING:
    from sweet_jax.data.chat import Chat

FORMAT = 2  # of the JSON file
EVALUATED, BASELINE = "evaluated", "baseline"


@dataclass(frozen=True)
class Part:
    """What some of the dialogues are worth, a mean over their `tasks` tasks."""

    name: str
    dialogues: int
    tasks: int
    reward: Estimate
    success: Estimate


@dataclass(frozen=True)
class Chance:
    """What blind guessing scores: each task's commonest result as the answer to every call."""

    tasks: int
    reward: float
    success: float


@dataclass(frozen=True)
class Lengths:
    """How long the agent's turns are. unit: "tokens" or "characters"; total: of all turns together."""

    unit: str
    total: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Evaluation:
    """Everything that `launch.evaluate` reports.

    parts: all dialogues, those about unflagged tasks, about unsuspected ones, without a failed reply of the simulator.
    flags: tasks by flag; flagged: how many have any. graded: rewards given here; kept: those of the file, by the grader
    that the rows name. excluded: dialogues
    without a reward, by the reason. defects: what is wrong with the input, each with its place. notes: what else a
    reader has to know. sides: pages for the HTML report.
    """

    source: str
    rows: int
    results: Results
    parts: tuple[Part, ...]
    best_of: tuple[BestOf, ...]
    chance: Chance | None
    flags: Mapping[str, int]
    flagged: int
    lengths: Lengths
    simulator: SimulatorHealth
    layout: Layout
    graded: int
    kept: Mapping[str, int]
    excluded: Mapping[str, int]
    defects: tuple[str, ...]
    notes: tuple[str, ...]
    grader: str
    sandbox: str
    python: str
    seconds: float
    written: str
    sides: tuple[SideBySide, ...] = ()

    @property
    def evaluated(self) -> Any:
        """The summary of the dialogues themselves."""
        return self.results.policies[EVALUATED]

    @property
    def baseline(self) -> Any:
        """The summary of the baseline's dialogues, None without one."""
        return self.results.policies.get(BASELINE)

    @property
    def differences_to_paper(self) -> list[str]:
        """What keeps the figures from being compared with the paper's."""
        names = list(self.simulator.simulators)
        simulator = names[0].partition(" {")[0] if len(names) == 1 else f"{len(names)} different ones"
        graders = [*self.kept, *([self.grader] if self.graded else [])]
        grader = " and ".join(dict.fromkeys(graders)) or "none"
        return paper_differences(self.results.benchmark, self.evaluated.tasks, simulator, grader)

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as a JSON object, with null for NaN and infinity."""
        rest = {field.name: to_json_value(getattr(self, field.name)) for field in dataclasses.fields(self)}
        del rest["results"], rest["sides"]
        table = PAPER[self.results.benchmark]
        paper = {
            "tasks": table.num_tasks,
            "rows": table.to_json(),
            "differences": self.differences_to_paper,
        }
        return {"format": FORMAT, **self.results.to_json(), **rest, "paper": paper}


def collect(
    rows: Sequence[Trajectory],
    baseline: Sequence[Trajectory],
    audit: ReferenceAudit,
    benchmark: Benchmark,
    chat: Chat | None,
    suspected: Set[str] = frozenset(),
    **provenance: Any,
) -> Evaluation:
    """Collect the numbers of graded dialogues.

    suspected: ids or descriptions of tasks that somebody's audit suspects.
    provenance: the fields of `Evaluation` that are not figures of the dialogues.
    """
    policies = ({BASELINE: summarise(baseline)} if baseline else {}) | {EVALUATED: summarise(rows)}
    ids = [trajectory.task.task_id for trajectory in rows]
    flagged = {task: audit.flags[task] for task in ids if audit.flags.get(task)}
    parts = [_part("all", rows)]
    if flagged:
        kept = [trajectory for task, trajectory in zip(ids, rows, strict=True) if task not in flagged]
        parts.append(_part("without flagged tasks", kept))
    if suspected:
        parts.append(
            _part(
                "tasks that no audit suspects",
                [row for row in rows if not suspected & {row.task.task_id, row.task.problem_description}],
            )
        )
    if any(map(is_spoilt, rows)):
        parts.append(_part("without failed replies", [trajectory for trajectory in rows if not is_spoilt(trajectory)]))
    chances = [audit.chances[task] for task in dict.fromkeys(ids) if not math.isnan(audit.chances.get(task, math.nan))]
    return Evaluation(
        rows=len(rows),
        results=Results(policies, compare(baseline, rows) if baseline else None, benchmark.metric_names),
        parts=tuple(parts),
        best_of=best_of(rows),
        chance=_chance(chances) if chances else None,
        flags={str(flag): count for flag in Flag if (count := sum(flag in given for given in flagged.values()))},
        flagged=len(flagged),
        lengths=turn_lengths(rows, chat),
        simulator=simulator_health(rows),
        excluded=_excluded(rows, audit, benchmark),
        **provenance,
    )


def _chance(shares: Sequence[float]) -> Chance:
    solved = sum(share == 1.0 for share in shares)
    return Chance(len(shares), sum(shares) / len(shares), solved / len(shares))


def _part(name: str, rows: Sequence[Trajectory]) -> Part:
    if not rows:
        return Part(name, 0, 0, bootstrap([]), bootstrap([]))
    summary = summarise(rows)
    return Part(name, summary.dialogues, summary.tasks, summary.reward, summary.success)


def turn_lengths(rows: Sequence[Trajectory], chat: Chat | None) -> Lengths:
    """Measure the agent's turns: recorded tokens, else tokens counted with `chat`, else characters."""
    turns = [turn for trajectory in rows for turn in trajectory.agent_turns]
    counts: list[int | None] = [_recorded(turn.extra.get("tokens")) for turn in turns]
    texts = [turn.content if turn.output is None else turn.output for turn in turns]
    if chat is not None:
        counts = [_tokens(chat, text) if count is None else count for count, text in zip(counts, texts, strict=True)]
    known = [count for count in counts if count is not None]
    unit, lengths = ("tokens", known) if len(known) == len(turns) else ("characters", [len(text) for text in texts])
    return Lengths(unit, sum(lengths), histogram(lengths))


def _tokens(chat: Chat, text: str) -> int:
    """Count the tokens of a turn, its end-of-turn token included."""
    return len(chat.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) + 1


def _recorded(count: object) -> int | None:
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def _excluded(rows: Sequence[Trajectory], audit: ReferenceAudit, benchmark: Benchmark) -> dict[str, int]:
    """Count the dialogues without a reward, by the reason."""
    reasons: Counter[str] = Counter()
    for trajectory in rows:
        if trajectory.reward is None:
            if benchmark.grading_error(trajectory.task):
                reasons["no reference or no tests" if benchmark.runs_answers else "no reference"] += 1
            elif trajectory.task.task_id in audit.defects:
                reasons["defective reference or test"] += 1
            else:
                reasons["sandbox failed" if benchmark.runs_answers else "reference cannot be shown"] += 1
    return dict(reasons)
