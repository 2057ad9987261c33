"""Procedural ColBench tasks: real rows (description, hidden facts, reference, ten calls) that a tiny model can learn.

Nothing in the description tells which topics matter. Splits are disjoint by what is hidden: a (family, purpose, facts)
combination belongs to exactly one of train, validation and test, whatever its wording and function name.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from colbench_env.mini.families import FAMILIES, Chosen, Family, Purpose
from colbench_env.mini.topics import Topic
from colbench_env.types import Task

SPLITS = ("train", "validation", "test")
_OPENINGS = ("Write a function that {0}.", "I need a function that {0}.", "Can you write a function that {0}?")
_NUM_TESTS = 10
_MAX_DRAWS = 60


@dataclass(frozen=True)
class Draft:
    """A task before its tests: everything that a dialogue needs."""

    family: Family
    purpose: Purpose
    function: str
    opening: str
    facts: tuple[Chosen, ...]

    @property
    def key(self) -> str:
        """Identity of what is hidden; wording and function name left out. Splits are made on it."""
        return "|".join((self.family.name, self.purpose.sentence, *sorted(fact.key for fact in self.facts)))

    @property
    def split(self) -> str:
        bucket = int(hashlib.sha256(self.key.encode()).hexdigest(), 16) % 10
        return "test" if bucket >= 8 else "validation" if bucket == 7 else "train"

    @property
    def description(self) -> str:
        opening = self.opening.format(self.purpose.sentence)
        return f"{opening}\nThe signature of the function is: {self.family.signature(self.function)}"

    def code(self, facts: tuple[Chosen, ...]) -> str:
        return self.family.code(self.function, self.purpose, facts)

    @property
    def reference(self) -> str:
        return self.code(self.facts)

    @property
    def hidden_information(self) -> str:
        """What the scripted simulator knows: one `topic: sentence` line a fact."""
        return "\n".join(f"{fact.topic.name}: {fact.sentence}" for fact in self.facts)


def choose_option(topic: Topic, rng: random.Random) -> Chosen:
    """Draw one way to decide a topic, with its number and wording."""
    option = rng.choice(topic.options)
    return Chosen(topic, option, rng.choice(option.numbers) if option.numbers else None, rng.randrange(2))


def draw_draft(rng: random.Random, split: str) -> Draft:
    """Draw a draft of `split` at random: a family, a purpose, a name and two to four hidden facts."""
    while True:
        family = rng.choice(FAMILIES)
        purpose = rng.choice(family.purposes)
        count = rng.choices((2, 3, 4), weights=(3, 4, 3))[0]
        weights = dict(zip(family.topics, family.weights, strict=True))
        hidden: list[Topic] = []
        while len(hidden) < count:
            remaining = [topic for topic in family.topics if topic not in hidden]
            hidden.append(rng.choices(remaining, weights=[weights[topic] for topic in remaining])[0])
        facts = tuple(choose_option(topic, rng) for topic in family.topics if topic in hidden)
        draft = Draft(family, purpose, rng.choice(purpose.names), rng.choice(_OPENINGS), facts)
        if draft.split == split:
            return draft


def _run(code: str, function: str, arguments: list[object]) -> list[object]:
    """Results of the project's own generated code (never of an answer) on `arguments`; an exception is a result."""
    space: dict[str, object] = {}
    exec(code, space)  # noqa: S102 - our own text, made above
    results: list[object] = []
    for argument in arguments:
        try:
            results.append(space[function](list(argument) if isinstance(argument, list) else argument))  # type: ignore[operator]
        except Exception as error:
            results.append(type(error).__name__)
    return results


def _wrong(draft: Draft) -> Iterator[tuple[bool, tuple[Chosen, ...]]]:
    """Wrong fact sets, and whether hidden facts were touched (forgotten, decided otherwise) or one was invented."""
    by_topic = {fact.topic: fact for fact in draft.facts}
    for count in range(len(draft.facts)):
        for kept in itertools.combinations(draft.facts, count):
            yield True, kept
    for topic in draft.family.topics:
        for option in topic.options:
            for number in option.numbers or (None,):
                changed = Chosen(topic, option, number)
                if topic not in by_topic or changed.key != by_topic[topic].key:
                    yield topic in by_topic, tuple({**by_topic, topic: changed}.values())


def make_task(draft: Draft, rng: random.Random) -> Task | None:
    """Make a task of the draft, None where ten tests cannot hold it.

    The tests tell the reference from every function in which hidden facts are forgotten or one is decided otherwise,
    and from as many as possible of those in which a fact is invented.
    """
    pool = list({repr(argument): argument for argument in (draft.family.draw(rng) for _ in range(_MAX_DRAWS))}.values())
    expected = _run(draft.reference, draft.function, pool)
    remaining: dict[bool, list[set[int]]] = {
        True: [],
        False: [],
    }  # touched -> for each wrong function, the calls that tell it
    for touched, facts in _wrong(draft):
        got = _run(draft.code(facts), draft.function, pool)
        separated = {i for i, (a, b) in enumerate(zip(expected, got, strict=True)) if a != b}
        if touched or separated:
            remaining[touched].append(separated)
    chosen: list[int] = []
    for must in (True, False):
        # greedy cover: the call that separates most of the remaining functions
        while remaining[must] and len(chosen) < _NUM_TESTS:
            best = max(range(len(pool)), key=lambda i: sum(i in held for held in remaining[must]))
            if not any(best in held for held in remaining[must]):
                break
            chosen.append(best)
            remaining = {kind: [held for held in sets if best not in held] for kind, sets in remaining.items()}
    if remaining[True] or len(pool) < _NUM_TESTS:
        return None
    chosen += rng.sample(sorted(set(range(len(pool))) - set(chosen)), _NUM_TESTS - len(chosen))
    calls = {f"test{i + 1}": f"{draft.function}({pool[index]!r})" for i, index in enumerate(chosen)}
    return Task(draft.description, draft.reference, calls, draft.hidden_information)


def make_tasks(split: str, count: int, seed: int) -> list[Task]:
    """`count` tasks of `split` with different hidden combinations; the same seed gives the same tasks.

    Raises ValueError for an unknown split.
    """
    return tasks_of(draw_draft, split, count, f"{split} {seed}")


def tasks_of(draw: Callable[[random.Random, str], Draft], split: str, count: int, seed: str) -> list[Task]:
    """`count` tasks with different keys, of drafts of `split` as `draw` gives them. ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    rng = random.Random(seed)
    seen: set[str] = set()
    tasks: list[Task] = []
    while len(tasks) < count:
        draft = draw(rng, split)
        if draft.key in seen:
            continue
        seen.add(draft.key)
        task = make_task(draft, rng)
        if task is not None:
            tasks.append(task)
    return tasks


def keywords() -> dict[str, tuple[str, ...]]:
    """List what the scripted user simulator listens for: topic name -> phrases of a question."""
    return {topic.name: topic.keywords for family in FAMILIES for topic in family.topics}
