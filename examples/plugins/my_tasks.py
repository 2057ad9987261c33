"""A task source: prices in a shop, whose rounding and discount the client forgets to mention.

    python -m launch.train --plugin=examples/plugins/my_tasks.py --human=rules --model=DIR

`--human=rules` answers from the reference solution, whatever the task; --human=openai and model from the hidden
information. The embedded start policies know their own toy tasks alone, so a real model plays these.
"""

import random
from collections.abc import Iterator

from colbench_env.types import Task
from sweet_jax.plugins import Plugin

PLACES = {"train": "the shop", "validation": "the kiosk", "test": "the market stall"}  # no task is in two splits


def task(place: str, rng: random.Random) -> Task:
    """Make one task: a statement that the agent sees, a reference and ten calls that it does not."""
    percent, least, digits = rng.choice([5, 8, 10, 15]), rng.randrange(20, 200, 10), rng.choice([0, 1, 2])
    reference = (
        "def total(price, count):\n"
        "    amount = price * count\n"
        f"    if amount > {least}:\n"
        f"        amount = amount * (100 - {percent}) / 100\n"
        f"    return round(amount, {digits})\n"
    )
    calls = [f"total({rng.randrange(100, 9999) / 100}, {rng.randrange(1, 40)})" for _ in range(10)]
    return Task(
        f"Write total(price, count), which says what a customer of {place} has to pay.",
        reference,
        {f"test{number}": call for number, call in enumerate(calls, start=1)},
        hidden_information=f"Above {least} there are {percent} % off. Amounts have {digits} decimal places.",
    )


def make_tasks(split: str, count: int, seed: int) -> Iterator[Task]:
    """Make tasks of a split; the same seed gives the same ones."""
    rng = random.Random(f"{split} {seed}")
    return (task(PLACES[split], rng) for _ in range(count))


plugin = Plugin(make_tasks=make_tasks)
