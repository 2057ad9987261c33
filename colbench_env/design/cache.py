"""Renders each text once: a reference is looked at every turn, and the pages of toy ColBench come again and again."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock

from colbench_env import background
from colbench_env.design.page import Page
from colbench_env.design.renderer import Renderer


class CachedRenderer:
    """Keeps the last pages of a renderer by their text, about `most` bytes in all; for any thread and loop."""

    def __init__(self, renderer: Renderer, most: int = 256 * 2**20) -> None:
        self._renderer = renderer
        self._most = most
        self._held = 0  # bytes of all pages that are kept
        self._pages: OrderedDict[str, Future[Page]] = OrderedDict()
        self._lock = Lock()

    def render_many(self, htmls: Sequence[str]) -> list[Page]:
        """Render all the texts and return their pages in order."""

        async def gather() -> list[Page]:
            return await asyncio.gather(*(self.render(html) for html in htmls))

        return background.run(gather())

    async def render(self, html: str) -> Page:
        """Render the text, or return its kept page. Raises as `Renderer.render`, and then keeps nothing."""
        with self._lock:
            found = self._pages.get(html)
            if found is None:
                found = self._pages[html] = background.submit(self._kept(html))
            self._pages.move_to_end(html)
        return await asyncio.shield(asyncio.wrap_future(found))

    async def _kept(self, html: str) -> Page:
        try:
            page = await self._renderer.render(html)
        except BaseException:
            with self._lock:
                self._pages.pop(html, None)
            raise
        with self._lock:
            self._held += bytes_of(page)
            for other, future in list(self._pages.items()):
                if self._held <= self._most:
                    break
                if future.done():  # the newest, this one among them, are not
                    self._held -= bytes_of(future.result())
                    del self._pages[other]
        return page


def bytes_of(page: Page) -> int:
    """Bytes that the page takes, about."""
    return len(page.png) + sum(500 + len(block.text) + len(block.path) for block in page.blocks)
