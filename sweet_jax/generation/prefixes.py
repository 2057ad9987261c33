"""What lies in the cache: a tree of the parts that were read and drawn, and the blocks that hold them.

Rows that begin alike share blocks, as do turns of one dialogue (arXiv:2309.06180, 2312.07104). Of the host's memory
only: the arrays are in `programs`.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

PIECE = 256  # tokens of a part at most, so that longer parts can begin alike


@dataclass(frozen=True)
class Part:
    """Some ids of a dialogue that were read together, or drawn in one turn."""

    ids: tuple[int, ...]
    drawn: bool


def read_parts(ids: Sequence[int], cuts: Sequence[int], start: int) -> list[Part]:
    """Cut the ids from `start` on at `cuts`, into parts of at most PIECE tokens."""
    ids = tuple(map(int, ids))
    ends = [cut for cut in cuts if start < cut < len(ids)]
    places = [start, *ends, len(ids)]
    return [
        Part(ids[place : min(place + PIECE, end)], drawn=False)
        for begin, end in itertools.pairwise(places)
        for place in range(begin, end, PIECE)
    ]


@dataclass(eq=False)
class Prefix:
    """A part in the cache of a device, after those of its parent. The root, which holds nothing, has no parent.

    length: tokens from the dialogue's begin to the part's end. blocks: that hold them. users: rows that go on from it.
    tail_taken: what follows it in its last block is written already, or may be, so that others need a copy of the
    block. in_place: it follows its parent in the parent's last block.
    """

    device: int
    parent: Prefix | None = None
    part: Part | None = None
    length: int = 0
    blocks: tuple[int, ...] = ()
    in_place: bool = False
    users: int = 0
    tail_taken: bool = False
    children: dict[Part, Prefix] = field(default_factory=dict)


@dataclass(eq=False)
class Growing:
    """The tokens of a row: those of a prefix, and what is being added. blocks: that hold them, and room for more.

    in_place: the first new tokens stand in the last block of the prefix.
    """

    prefix: Prefix
    blocks: list[int]
    length: int
    in_place: bool = False


class PrefixCache:
    """The tree and the blocks of each device. What no row uses stays until its blocks are needed: those used least
    recently go first. blocks: of a device. block: tokens of each."""

    def __init__(self, devices: int, blocks: int, block: int):
        self.block = block
        self._roots = [Prefix(device) for device in range(devices)]
        self._free = [list(range(blocks))[::-1] for _ in range(devices)]
        self._holders = [[0] * blocks for _ in range(devices)]
        self._order: list[OrderedDict[Prefix, None]] = [OrderedDict() for _ in range(devices)]  # least recent first

    def match(self, device: int, parts: Sequence[Part]) -> list[Prefix]:
        """Find the prefixes of the first parts that are there, each the parent of the next; the first is the root."""
        found = [self._roots[device]]
        for part in parts:
            child = found[-1].children.get(part)
            if child is None:
                break
            found.append(child)
        return found

    def begin(self, device: int) -> Growing:
        """Begin a row that holds nothing."""
        root = self._roots[device]
        root.users += 1
        return Growing(root, [], 0)

    def advance(self, row: Growing, part: Part) -> bool:
        """Go on to the part where it is there, read by another row; the row has added nothing yet."""
        child = row.prefix.children.get(part)
        if child is None or row.length != row.prefix.length:
            return False
        self._go_on_from(row, child)
        return True

    def reserve(self, row: Growing, tokens: int) -> tuple[int, int] | None:
        """Give the row room for so many tokens more. Where its last block must be copied first: from, to."""
        device, tail, copied = row.prefix.device, row.length // self.block, None
        if row.length == row.prefix.length and row.length % self.block and not row.in_place:
            row.in_place = not row.prefix.tail_taken
            if row.in_place:
                row.prefix.tail_taken = True
            elif row.blocks[tail] == row.prefix.blocks[tail]:
                source, row.blocks[tail] = row.blocks[tail], self._take(device)
                self._drop(device, [source])
                copied = source, row.blocks[tail]
        while len(row.blocks) * self.block < row.length + tokens:
            row.blocks.append(self._take(device))
        return copied

    def keep(self, row: Growing, part: Part) -> bool:
        """Make what the row has added a part of the tree, which the row goes on from. False: another row has added the
        same meanwhile, and the row goes on from that, in its blocks."""
        old, device = row.prefix, row.prefix.device
        if part in old.children:
            self._go_on_from(row, old.children[part])
            return False
        used = -(-row.length // self.block)
        new = Prefix(device, old, part, row.length, tuple(row.blocks[:used]), row.in_place, tail_taken=True)
        old.children[part] = new
        self._hold(device, new.blocks)
        old.users -= 1
        self._use(new)
        row.prefix, row.in_place = new, True
        return True

    def end(self, row: Growing) -> None:
        """Give the row up; prefixes stay."""
        self._let_go(row)

    def forget(self, parts: Sequence[Part]) -> None:
        """Free what nobody else can go on from: a session that has ended, down to the last part that was read only."""
        for device in range(len(self._roots)):
            chain = self.match(device, parts)[1:]
            drawn = next((place for place, prefix in enumerate(chain) if prefix.part and prefix.part.drawn), len(chain))
            for prefix in chain[drawn:][::-1]:
                if prefix.users or prefix.children:
                    break
                self._remove(prefix)

    def _go_on_from(self, row: Growing, prefix: Prefix) -> None:
        self._let_go(row)
        self._use(prefix)
        self._hold(prefix.device, prefix.blocks)
        row.prefix, row.blocks, row.length, row.in_place = prefix, list(prefix.blocks), prefix.length, False

    def _use(self, prefix: Prefix) -> None:
        prefix.users += 1
        self._order[prefix.device].pop(prefix, None)
        self._order[prefix.device][prefix] = None

    def _let_go(self, row: Growing) -> None:
        if row.in_place:
            row.prefix.tail_taken = False
        self._drop(row.prefix.device, row.blocks)
        row.prefix.users -= 1

    def _hold(self, device: int, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._holders[device][block] += 1

    def _drop(self, device: int, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._holders[device][block] -= 1
            if not self._holders[device][block]:
                self._free[device].append(block)

    def _take(self, device: int) -> int:
        """Take a free block; where there is none, prefixes that nobody uses are dropped, old ones first."""
        while not self._free[device]:
            unused = (prefix for prefix in self._order[device] if not prefix.users and not prefix.children)
            prefix = next(unused, None)
            assert prefix is not None, "rows hold more blocks than there are"
            self._remove(prefix)
        block = self._free[device].pop()
        self._holders[device][block] = 1
        return block

    def _remove(self, prefix: Prefix) -> None:
        assert prefix.parent is not None and prefix.part is not None
        del prefix.parent.children[prefix.part], self._order[prefix.device][prefix]
        if prefix.in_place:
            prefix.parent.tail_taken = False
        self._drop(prefix.device, prefix.blocks)
