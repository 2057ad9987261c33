"""Nobody is told to install a package that is not published: whoever takes its name would be run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PUBLISHED_BY_NOBODY = re.compile(
    r"(?i)\b(?:sweet[-_]jax|colbench[-_]env)\s*\[\w"  # with an extra, as pip takes it
    r"|pip3? install(?: -\S+)* [\"']?(?:sweet[-_]jax|colbench[-_]env|colbench)(?![\w/ ]*@)(?![\w-])"
)
FILES = [
    path
    for path in sorted(ROOT.rglob("*"))
    if path.suffix in (".py", ".md", ".toml", ".html", ".txt", ".cfg") or path.name == "run"
    if path.is_file() and not {".git", ".venv", "build", "runs"} & set(path.relative_to(ROOT).parts)
]


def told(text):
    """What the text tells people to install that is not published; "./colbench_env[x]" is a folder."""
    return [found[0] for found in PUBLISHED_BY_NOBODY.finditer(text.replace("./colbench_env", ""))]


def test_no_text_names_a_package_of_ours_as_if_it_were_published():
    assert len(FILES) > 300
    found = {str(path.relative_to(ROOT)): told(path.read_text(encoding="utf-8")) for path in FILES}
    del found["tests/test_installing.py"]
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("pip install 'sweet-jax[frontend]'", 1),
        ("needs pip install colbench-env", 1),
        ("pip install -U sweet_jax", 1),
        ("| `colbench-env[gym]` |", 1),
        ("pip install -e '.[frontend]'", 0),
        ("pip install './colbench_env[frontend]' and pip install ./colbench_env", 0),
        ('pip install "colbench-env @ git+URL#subdirectory=colbench_env"', 0),
        ("the distribution `colbench-env`: pip install ./colbench_env", 0),
    ],
)
def test_the_search_finds_the_names_that_anybody_could_take(text, count):
    assert len(told(text)) == count
