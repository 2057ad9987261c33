"""What is known of one episode, joined from all files, ready to be painted on a page or in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colbench_env.dialogue import ANSWER_MARKER, OUTPUT_MARKER
from colbench_env.grading.answers import is_no_answer
from colbench_env.simulator_health import NOT_RECORDED, simulator_health
from colbench_env.types import BadInput, Message, Pair, Ranked, Trajectory, Verdict
from launch.showing.tokens import check_ratios
from sweet_jax.batch import TokenRow
from sweet_jax.rows import CHOSEN_TOKENS, REJECTED_TOKENS, TOKENS, row_from_json

INFRASTRUCTURE = str(Verdict.INFRASTRUCTURE_ERROR)
STATUSES = ("solved", "partly", "failed", "no answer", "not graded", INFRASTRUCTURE)
MAX_PAIRS = 4  # trajectory pairs shown for an episode


@dataclass(frozen=True)
class Candidate:
    """A sampled turn. chosen, rejected: how many turn pairs it was picked for; None where picks are not recorded.
    log_ratios: log pi_theta - log pi_ref of each of its `ids`; None where not recorded."""

    text: str
    advantage: float
    chosen: int | None
    rejected: int | None
    ids: tuple[int, ...] | None
    log_ratios: tuple[float, ...] | None


@dataclass(frozen=True)
class Turn:
    """An agent turn. thought: what the human did not see. advantage: the critic's, None where not recorded.
    candidates: best first."""

    thought: str
    said: str
    advantage: float | None
    ids: tuple[int, ...] | None
    log_ratios: tuple[float, ...] | None
    candidates: tuple[Candidate, ...]


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
class TokenPair:
    """A trajectory pair in which the episode is the `side`, "chosen" or "rejected"; the rows show the reference."""

    side: str
    chosen: TokenRow
    rejected: TokenRow


@dataclass(frozen=True)
class Episode:
    """One episode. line: its line in the file of its group. error: what broke it down, "" if nothing did.
    baseline: (group, line) of the same task's episode there."""

    group: str
    line: int
    task_id: str
    problem: str
    status: str
    reward: float | None
    facts: tuple[tuple[str, str], ...]
    error: str
    replies: tuple[str, ...]
    turns: tuple[Turn, ...]
    answer: str
    tests: tuple[Test, ...]
    reference: str
    hidden: str
    tokens: TokenRow | None
    pairs: tuple[TokenPair, ...]
    more_pairs: int
    baseline: tuple[str, int] | None

    @property
    def outcome(self) -> str:
        """In words, such as "3 of 10 tests passed"."""
        if self.status in (INFRASTRUCTURE, "not graded", "no answer"):
            return self.status
        verdicts = [test.verdict for test in self.tests]
        if not verdicts or None in verdicts:
            return f"{self.status}, reward {self.reward:.2f}"
        return f"{verdicts.count('pass')} of {len(verdicts)} tests passed"


@dataclass(frozen=True)
class Joined:
    """What other files say of a trajectory. ranked: by turn, each with the picks of its turn pairs."""

    ranked: Mapping[int, tuple[str, Ranked, tuple[tuple[int, int], ...] | None]]
    pairs: tuple[tuple[str, str, Pair], ...]  # FILE:LINE, side, pair
    baseline: tuple[str, int] | None


def episode(group: str, line: int, where: str, row: Trajectory, joined: Joined) -> Episode:
    """The episode of a trajectory. Raises BadInput for extra keys of ours that cannot be read."""
    history, verdicts = row.dialogue_history, _verdicts(row)
    tokens = row_from_json(row.extra[TOKENS], where) if TOKENS in row.extra else None
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
        replies=tuple(message.content for message in history[2::2]),
        turns=tuple(turn_of(message, joined.ranked.get(number)) for number, message in enumerate(history[1::2], 1)),
        answer=row.answer,
        tests=tests_of(row),
        reference=row.task.ground_truth,
        hidden=row.task.hidden_information or "",
        tokens=tokens,
        pairs=tuple(_token_pair(*one) for one in joined.pairs[:MAX_PAIRS]),
        more_pairs=max(len(joined.pairs) - MAX_PAIRS, 0),
        baseline=joined.baseline,
    )  # fmt: skip


