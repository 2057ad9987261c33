"""The path of one page through the browser: loaded, brought to rest, measured, pictured."""

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from colbench_env.design.network import NAMED, PAGE, Network, Visit
from colbench_env.design.page import Block, Page

HERE = Path(__file__).parent
TIMERS = 1000  # milliseconds that the page's clock goes on after it has loaded


@dataclass(frozen=True)
class Limits:
    """What a page may cost. Lengths are CSS pixels; a page that is higher than `height` is cut there.

    A page that is not done after `seconds` while others were drawn is tried once more.
    `megabytes` is the memory of the process that draws a page (on Linux).
    """

    width: int = 1366  # the window of the released benchmark's browser, a headless Firefox
    viewport_height: int = 768
    height: int = 16_384
    seconds: float = 10.0
    html_characters: int = 2_000_000
    elements: int = 20_000
    blocks: int = 5_000
    text: int = 10_000  # characters of one block
    page_text: int = 200_000  # characters of all blocks
    depth: int = 256  # elements inside one another that are looked at
    megabytes: int = 1_500


class PageFailed(Exception):
    """A page that cannot be drawn for reasons of its own: one sentence."""


async def draw(browser: Any, html: str, network: Network, limits: Limits) -> Page:
    """Draw the page that the HTML becomes in a fresh context. Raises PageFailed, and what went wrong on the machine."""
    visit = Visit(network, html)
    async with _fresh_tab(browser, visit, limits) as (tab, crashed):
        work = asyncio.ensure_future(_drawn(tab, visit, limits))
        either: set[asyncio.Future[Any]] = {work, crashed}
        await asyncio.wait(either, timeout=limits.seconds, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            ran_out = f"the page was not done within {limits.seconds:g} s"
            raise PageFailed("the page crashed" if crashed.done() else ran_out)
        return work.result()


async def _drawn(tab: Any, visit: Visit, limits: Limits) -> Page:
    await tab.goto(PAGE, timeout=0)
    await tab.clock.run_for(TIMERS)
    cdp = await tab.context.new_cdp_session(tab)
    tree = await cdp.send("Page.getFrameTree")
    world = await cdp.send("Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"]})
    where = {"contextId": world["executionContextId"], "returnByValue": True, "awaitPromise": True}
    elements = (await _evaluate(cdp, "settle.js", limits, where))["elements"]
    if elements > limits.elements:
        raise PageFailed(f"the page has {elements} elements, at most {limits.elements} are drawn")
    found = await _evaluate(cdp, "blocks.js", limits, where)
    height = min(max(found["height"], limits.viewport_height), limits.height)
    clip = {"x": 0, "y": 0, "width": limits.width, "height": height, "scale": 1}
    shot = await cdp.send("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    if visit.error:
        raise visit.error
    for url in found["unread"]:
        visit.miss(url)
    blocks, missing = tuple(Block(*block) for block in found["blocks"]), tuple(visit.missing_sheets)
    return Page(base64.b64decode(shot["data"]), limits.width, height, blocks, visit.refused, missing_sheets=missing)


@asynccontextmanager
async def _fresh_tab(browser: Any, visit: Visit, limits: Limits) -> AsyncIterator[tuple[Any, asyncio.Future[None]]]:
    """Open a tab that shares nothing with another, with a future that is done when the tab crashes."""
    context = await browser.new_context(
        viewport={"width": limits.width, "height": limits.viewport_height},
        device_scale_factor=1,
        reduced_motion="reduce",
        service_workers="block",
        accept_downloads=False,
        locale="en-US",
        timezone_id="UTC",
    )
    try:
        await context.route("**/*", visit.answer)
        await context.route_web_socket("**/*", visit.refuse_socket)
        await context.clock.install(time=0)
        await context.clock.pause_at(1)
        await context.add_init_script(_script("freeze.js"))
        tab = await context.new_page()
        crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tab.on("crash", lambda _: None if crashed.done() else crashed.set_result(None))
        yield tab, crashed
    finally:
        await context.close()


async def _evaluate(cdp: Any, script: str, limits: Limits, where: dict[str, Any]) -> dict[str, Any]:
    expression = f"({_script(script)})({json.dumps(asdict(limits) | NAMED)})"
    answer = await cdp.send("Runtime.evaluate", {"expression": expression, **where})
    if "exceptionDetails" in answer:
        raise PageFailed(f"the page cannot be measured: {answer['exceptionDetails']['text']}")
    return answer["result"]["value"]


@cache
def _script(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def white(width: int, height: int) -> bytes:
    """Make a white PNG of the size: what a page with a problem looks like."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    rows = zlib.compress((b"\0" + b"\xff" * 3 * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
