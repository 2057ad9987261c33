"""The tree that the paths of a page's blocks tell of: what is inside what, and what it says."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from colbench_env.design.page import Block

PICTURES = frozenset({"img", "svg", "video", "canvas", "iframe", "object", "embed"})
CONTROLS = frozenset({"input", "textarea", "select"})
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})


@dataclass(frozen=True)
class Box:
    """A rectangle in CSS pixels by its sides."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(self.right - self.left, 0) * max(self.bottom - self.top, 0)

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


def box_of(blocks: Sequence[Block]) -> Box:
    """Compute the smallest box around at least one block."""
    return Box(
        min(block.x for block in blocks),
        min(block.y for block in blocks),
        max(block.x + block.width for block in blocks),
        max(block.y + block.height for block in blocks),
    )


def kind_of(block: Block) -> str:
    """Name what the block is to the eye: "text", "picture", "control" (one to be filled in), or "box" (paint only)."""
    if block.tag in PICTURES:
        return "picture"
    if block.tag in CONTROLS:
        return "control"
    return "text" if block.text else "box"


def tag_of(path: str) -> str:
    """Return the tag that the path ends in.

    In: "body>main>section[2]"   Out: "section"
    """
    return path.rpartition(">")[2].partition("[")[0]


def parent_of(path: str) -> str:
    """Return the path of the element around it, "" around the body."""
    return path.rpartition(">")[0]


def ancestors(path: str) -> list[str]:
    """List the paths of the elements around it, the nearest first."""
    found = []
    while path := parent_of(path):
        found.append(path)
    return found


@dataclass(frozen=True)
class Tree:
    """Blocks by the paths at which they stand. Paths of elements that are no block occur where a block is inside."""

    blocks: tuple[Block, ...]

    @cached_property
    def at(self) -> dict[str, int]:
        """The number of the block at a path."""
        return {block.path: number for number, block in enumerate(self.blocks)}

    @cached_property
    def under(self) -> dict[str, list[int]]:
        """The numbers of the blocks at and inside each path, in document order."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, block in enumerate(self.blocks):
            for path in (block.path, *ancestors(block.path)):
                found[path].append(number)
        return dict(found)

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """The paths directly inside each path, in document order."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.under:
            if parent := parent_of(path):
                found[parent].append(path)
        return {parent: sorted(paths, key=lambda path: self.under[path][0]) for parent, paths in found.items()}

    @cached_property
    def says(self) -> dict[str, str]:
        """All words at and inside each path."""
        return {
            path: " ".join(text for number in numbers if (text := self.blocks[number].text))
            for path, numbers in self.under.items()
        }

    def box(self, path: str) -> Box:
        """Return the box of the element at the path, else the one around all that is inside."""
        number = self.at.get(path)
        return box_of([self.blocks[n] for n in self.under[path]] if number is None else [self.blocks[number]])

    def context(self, path: str) -> str:
        """Collect the words around an element: those of the nearest element around it that says more, without the
        body."""
        own = self.says[path]
        for around in ancestors(path):
            if around == "body":
                break
            if len(self.says[around]) > len(own):
                return self.says[around]
        return own
