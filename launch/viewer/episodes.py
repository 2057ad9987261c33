"""What is known of one episode, joined from all files, ready to be painted on a page or in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from colbench_env.design.thumbnails import Images, images_of
from colbench_env.endings import OUT_OF_TURNS, ran_out_of_turns
from colbench_env.grading.answers import is_no_answer
from colbench_env.simulator_health import NOT_RECORDED, leaks, simulator_health
from colbench_env.types import Message, Pair, Task, Trajectory, Verdict
from launch.viewer.token_rows import Shown, ShownRows, turn_counts
from launch.viewer.turns import Ranking, Turn, turn_of
from sweet_jax.data.token_rows import CHOSEN_TOKENS, REJECTED_TOKENS, TOKENS, row_from_json

INFRASTRUCTURE = str(Verdict.INFRASTRUCTURE_ERROR)
STATUSES = ("solved", "partly", "failed", OUT_OF_TURNS, "no answer", "not graded", INFRASTRUCTURE)
DIALOGUE = "dialogue"  # the title of the row that an episode was sampled as
MAX_PAIRS = 4  # trajectory pairs shown for an episode


@dataclass(frozen=True)
class Reply:
    """A reply of the user simulator.

    leaks: how it gives the solution away.
    reasked: how many replies before it were refused.
    """

    text: str
    leaks: tuple[str, ...]
    reasked: int


@dataclass(frozen=True)
class Test:
    """A test of the answer; what is not recorded is None."""

    __test__ = False

    name: str
    call: str
    verdict: str | None
    expected: str | None
    got: str | None
    detail: str | None


@dataclass(frozen=True)
class Episode:
    """One episode. line: its line in the file of its group. error: what broke it down, "" if nothing did.
    rows: its token rows: the dialogue, trajectory pairs, turn pairs. more_pairs: how many pairs are not among them.
    baseline: (group, line) of the same task's episode there."""

    group: str
    line: int
    task_id: str
    problem: str
    status: str
    reward: float | None
    facts: tuple[tuple[str, str], ...]
    error: str
    replies: tuple[Reply, ...]
    turns: tuple[Turn, ...]
    answer: str
    tests: tuple[Test, ...]
    reference: str
    hidden: str
    images: Images | None
    rows: tuple[ShownRows, ...]
    more_pairs: int
    baseline: tuple[str, int] | None

    @property
    def outcome(self) -> str:
        """In words, such as "3 of 10 tests passed"."""
        if self.status in (INFRASTRUCTURE, "not graded", OUT_OF_TURNS, "no answer"):
            return self.status
        verdicts = [test.verdict for test in self.tests]
        if not verdicts or None in verdicts:
            return f"{self.status}, reward {self.reward:.2f}"
        return f"{verdicts.count('pass')} of {len(verdicts)} tests passed"


@dataclass(frozen=True)
class Joined:
    """What other files say of a trajectory. ranked: by turn. pairs: its trajectory pairs and the side it is in them."""

    ranked: Mapping[int, Ranking]
    pairs: tuple[tuple[str, str, Pair], ...]  # FILE:LINE, side, pair
    baseline: tuple[str, int] | None


def episode(group: str, line: int, location: str, row: Trajectory, joined: Joined) -> Episode:
    """Make the episode of a trajectory. Raises BadInput for extra keys of ours that cannot be read."""
    history, verdicts = row.dialogue_history, _verdicts(row)
    turns = turns_of(history, joined.ranked)
    broken = INFRASTRUCTURE in verdicts.values()
    return Episode(
        group=group,
        line=line,
        task_id=row.task.task_id,
        problem=row.task.problem_description,
        status=status_of(row),
        reward=row.reward,
        facts=facts_of(row),
        error="A test could not be run, for reasons of the grader's machine: the episode does not count."
        if broken else "",
        replies=replies_of(row.task, history),
        turns=turns,
        answer=row.answer,
        tests=tests_of(row),
        reference=row.task.ground_truth,
        hidden=row.task.hidden_information or "",
        images=images_of(row.extra["images"], location) if "images" in row.extra else None,
        rows=(*_dialogue_row(row, turns, location), *_pair_rows(joined.pairs), *chain(*(turn.pairs for turn in turns))),
        more_pairs=max(len(joined.pairs) - MAX_PAIRS, 0) + sum(turn.more_pairs for turn in turns),
        baseline=joined.baseline,
    )  # fmt: skip


