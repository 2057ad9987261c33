"""How well the user simulator did: a simulator that fails or gives the solution away spoils what is measured.

Looks at the user simulator's replies only, never at the opening. Each rate has a fixed rule, written where it is
computed.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colbench_env.dialogue import BACKEND_REPLY_LIMIT, FRONTEND_REPLY_LIMIT
from colbench_env.rewards import Scale, scale_of
from colbench_env.thoughts import UnfinishedThought, without_thoughts
from colbench_env.types import Message, Task, Trajectory

OVERLAP = 12  # so many words and signs in a row that are the reference's are no accident
NOT_RECORDED = "not recorded"
_LIMITS: dict[Scale, int] = {"backend": BACKEND_REPLY_LIMIT, "frontend": FRONTEND_REPLY_LIMIT}

# What a failed call leaves in place of a reply. Read from the beginning, so that no honest reply is long enough to hit.
_FAILED = re.compile(
    r"[\W_]*(no (response|reply|output)( (received|given|generated|available))?"
    r"|(internal|server|connection|request|api|rate limit|time-?out) error\b.{0,80}+"
    r"|error( code)?:? ?\d{3}\b.{0,80}+|(request )?timed out)[\W_]*",
    re.IGNORECASE | re.DOTALL,
)
_UNKNOWN = re.compile(
    r"\b(do not|don't|don’t) (really |actually )?know\b|\bno idea\b|\bnot sure\b|\bup to you\b"
    r"|\b(do not|don't|don’t) have (a|any) preference|\bno preference\b|\b(can't|cannot|can’t) say\b"
    r"|\b(did not|didn't|didn’t|have not|haven't|haven’t|never) (really )?(think|thought) (of|about)\b",
    re.IGNORECASE,
)
_DEFINITION = re.compile(r"^[ \t>]*(async[ \t]+)?def[ \t]+\w+[ \t]*\(", re.MULTILINE)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_PIECE = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class SimulatorHealth:
    """Counts over the user simulator's replies in some dialogues.

    simulators: name and settings as the rows have them, with the number of dialogues. empty: blank replies. failed:
    replies such as "No response." that a failed call has left. unknown: "I don't know" and its like. truncated: replies
    as long as the limit of the task's benchmark (`rewards.scale_of`) lets them be. fenced, definitions, overlaps:
    replies with a code fence, with a `def`, with OVERLAP words and signs in a row that stand in the reference; leaks:
    with any of the three; leaks_removed: out of which such was taken. compared: replies in dialogues whose
    reference is known. spoilt: dialogues with an empty or failed reply. thoughts_removed: replies out of which a
    model's thoughts were taken, as the rows have it; thoughts_unfinished: replies that were all thought and were
    asked for again; thoughts_shown: replies with thoughts in them, which the agent could read.
    """

    simulators: dict[str, int]
    dialogues: int
    replies: int
    empty: int
    failed: int
    unknown: int
    truncated: int
    fenced: int
    definitions: int
    overlaps: int
    leaks: int
    leaks_removed: int
    compared: int
    spoilt: int
    thoughts_removed: int
    thoughts_unfinished: int
    thoughts_shown: int

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object."""
        return asdict(self)


def simulator_health(trajectories: Sequence[Trajectory]) -> SimulatorHealth:
    """Measure the health of the user simulator that has answered in these dialogues."""
    replies = [(trajectory.task, reply) for trajectory in trajectories for reply in human_replies(trajectory)]
    leaking = [leaks(task, reply) for task, reply in replies]
    marks = [message.extra for row in trajectories for message in _of_the_human(row)]

    def count(rule: Callable[[str], object]) -> int:
        return sum(bool(rule(reply)) for _, reply in replies)

    return SimulatorHealth(
        simulators=dict(Counter(map(simulator_name, trajectories)).most_common()),
        dialogues=len(trajectories),
        replies=len(replies),
        empty=count(lambda reply: not reply.strip()),
        failed=count(has_failed),
        unknown=count(_UNKNOWN.search),
        truncated=sum(_fills_limit(task, reply) for task, reply in replies),
        fenced=sum("fence" in kinds for kinds in leaking),
        definitions=sum("definition" in kinds for kinds in leaking),
        overlaps=sum("overlap" in kinds for kinds in leaking),
        leaks=sum(map(bool, leaking)),
        leaks_removed=sum(bool(extra.get("leaks_removed")) for extra in marks),
        compared=sum(bool(task.ground_truth) for task, _ in replies),
        spoilt=sum(map(is_spoilt, trajectories)),
        thoughts_removed=sum(bool(extra.get("thoughts")) for extra in marks),
        thoughts_unfinished=sum(_count(extra.get("unfinished_thoughts")) for extra in marks),
        thoughts_shown=count(thinks_aloud),
    )


