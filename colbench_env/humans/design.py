"""A user simulator for pages that needs no model: compares the agent's rendered page with the wanted one."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from colbench_env.design.differences import Difference, differences
from colbench_env.design.html import extract_html
from colbench_env.design.page import Page
from colbench_env.dialogue import FRONTEND_REPLY_LIMIT
from colbench_env.humans import SimulatorRequest
from colbench_env.types import BadInput, NoReply, Task

OPENINGS = ("", "Not quite yet. ", "Thank you. ", "I see. ")
SATISFIED = ("That is just what I want.", "It looks right to me now.", "This is the page that I had in mind.")
NO_PAGE = ("I see no page yet.", "There is no page for me to look at.")
CACHED = 4096  # lists of differences that are kept


class Renders(Protocol):
    """Whatever turns HTML into a page; a `Renderer`, or a cache before one."""

    async def render(self, html: str) -> Page: ...


@dataclass(frozen=True)
class DesignSimulator:
    """Looks at the page of the agent's last turn and at the task's reference through `renderer`; a `CachedRenderer`
    renders a reference once.

    Says between one and `most` of the most outstanding differences; the seed decides how many, and the words around
    them. With `plain` it says `most` of them, one a line, and no words around. What it says depends on the two pages
    and the seed alone.
    """

    renderer: Renders
    most: int = 3
    plain: bool = False
    called: str = "scripted"
    _kept: "OrderedDict[tuple[str, str], list[Difference]]" = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.most < 1:
            raise BadInput(f"a design human that says at most {self.most} differences, expected at least 1")

    @property
    def name(self) -> str:
        """The name of this kind of user simulator: `scripted`, unless it is called otherwise."""
        return self.called

    @property
    def settings(self) -> Mapping[str, Any]:
        """How much it says."""
        return {"looks": "at both pages", "most": self.most, "plain": self.plain}

    async def reply(self, request: SimulatorRequest) -> str:
        """Say what differs from the wanted page. Raises as `wanted_page`."""
        seed = request.seed
        html, wanted_html = extract_html(request.question), request.task.ground_truth
        if html is None:
            reference = await wanted_page(self.renderer, request.task)
            return self._first_wish(reference, seed)
        key = (html, wanted_html)
        if key not in self._kept:
            page, reference = await asyncio.gather(self.renderer.render(html), wanted_page(self.renderer, request.task))
            if page.problem is not None:
                return not_shown(page, seed)
            self._kept[key] = differences(page, reference)
            while len(self._kept) > CACHED:
                self._kept.popitem(last=False)
        return self.say(self._kept[key], seed)

    def say(self, found: list[Difference], seed: int) -> str:
        """One to `most` of the differences as a reply, the most outstanding first."""
        if not found:
            return SATISFIED[0] if self.plain else SATISFIED[seed % len(SATISFIED)]
        count = self.most if self.plain else 1 + seed % self.most
        reply = "" if self.plain else OPENINGS[seed // self.most % len(OPENINGS)]
        for difference in found[:count]:
            longer = reply + difference.sentence + ("\n" if self.plain else " ")
            if len(longer) > FRONTEND_REPLY_LIMIT:
                break
            reply = longer
        return reply.strip()

    def _first_wish(self, reference: Page, seed: int) -> str:
        """Name what strikes the eye on the wanted page, as is said while there is no page."""
        opening = not_shown(None, 0 if self.plain else seed)
        blank = Page(b"", reference.width, reference.height, (), 0)
        wish = next(iter(differences(blank, reference)), None)
        return opening if wish is None else f"{opening} {wish.sentence}"


def not_shown(page: Page | None, seed: int) -> str:
    """Say something about no page, or about one with a problem."""
    if page is None:
        return NO_PAGE[seed % len(NO_PAGE)]
    return f"Your page did not show: {(page.problem or '').rstrip('.')}."[:FRONTEND_REPLY_LIMIT]


async def wanted_page(renderer: Renders, task: Task) -> Page:
    """Render the task's reference. Raises BadInput where it is no page, and NoReply where it cannot be shown."""
    if extract_html(task.ground_truth) is None:
        raise BadInput(f"task {task.task_id} has no page as ground_truth, expected <html>...</html>")
    page = await renderer.render(task.ground_truth)
    if page.problem is not None:
        raise NoReply(f"task {task.task_id}: the reference cannot be shown: {page.problem}")
    return page