def broken_episode(group: str, line: int, location: str, record: Mapping[str, Any]) -> Episode:
    """Make the episode of a failure's record (`EpisodeFailed.to_json`): an infrastructure error without an answer."""
    messages = [Message.from_json(message, location) for message in record["messages"]]
    facts = [(name, str(record[name])) for name in ("sample", "turns") if name in record]
    return Episode(
        group=group, line=line, task_id=str(record.get("task_id", "")), problem=messages[0].content,
        status=INFRASTRUCTURE,
        reward=None, facts=tuple(facts), error=f"The {record.get('by', 'machine')} failed: {record.get('error', '')}",
        replies=replies_of(Task(messages[0].content), messages), turns=turns_of(messages, {}),
        answer="", tests=(), reference="", hidden="", images=None, rows=(), more_pairs=0, baseline=None,
    )  # fmt: skip


def replies_of(task: Task, history: Sequence[Message]) -> tuple[Reply, ...]:
    """Return the user simulator's replies with their marks: the row's own, else the leaks that can be seen."""
    return tuple(
        Reply(m.content, tuple(m.extra.get("leaks") or leaks(task, m.content)), int(m.extra.get("reasked", 0)))
        for m in history[2::2]
    )


def turns_of(history: Sequence[Message], ranked: Mapping[int, Ranking]) -> tuple[Turn, ...]:
    """Return the agent's turns, each with what was ranked in its place. Raises BadInput."""
    return tuple(turn_of(number, message, ranked.get(number)) for number, message in enumerate(history[1::2], 1))


def _dialogue_row(row: Trajectory, turns: Sequence[Turn], location: str) -> list[ShownRows]:
    """Return the dialogue's token row, with the log-ratios of the ranked turns; [] where it has no ids."""
    if TOKENS not in row.extra:
        return []
    tokens = row_from_json(row.extra[TOKENS], location)
    ratios: list[float | None] = []
    for number, count in turn_counts(tokens).items():
        known = turns[number - 1].log_ratios if number <= len(turns) else None
        ratios += known if known is not None and len(known) == count else [None] * count
    recorded = tuple(ratios) if any(ratio is not None for ratio in ratios) else None
    return [ShownRows(DIALOGUE, (Shown(DIALOGUE, tokens, recorded),))]


def _pair_rows(pairs: Sequence[tuple[str, str, Pair]]) -> list[ShownRows]:
    """Return the token rows of trajectory pairs; the side that is this episode says so. Raises BadInput."""
    found = []
    for number, (location, own_side, pair) in enumerate(pairs[:MAX_PAIRS], start=1):
        rows = (
            Shown(side + " (this episode)" * (side == own_side), row_from_json(pair.extra[key], location))
            for side, key in (("chosen", CHOSEN_TOKENS), ("rejected", REJECTED_TOKENS))
        )
        found.append(ShownRows(f"trajectory pair {number}", tuple(rows)))
    return found


def status_of(row: Trajectory) -> str:
    """Return one of STATUSES."""
    if INFRASTRUCTURE in _verdicts(row).values():
        return INFRASTRUCTURE
    if row.reward is None:
        return "not graded"
    if row.reward == 1.0:
        return "solved"
    if ran_out_of_turns(row):
        return OUT_OF_TURNS
    if is_no_answer(row.answer):
        return "no answer"
    return "partly" if row.reward > 0 else "failed"


def facts_of(row: Trajectory) -> tuple[tuple[str, str], ...]:
    """Return how a row was played, as names and texts."""
    health, human = simulator_health([row]), row.extra.get("human")
    name = human.get("name") if isinstance(human, dict) else human
    recorded = [(key, row.extra.get(key, NOT_RECORDED)) for key in ("sample", "seed")]
    names = {"reasked": "asked again", "agent": "agent", "grader": "grader", "terminated_by": "terminated by"}
    more = [(name, row.extra[key]) for key, name in names.items() if key in row.extra]
    compared = "" if row.task.ground_truth else " (reference not known)"
    return tuple(
        (key, str(value))
        for key, value in [
            *recorded,
            ("simulator", name or NOT_RECORDED),
            ("turns", len(row.agent_turns)),
            ("cut turns", row.extra.get("turns_cut", NOT_RECORDED)),
            ("leaks", f"{health.leaks} of {health.replies} replies{compared}"),
            *more,
        ]
    )


def tests_of(row: Trajectory) -> tuple[Test, ...]:
    """Return the tests of the task with all that the row says of them."""
    verdicts, known = _verdicts(row), row.extra.get("tests")
    results = {one.get("name"): one for one in known if isinstance(one, dict)} if isinstance(known, list) else {}
    return tuple(
        Test(name, call, verdicts.get(name), *(results.get(name, {}).get(key) for key in ("expected", "got", "detail")))
        for name, call in row.task.test_cases.items()
    )


def _verdicts(row: Trajectory) -> dict[str, str]:
    found = row.extra.get("verdicts")
    return {name: str(verdict) for name, verdict in found.items()} if isinstance(found, dict) else {}
