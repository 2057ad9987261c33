"""Real pages with one change each: does the scripted human name it, and does the structural similarity fall?

    python -m benchmarks.page_changes [--pages=200 --seed=0 --tasks=FILE --assets=DIR --show=10]

The changes are made in the parsed page by another Chromium, which does not load it. A change counts as named if one of
the at most three differences that the human tells is of the right kind and about the changed element, or one around it
that shows the same blocks ("first": if it is the one told first). The peer goes through the blocks of both pages in
document order and points at the first that differs, of which kind is not asked.
"""

import argparse
import itertools
import os
import random
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbench_env.design import colour
from colbench_env.design.arrangement import relation
from colbench_env.design.chromium import find_chromium
from colbench_env.design.differences import Difference, differences
from colbench_env.design.page import Page
from colbench_env.design.renderer import Renderer
from colbench_env.design.similarity import structural_similarity
from colbench_env.design.tree import HEADINGS, Tree, tag_of
from colbench_env.tasks import read_rows
from colbench_env.types import Task

KINDS = ("colour", "heading size", "missing section", "swapped columns")
SAID = {
    "colour": {"background"},
    "heading size": {"size"},
    "missing section": {"missing"},
    "swapped columns": {"swapped"},
}
SECTIONS = {"header", "nav", "footer", "section", "aside", "article", "div", "form", "main"}
COLOURS = ("#1e3a8a", "#b91c1c", "#047857", "#f59e0b", "#7c3aed", "#db2777", "#fde68a", "#a7f3d0", "#ffffff", "#374151")
MOST = 3  # differences that the human tells


@dataclass(frozen=True)
class Change:
    """One change of a page: the script that makes it, given the element(s), and the path(s) of what is changed."""

    kind: str
    paths: tuple[str, ...]
    script: str
    argument: str = ""


def changes(page: Page, kind: str, dice: random.Random) -> Iterator[Change]:
    """Changes of the kind that the page allows, in random order."""
    tree = Tree(page.blocks)
    whole = page.width * page.height
    places = [path for path in tree.under if tag_of(path) in SECTIONS and 0.02 < tree.box(path).area / whole < 0.8]
    dice.shuffle(places)
    if kind == "colour":
        for path in places:
            if path in tree.at and tree.says[path]:
                ground = tree.blocks[tree.at[path]].background
                far = [c for c in COLOURS if colour.distance(c, ground) > 25]
                yield Change(kind, (path,), "([e], c) => { e.style.background = c }", dice.choice(far))
    elif kind == "heading size":
        headings = [block for block in page.blocks if block.tag in HEADINGS and block.text]
        dice.shuffle(headings)
        for block in headings:
            size = block.font_size * dice.choice((0.6, 1.5, 2))
            yield Change(kind, (block.path,), "([e], s) => { e.style.fontSize = s }", f"{size:g}px")
    elif kind == "missing section":
        for path in places:
            if tree.says[path] and len(tree.under[path]) >= 2:
                yield Change(kind, (path,), "([e]) => e.remove()")
    else:
        pairs = [
            (first, second)
            for around, inside in tree.children.items()
            for index, first in enumerate(inside)
            for second in inside[index + 1 :]
            if relation(tree.box(first), tree.box(second)) == "left of" and tree.says[first] != tree.says[second]
        ]
        dice.shuffle(pairs)
        pairs.sort(key=lambda pair: -len(tree.under[pair[0]]) - len(tree.under[pair[1]]) > -4)
        swap = "([a, b]) => { const mark = new Comment(); a.replaceWith(mark); b.replaceWith(a); mark.replaceWith(b) }"
        for first, second in pairs:
            yield Change(kind, (first, second), swap)


def selector(path: str) -> str:
    """The CSS selector of a path.

    In: "body>section[2]>h2"   Out: "body>section:nth-of-type(2)>h2"
    """
    return re.sub(r"\[(\d+)\]", r":nth-of-type(\1)", path)


def named(found: list[Difference], change: Change, reference: Page) -> bool:
    """Whether one of the differences is the change: of its kind, and of its element.

    An element around it that shows the very same blocks is the same to the eye.
    """
    shows = Tree(reference.blocks).under
    for difference in found[:MOST]:
        if difference.kind not in SAID[change.kind]:
            continue
        if difference.path in shows and shows[difference.path] == shows[change.paths[0]]:
            return True
        if change.kind == "swapped columns" and all(
            path.startswith(difference.path + ">") and ">" not in path[len(difference.path) + 1 :]
            for path in change.paths
        ):
            return True
    return False


