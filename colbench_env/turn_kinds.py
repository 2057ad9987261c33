"""What an agent's turn is worth knowing as, on tasks whose hidden facts are known: the kinds that a critic must order.

hidden      asks about a hidden fact that was not told yet (also again, where the user was vague)
not hidden  asks about a topic of the user simulator that is not hidden in this task
repeat      asks about a topic that was asked about before, with nothing new to learn
needless    asks about nothing that the user simulator knows
right       the answer, and it is the reference
early       an answer before all facts were told
wrong       an answer that is not the reference although all facts were told
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from colbench_env.dialogue import marked_answer
from colbench_env.humans.scripted import first_topic, read_facts
from colbench_env.types import Message, Task

TurnKind = Literal["hidden", "not hidden", "repeat", "needless", "right", "early", "wrong"]
TURN_KINDS: tuple[TurnKind, ...] = get_args(TurnKind)


def turn_kind(
    task: Task, messages: Sequence[Message], turn: str, keywords: Mapping[str, Sequence[str]], is_last: bool = False
) -> TurnKind:
    """Say what kind of turn it is.

    messages: the dialogue before it. keywords: topic -> phrases, as the scripted user simulator has them. is_last: no
    further turn is allowed, so that whatever is said counts as the answer. BadInput for a task without facts.

    Examples:
        >>> task = Task("Round.", "def f(x): return int(x)", hidden_information="rounding: Always down.")
        >>> keywords = {"rounding": ("round",), "unit": ("unit",)}
        >>> [turn_kind(task, [Message("user", "Round.")], said, keywords) for said in ("How to round?", "Which unit?")]
        ['hidden', 'not hidden']
    """
    facts = read_facts(task)
    asked = [first_topic(message.content, keywords) for message in messages if message.role == "assistant"]
    untold = {topic for topic in facts if not topic.endswith("?") and not _is_told(topic, facts, asked)}
    answer = marked_answer(turn)
    if answer is not None or is_last:
        if (answer or turn).strip() == task.ground_truth.strip():
            return "right"
        return "early" if untold else "wrong"
    topic = first_topic(turn, keywords)
    if topic is None:
        return "needless"
    if topic in untold:
        return "hidden"
    return "repeat" if topic in asked else "not hidden"


def _is_told(topic: str, facts: Mapping[str, str], asked: Sequence[str | None]) -> bool:
    return asked.count(topic) > (f"{topic}?" in facts)
