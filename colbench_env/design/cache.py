"""Renders each text once: a reference is looked at every turn, and the pages of the miniature come again and again."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock

from colbench_env import background
from colbench_env.design.page import Page
from colbench_env.design.renderer import Renderer


class CachedRenderer:
    """Keeps the last `size` pages of a renderer by their text. From any thread and any event loop."""

    def __init__(self, renderer: Renderer, size: int = 2048) -> None:
        self._renderer = renderer
        self._size = size
        self._pages: OrderedDict[str, Future[Page]] = OrderedDict()
        self._lock = Lock()

    def render_many(self, htmls: Sequence[str]) -> list[Page]:
        """The pages of all the texts, in their order."""

        async def gathered() -> list[Page]:
            return await asyncio.gather(*(self.render(html) for html in htmls))

        return background.run(gathered())

    async def render(self, html: str) -> Page:
        """The page that the text becomes. Raises as `Renderer.render`, and then keeps nothing."""
        with self._lock:
            found = self._pages.get(html)
            if found is None:
                found = self._pages[html] = background.submit(self._renderer.render(html))
                if len(self._pages) > self._size:
                    self._pages.popitem(last=False)
            self._pages.move_to_end(html)
        try:
            return await asyncio.shield(asyncio.wrap_future(found))
        except BaseException:
            if found.done() and (found.cancelled() or found.exception() is not None):
                with self._lock:
                    self._pages.pop(html, None)
            raise
