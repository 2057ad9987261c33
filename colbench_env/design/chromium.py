"""The installed Chromium: where it is, and how it is started so that it reaches nothing and always draws the same."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from colbench_env.types import BadInput

VARIABLE = "COLBENCH_CHROMIUM"
# The headless shell has no windows and renders a page at a third of the whole browser's cost: it is looked for first.
SHELLS = ("chromium-headless-shell", "chrome-headless-shell")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OWN_SHELLS = "chromium_headless_shell-*/chrome-*/*headless*shell"
OWN_BROWSERS = "chromium-*/chrome-*/chrome"

ARGUMENTS = (
    # Nothing is resolved and nothing is connected to, whatever escapes the interception of requests.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--dns-prefetch-disable",
    "--no-pings",
    # The same picture everywhere.
    "--disable-gpu",
    "--disable-lcd-text",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4,"
    "imageAnimationPolicy=2,lazyLoadEnabled=false",
    "--disable-smooth-scrolling",
    "--js-flags=--max-old-space-size=512",
)

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{fonts}</dir>
  <cachedir>{cache}</cachedir>
  <selectfont><rejectfont><glob>{fonts}/[!D]*</glob></rejectfont></selectfont>
  <alias binding="same"><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
  <alias binding="same"><family>serif</family><prefer><family>DejaVu Serif</family></prefer></alias>
  <alias binding="same"><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


def find_chromium(given: str | Path | None = None) -> str:
    """Find a Chromium: the given path, `$COLBENCH_CHROMIUM`, or the first that is installed.

    Installed ones are Playwright's own and those on the path, headless shells before whole browsers. Raises BadInput
    where there is none, and for a given one that cannot be run.
    """
    named = given or os.environ.get(VARIABLE)
    if named:
        found = shutil.which(str(named))
        if found is None:
            raise BadInput(f"{named}: not a program that can be run, expected a Chromium")
        return found
    own = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    for pattern, names in ((OWN_SHELLS, SHELLS), (OWN_BROWSERS, BROWSERS)):
        for candidate in (*sorted(own.glob(pattern), reverse=True), *names):
            if found := shutil.which(str(candidate)):
                return found
    raise BadInput(
        "no Chromium is installed: `playwright install --only-shell chromium` brings one, or the system's package "
        f"chromium-headless-shell or chromium, or name one in ${VARIABLE}"
    )


def write_fonts(folder: Path) -> Path:
    """Write a fontconfig file by which a browser knows the DejaVu fonts of matplotlib and no others."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise BadInput("the renderer draws with matplotlib's fonts: pip install matplotlib (extra frontend)")
    fonts = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    path = folder / "fonts.conf"
    path.write_text(FONTS.format(fonts=fonts, cache=folder / "fontconfig"), encoding="utf-8")
    return path


async def limit_memory(browser: Any, megabytes: int) -> None:
    """Limits the memory of every process that draws pages, now and later; on Linux, elsewhere nothing is limited.

    They are all forked from the browser's zygotes, which are limited here.
    """
    if sys.platform != "linux":
        return
    import resource

    session = await browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    await session.detach()
    limit = megabytes * 2**20
    for process in descendants(next(entry["id"] for entry in processes if entry["type"] == "browser")):
        with suppress(ProcessLookupError, FileNotFoundError):
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            if b"--type=zygote" in command or b"--type=renderer" in command:
                resource.prlimit(process, resource.RLIMIT_DATA, (limit, limit))


def descendants(process: int) -> Iterator[int]:
    """List the processes that descend from a process (on Linux)."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(ProcessLookupError, FileNotFoundError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from descendants(child)
