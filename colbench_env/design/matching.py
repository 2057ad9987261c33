"""Which block of one page is which block of another."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from colbench_env.design import colour
from colbench_env.design.page import Block, Page
from colbench_env.design.tree import Tree, kind_of

SAME_TEXT = 0.5  # texts less alike than this are two texts (Design2Code draws the line there)
SAME_PLACE = 0.55
COMPARED = 500  # characters of a text


@dataclass(frozen=True)
class Likeness:
    """How alike each block of a page (P) and each of a reference (R) are, [P, R] in [0, 1], 1.0 for no difference.

    text: of the characters; where neither has text, 1. position: of the centres. colour: of text and background. size:
    of width, height and font, with the weight. compatible: whether the two are of a kind.
    """

    text: np.ndarray
    position: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    compatible: np.ndarray


def likeness(page: Page, reference: Page) -> Likeness:
    """Compute the likeness of all pairs of blocks."""
    ours, theirs = page.blocks, reference.blocks
    wide, high = max(page.width, reference.width, 1), max(page.height, reference.height, 1)
    return Likeness(
        text=dice([block.text for block in ours], [block.text for block in theirs]),
        position=1 - np.clip(
            np.maximum(
                _gaps([b.x + b.width / 2 for b in ours], [b.x + b.width / 2 for b in theirs]) / wide,
                _gaps([b.y + b.height / 2 for b in ours], [b.y + b.height / 2 for b in theirs]) / high,
            ), 0, 1),
        colour=_colours(ours, theirs),
        size=_sizes(ours, theirs),
        compatible=np.array([kind_of(block) for block in ours])[:, None] == np.array([kind_of(b) for b in theirs]),
    )  # fmt: skip


def match(page: Page, reference: Page, alike: Likeness) -> list[tuple[int, int]]:
    """Pairs (number in the page, number in the reference) of blocks that are the same thing, none used twice.

    A text is known by its characters, anything else by the words inside or around it, or its path; place, path, looks
    and the words around tell those apart that say the same.
    """
    ours, theirs = Tree(page.blocks), Tree(reference.blocks)
    if not page.blocks or not reference.blocks:
        return []
    kinds = np.array([kind_of(block) for block in page.blocks])
    inside = dice(*([side.says[b.path] if kind_of(b) == "box" else "" for b in side.blocks] for side in (ours, theirs)))
    around = dice([ours.context(b.path) for b in page.blocks], [theirs.context(b.path) for b in reference.blocks])
    path = _equal([b.path for b in page.blocks], [b.path for b in reference.blocks])
    looks = (alike.position + 0.5 * path + 0.2 * alike.colour + 0.3 * alike.size) / 2
    silent = np.maximum(np.where((kinds == "box")[:, None], inside, around), SAME_TEXT * path)
    text_likeness = np.where((kinds == "text")[:, None], alike.text, silent)
    worth = np.where(alike.compatible & (text_likeness >= SAME_TEXT), text_likeness + 1.2 * around + 0.6 * looks, 0)
    return _assign(worth)


def match_leftovers(
    page: Page, reference: Page, alike: Likeness, pairs: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Further pairs, of blocks that say something else but stand in the same place and do the same."""
    path = _equal([b.path for b in page.blocks], [b.path for b in reference.blocks])
    tag = _equal([b.tag for b in page.blocks], [b.tag for b in reference.blocks])
    worth = (alike.position + alike.size + path + tag) / 4
    worth = np.where(alike.compatible & (worth >= SAME_PLACE) & (tag | path), worth, 0)
    for ours, theirs in pairs:
        worth[ours, :] = worth[:, theirs] = 0
    return _assign(worth)


def dice(ours: Sequence[str], theirs: Sequence[str]) -> np.ndarray:
    """Likeness of all pairs of texts: the share of pairs of neighbouring characters that both have (Dice), [P, R].

    Of a long text its first 500 characters are compared.

    In: ["night"], ["night", "nacht", ""]   Out: [[1.0, 0.5, 0.0]]
    """
    numbers: dict[tuple[str, int], int] = {}

    def pieces(text: str) -> list[int]:
        found, seen = [], Counter[str]()
        for start in range(len(text) + 1 if text else 0):
            pair = ("\0" + text + "\0")[start : start + 2].lower()
            seen[pair] += 1
            found.append(numbers.setdefault((pair, seen[pair]), len(numbers)))
        return found

    def distinct(texts: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
        found, back = np.unique(np.array([text[:COMPARED] for text in texts], dtype=object), return_inverse=True)
        return [pieces(text) for text in found], back

    def table(rows: list[list[int]]) -> csr_array:
        ends = np.cumsum([0, *map(len, rows)])
        return csr_array((np.ones(ends[-1]), np.concatenate([[], *rows]).astype(int), ends), (len(rows), len(numbers)))

    (rows, back_ours), (columns, back_theirs) = distinct(ours), distinct(theirs)
    sizes = np.array([len(row) for row in rows])[:, None] + np.array([len(column) for column in columns])[None, :]
    alike = np.where(sizes > 0, 2 * (table(rows) @ table(columns).T).toarray() / np.maximum(sizes, 1), 1.0)
    return alike[back_ours][:, back_theirs]


def _assign(worth: np.ndarray) -> list[tuple[int, int]]:
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if worth[a, b] > 0]


def _equal(ours: Sequence[str], theirs: Sequence[str]) -> np.ndarray:
    return np.array(ours, dtype=object)[:, None] == np.array(theirs, dtype=object)[None, :]


def _gaps(ours: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
    return np.abs(np.array(ours)[:, None] - np.array(theirs)[None, :])


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
    a, b = np.maximum(np.array(ours)[:, None], 1e-6), np.maximum(np.array(theirs)[None, :], 1e-6)
    return np.minimum(a, b) / np.maximum(a, b)


def _colours(ours: Sequence[Block], theirs: Sequence[Block]) -> np.ndarray:
    def gaps(a: list[str], b: list[str]) -> np.ndarray:
        first, second = (np.array([colour.lab(one) for one in side]).reshape(-1, 1, 3) for side in (a, b))
        return np.sqrt(((first - second.transpose(1, 0, 2)) ** 2).sum(-1))

    ground = gaps([b.background for b in ours], [b.background for b in theirs])
    words = gaps([b.colour for b in ours], [b.colour for b in theirs])
    has_words = np.array([bool(b.text) for b in ours])[:, None] & np.array([bool(b.text) for b in theirs])[None, :]
    return 1 - np.clip(np.where(has_words, (ground + words) / 2, ground) / 100, 0, 1)


def _sizes(ours: Sequence[Block], theirs: Sequence[Block]) -> np.ndarray:
    boxes = _ratios([b.width for b in ours], [b.width for b in theirs])
    boxes = boxes * _ratios([b.height for b in ours], [b.height for b in theirs])
    fonts = _ratios([b.font_size for b in ours], [b.font_size for b in theirs])
    bold = np.where(np.array([b.bold for b in ours])[:, None] == np.array([b.bold for b in theirs])[None, :], 1, 0.8)
    return (np.sqrt(boxes) + fonts * bold) / 2
