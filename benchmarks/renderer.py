"""Renders real pages: how many a second, whether they are the same twice, and how much memory the browser takes.

    python -m benchmarks.renderer --tasks=FILE [--pages=200] [--long=1000] [--tabs=4]

`--tasks` are rows of frontend design, whose references are rendered. `--long` pages are rendered at the end for the
memory: resident bytes of all processes of the browser together (shared pages count in each). The peer is plain
Playwright in the same browser: a new tab for each page, one after another and `--tabs` side by side, that answers the
stylesheet from memory and takes a full-page screenshot, without isolation, measuring or limits. Processor seconds are
those of all processes, the browser's start and end included. Exit status 1 if a page is not rendered or is not the same
twice.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colbench_env.design.assets import TAILWIND, assets_directory, read_stylesheet
from colbench_env.design.chromium import ARGUMENTS, descendants, find_chromium
from colbench_env.design.renderer import Renderer
from colbench_env.tasks import read_rows
from colbench_env.types import Task

PORTION = 20  # pages that are timed together


def main() -> int:
    """The exit status, after everything was measured and printed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--long", type=int, default=1000)
    parser.add_argument("--tabs", type=int, default=4)
    options = parser.parse_args()
    htmls = [task.ground_truth or "" for task in itertools.islice(read_rows(options.tasks, Task), options.pages)]
    print(f"{len(htmls)} pages, {options.tabs} side by side, {find_chromium()}, {os.cpu_count()} processors")
    begun = processor_seconds()
    with Renderer(options.tabs) as renderer:
        renderer.render_many(htmls[: options.tabs])
        first, rate = timed(renderer, htmls)
        second, again = timed(renderer, htmls)
        failed = [page.problem for page in first if page.problem]
        differ = sum(one != other for one, other in zip(first, second, strict=True))
        refused = sum(page.refused for page in first)
        print(f"not rendered: {len(failed)} {failed[:3]}; not the same twice: {differ}; requests refused: {refused}")
        print(f"pages a second, median of portions of {PORTION}: {rate:.1f}, again {again:.1f}")
        with resident_megabytes() as samples:
            for marks in range(0, options.long, 100):
                renderer.render_many([htmls[index % len(htmls)] for index in range(marks, marks + 100)])
                print(f"after {marks + 100} pages: at most {max(samples):.0f} MB, now {samples[-1]:.0f} MB", flush=True)
    cost = (processor_seconds() - begun) / (options.tabs + 2 * len(htmls) + options.long)
    begun = processor_seconds()
    peer = asyncio.run(plain(htmls, options.tabs))
    peer_cost = (processor_seconds() - begun) / len(htmls)
    print(f"plain Playwright: {peer:.1f} pages a second; the renderer has {max(rate, again) / peer:.2f} of that")
    print(f"processor seconds a page: {cost:.3f}, plain {peer_cost:.3f}: {cost / peer_cost:.2f} times as many")
    return 1 if failed or differ else 0


def timed(renderer: Renderer, htmls: list[str]) -> tuple[list, float]:
    """The pages, and the median over portions of how many a second were rendered."""
    pages, rates = [], []
    for start in range(0, len(htmls), PORTION):
        portion = htmls[start : start + PORTION]
        begun = time.perf_counter()
        pages += renderer.render_many(portion)
        rates.append(len(portion) / (time.perf_counter() - begun))
    return pages, statistics.median(rates)


def processor_seconds() -> float:
    """What this process and all that have ended under it have cost."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def resident_megabytes() -> Iterator[list[float]]:
    """A list that grows by the resident memory of all processes under this one, twice a second."""
    samples, stop = [0.0], threading.Event()

    def sample() -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not stop.wait(0.5):
            total = 0
            for process in descendants(os.getpid()):
                try:
                    total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has just ended
            samples.append(total / 1e6)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


async def plain(htmls: list[str], tabs: int) -> float:
    """Pages a second of plain Playwright, as `timed` counts them."""
    from playwright.async_api import async_playwright

    sheet = read_stylesheet(TAILWIND, assets_directory())

    async def answer(route) -> None:
        if "tailwind" in route.request.url:
            await route.fulfill(body=sheet, content_type="text/css")
        else:
            await route.abort()

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=list(ARGUMENTS), chromium_sandbox=os.geteuid() != 0
        )
        context = await browser.new_context(viewport={"width": 1366, "height": 768})
        await context.route("**/*", answer)
        slots = asyncio.Semaphore(tabs)

        async def one(html: str) -> None:
            async with slots:
                page = await context.new_page()
                await page.set_content(html)
                await page.screenshot(full_page=True)
                await page.close()

        rates = []
        for start in range(0, len(htmls), PORTION):
            portion = htmls[start : start + PORTION]
            begun = time.perf_counter()
            await asyncio.gather(*map(one, portion))
            rates.append(len(portion) / (time.perf_counter() - begun))
        await browser.close()
    return statistics.median(rates)


if __name__ == "__main__":
    sys.exit(main())