def broken_episode(group: str, line: int, record: Mapping[str, Any], problem: str) -> Episode:
    """The episode of a failure's record (`EpisodeFailed.to_json`): an infrastructure error, which has no answer."""
    messages = [Message(m["role"], m["content"], output=m.get("output")) for m in record["messages"]]
    facts = [(name, str(record[name])) for name in ("sample", "turns") if name in record]
    return Episode(
        group=group, line=line, task_id=str(record.get("task_id", "")), problem=problem, status=INFRASTRUCTURE,
        reward=None, facts=tuple(facts), error=f"The {record.get('by', 'machine')} failed: {record.get('error', '')}",
        replies=tuple(m.content for m in messages[2::2]), turns=tuple(turn_of(m, None) for m in messages[1::2]),
        answer="", tests=(), reference="", hidden="", tokens=None, pairs=(), more_pairs=0, baseline=None,
    )  # fmt: skip


def status_of(row: Trajectory) -> str:
    """One of STATUSES."""
    if INFRASTRUCTURE in _verdicts(row).values():
        return INFRASTRUCTURE
    if row.reward is None:
        return "not graded"
    if row.reward == 1.0:
        return "solved"
    if is_no_answer(row.answer):
        return "no answer"
    return "partly" if row.reward > 0 else "failed"


def facts_of(row: Trajectory) -> tuple[tuple[str, str], ...]:
    """What a row says of how it was played, as names and texts."""
    health, human = simulator_health([row]), row.extra.get("human")
    name = human.get("name") if isinstance(human, dict) else human
    recorded = [(key, row.extra.get(key, NOT_RECORDED)) for key in ("sample", "seed")]
    more = [(key.replace("_", " "), row.extra[key]) for key in ("agent", "grader", "terminated_by") if key in row.extra]
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
    """The tests of the task with all that the row says of them."""
    verdicts, known = _verdicts(row), row.extra.get("tests")
    said = {one.get("name"): one for one in known if isinstance(one, dict)} if isinstance(known, list) else {}
    return tuple(
        Test(name, call, verdicts.get(name), *(said.get(name, {}).get(key) for key in ("expected", "got", "detail")))
        for name, call in row.task.test_cases.items()
    )


def turn_of(message: Message, ranked: tuple[str, Ranked, tuple[tuple[int, int], ...] | None] | None) -> Turn:
    """An agent turn, with its candidates where they were ranked. Raises BadInput."""
    thought, said = thought_and_said(message)
    if ranked is None:
        return Turn(thought, said, None, None, None, ())
    where, row, picks = ranked
    extra, outputs = row.candidates.extra, row.candidates.additional_outputs
    try:
        ids, ratios, older = extra.get("output_ids"), extra.get("token_log_ratios"), extra.get("older") or {}
        found = [
            Candidate(
                text=text,
                advantage=advantage,
                chosen=None if picks is None else sum(better == i for better, _ in picks),
                rejected=None if picks is None else sum(worse == i for _, worse in picks),
                ids=tuple(ids[i]) if ids else None,
                log_ratios=_ratios(ratios[i], ids[i], where) if ids and ratios else None,
            )
            for i, (text, advantage) in enumerate(zip(outputs, row.judge_result, strict=True))
        ]
        played = older.get("output_ids")
        return Turn(
            thought,
            said,
            advantage=older.get("judge_result"),
            ids=tuple(played) if played else None,
            log_ratios=_ratios(older.get("token_log_ratios"), played, where) if played else None,
            candidates=tuple(sorted(found, key=lambda one: -one.advantage)),
        )
    except (TypeError, IndexError, AttributeError):
        raise BadInput(
            f"{where}: 'output_ids', 'token_log_ratios' or 'older' cannot be read, expected a list a candidate, and an "
            "object with judge_result and output_ids"
        ) from None


def _ratios(ratios: object, ids: Sequence[int], where: str) -> tuple[float, ...] | None:
    return None if ratios is None else tuple(check_ratios(ratios, len(ids), where))


def thought_and_said(message: Message) -> tuple[str, str]:
    """What the agent kept to itself, and what the human saw.

    In: output "They want code. OUTPUT: Which sign?", content "Which sign?"   Out: "They want code.", "Which sign?"
    """
    raw = message.content if message.output is None else message.output
    thought, marker, _ = raw.partition(OUTPUT_MARKER)
    hidden = marker and ANSWER_MARKER not in thought and raw.strip() != message.content.strip()
    return (thought.strip() if hidden else ""), message.content


def _verdicts(row: Trajectory) -> dict[str, str]:
    found = row.extra.get("verdicts")
    return {name: str(verdict) for name, verdict in found.items()} if isinstance(found, dict) else {}


def _token_pair(where: str, side: str, pair: Pair) -> TokenPair:
    return TokenPair(side, *(row_from_json(pair.extra[key], where) for key in (CHOSEN_TOKENS, REJECTED_TOKENS)))
