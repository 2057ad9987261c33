"""What the guides name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = (
    "README.md",
    "AGENTS.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
)


@pytest.mark.parametrize("guide", GUIDES)
def test_files_of_ours_that_a_guide_names_are_there(guide):
    text = (ROOT / guide).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:launch|sweet_jax|models|colbench_env|tests|benchmarks)/[\w/]+\.py", text))
    assert {name for name in named if not (ROOT / name).exists()} == set()
    links = {target for target in re.findall(r"\]\(([^)#:]+)\)", text) if not target.startswith("http")}
    assert {link for link in links if not (ROOT / guide).parent.joinpath(link).exists()} == set()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_the_readme_says_how_far_it_is_from_the_command_to_the_loss():
    listed = re.findall(r"^\| `([\w/]+\.py)` \| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    lines = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name, _ in listed}
    assert listed[0][0] == "launch/train.py" and listed[-1][0] == "sweet_jax/losses.py"
    assert len(lines) <= 6 and sum(lines.values()) <= 900
    assert {name: said for name, said in listed if abs(int(said) - lines[name]) > 25} == {}
