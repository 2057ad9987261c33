"""The pages of toy ColBench: a site's words, and a look that the description does not tell.

A page is nine short lines, one for each thing that varies or never does, so that a tokenizer made of such pages has a
token for nearly every line. Splits are disjoint by site and look: a page belongs to exactly one of train, validation
and test.
"""

import hashlib
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from colbench_env.types import BadInput, Task

SPLITS = ("train", "validation", "test")
_OPENINGS = ("Make a page for {0}.", "I need a page for {0}.", "Please design a page for {0}.")

HEADERS = {"dark blue": "#1e3a8a", "green": "#059669", "red": "#dc2626", "purple": "#7c3aed"}
GROUNDS = {"white": "#fff", "light yellow": "#fde68a", "light blue": "#93c5fd"}
BUTTONS = {"black": "#000", "orange": "#ea580c", "pink": "#ec4899"}
SIZES = {"28": "28px", "90": "90px"}
COLUMNS = {"side by side": "flex", "one below the other": "block"}
ORDERS = {"as said": (0, 1), "turned round": (1, 0)}
#: What varies, with all that it can be, by the names that the user simulator uses.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "header": tuple(HEADERS),
    "ground": tuple(GROUNDS),
    "button": tuple(BUTTONS),
    "size": tuple(SIZES),
    "columns": tuple(COLUMNS),
    "order": tuple(ORDERS),
}


@dataclass(frozen=True)
class Site:
    """What a page is for, and its words: the title, two parts, and the button."""

    purpose: str
    title: str
    parts: tuple[str, str]
    button: str


SITES = (
    Site("a bakery", "Corner Bakery", ("Fresh Bread", "Sweet Cakes"), "Order"),
    Site("a music band", "The Night Owls", ("Our Songs", "Next Shows"), "Listen"),
    Site("a gym", "Iron House", ("Class Times", "Our Trainers"), "Join"),
    Site("a book shop", "Paper Moon", ("New Books", "Old Maps"), "Visit"),
)


@dataclass(frozen=True)
class Look:
    """A page of toy ColBench: a site and a value for each of the ATTRIBUTES, in their order."""

    site: Site
    values: tuple[str, ...]

    @property
    def chosen(self) -> dict[str, str]:
        """The value of each attribute."""
        return dict(zip(ATTRIBUTES, self.values, strict=True))

    def with_value(self, attribute: str, value: str) -> "Look":
        """Return the look with one attribute decided otherwise."""
        return Look(self.site, tuple((self.chosen | {attribute: value}).values()))

    @property
    def html(self) -> str:
        """The page's text."""
        look = self.chosen
        parts = [self.site.parts[index] for index in ORDERS[look["order"]]]
        lines = (
            "<html>",
            f'<body style="margin:0;background:{GROUNDS[look["ground"]]}">',
            f'<header style="background:{HEADERS[look["header"]]};color:#fff;padding:1px 30px">',
            f'<h1 style="font-size:{SIZES[look["size"]]}">{self.site.title}</h1></header>',
            f'<main style="display:{COLUMNS[look["columns"]]}">',
            *(f'<h2 style="flex:1;padding:40px 30px">{part}</h2>' for part in parts),
            f'</main><button style="background:{BUTTONS[look["button"]]};color:#fff;padding:60px 200px;margin:30px">'
            f"{self.site.button}</button>",
            "</body></html>",
        )
        return "\n".join(lines)

    @property
    def split(self) -> str:
        """The split that the page belongs to: of ten pages, seven are train, one validation, two test."""
        place = hashlib.sha256(f"{self.site.title} {self.values}".encode()).digest()[0] % 10
        return "train" if place < 7 else "validation" if place < 8 else "test"


def draw_look(rng: random.Random, site: Site | None = None) -> Look:
    """Draw a random look, of a random site where none is given."""
    return Look(site or rng.choice(SITES), tuple(rng.choice(values) for values in ATTRIBUTES.values()))


def draw_of_split(rng: random.Random, split: str) -> Look:
    """Draw a random look of the split. Raises ValueError for an unknown one."""
    _check(split)
    while (look := draw_look(rng)).split != split:
        pass
    return look


def describe(look: Look, rng: random.Random) -> str:
    """Write the user's opening message, which says nothing about the look."""
    return rng.choice(_OPENINGS).format(look.site.purpose)


def make_page_tasks(split: str, count: int, seed: int) -> list[Task]:
    """`count` tasks of the split with different pages; the same seed gives the same tasks.

    Raises ValueError for an unknown split, and BadInput where the split has fewer pages.
    """
    _check(split)
    rng = random.Random(f"pages {split} {seed}")
    looks = [Look(site, values) for site in SITES for values in itertools.product(*ATTRIBUTES.values())]
    looks = [look for look in looks if look.split == split]
    if count > len(looks):
        raise BadInput(f"{count} mini pages were asked for, the split {split!r} has {len(looks)}")
    return [Task(describe(look, rng), look.html) for look in rng.sample(looks, count)]


def _check(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
