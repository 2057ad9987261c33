"""Scripted dialogues about pages, of mixed quality: the behaviour that the start policy imitates.

The scripted agent knows no more than it is told, so a policy can imitate it exactly: it begins with a page of its own
taste; each turn it mends what the user simulator has just named, or does not listen, mends the wrong thing, breaks
another, or stops early. The user simulator is a real one: it looks at the rendered pages.
"""

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from colbench_env.design.mini.pages import ATTRIBUTES, Look, describe, draw_look, draw_of_split
from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.humans import SimulatorRequest, UserSimulator
from colbench_env.mini.behaviour import Dialogue
from colbench_env.types import Message, Task

MINI_TURNS = 4


@dataclass(frozen=True)
class Habits:
    """Odds of the scripted agent's turn: to stop, for each named thing not to mend it or to mend it wrongly, and to
    break something that was not named; and its limit of turns."""

    stop: float = 0.15
    ignore: float = 0.55
    wrong: float = 0.15
    spoil: float = 0.3
    max_turns: int = MINI_TURNS


def wishes(reply: str, look: Look) -> dict[str, str]:
    """Read what a reply of the user simulator asks for, attribute -> value, as far as its words tell.

    In: "The header should be green, yours is red."   Out: {"header": "green"}
    """
    found: dict[str, str] = {}
    for sentence in re.split(r"(?<=\.)\s+", reply):
        if match := re.match(r"The (header|page's background|button .*) should be ([a-z ]+), yours is", sentence):
            attribute = {"h": "header", "p": "ground", "b": "button"}[match[1][0]]
            if match[2] in ATTRIBUTES[attribute]:
                found[attribute] = match[2]
        elif match := re.search(r"about (\d+) pixels high", sentence):
            found["size"] = match[1]
        elif "should stand" in sentence:
            found["columns"] = "side by side" if "side by side in" in sentence else "one below the other"
        elif match := re.match(r"The heading '(.*?)' should be (left of|above)", sentence):
            found["order"] = "as said" if match[1] == look.site.parts[0] else "turned round"
    return {attribute: value for attribute, value in found.items() if value in ATTRIBUTES[attribute]}


def next_look(look: Look, reply: str, rng: random.Random, habits: Habits) -> Look:
    """Decide the agent's next page after the user simulator's reply."""
    asked = wishes(reply, look)
    for attribute, value in asked.items():
        odds = rng.random()
        if odds < habits.ignore:
            continue
        if odds < habits.ignore + habits.wrong:
            value = rng.choice(ATTRIBUTES[attribute])
        look = look.with_value(attribute, value)
    if rng.random() < habits.spoil:
        attribute = rng.choice([name for name in ATTRIBUTES if name not in asked])
        look = look.with_value(attribute, rng.choice(ATTRIBUTES[attribute]))
    return look


async def _dialogue(wanted: Look, human: UserSimulator, rng: random.Random, habits: Habits) -> Dialogue:
    task = Task(describe(wanted, rng), wanted.html)
    messages = [Message("user", task.problem_description)]
    look = draw_look(rng, wanted.site)
    for turn in range(habits.max_turns):
        if turn:
            reply = await human.reply(SimulatorRequest(task, tuple(messages), rng.getrandbits(31)))
            messages.append(Message("user", reply))
            if look == wanted or rng.random() < habits.stop:
                messages.append(Message("assistant", ANSWER_MARKER))
                break
            look = next_look(look, reply, rng, habits)
        messages.append(Message("assistant", look.html))
    turns = tuple((message.role, message.content) for message in messages)
    return Dialogue(turns, look.html, wanted.html, look == wanted)


async def page_dialogues(looks: Sequence[Look], human: UserSimulator, seed: int, habits: Habits) -> list[Dialogue]:
    """Play a dialogue about each of the looks, all at once; the seed and the place alone decide what is random in
    it."""
    slots = asyncio.Semaphore(64)

    async def one(index: int, look: Look) -> Dialogue:
        async with slots:
            return await _dialogue(look, human, random.Random(f"pages behaviour {seed} {index}"), habits)

    return list(await asyncio.gather(*(one(index, look) for index, look in enumerate(looks))))


def page_behaviour_dialogues(
    split: str, count: int, seed: int, human: UserSimulator, habits: Habits = Habits()
) -> list[Dialogue]:
    """`count` scripted dialogues about pages of the split; the same seed gives the same dialogues.

    `human` is a `DesignSimulator` with `plain`, on a `CachedRenderer`.
    """
    rng = random.Random(f"pages behaviour {split} {seed}")
    looks = [draw_of_split(rng, split) for _ in range(count)]
    return asyncio.run(page_dialogues(looks, human, seed, habits))