def pointed_at(page: Page, reference: Page, change: Change) -> bool:
    """Whether the first block that differs in document order is of the changed element (the peer)."""
    for seen, wanted in itertools.zip_longest(page.blocks, reference.blocks):
        if seen != wanted:
            path = (wanted or seen).path
            return any(path == changed or path.startswith(changed + ">") for changed in change.paths)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=Path, default=Path("../shared/data/colbench/frontend_test_800.jsonl"))
    parser.add_argument("--assets", type=Path, default=None)
    parser.add_argument("--show", type=int, default=10, help="failures to print")
    arguments = parser.parse_args()
    if not arguments.tasks.is_file():
        print(f"{arguments.tasks}: not there, so nothing was measured")
        return
    tasks = read_rows(arguments.tasks, Task)[: arguments.pages]
    with Renderer(pages=4, assets=arguments.assets) as renderer:
        references = renderer.render_many([task.ground_truth for task in tasks])
    wishes = wished_changes(tasks, references, arguments.seed)
    with Renderer(pages=4, assets=arguments.assets) as renderer:
        changed = changed_pages(renderer, references, wishes)
    report(references, changed, arguments.show)


def wished_changes(tasks: list[Task], references: list[Page], seed: int) -> list[list[tuple[Change, str]]]:
    """For each reference some changes with the changed text; the kinds in turn, then others for want of that kind."""
    from playwright.sync_api import sync_playwright

    dice = random.Random(seed)
    wishes = []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
        editor = playwright.chromium.launch(executable_path=find_chromium(), args=arguments).new_page()
        for index, (task, reference) in enumerate(zip(tasks, references, strict=True)):
            kinds = [KINDS[(index + turn) % len(KINDS)] for turn in range(len(KINDS))]
            drawn = [change for kind in kinds for change in itertools.islice(changes(reference, kind, dice), 2)]
            wishes.append([(change, edited(editor, task.ground_truth, change)) for change in drawn[:4]])
    return wishes


def changed_pages(
    renderer: Renderer, references: list[Page], wishes: list[list[tuple[Change, str]]]
) -> list[tuple[Change, Page] | None]:
    """For each reference the first change that is to be seen, and the changed page; else None."""
    done: list[tuple[Change, Page] | None] = [None] * len(references)
    for attempt in range(max(map(len, wishes))):
        left = [index for index, row in enumerate(wishes) if done[index] is None and attempt < len(row)]
        for index, page in zip(left, renderer.render_many([wishes[i][attempt][1] for i in left]), strict=True):
            if page.problem is None and page.png != references[index].png:
                done[index] = wishes[index][attempt][0], page
    return done


def edited(editor: Any, html: str, change: Change) -> str:
    """The page's text after the change. It is parsed and written again, but neither loaded nor run."""
    script = (
        "([html, selectors, value]) => {"
        "const page = new DOMParser().parseFromString(html, 'text/html');"
        "const elements = selectors.map((selector) => page.querySelector(selector));"
        f"if (elements.every(Boolean)) ({change.script})(elements, value);"
        "return page.documentElement.outerHTML }"
    )
    return editor.evaluate(script, [html, [selector(path) for path in change.paths], change.argument])


def report(references: list[Page], changed: list[tuple[Change, Page] | None], show: int) -> None:
    """Prints the figures, and the first failures."""
    done: dict[str, list[bool]] = defaultdict(list)
    first: dict[str, list[bool]] = defaultdict(list)
    peer: dict[str, list[bool]] = defaultdict(list)
    scores, times, score_times, shown = [], [], [], 0
    for index, (reference, result) in enumerate(zip(references, changed, strict=True)):
        if result is None:
            print(f"- page {index}: no change that is to be seen")
            continue
        change, page = result
        started = time.perf_counter()
        found = differences(page, reference)
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
        scores.append(structural_similarity(page, reference).score)
        score_times.append(time.perf_counter() - started)
        right = named(found, change, reference)
        done[change.kind].append(right)
        first[change.kind].append(named(found[:1], change, reference))
        peer[change.kind].append(pointed_at(page, reference, change))
        if not right and shown < show:
            shown += 1
            print(f"- page {index}, {change.kind} {change.paths} {change.argument[:30]}")
            for difference in found[:MOST]:
                print(f"    {difference.kind} {difference.path} {difference.weight:.3f}: {difference.sentence}")
    print(f"{'change':18} {'pages':>6} {'named':>7} {'first':>7} {'peer':>7}")
    for kind in (*KINDS, "all"):
        rates = [statistics.mean(sum(table.values(), []) if kind == "all" else table[kind] or [False])
                 for table in (done, first, peer)]  # fmt: skip
        count = len(scores) if kind == "all" else len(done[kind])
        print(f"{kind:18} {count:6} {rates[0]:7.1%} {rates[1]:7.1%} {rates[2]:7.1%}")
    unchanged = sum(bool(differences(reference, reference)) for reference in references)
    print(f"similarity below 1 on {sum(score < 1 for score in scores)} of {len(scores)} changed pages, "
          f"median {statistics.median(scores):.3f}, highest {max(scores):.4f}")  # fmt: skip
    print(f"unchanged pages about which the human finds something: {unchanged} of {len(references)} (0 expected)")
    print(f"a page of {statistics.median(len(page.blocks) for page in references):.0f} blocks (median): "
          f"{1000 * statistics.median(times):.1f} ms for its differences, "
          f"{1000 * statistics.median(score_times):.1f} ms for its similarity")  # fmt: skip


if __name__ == "__main__":
    main()
