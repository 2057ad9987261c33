"""Function templates of the toy benchmark, and the scenes that they are written for.

A *scene* ("for a weather station") stands in the open description and makes some topics likelier to matter than
others: whoever knows the scenes knows what to ask.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from colbench_env.mini.families import BASE, Family, Purpose
from colbench_env.mini.topics import Topic
from colbench_env.scenes import amounts as a
from colbench_env.scenes import numbers as n
from colbench_env.scenes import texts as t


@dataclass(frozen=True)
class Scene:
    """What a function is written for. phrase: ends the sentence of the purpose; likely: topics that matter there."""

    phrase: str
    likely: tuple[Topic, ...]


@dataclass(frozen=True)
class Setting:
    """A family of functions with its scenes."""

    family: Family
    scenes: tuple[Scene, ...]


def _numbers(rng: random.Random) -> list[int]:
    size = rng.choice((0, 1, 2, 3, 4, 5, 6, 7))
    values = [rng.choice((rng.randint(-9, 12), rng.randint(0, 9), rng.randint(0, 30), 0)) for _ in range(size)]
    if size > 1 and rng.random() < 0.6:
        values[rng.randrange(size)] = values[rng.randrange(size)]
    return values


def _text(rng: random.Random) -> str:
    pool = ("Red", "an", "sky", "Boat,", "tiny", "House", "it", "7", "paper", "x", "Stone", "cup,", "B12")
    words = [rng.choice(pool) for _ in range(rng.choice((0, 1, 2, 3, 4, 5)))]
    if len(words) > 1 and rng.random() < 0.5:
        words[-1] = words[0]
    return " ".join(words)


def _amount(rng: random.Random) -> int:
    return rng.choice((rng.randint(-40, -1), rng.randint(0, 9), rng.randint(0, 30), rng.randint(0, 70), 0))


NUMBERS = Setting(
    Family(
        "numbers",
        "values",
        "values",
        (
            Purpose("lists the readings", ("readings", "list_readings", "get_list"), "values = list(values)"),
            Purpose("squares the entries", ("squares", "square_all", "powers"), "values = [v * v for v in values]"),
            Purpose("doubles the entries", ("doubles", "double_all", "twice"), "values = [v * 2 for v in values]"),
            Purpose("shows what is open", ("missing", "what_is_open", "to_go"), "values = [20 - v for v in values]"),
        ),
        (
            n.EMPTY, n.NEGATIVE, n.NOTHING, n.LARGE, n.DUPLICATE, n.ODD, BASE, n.SCALE, n.SHIFT, n.GAP, n.FIVES,
            n.ORDER, n.EDGE, n.LENGTH, n.TOTAL,
        ),
        (1,) * 14,
        _numbers,
    ),
    (
        Scene("for a weather station", (n.NEGATIVE, n.GAP, n.FIVES, n.EMPTY)),
        Scene("for a school report", (n.ORDER, n.TOTAL, n.LARGE, n.DUPLICATE)),
        Scene("for a till", (n.TOTAL, n.NEGATIVE, n.NOTHING, n.FIVES)),
        Scene("for a running club", (n.GAP, n.ORDER, n.LENGTH, n.EDGE)),
        Scene("for a lottery", (n.DUPLICATE, n.ODD, n.ORDER, n.LENGTH)),
        Scene("for a warehouse", (n.NOTHING, n.TOTAL, n.SCALE, n.LARGE)),
        Scene("for a heart monitor", (n.LARGE, n.EDGE, n.GAP, n.EMPTY)),
        Scene("for a card game", (n.ODD, n.LENGTH, n.SHIFT, n.DUPLICATE)),
        Scene("for a power meter", (n.GAP, n.SCALE, n.NEGATIVE, n.EDGE)),
        Scene("for a map", (n.SCALE, n.SHIFT, n.FIVES, n.EDGE)),
    ),
)  # fmt: skip
TEXTS = Setting(
    Family(
        "texts",
        "text",
        "text",
        (
            Purpose("makes a label", ("label", "make_label", "tag"), "text = text.strip()"),
            Purpose("makes a greeting", ("greeting", "greet", "hello"), "text = 'Hi ' + text"),
            Purpose("makes a title", ("title", "make_title", "headline"), "text = 'The ' + text"),
            Purpose("makes a note", ("note", "make_note", "memo"), "text = text + ' note'"),
        ),
        (
            t.BLANK, t.DIGIT, t.COMMA, t.TINY, t.AGAIN, t.SEQUENCE, BASE, t.VOWEL, t.CASE, t.WIDTH, t.MIRROR, t.SPACE,
            t.PREFIX, t.SUFFIX, t.QUOTE,
        ),
        (1,) * 14,
        _text,
    ),
    (
        Scene("for a web address", (t.SPACE, t.CASE, t.COMMA, t.PREFIX)),
        Scene("for a door sign", (t.WIDTH, t.CASE, t.QUOTE, t.BLANK)),
        Scene("for a chat room", (t.PREFIX, t.SUFFIX, t.VOWEL, t.AGAIN)),
        Scene("for a library", (t.TINY, t.SEQUENCE, t.COMMA, t.CASE)),
        Scene("for a parcel", (t.DIGIT, t.WIDTH, t.BLANK, t.SPACE)),
        Scene("for a password hint", (t.VOWEL, t.DIGIT, t.MIRROR, t.WIDTH)),
        Scene("for a poem", (t.SEQUENCE, t.AGAIN, t.SUFFIX, t.MIRROR)),
        Scene("for a file system", (t.SPACE, t.DIGIT, t.TINY, t.SUFFIX)),
        Scene("for a puzzle", (t.MIRROR, t.VOWEL, t.SEQUENCE, t.QUOTE)),
        Scene("for a news page", (t.AGAIN, t.TINY, t.QUOTE, t.BLANK)),
    ),
)  # fmt: skip
AMOUNTS = Setting(
    Family(
        "amounts",
        "value",
        "result",
        (
            Purpose("gives the price", ("price", "get_price", "cost"), "result = value * 3"),
            Purpose("gives the points", ("points", "get_points", "score"), "result = value + 10"),
            Purpose("gives the pay", ("pay", "get_pay", "wage"), "result = value * 4"),
            Purpose("gives the rest", ("rest", "get_rest", "remainder"), "result = 100 - value"),
        ),
        (
            a.ABSENT, a.SIGN, a.BOUND, a.BASE_UNIT, a.START, BASE, a.BULK, a.FEE, a.TAX, a.LEAST, a.MOST, a.PARITY,
            a.ROUND, a.UNIT, a.FORM,
        ),
        (1,) * 14,
        _amount,
    ),
    (
        Scene("for a taxi", (a.START, a.FEE, a.LEAST, a.ROUND)),
        Scene("for an egg farm", (a.BASE_UNIT, a.BULK, a.ABSENT, a.PARITY)),
        Scene("for a bank", (a.SIGN, a.FEE, a.UNIT, a.ROUND)),
        Scene("for a video game", (a.MOST, a.START, a.PARITY, a.FORM)),
        Scene("for a hotel", (a.TAX, a.LEAST, a.BULK, a.UNIT)),
        Scene("for a bakery", (a.ROUND, a.BULK, a.BASE_UNIT, a.TAX)),
        Scene("for a gym", (a.BOUND, a.MOST, a.START, a.ABSENT)),
        Scene("for a post office", (a.UNIT, a.BOUND, a.FEE, a.FORM)),
        Scene("for a data sheet", (a.FORM, a.SIGN, a.ABSENT, a.BOUND)),
        Scene("for a shoe shop", (a.PARITY, a.TAX, a.BASE_UNIT, a.MOST)),
    ),
)  # fmt: skip
SETTINGS = (NUMBERS, TEXTS, AMOUNTS)
