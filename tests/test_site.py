"""The documentation site builds without a warning: every link is checked, and its pages load nothing from elsewhere."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed (the extra docs)")
def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert 'id="sweet_jax.train.loop.fit"' in (tmp_path / "reference/sweet_jax/train/loop/index.html").read_text(
        encoding="utf-8"
    )
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert not [page for page in pages if 'src="http' in page or 'rel="stylesheet" href="http' in page]
