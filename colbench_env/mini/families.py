"""Function templates of toy ColBench: what is asked for in the open, and which topics may be hidden behind it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from colbench_env.mini import topics as t
from colbench_env.mini.topics import Option, Topic

BASE = "base"  # the place of a family's own line among its topics


@dataclass(frozen=True)
class Chosen:
    """One hidden fact: an option of a topic, with its number filled in and one wording picked."""

    topic: Topic
    option: Option
    number: int | None
    wording: int = 0

    def _fill(self, text: str) -> str:
        return text.replace("{n}", str(self.number)) if self.number is not None else text

    @property
    def line(self) -> str:
        """The line of Python that respects the fact."""
        return self._fill(self.option.line)

    @property
    def sentence(self) -> str:
        """What the user simulator says when asked."""
        return self._fill(self.option.sentences[self.wording % len(self.option.sentences)])

    @property
    def key(self) -> str:
        """Identity of the fact, wording left out."""
        return f"{self.topic.name}={self.option.name}" + ("" if self.number is None else f":{self.number}")


@dataclass(frozen=True)
class Purpose:
    """What the function is openly for: the wording, possible names, and the line that does it."""

    sentence: str
    names: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Family:
    """A function template.

    `steps` is the order in which lines stand in the code: topics and the place of the purpose's own line (`BASE`).
    `weights` say how often each topic is hidden; `argument` is the parameter's name and `draw` makes one argument.
    `plain` holds the lines of topics that need one even when nothing is hidden about them.
    """

    name: str
    argument: str
    result: str
    purposes: tuple[Purpose, ...]
    steps: tuple[Topic | str, ...]
    weights: tuple[int, ...]
    draw: Callable[[random.Random], object]
    plain: tuple[tuple[str, str], ...] = ()

    @property
    def topics(self) -> tuple[Topic, ...]:
        return tuple(step for step in self.steps if isinstance(step, Topic))

    def code(self, function: str, purpose: Purpose, facts: tuple[Chosen, ...]) -> str:
        """Write the function that respects exactly `facts`: one line per fact, in the order of `steps`."""
        by_topic = dict(self.plain) | {fact.topic.name: fact.line for fact in facts}
        lines = [by_topic.get(step.name) if isinstance(step, Topic) else purpose.line for step in self.steps]
        body = "".join(f"    {line}\n" for line in lines if line)
        return f"def {function}({self.argument}):\n{body}    return {self.result}"

    def signature(self, function: str) -> str:
        return f"def {function}({self.argument})"


def _numbers(rng: random.Random) -> list[int]:
    size = rng.choice((0, 1, 2, 3, 4, 5, 6))
    values = [rng.choice((rng.randint(-9, 12), rng.randint(0, 9), rng.randint(0, 30))) for _ in range(size)]
    if size > 1 and rng.random() < 0.6:
        values[rng.randrange(size)] = values[rng.randrange(size)]
    return values


def _words(rng: random.Random) -> list[str]:
    pool = ("Red", "an", "sky", "Boat", "tiny", "House", "it", "GREEN", "paper", "x", "Stone", "cup")
    values = [rng.choice(pool) for _ in range(rng.choice((2, 3, 4, 5, 6)))]
    if rng.random() < 0.6:
        values[-1] = values[0]
    return values


def _text(rng: random.Random) -> str:
    return " ".join(
        rng.choice(("Big", "cat", "on", "Tree", "Sun", "old", "Map", "go", "Ink")) for _ in range(rng.randint(2, 4))
    )


def _number(rng: random.Random) -> int:
    return rng.choice((rng.randint(-60, -1), rng.randint(0, 15), rng.randint(0, 70), rng.randint(0, 70)))


FAMILIES: tuple[Family, ...] = (
    Family(
        "reduce",
        "values",
        "result",
        (
            Purpose("adds up a list of prices", ("total_price", "sum_prices", "bill_total"), "result = sum(values)"),
            Purpose(
                "finds the top score in a list", ("top_score", "best_score", "high_score"), "result = max(values + [0])"
            ),
            Purpose(
                "counts the visits in a list", ("count_visits", "visit_count", "num_visits"), "result = len(values)"
            ),
            Purpose(
                "adds up the squares of a list",
                ("sum_squares", "square_total", "energy"),
                "result = sum(v * v for v in values)",
            ),
        ),
        (t.EMPTY, t.NEGATIVE, t.DUPLICATE, BASE, t.FEE, t.CAP, t.UNIT),
        (1, 3, 3, 3, 1, 1),
        _numbers,
    ),
    Family(
        "series",
        "values",
        "values",
        (
            Purpose(
                "lists the readings of a sensor", ("readings", "sensor_list", "list_sensor"), "values = list(values)"
            ),
            Purpose(
                "gives the even numbers of a list",
                ("even_numbers", "only_even", "pick_even"),
                "values = [v for v in values if v % 2 == 0]",
            ),
            Purpose(
                "gives the squares of a list",
                ("squares", "square_all", "make_squares"),
                "values = [v * v for v in values]",
            ),
        ),
        (t.EMPTY, t.NEGATIVE, BASE, t.DUPLICATE, t.ORDER, t.LENGTH, t.SHIFT),
        (1, 1, 1, 3, 3, 3),
        _numbers,
    ),
    Family(
        "text",
        "text",
        "text",
        (
            Purpose("makes a label from a text", ("make_label", "label", "text_label"), "text = text.strip()"),
            Purpose("makes a greeting from a name", ("greeting", "greet", "say_hello"), "text = 'Hi ' + text"),
            Purpose("makes a file name from a text", ("file_name", "name_file", "save_name"), "text = text + ' file'"),
        ),
        (BASE, t.CASE, t.SPACE, t.WIDTH, t.MIRROR, t.PREFIX, t.SUFFIX),
        (3, 3, 1, 1, 3, 1),
        _text,
    ),
    Family(
        "words",
        "values",
        "text",
        (
            Purpose("joins a list of words", ("join_words", "word_line", "words_to_text"), "text = ' '.join(values)"),
            Purpose(
                "makes a title from words", ("make_title", "title", "book_title"), "text = 'The ' + ' '.join(values)"
            ),
            Purpose(
                "makes a tag line from words", ("tag_line", "make_tags", "tags"), "text = ' '.join(values) + ' tag'"
            ),
        ),
        (t.SHORT, t.DUPLICATE, t.ORDER, t.LENGTH, BASE, t.CASE, t.JOIN),
        (1, 3, 1, 1, 3, 3),
        _words,
    ),
    Family(
        "grade",
        "value",
        "text",
        (
            Purpose(
                "rates a score",
                ("rate_score", "grade", "score_word"),
                "text = names[0] if value >= limit else names[1]",
            ),
            Purpose(
                "rates how cold a day is",
                ("rate_day", "day_word", "cold_day"),
                "text = names[0] if value < limit else names[1]",
            ),
        ),
        (t.SIGN, t.SCALE, t.BORDER, t.LABEL, BASE, t.SPELL, t.SUFFIX),
        (1, 3, 3, 3, 1, 1),
        _number,
        (("border", "limit = 50"), ("label", "names = ('high', 'low')")),
    ),
    Family(
        "amount",
        "value",
        "result",
        (
            Purpose("gives the cost of a parcel", ("parcel_cost", "ship_cost", "post_price"), "result = value * 3"),
            Purpose("gives the points of a player", ("player_points", "points", "give_points"), "result = value + 10"),
            Purpose("gives the pay for some hours", ("pay", "hour_pay", "work_pay"), "result = value * 12"),
        ),
        (t.SIGN, t.SCALE, BASE, t.ROUND, t.FEE, t.CAP, t.UNIT),
        (3, 1, 1, 3, 1, 3),
        _number,
    ),
)
