"""The stylesheet that the pages of the benchmark ask for: where it is kept, what it must be, and how it is fetched."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from colbench_env.types import BadInput

VARIABLE = "COLBENCH_ASSETS"


@dataclass(frozen=True)
class Stylesheet:
    """A stylesheet by its name in the cache, the hash of its bytes, and the URLs that ask for it (without scheme).

    others: matches the URLs (host and path) of other versions, which get these rules. scripts: matches those of scripts
    that bring their page such rules.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    others: re.Pattern[str] | None = None
    scripts: re.Pattern[str] | None = None

    def answers(self, url: str) -> bool:
        """Whether the URL asks for the stylesheet, by whichever scheme and with whichever query."""
        place = _place(url)
        return place in self.urls or bool(self.others and self.others.fullmatch(place))

    def answers_script(self, url: str) -> bool:
        """Whether the URL is one of the scripts', by whichever scheme and with whichever query."""
        return bool(self.scripts and self.scripts.fullmatch(_place(url)))


def _place(url: str) -> str:
    parts = urlsplit(url)
    return unquote(f"{parts.hostname}{parts.path}")


# A range of npm's all of whose versions are 1.x or 2.x: later ones have no stylesheet in their packages.
_VERSION = r"[\^~=v]*[12](?:\.(?:\d+|[xX*])){0,2}(?:-[\w.-]+)?"
_CDN = r"(?:cdn\.jsdelivr\.net/npm|(?:www\.)?unpkg\.com)"
TAILWIND = Stylesheet(
    name="tailwindcss-2.2.19.min.css",
    sha256="b6ad97402eddb903e7a5d7a73ee47a679204efbdda4521a391cbad9df509b932",
    urls=(
        "cdn.jsdelivr.net/npm/tailwindcss@2.2.19/dist/tailwind.min.css",
        "unpkg.com/tailwindcss@2.2.19/dist/tailwind.min.css",
        "cdnjs.cloudflare.com/ajax/libs/tailwindcss/2.2.19/tailwind.min.css",
    ),
    others=re.compile(
        rf"{_CDN}/tailwindcss@{_VERSION}(?:/?|/dist/tailwind(?:\.min)?\.css)"
        rf"|cdnjs\.cloudflare\.com/ajax/libs/tailwindcss/{_VERSION}/tailwind(?:\.min)?\.css"
    ),
    scripts=re.compile(rf"cdn\.tailwindcss\.com(?:/.*)?|{_CDN}/@tailwindcss/browser(?:[@/].*)?"),
)


def assets_directory(given: Path | None = None) -> Path:
    """Where assets are kept: the given directory, `$COLBENCH_ASSETS`, or the user's cache."""
    if given is not None:
        return given
    if named := os.environ.get(VARIABLE):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("colbench")


def read_stylesheet(sheet: Stylesheet, directory: Path) -> bytes:
    """Read the stylesheet's bytes from the directory. Raises BadInput where it is missing or is not what it must be."""
    path = directory / sheet.name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; `python -m launch.data assets` fetches it once") from None
    return check_hash(sheet, content, str(path))


def check_hash(sheet: Stylesheet, content: bytes, location: str) -> bytes:
    """Return the content if it has the stylesheet's hash; else raise BadInput, which names where it is from."""
    found = hashlib.sha256(content).hexdigest()
    if found != sheet.sha256:
        raise BadInput(f"{location}: sha256 {found} ({len(content)} bytes), expected {sheet.sha256} of {sheet.name}")
    return content
