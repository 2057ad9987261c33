"""What tells a page from its reference, in a person's words and the most outstanding first."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from colbench_env.design import colour
from colbench_env.design.arrangement import arrangements
from colbench_env.design.matching import likeness, match, match_leftovers
from colbench_env.design.page import Block, Page
from colbench_env.design.tree import HEADINGS, Box, Tree, ancestors, box_of, kind_of, parent_of, tag_of
from colbench_env.design.words import (
    PLURALS,
    compared_size,
    join_names,
    letters_sentence,
    made_of,
    name_of,
    number_word,
    pixels,
    quote,
    with_article,
)  # fmt: skip

SEEN_COLOUR = 6  # in L*a*b*: a difference that is seen side by side
SEEN_SIZE = 1.06


@dataclass(frozen=True)
class Difference:
    """One difference. kind: one word. what: the element's name. path: where it is, in the reference (in the page for
    what is "extra"). weight: how outstanding, the square root of the share of the page times a severity in (0, 1].
    """

    kind: str
    what: str
    sentence: str
    weight: float
    path: str


def differences(page: Page, reference: Page) -> list[Difference]:
    """List the differences, the most outstanding first; the same pages give the same list. Both pages have no problem.

    Kinds: missing, extra, text, background, colour (of text), size (of text), weight (of text), swapped, stacked,
    unstacked, box (its size).
    """
    compared = Compared(page, reference)
    found = [
        *compared.missing(),
        *compared.extra(),
        *compared.texts(),
        *compared.backgrounds(),
        *compared.letters(),
        *arrangements_as_differences(compared),
    ]
    found += compared.boxes([difference.path for difference in found])
    return sorted(found, key=lambda difference: (-difference.weight, difference.path, difference.kind))


@dataclass(frozen=True)
class Compared:
    """A page and its reference with their blocks matched."""

    page: Page
    reference: Page

    @cached_property
    def ours(self) -> Tree:
        return Tree(self.page.blocks)

    @cached_property
    def theirs(self) -> Tree:
        return Tree(self.reference.blocks)

    @cached_property
    def _pairs(self) -> tuple[dict[int, int], dict[int, int]]:
        if not self.page.blocks or not self.reference.blocks:
            return {}, {}
        alike = likeness(self.page, self.reference)
        sure = match(self.page, self.reference, alike)
        rest = match_leftovers(self.page, self.reference, alike, sure)
        return {b: a for a, b in sure}, {b: a for a, b in rest}

    @cached_property
    def partner(self) -> dict[int, int]:
        """Number in the reference -> number in the page, of all that is matched."""
        sure, rest = self._pairs
        return sure | rest

    def pairs(self) -> Iterator[tuple[int, Block, Block]]:
        """Yield the number in the reference, the block there and its partner in the page, in document order."""
        for theirs, ours in sorted(self.partner.items()):
            yield theirs, self.reference.blocks[theirs], self.page.blocks[ours]

    def share(self, box: Box) -> float:
        """Return the square root of a box's share of the reference."""
        return min(box.area / (self.reference.width * self.reference.height), 1.0) ** 0.5

    def missing(self) -> Iterator[Difference]:
        """Yield what the reference has and the page lacks, the largest wholly missing elements."""
        for path in _tops(self.theirs, set(range(len(self.reference.blocks))) - set(self.partner)):
            box, name = self.theirs.box(path), name_of(self.theirs, path)
            where = self._where(path)
            sentence = f"{with_article(name)} is missing{made_of(self.theirs, path)}{where}."
            yield Difference("missing", name, sentence, self.share(box) * 0.9 + 0.1, path)

    def extra(self) -> Iterator[Difference]:
        """Yield what the page has and the reference lacks."""
        matched = set(self.partner.values())
        for path in _tops(self.ours, set(range(len(self.page.blocks))) - matched):
            box, name = self.ours.box(path), name_of(self.ours, path)
            yield Difference("extra", name, f"There should be no {name}.", self.share(box) * 0.6 + 0.05, path)

    def texts(self) -> Iterator[Difference]:
        """Texts that say something else at the same place."""
        for theirs, wanted, seen in self.pairs():
            if wanted.text and seen.text and wanted.text != seen.text:
                loud = 0.6 if wanted.tag in HEADINGS or wanted.tag in ("a", "button") else 0.2
                other = 0.3 if theirs in self._pairs[0] else 1.0
                what = "heading" if wanted.tag in HEADINGS else wanted.tag if wanted.tag == "button" else "text"
                sentence = f"The {what} {quote(seen.text)} should say {quote(wanted.text)}."
                yield Difference(
                    "text", name_of(self.theirs, wanted.path), sentence, self.share(box_of([wanted])) * loud * other,
                    wanted.path,
                )  # fmt: skip

    def backgrounds(self) -> Iterator[Difference]:
        """Backgrounds of another colour, each said of the outermost element that it is seen on."""
        groups: dict[tuple[str, str, str], set[int]] = defaultdict(set)
        for n, wanted, seen in self.pairs():
            if colour.distance(wanted.background, seen.background) >= SEEN_COLOUR:
                groups[_painted(self.theirs, n), wanted.background, seen.background].add(n)
        for (root, wanted_colour, seen_colour), numbers in groups.items():
            on_root = {n for n in self.partner if self._stands_on(n, root, wanted_colour)}
            parts = [(root, numbers)] if on_root <= numbers else self._parts(numbers, wanted_colour)
            for path, _ in parts:
                whole = path == "body"
                name = "page's background" if whole else name_of(self.theirs, path)
                box = Box(0, 0, self.reference.width, self.reference.height) if whole else self.theirs.box(path)
                right, wrong = colour.contrast(wanted_colour, seen_colour)
                gap = colour.distance(wanted_colour, seen_colour)
                weight = self.share(box) * (0.3 + 0.7 * min(gap / 60, 1))
                yield Difference("background", name, f"The {name} should be {right}, yours is {wrong}.", weight, path)

    def _stands_on(self, n: int, root: str, wanted_colour: str) -> bool:
        block = self.reference.blocks[n]
        inside = root == "body" or block.path == root or block.path.startswith(root + ">")
        return inside and block.background == wanted_colour and _painted(self.theirs, n) == root

    def _parts(self, numbers: set[int], wanted_colour: str) -> Iterator[tuple[str, set[int]]]:
        """Group the blocks by what they stand on in the page, each group with the element of the reference at the
        same path, else the outermost one around them in which nothing keeps the wanted colour."""
        by_paint: dict[str, set[int]] = defaultdict(set)
        for n in numbers:
            by_paint[_painted(self.ours, self.partner[n])].add(n)
        for paint, part in sorted(by_paint.items()):
            if paint in self.ours.at and part <= set(self.theirs.under.get(paint, ())):
                yield paint, part
                continue
            path = _common([self.reference.blocks[n].path for n in part])
            for around in ancestors(path):
                kept = {n for n in self.theirs.under[around] if n in self.partner} - part
                if around == "body" or any(self.reference.blocks[n].background == wanted_colour for n in kept):
                    break
                path = around
            yield path, part

    def letters(self) -> Iterator[Difference]:
        """Texts of another colour, size or weight, told once for all that changed alike in one element."""
        groups: dict[tuple[str, object, object], list[Block]] = defaultdict(list)
        for _, wanted, seen in self.pairs():
            if not wanted.text:
                continue
            if colour.distance(wanted.colour, seen.colour) >= SEEN_COLOUR:
                groups["colour", wanted.colour, seen.colour].append(wanted)
            ratio = max(wanted.font_size, seen.font_size) / max(min(wanted.font_size, seen.font_size), 1)
            if ratio >= SEEN_SIZE:
                groups["size", wanted.font_size, seen.font_size].append(wanted)
            if wanted.bold != seen.bold:
                groups["weight", wanted.bold, seen.bold].append(wanted)
        for (kind, right, wrong), blocks in groups.items():
            name, many, path = self._together(blocks)
            area = sum(min(b.width * b.height, len(b.text) * b.font_size**2 * 0.6) for b in blocks)
            share = min(area / (self.reference.width * self.reference.height), 1.0) ** 0.5
            severity, sentence = letters_sentence(kind, right, wrong, name, many)
            yield Difference(kind, name, sentence, share * severity + (0.03 if blocks[0].tag in HEADINGS else 0), path)

    def boxes(self, reported: list[str]) -> Iterator[Difference]:
        """Elements of another size, for no reason reported so far: `reported` are the paths of other differences."""
        for _, wanted, seen in self.pairs():
            kind, path = kind_of(wanted), wanted.path
            if kind == "text" or any(other == path or other.startswith(path + ">") for other in reported):
                continue
            ratios = [max(a, b) / max(min(a, b), 1) for a, b in
                      ((wanted.width, seen.width), (wanted.height, seen.height))]  # fmt: skip
            if max(ratios) < 1.15 or max(abs(wanted.width - seen.width), abs(wanted.height - seen.height)) < 12:
                continue
            holds = kind == "box" and len(self.theirs.under[path]) > 1
            name = name_of(self.theirs, path)
            sizes = [pixels(box_of([block])) for block in (wanted, seen)]
            how = compared_size(wanted, seen)
            sentence = f"The {name} should be {how}, about {sizes[0]}; yours is {sizes[1]}."
            weight = self.share(box_of([wanted])) * (0.1 if holds else 0.5) * min(max(ratios) - 1, 1)
            yield Difference("box", name, sentence, weight, path)

    def _together(self, blocks: list[Block]) -> tuple[str, bool, str]:
        """Name of some blocks of the reference, whether it is plural, and the path of what holds them all."""
        if len(blocks) == 1:
            return name_of(self.theirs, blocks[0].path), False, blocks[0].path
        common = _common([block.path for block in blocks])
        tags = {block.tag for block in blocks}
        if len(tags) == 1 and (plural := PLURALS.get(next(iter(tags)))):
            if len(blocks) <= 3:
                return f"{plural} {join_names([quote(block.text) for block in blocks])}", True, common
            return f"{plural} in the {name_of(self.theirs, common)}", True, common
        return f"text in the {name_of(self.theirs, common)}", False, common

    def _where(self, path: str) -> str:
        """Where a missing element belongs, by what is there just before it, else after it."""
        first, last = self.theirs.under[path][0], self.theirs.under[path][-1]
        inside = parent_of(path)
        if tag_of(inside) in ("header", "nav", "footer", "aside"):
            return f" in the {name_of(self.theirs, inside)}"
        after = range(last + 1, len(self.theirs.blocks))
        for words, numbers in (("below", range(first - 1, -1, -1)), ("above", after)):
            for n in numbers:
                block = self.theirs.blocks[n]
                if n in self.partner and not path.startswith(block.path + ">") and block.path != "body":
                    return f" {words} the {name_of(self.theirs, self._unit(block.path, path))}"
        return ""

    def _unit(self, neighbour: str, path: str) -> str:
        """Find the largest element that has the neighbour inside and does not hold `path`."""
        while (around := parent_of(neighbour)) and not (path + ">").startswith(around + ">"):
            neighbour = around
        return neighbour


