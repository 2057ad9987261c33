"""The stylesheet that the pages of the benchmark ask for: where it is kept, what it must be, and how it is fetched."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from colbench_env.types import BadInput

VARIABLE = "COLBENCH_ASSETS"


@dataclass(frozen=True)
class Stylesheet:
    """A stylesheet by its name in the cache, the hash of its bytes, and the URLs that ask for it (without scheme)."""

    name: str
    sha256: str
    urls: tuple[str, ...]


TAILWIND = Stylesheet(
    name="tailwindcss-2.2.19.min.css",
    sha256="b6ad97402eddb903e7a5d7a73ee47a679204efbdda4521a391cbad9df509b932",
    urls=(
        "cdn.jsdelivr.net/npm/tailwindcss@2.2.19/dist/tailwind.min.css",
        "unpkg.com/tailwindcss@2.2.19/dist/tailwind.min.css",
        "cdnjs.cloudflare.com/ajax/libs/tailwindcss/2.2.19/tailwind.min.css",
    ),
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
    """The stylesheet's bytes from the directory. Raises BadInput where it is missing or is not what it must be."""
    path = directory / sheet.name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; `python -m launch.data assets` fetches it once") from None
    return checked(sheet, content, str(path))


def checked(sheet: Stylesheet, content: bytes, where: str) -> bytes:
    """The content, if it has the stylesheet's hash; else raises BadInput, which names where it is from."""
    found = hashlib.sha256(content).hexdigest()
    if found != sheet.sha256:
        raise BadInput(f"{where}: sha256 {found} ({len(content)} bytes), expected {sheet.sha256} of {sheet.name}")
    return content
