"""HTML texts become pages: one headless Chromium, several pages at a time in it, and no way out of it.

What a page does wrong is its own `Page.problem`; what the machine does wrong is raised. Read `Renderer._render`, then
`drawing.draw` (the path of one page) and `network.Visit` (what a page gets for what it asks for).
"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from colbench_env import background
from colbench_env.design import chromium
from colbench_env.design.assets import TAILWIND, Stylesheet
from colbench_env.design.drawing import Limits, PageFailed, draw, white
from colbench_env.design.network import Network
from colbench_env.design.page import Page
from colbench_env.types import BadInput

DEFAULT_LIMITS = Limits()
PATIENCE = 30.0  # seconds that a browser may take longer than a page's own limit before it counts as dead


class Renderer:
    """Renders HTML texts, `pages` at a time; a context manager, to be used from any thread and any event loop.

    `online_images`: fetch the photographs of known hosts; without, they are placeholders. `assets`: where the
    stylesheet is kept (`assets_directory`). `executable`: the Chromium (`find_chromium`).
    """

    def __init__(
        self,
        pages: int = 4,
        *,
        online_images: bool = False,
        assets: Path | None = None,
        stylesheet: Stylesheet = TAILWIND,
        executable: str | Path | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        if pages < 1:
            raise BadInput(f"pages={pages}: expected at least 1")
        self._pages = pages
        self._limits = limits
        self._network = Network(stylesheet, assets, online_images)
        self._executable = chromium.find_chromium(executable)
        self._browser: Any = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="colbench-browser-")
        try:
            background.run(self._start())
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        background.run(self._stop())
        self._folder.cleanup()

    async def render(self, html: str) -> Page:
        """Render the text to a page; the same text gives the same page.

        Raises BadInput where the page asks for the stylesheet and that was not fetched, and ConnectionError where a
        real photograph is wanted and its host cannot be reached.
        """
        return await asyncio.wrap_future(background.submit(self._render(html)))

    def render_many(self, htmls: Sequence[str]) -> list[Page]:
        """Render all the texts and return their pages in order. Raises as `render`."""

        async def all_of_them() -> list[Page]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._render(html)) for html in htmls]
            return [task.result() for task in tasks]

        try:
            return background.run(all_of_them())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _render(self, html: str) -> Page:
        limits = self._limits
        if len(html) > limits.html_characters:
            return self._blank(f"the page is {len(html)} characters long, at most {limits.html_characters} are read")
        async with self._slots:
            crowded = self._drawing > 0
            self._drawing += 1
            try:
                return await self._attempt(html)
            except PageFailed as problem:
                if self._browser.is_connected() and not (crowded or self._drawing > 1):
                    return self._blank(str(problem))
            finally:
                self._drawing -= 1
        async with self._second_chance:  # others may have taken the time or the memory, or the browser with them
            try:
                return await self._attempt(html)
            except PageFailed as problem:
                return self._blank(str(problem))

    async def _attempt(self, html: str) -> Page:
        from playwright.async_api import Error

        browser, limits = await self._living_browser(), self._limits
        try:
            async with asyncio.timeout(limits.seconds + PATIENCE):
                return await draw(browser, html, self._network, limits)
        except Error as error:
            raise PageFailed(f"the browser could not draw the page: {str(error).splitlines()[0]}") from error
        except TimeoutError as error:
            await browser.close()
            raise PageFailed("the browser hung") from error

    def _blank(self, problem: str) -> Page:
        width, height = self._limits.width, self._limits.viewport_height
        return Page(white(width, height), width, height, (), 0, problem)

    async def _start(self) -> None:
        try:
            from playwright.async_api import async_playwright
        except ImportError:
            raise BadInput(
                "pages are rendered by playwright: pip install -e '.[frontend]' in the checkout, or "
                "pip install './colbench_env[frontend]' for colbench_env alone"
            ) from None

        self._slots = asyncio.Semaphore(self._pages)
        self._drawing = 0
        self._second_chance = asyncio.Lock()
        self._launching = asyncio.Lock()
        self._fonts = chromium.write_fonts(Path(self._folder.name))
        self._playwright = await async_playwright().start()
        try:
            await self._living_browser()
        except BaseException:
            await self._playwright.stop()
            raise

    async def _stop(self) -> None:
        await self._browser.close()
        await self._playwright.stop()

    async def _living_browser(self) -> Any:
        async with self._launching:
            if self._browser is None or not self._browser.is_connected():
                self._browser = await self._playwright.chromium.launch(
                    executable_path=self._executable,
                    args=list(chromium.ARGUMENTS),
                    chromium_sandbox=os.geteuid() != 0,  # Chromium refuses its sandbox to root
                    env={**os.environ, "FONTCONFIG_FILE": str(self._fonts)},
                )
                await chromium.limit_memory(self._browser, self._limits.megabytes)
            return self._browser
