"""HTML texts become pages: one headless Chromium, a pool of pages in it, and no way out of it.

Every page is alone in a fresh context, its requests are all answered here, its time stands still, and its limits are
counted. What a page does wrong is its own `Page.problem`; what the machine does wrong is raised.
"""

import asyncio
import base64
import os
import struct
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from colbench_env import background
from colbench_env.design import chromium
from colbench_env.design.assets import TAILWIND, Stylesheet, assets_directory, read_stylesheet
from colbench_env.design.network import PAGE, Answer, picture, spelling
from colbench_env.design.page import Block, Page

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Limits:
    """What a page may cost. Times are seconds, lengths CSS pixels; a page that is higher than `height` is cut there."""

    width: int = 1366  # the released benchmark's browser, a headless Firefox, has this window
    viewport_height: int = 768
    height: int = 16_384
    seconds: float = 20.0
    html_characters: int = 2_000_000
    elements: int = 20_000
    blocks: int = 5_000
    text: int = 10_000  # characters of one block


class Renderer:
    """Renders HTML texts, several at once; to be used as a context manager, from any thread and any event loop."""

    def __init__(
        self,
        pages: int = 4,
        *,
        online_images: bool = False,
        assets: Path | None = None,
        stylesheet: Stylesheet = TAILWIND,
        executable: str | Path | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self._pages = pages
        self._online_images = online_images
        self._assets = assets
        self._stylesheet = stylesheet
        self._limits = limits
        self._executable = chromium.find_chromium(executable)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="colbench-browser-")
        background.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        background.run(self._stop())
        self._folder.cleanup()

    async def render(self, html: str) -> Page:
        """The page that the HTML text becomes. Raises BadInput where it asks for a stylesheet that was not fetched."""
        return await asyncio.wrap_future(background.submit(self._render(html)))

    def render_many(self, htmls: Sequence[str]) -> list[Page]:
        """The pages of all the texts, in their order."""

        async def gathered() -> list[Page]:
            return await asyncio.gather(*(self._render(html) for html in htmls))

        return background.run(gathered())

    async def _start(self) -> None:
        from playwright.async_api import async_playwright

        self._slots = asyncio.Semaphore(self._pages)
        self._playwright = await async_playwright().start()
        fonts = chromium.write_fonts(Path(self._folder.name))
        self._browser = await self._playwright.chromium.launch(
            executable_path=self._executable,
            args=list(chromium.ARGUMENTS),
            chromium_sandbox=os.geteuid() != 0,  # Chromium refuses its sandbox to root
            env={**os.environ, "FONTCONFIG_FILE": str(fonts)},
        )

    async def _stop(self) -> None:
        await self._browser.close()
        await self._playwright.stop()

    async def _render(self, html: str) -> Page:
        async with self._slots:
            context = await self._browser.new_context(
                viewport={"width": self._limits.width, "height": self._limits.viewport_height},
                device_scale_factor=1,
                reduced_motion="reduce",
                service_workers="block",
                accept_downloads=False,
                locale="en-US",
                timezone_id="UTC",
            )
            try:
                return await self._draw(context, html)
            finally:
                await context.close()

    async def _draw(self, context: Any, html: str) -> Page:
        refused = 0
        missing: list[Exception] = []
        body = html.encode("utf-8", "replace")

        async def answer(route: Any) -> None:
            nonlocal refused
            request = route.request
            if request.url == PAGE and request.is_navigation_request():
                return await route.fulfill(body=body, content_type="text/html; charset=utf-8")
            try:
                found = self._answer(request.url)
            except Exception as problem:
                missing.append(problem)
                found = None
            if found:
                return await route.fulfill(body=found.body, content_type=found.content_type)
            refused += 1
            await route.abort()

        await context.route("**/*", answer)
        await context.add_init_script(path=HERE / "freeze.js")
        await context.clock.install(time=0)
        await context.clock.pause_at(1)
        page = await context.new_page()
        await page.goto(PAGE)
        if missing:
            raise missing[0]
        await context.clock.run_for(1000)
        cdp = await context.new_cdp_session(page)
        tree = await cdp.send("Page.getFrameTree")
        world = await cdp.send("Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"]})
        limits = {"height": self._limits.height, "blocks": self._limits.blocks, "text": self._limits.text}
        import json

        result = await cdp.send(
            "Runtime.evaluate",
            {
                "expression": f"({(HERE / 'blocks.js').read_text(encoding='utf-8')})({json.dumps(limits)})",
                "contextId": world["executionContextId"],
                "returnByValue": True,
            },
        )
        found = result["result"]["value"]
        height = min(max(found["height"], self._limits.viewport_height), self._limits.height)
        shot = await cdp.send(
            "Page.captureScreenshot",
            {
                "format": "png",
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": self._limits.width, "height": height, "scale": 1},
            },
        )
        blocks = tuple(Block(*block) for block in found["blocks"])
        return Page(base64.b64decode(shot["data"]), self._limits.width, height, blocks, refused)

    def _answer(self, url: str) -> Answer | None:
        if spelling(url) in self._stylesheet.urls:
            return Answer(read_stylesheet(self._stylesheet, assets_directory(self._assets)), "text/css; charset=utf-8")
        return picture(url)


def white(width: int, height: int) -> bytes:
    """A white PNG of the size: what a page with a problem looks like."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
