"""Scripted dialogues of the toy benchmark: the behaviour that the start policy imitates.

Without the reference the agent asks about the topics of the family at random, and somewhat more about those of the
scene. With the reference in front of it, it mostly acts on it: asks what is hidden, and answers, with the
reference, when all is told. So the start policy can read the reference, as a language model can.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.mini.behaviour import Dialogue
from colbench_env.mini.families import Chosen
from colbench_env.mini.topics import Topic
from colbench_env.scenes.tasks import SceneDraft, draw_draft
from colbench_env.scenes.topics import FRAMES, NEEDLESS, OPENINGS, REMARKS, UNKNOWN_REPLIES

SCENE_TURNS = 6  # of the agent at most: five questions and the answer


@dataclass(frozen=True)
class Habits:
    """Odds of the scripted agent.

    answer, needless, repeat: of each move without the reference (the rest: a topic not yet asked about).
    scene: share of those topics that are the scene's.
    again, hint: whether what was vague is asked again, and a hint is followed.
    reads: share of the moves that act on the reference, where it is shown.
    """

    answer: float = 0.04
    needless: float = 0.08
    repeat: float = 0.0
    scene: float = 0.3
    again: float = 0.5
    hint: float = 0.4
    reads: float = 0.85
    max_turns: int = SCENE_TURNS


class _Agent:
    """The scripted agent in one dialogue."""

    def __init__(self, draft: SceneDraft, rng: random.Random, habits: Habits, sees_reference: bool):
        self.draft, self.rng, self.habits, self.sees_reference = draft, rng, habits, sees_reference
        self.facts = {fact.topic: fact for fact in draft.facts}
        self.asked: list[Topic | None] = []
        self.told: list[Topic] = []
        self.vague: Topic | None = None  # asked last, and not told
        self.hint: Topic | None = None  # pointed at by the last reply

    def move(self) -> Topic | str | None:
        """Return a topic to ask about, a needless noun, or None to answer."""
        rng, habits = self.rng, self.habits
        if self.sees_reference and rng.random() < habits.reads:
            unknown = [topic for topic in self.facts if topic not in self.told]
            if not unknown:
                return None
            return self.vague or rng.choice(unknown)
        if self.vague is not None and rng.random() < habits.again:
            return self.vague
        if self.hint is not None and rng.random() < habits.hint:
            return self.hint
        remaining = [topic for topic in self.draft.family.topics if topic not in self.asked]
        scene = [topic for topic in self.draft.scene.likely if topic in remaining]
        dice = rng.random()
        if dice < habits.answer:
            return None
        if dice < habits.answer + habits.needless:
            return rng.choice(NEEDLESS)
        earlier = [topic for topic in self.asked if topic is not None]
        if dice < habits.answer + habits.needless + habits.repeat and earlier:
            return rng.choice(earlier)
        return rng.choice(scene if scene and rng.random() < habits.scene else remaining)

    def hear(self, topic: Topic | None) -> str:
        """Return the user's reply to a question about the topic, and remember what it says."""
        self.vague = self.hint = None
        first, fact = topic not in self.asked, self.facts.get(topic) if topic else None
        self.asked.append(topic)
        if fact is None:
            return self.rng.choice(UNKNOWN_REPLIES)
        vague = dict(self.draft.vague).get(fact.topic.name)
        if vague and first:
            self.vague = topic
            return vague
        if topic not in self.told:
            self.told.append(fact.topic)
        reply = self.draft.reply(fact)
        self.hint = next((t for t in self.facts if t not in self.told and t.keywords[0] in reply), None)
        return reply

    @property
    def known(self) -> tuple[Chosen, ...]:
        return tuple(fact for fact in self.draft.facts if fact.topic in self.told)


def behaviour_dialogue(
    draft: SceneDraft, rng: random.Random, habits: Habits = Habits(), sees_reference: bool = False
) -> Dialogue:
    """One scripted dialogue about `draft`."""
    agent, messages = _Agent(draft, rng, habits, sees_reference), [("user", draft.description)]
    while len(messages) // 2 < habits.max_turns - 1 and (move := agent.move()) is not None:
        topic, noun = (move, rng.choice(move.keywords)) if isinstance(move, Topic) else (None, move)
        opening = rng.choice(OPENINGS) if len(messages) > 1 else ""
        messages.append(("assistant", opening + rng.choice(FRAMES).format(noun=noun)))
        messages.append(("user", agent.hear(topic)))
    answer = draft.reference if sees_reference else draft.code(agent.known)
    messages.append(("assistant", f"{rng.choice(REMARKS)}{ANSWER_MARKER}\n{answer}"))
    complete = len(agent.known) == len(draft.facts)
    return Dialogue(tuple(messages), answer, draft.reference, complete, sees_reference)


def behaviour_dialogues(
    split: str, count: int, seed: int, habits: Habits = Habits(), privileged: float = 0.0
) -> Iterator[Dialogue]:
    """`count` scripted dialogues over drafts of `split`, that part of them by an agent who sees the reference."""
    rng = random.Random(f"scenes behaviour {split} {seed}")
    for _ in range(count):
        yield behaviour_dialogue(draw_draft(rng, split), rng, habits, rng.random() < privileged)