def arrangements_as_differences(compared: Compared) -> Iterator[Difference]:
    """Elements side by side or one below the other that stand the other way round."""
    partners = {theirs: compared.page.blocks[ours] for theirs, ours in compared.partner.items()}
    for found in arrangements(compared.theirs, partners):
        names = [name_of(compared.theirs, path) for path in found.paths]
        numbers = [n for path in found.paths for n in compared.theirs.under[path]]
        weight = compared.share(box_of([compared.theirs.blocks[n] for n in numbers]))
        sentence = {
            "swapped": f"The {names[0]} should be {found.side} the {names[-1]}, yours is the other way round.",
            "stacked": f"The {join_names(names[:4])} should stand side by side in {number_word(len(names))} columns, "
            "yours are one below the other.",
            "unstacked": f"The {join_names(names[:4])} should stand one below the other, yours are side by side.",
        }[found.kind]
        yield Difference(found.kind, join_names(names[:4]), sentence, weight * 0.9 + 0.05, found.around)


def _painted(tree: Tree, number: int) -> str:
    """Find the path of the outermost element whose background reaches the block unbroken; "body" if none paints."""
    block = tree.blocks[number]
    root = block.path if kind_of(block) == "box" else ""
    for path in ancestors(block.path):
        around = tree.at.get(path)
        if around is None:
            continue
        if tree.blocks[around].background != block.background:
            return root or block.path
        root = path
    return root or ("body" if block.background == "#ffffff" else block.path)


def _common(paths: list[str]) -> str:
    """Find the path of the innermost element that holds all of them.

    In: ["body>ul>li[1]", "body>ul>li[2]"]   Out: "body>ul"
    """
    chains = [list(reversed([path, *ancestors(path)])) for path in paths]
    return [steps[0] for steps in zip(*chains, strict=False) if len(set(steps)) == 1][-1]


def _tops(tree: Tree, lonely: set[int]) -> list[str]:
    """Find the outermost elements whose blocks are all unmatched, in document order, without mere boxes around
    others."""
    found: list[str] = []
    for n in sorted(lonely):
        path = tree.blocks[n].path
        if not set(tree.under[path]) <= lonely:
            continue
        for around in ancestors(path):
            if around == "body" or not set(tree.under[around]) <= lonely:
                break
            path = around
        if path not in found:
            found.append(path)
    return found
