"""Tasks of the toy benchmark: real rows (description, hidden facts, reference, ten calls) with more topics than turns.

Splits are disjoint by what is hidden, as in `colbench_env.mini.tasks`; scenes are the same in all of them, so what they
make likely can be learned.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from colbench_env.mini.families import Chosen
from colbench_env.mini.tasks import Draft, choose_option, tasks_of
from colbench_env.scenes.families import SETTINGS, Scene
from colbench_env.scenes.topics import HINTS, VAGUE
from colbench_env.types import Task

_SENTENCES = ("Write a function that {0}.", "I need a function that {0}.", "Can you write a function that {0}?")


@dataclass(frozen=True)
class Odds:
    """How tasks are drawn. likely: share of hidden topics that are among the scene's; hidden: how many, with weights.

    vague: share of facts that the user tells only when asked again. hint: share of facts whose reply points at another
    hidden topic.
    """

    likely: float = 0.85
    hidden: tuple[tuple[int, int], ...] = ((2, 1), (3, 1))
    vague: float = 0.2
    hint: float = 0.3


@dataclass(frozen=True)
class SceneDraft(Draft):
    """A task before its tests. vague: the topics about which the user is vague at first; hints: topic -> what its
    reply adds."""

    scene: Scene
    vague: tuple[tuple[str, str], ...]
    hints: tuple[tuple[str, str], ...]

    @property
    def description(self) -> str:
        opening = self.opening.format(f"{self.purpose.sentence} {self.scene.phrase}")
        return f"{opening}\nThe signature of the function is: {self.family.signature(self.function)}"

    def reply(self, fact: Chosen) -> str:
        """Return what the user says about a fact."""
        return fact.sentence + dict(self.hints).get(fact.topic.name, "")

    @property
    def hidden_information(self) -> str:
        """What the scripted simulator knows: `topic: sentence`, and `topic?: sentence` for what it says at first."""
        vague = dict(self.vague)
        lines = []
        for fact in self.facts:
            name = fact.topic.name
            lines += [f"{name}?: {vague[name]}"] if name in vague else []
            lines.append(f"{name}: {self.reply(fact)}")
        return "\n".join(lines)


def draw_draft(rng: random.Random, split: str, odds: Odds = Odds()) -> SceneDraft:
    """Draw a draft of `split` at random."""
    while True:
        setting = rng.choice(SETTINGS)
        family, scene = setting.family, rng.choice(setting.scenes)
        purpose = rng.choice(family.purposes)
        counts, weights = zip(*odds.hidden, strict=True)
        count = rng.choices(counts, weights)[0]
        hidden: list = []
        while len(hidden) < count:
            pool = scene.likely if rng.random() < odds.likely else family.topics
            if (topic := rng.choice(pool)) not in hidden:
                hidden.append(topic)
        facts = tuple(choose_option(topic, rng) for topic in family.topics if topic in hidden)
        vague = tuple((fact.topic.name, rng.choice(VAGUE)) for fact in facts if rng.random() < odds.vague)
        hints = tuple(
            (fact.topic.name, rng.choice(HINTS).format(noun=other.keywords[0]))
            for fact in facts
            if rng.random() < odds.hint and (other := rng.choice([t for t in hidden if t != fact.topic]))
        )
        draft = SceneDraft(
            family, purpose, rng.choice(purpose.names), rng.choice(_SENTENCES), facts, scene, vague, hints
        )
        if draft.split == split:
            return draft


def make_tasks(split: str, count: int, seed: int) -> list[Task]:
    """`count` tasks of `split` with different hidden combinations; the same seed gives the same tasks.

    Raises ValueError for an unknown split.
    """
    return tasks_of(draw_draft, split, count, f"scenes {split} {seed}")
