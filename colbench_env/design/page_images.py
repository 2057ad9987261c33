"""Pictures of the pages in frontend dialogues, rendered when a report is made: rows themselves hold no pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from colbench_env.design.grading import Pages
from colbench_env.design.html import extract_html
from colbench_env.design.page import Page
from colbench_env.design.thumbnails import Images, images_of_pages
from colbench_env.types import NO_ANSWER, Trajectory

BATCH = 16  # dialogues whose pages are held at once
MOST_SIDES = 12  # dialogues that stand side by side in a report


@dataclass(frozen=True)
class SideBySide:
    """The answers about one task, to be shown with the reference. names, images: of each policy, in order."""

    description: str
    names: tuple[str, ...]
    images: tuple[Images, ...]


def images_of_row(row: Trajectory, shown: dict[str, Page]) -> Images:
    """Make the pictures of one dialogue from rendered pages by their texts. What did not show has none."""

    def png(html: str | None) -> bytes | None:
        page = shown.get(html or "")
        return None if page is None or page.problem is not None else page.png

    turns = [png(extract_html(turn.content)) for turn in row.agent_turns]
    return images_of_pages(png(row.answer), png(row.task.ground_truth), row.reward, turns)


def _htmls(row: Trajectory) -> list[str]:
    turns = [html for turn in row.agent_turns if (html := extract_html(turn.content))]
    return [html for html in (row.task.ground_truth, row.answer, *turns) if html not in ("", NO_ANSWER)]


def with_pictures(
    rows: Sequence[Trajectory], pages: Pages, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Trajectory]:
    """Return the dialogues with their pictures under `images`: answer, reference, and the page of each turn."""
    found = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        htmls = list(dict.fromkeys(html for row in part for html in _htmls(row)))
        shown = dict(zip(htmls, pages.render_many(htmls), strict=True))
        for row in part:
            found.append(replace(row, extra=row.extra | {"images": images_of_row(row, shown).to_json()}))
        progress(len(found), len(rows))
    return found


def side_by_side(policies: Mapping[str, Sequence[Trajectory]], pages: Pages) -> list[SideBySide]:
    """Up to MOST_SIDES tasks that all policies have a reward for: from the last policy's worst to its best.

    They are evenly spread over the order of its similarities, so that no choice of ours decides what is seen.
    """
    first = [{row.task.task_id: row for row in reversed(rows) if row.reward is not None} for rows in policies.values()]
    tasks = [task for task in first[-1] if all(task in rows for rows in first)]
    tasks.sort(key=lambda task: (first[-1][task].reward, task))
    count = min(MOST_SIDES, len(tasks))
    chosen = [tasks[round(place * (len(tasks) - 1) / max(count - 1, 1))] for place in range(count)]
    found = []
    for task in chosen:
        rows = [replace(by_task[task], dialogue_history=()) for by_task in first]
        htmls = list(dict.fromkeys(html for row in rows for html in _htmls(row)))
        shown = dict(zip(htmls, pages.render_many(htmls), strict=True))
        images = tuple(images_of_row(row, shown) for row in rows)
        found.append(SideBySide(rows[-1].task.problem_description, tuple(policies), images))
    return found
