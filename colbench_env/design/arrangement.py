"""How elements stand to each other: side by side or one below the other, and in which order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from colbench_env.design.page import Block
from colbench_env.design.tree import Box, Tree, box_of

OVERLAP = 0.35  # of the smaller one: so much in common makes two elements a row, or a column


@dataclass(frozen=True)
class Arrangement:
    """Elements of the reference that stand otherwise in the page.

    kind: "swapped", "stacked" (they should be side by side) or "unstacked". paths: as the elements should come. side:
    for "swapped", where the first should be: "left of" or "above". around: the path of what holds them.
    """

    kind: str
    paths: tuple[str, ...]
    side: str
    around: str


def arrangements(tree: Tree, partners: Mapping[int, Block]) -> Iterator[Arrangement]:
    """Find what is arranged otherwise, at most one of each kind for each element of the reference, outer elements
    first.

    `partners` are the page's blocks by the number of the block in the reference's tree.
    """
    for around in tree.under:
        units = []
        for path in tree.children.get(around, ()):
            matched = [n for n in tree.under[path] if n in partners]
            if matched:
                units.append((path, tree.box(path), box_of([partners[n] for n in matched])))
        yield from _among(around, units)


def _among(around: str, units: list[tuple[str, Box, Box]]) -> Iterator[Arrangement]:
    stacked: dict[str, list[str]] = {"stacked": [], "unstacked": []}
    swapped: Arrangement | None = None
    for index, (first, wanted, seen) in enumerate(units):
        for second, other_wanted, other_seen in units[index + 1 :]:
            should, does = relation(wanted, other_wanted), relation(seen, other_seen)
            if should is None or does is None or should == does:
                continue
            if _OPPOSITE[should] == does:
                if swapped is None:
                    paths = (first, second) if should in ("left of", "above") else (second, first)
                    side = should if should in ("left of", "above") else _OPPOSITE[should]
                    swapped = Arrangement("swapped", paths, side, around)
            else:
                kind = "stacked" if should in ("left of", "right of") else "unstacked"
                stacked[kind] += [path for path in (first, second) if path not in stacked[kind]]
    if swapped is not None:
        yield swapped
    for kind, moved in stacked.items():
        if moved:
            yield Arrangement(kind, tuple(moved), "", around)


_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def relation(first: Box, second: Box) -> str | None:
    """How the first box stands to the second: "left of", "right of", "above", "below", or None where they overlap."""
    across = min(first.right, second.right) - max(first.left, second.left)
    down = min(first.bottom, second.bottom) - max(first.top, second.top)
    aligned = down > OVERLAP * min(first.height, second.height)
    over = across > OVERLAP * min(first.width, second.width)
    if aligned and across <= 2:
        return "left of" if first.left < second.left else "right of"
    if over and down <= 2:
        return "above" if first.top < second.top else "below"
    return None
