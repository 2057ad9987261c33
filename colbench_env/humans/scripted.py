"""A user simulator that needs no model: answers from the hidden facts of a task, and from nothing else.

The task's `hidden_information` has one fact a line, `topic: sentence`, e.g. `rounding: Round down.` A user who is vague
about a topic has a second line, `topic?: sentence`: what is said when it is asked about for the first time.
"""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colbench_env.humans import SimulatorRequest
from colbench_env.types import BadInput, Task

SHRUGS = (
    "I don't know.",
    "I have no preference there.",
    "I can't say, I haven't thought about that.",
    "No idea, sorry.",
)


def read_facts(task: Task) -> dict[str, str]:
    """Read the hidden facts of a task, topic -> sentence, and `topic?` -> what a vague user says first.

    Raises BadInput where a line is no fact (source code, say).
    """
    facts: dict[str, str] = {}
    for line in (task.hidden_information or "").splitlines():
        if not line.strip():
            continue
        match = re.fullmatch(r"([a-z][a-z0-9_ -]*\??):\s+(\S(?:.*\S)?)\s*", line)
        if match is None:
            raise _no_facts(task, f"the line {line[:60]!r} is none")
        topic, sentence = match.groups()
        if topic in facts:
            raise _no_facts(task, f"the topic {topic!r} occurs twice")
        facts[topic] = sentence
    if not facts:
        raise _no_facts(task, "there is none")
    for topic in facts:
        if topic.endswith("?") and topic[:-1] not in facts:
            raise _no_facts(task, f"the user is vague about {topic[:-1]!r}, which is no fact")
    return facts


def first_topic(question: str, keywords: Mapping[str, Sequence[str]]) -> str | None:
    """Find the topic that the question mentions first, None where it mentions none.

    In: "Up or down: how do I round? And the unit?", {"unit": ["unit"], "rounding": ["round"]}   Out: "rounding"
    A keyword counts in any case and at the start of a word: "round" is in "Rounding", not in "around". Where two begin
    at the same place, the longer keyword counts, then the topic that stands first in the table.
    """
    best: tuple[int, int] | None = None
    found = None
    for topic, words in keywords.items():
        for word in words:
            match = _at_a_start(word).search(question)
            if match and (best is None or (match.start(), -len(word)) < best):
                best, found = (match.start(), -len(word)), topic
    return found


@functools.lru_cache(maxsize=4096)
def _at_a_start(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}", re.IGNORECASE)


@dataclass(frozen=True)
class ScriptedSimulator:
    """A user simulator who knows `keywords`, the words by which a question mentions each topic that could be asked
    about.

    One question a turn is answered, the first. A topic that is no hidden fact of the task gets one of the `shrugs`.

    Examples:
        >>> task = Task("Round a price.", "def f(x): return int(x)", hidden_information="rounding: Always down.")
        >>> ScriptedSimulator({"rounding": ("round", "decimal")}).say(task, "How do I round?", seed=0)
        'Always down.'
    """

    keywords: Mapping[str, tuple[str, ...]]
    shrugs: tuple[str, ...] = SHRUGS

    def __post_init__(self) -> None:
        if isinstance(self.shrugs, str) or not self.shrugs or not all(shrug.strip() for shrug in self.shrugs):
            raise BadInput(f"the shrugs are {self.shrugs!r}, expected a list of replies, none of them empty")
        for topic, words in self.keywords.items():
            if isinstance(words, str) or not words or not all(word.strip() for word in words):
                raise BadInput(f"topic {topic!r} has keywords {words!r}, expected a list of words, none of them empty")

    @property
    def name(self) -> str:
        """The name of this kind of user simulator: `scripted`."""
        return "scripted"

    @property
    def settings(self) -> dict[str, Any]:
        """The topics, and a hash that changes with any keyword or shrug."""
        table = json.dumps([{topic: list(words) for topic, words in self.keywords.items()}, self.shrugs])
        return {"topics": list(self.keywords), "hash": hashlib.sha256(table.encode()).hexdigest()[:12]}

    def say(self, task: Task, question: str, seed: int, earlier: Sequence[str] = ()) -> str:
        """Say the fact that was asked for, or a shrug chosen by the seed.

        earlier: the questions before it; the first about a topic gets the vague sentence, where there is one.
        Raises BadInput for a task without fact lines.
        """
        facts = read_facts(task)
        for topic in facts:
            if topic.rstrip("?") not in self.keywords:
                raise _no_facts(task, f"nobody can ask about {topic!r}, the topics are {', '.join(self.keywords)}")
        asked = first_topic(question, self.keywords)
        if asked not in facts:
            return self.shrugs[seed % len(self.shrugs)]
        if f"{asked}?" in facts and all(first_topic(text, self.keywords) != asked for text in earlier):
            return facts[f"{asked}?"]
        return facts[asked]

    async def reply(self, request: SimulatorRequest) -> str:
        """Reply to what the agent has just said; see `say`."""
        earlier = [message.content for message in request.messages[:-1] if message.role == "assistant"]
        return self.say(request.task, request.question, request.seed, earlier)


def _no_facts(task: Task, reason: str) -> BadInput:
    place = f"task {task.task_id} ({task.problem_description[:60]!r})"
    return BadInput(f"{place}: a scripted human needs fact lines 'topic: sentence' as hidden_information, {reason}")
