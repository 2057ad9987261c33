"""Scripted dialogues of mixed quality: the behaviour that the start policy imitates.

The scripted agent does not know what is hidden, so a policy can imitate it exactly: each turn it asks about a topic of
the family, asks something needless, repeats itself, or stops and answers with what it was told so far. The code of its
answer always respects every fact that it was told; most dialogues fail because something was never asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.mini.tasks import Draft, draw_draft
from colbench_env.mini.topics import DISTRACTORS, UNKNOWN_REPLIES
from colbench_env.types import Message, Task, Trajectory


@dataclass(frozen=True)
class Habits:
    """Odds of the scripted agent's next move (the rest: a new question about a topic), and its limit of turns."""

    answer: float = 0.12
    needless: float = 0.18
    repeat: float = 0.06
    max_turns: int = 10


@dataclass(frozen=True)
class Dialogue:
    """A scripted dialogue: (role, text) messages, answer, the task's reference, and whether it got there: it asked for
    all facts, or its last page is the wanted one. sees_reference: whether the agent did, None where it makes no
    difference to what it does."""

    messages: tuple[tuple[str, str], ...]
    answer: str
    reference: str
    complete: bool
    sees_reference: bool | None = None

    def trajectory(self) -> Trajectory:
        """Return the dialogue as an ungraded row, which also has `complete` and, where known, `sees_reference`."""
        messages = tuple(
            Message(role, text, output=text if role == "assistant" else None) for role, text in self.messages
        )
        task = Task(messages[0].content, self.reference)
        extra = {"complete": self.complete}
        if self.sees_reference is not None:
            extra["sees_reference"] = self.sees_reference
        return Trajectory(task, messages, self.answer, extra=extra)


def behaviour_dialogue(draft: Draft, rng: random.Random, habits: Habits = Habits()) -> Dialogue:
    """One scripted dialogue about `draft`."""
    facts = {fact.topic.name: fact for fact in draft.facts}
    messages = [("user", draft.description)]
    asked: list[str] = []
    questions: list[str] = []
    for _ in range(habits.max_turns - 1):
        left = [topic for topic in draft.family.topics if topic.name not in asked]
        move = rng.random()
        if move < habits.answer or not left:
            break
        topic = None
        if move < habits.answer + habits.needless:
            question = rng.choice(DISTRACTORS)
        elif move < habits.answer + habits.needless + habits.repeat and questions:
            question = rng.choice(questions)
            topic = next((t for t in draft.family.topics if question in t.questions), None)
        else:
            topic = rng.choice(left)
            question = rng.choice(topic.questions)
        questions.append(question)
        if topic is not None:
            asked.append(topic.name)
        fact = facts.get(topic.name) if topic is not None else None
        messages += [("assistant", question), ("user", fact.sentence if fact else rng.choice(UNKNOWN_REPLIES))]
    known = tuple(fact for fact in draft.facts if fact.topic.name in asked)
    answer = draft.code(known)
    messages.append(("assistant", f"{ANSWER_MARKER}\n{answer}"))
    return Dialogue(tuple(messages), answer, draft.reference, len(known) == len(draft.facts))


def behaviour_dialogues(split: str, count: int, seed: int, habits: Habits = Habits()) -> Iterator[Dialogue]:
    """`count` scripted dialogues over drafts of `split`; the same seed gives the same dialogues."""
    rng = random.Random(f"behaviour {split} {seed}")
    for _ in range(count):
        yield behaviour_dialogue(draw_draft(rng, split), rng, habits)