def human_replies(trajectory: Trajectory) -> list[str]:
    """List what the user simulator said after the opening."""
    return [message.content for message in _of_the_human(trajectory)]


def _of_the_human(trajectory: Trajectory) -> list[Message]:
    return [message for message in trajectory.dialogue_history[1:] if message.role == "user"]


def _count(value: object) -> int:
    """Read a count as this program writes it; other programs may keep anything under the same name."""
    return value if isinstance(value, int) else 0


def leaks(task: Task, reply: str) -> list[str]:
    """How the reply gives the solution away: of "fence", "definition" and "overlap", those that hold."""
    found = {"fence": "```" in reply, "definition": _DEFINITION.search(reply) is not None}
    return [
        kind
        for kind, holds in (found | {"overlap": not _runs_of(task.ground_truth).isdisjoint(_runs(reply))}).items()
        if holds
    ]


WITHOUT_LEAKS = "I can only answer a question about one detail at a time."


def without_leaks(task: Task, reply: str) -> str:
    """Take out of a reply what gives the solution away: blocks of code, and sentences in which `leaks` finds anything.

    Where nothing else is left, or what is left still leaks, the reply is WITHOUT_LEAKS.

    Examples:
        >>> without_leaks(Task("Double it.", "def f(x): return 2 * x"), "Twice the number. def f(x): return 2 * x")
        'Twice the number.'
    """
    spoken = _FENCED.sub(" ", reply)
    kept = [part for part in _SENTENCE_END.split(spoken) if part.strip() and not leaks(task, part.strip())]
    text = " ".join(part.strip() for part in kept)
    return WITHOUT_LEAKS if not text or leaks(task, text) else text


def thinks_aloud(reply: str) -> bool:
    """Whether a model's thoughts stand in the reply."""
    try:
        return without_thoughts(reply).thoughts > 0
    except UnfinishedThought:
        return True


def has_failed(reply: str) -> bool:
    """Whether a reply is what a failed call leaves.

    In: "No response.", "Error code: 503", "There is no response to show"   Out: True, True, False
    """
    return _FAILED.fullmatch(reply) is not None


def is_spoilt(trajectory: Trajectory) -> bool:
    """Whether an empty or failed reply stands in the dialogue: what follows is not the agent's fault alone."""
    return any(not reply.strip() or has_failed(reply) for reply in human_replies(trajectory))


def simulator_name(trajectory: Trajectory) -> str:
    """Name and settings of the simulator as the row has them under `human`, else "not recorded"."""
    human = trajectory.extra.get("human")
    if not isinstance(human, dict) or not isinstance(human.get("name"), str):
        return NOT_RECORDED if human is None else json.dumps(human, sort_keys=True)
    settings = human.get("settings")
    return human["name"] + (f" {json.dumps(settings, sort_keys=True)}" if settings else "")


def _fills_limit(task: Task, reply: str) -> bool:
    """Whether the reply is as long as the task's benchmark lets it be; of most, their length alone tells."""
    return len(reply) in _LIMITS.values() and len(reply) == _LIMITS[scale_of(task)]


@functools.lru_cache(maxsize=256)
def _runs_of(reference: str) -> frozenset[int]:
    return frozenset(_runs(reference))


def _runs(text: str) -> Iterator[int]:
    """Yield a number for every OVERLAP pieces in a row, the same for the same pieces; a piece is a word or a sign.

    The pieces of "f(x) + 1" are f ( x ) + 1
    """
    pieces = _PIECE.findall(text)
    return (hash(tuple(pieces[start : start + OVERLAP])) for start in range(len(pieces) - OVERLAP + 1))
