"""The installed Chromium: where it is, and how it is started so that it reaches nothing and always draws the same."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from colbench_env.types import BadInput

VARIABLE = "COLBENCH_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

ARGUMENTS = (
    # Nothing is resolved and nothing is connected to, whatever escapes the interception of requests.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--dns-prefetch-disable",
    "--no-pings",
    "--disable-features=SpeculationRulesPrefetchFuture,Prerender2,PreloadSystemFonts,MediaRouter,OptimizationHints",
    # The same picture everywhere.
    "--disable-gpu",
    "--disable-lcd-text",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--blink-settings=imageAnimationPolicy=2,lazyLoadEnabled=false",
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
    """The path of a Chromium: the given one, `$COLBENCH_CHROMIUM`, Playwright's own, or the first on the path.

    Raises BadInput where there is none, and for a given one that cannot be run.
    """
    named = given or os.environ.get(VARIABLE)
    if named:
        found = shutil.which(str(named))
        if found is None:
            raise BadInput(f"{named}: no program that can be run, expected a Chromium (${VARIABLE})")
        return found
    own = sorted(_playwright_browsers().glob("chromium-*/chrome-linux*/chrome"))
    on_path = [path for name in NAMES if (path := shutil.which(name))]
    for candidate in [*map(str, reversed(own)), *on_path]:
        return candidate
    raise BadInput(
        f"no Chromium found: `playwright install chromium` or the system's package `chromium` brings one, or set ${VARIABLE}"
    )


def _playwright_browsers() -> Path:
    return Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")


def write_fonts(folder: Path) -> Path:
    """A fontconfig file in the folder by which a browser knows the DejaVu fonts of matplotlib and no others."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise BadInput("the renderer draws with matplotlib's fonts: pip install matplotlib (extra frontend)")
    fonts = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    path = folder / "fonts.conf"
    path.write_text(FONTS.format(fonts=fonts, cache=folder / "fontconfig"), encoding="utf-8")
    return path
