"""What the tests of the renderer share: an installed Chromium or a skip, and a stylesheet of their own."""

import hashlib
import re
from pathlib import Path

import pytest

from colbench_env.design.assets import Stylesheet
from colbench_env.design.chromium import find_chromium
from colbench_env.types import BadInput

SHEET = b".red { color: rgb(255, 0, 0) } .box { background: rgb(0, 0, 255); width: 100px; height: 50px }"
STYLESHEET = Stylesheet(
    "small.css",
    hashlib.sha256(SHEET).hexdigest(),
    ("sheets.test/small.css",),
    others=re.compile(r"sheets\.test/small@\d\.css"),
    scripts=re.compile(r"scripts\.test(?:/.*)?"),
)


def chromium_or_skip() -> str:
    """The path of an installed Chromium; the test is skipped where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed (extra frontend)")
    try:
        return find_chromium()
    except BadInput as problem:
        pytest.skip(str(problem))


def with_sheet(folder: Path) -> Path:
    """The folder, with the stylesheet in it."""
    (folder / STYLESHEET.name).write_bytes(SHEET)
    return folder
