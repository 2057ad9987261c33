"""docs/known-failures.md names tests that exist, docs/migration.md flags that exist; and tests without another home."""

import ast
import re
from pathlib import Path

from launch.common.flags import settings
from launch.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
ACCELERATOR = ("libtpu", "nvidia", "jax[", "cuda", "torch-xla")
ENGINES = ("vllm", "sglang", "torch", "tunix", "tpu-inference")


def requirements():
    (call,) = [
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"
    ]
    told = {keyword.arg: keyword.value for keyword in call.keywords}
    return ast.literal_eval(told["install_requires"])


def test_the_page_names_a_test_that_exists_for_each_of_fifteen_complaints():
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (ROOT / "docs" / "known-failures.md").read_text("utf-8"), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, 16))
    for number, cell in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cell)
        assert named, f"complaint {number} has no test"
        for path, name in named:
            defined = {
                node.name
                for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
                if isinstance(node, ast.FunctionDef)
            }
            assert name in defined, f"{path} has no {name}"


def test_every_flag_that_the_page_for_newcomers_gives_is_one_of_launch_train():
    page = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    cells = [cell for line in page.splitlines() if line.startswith("| ") for cell in line.split(" | ")[1:]]
    named = set(re.findall(r"--[a-z][a-z0-9.-]*", " ".join(cells)))
    known = {setting.flag for setting in settings(TrainConfig)}
    names = {flag.removeprefix("--critic.") for flag in known if flag.startswith("--critic.")}
    shared = {f"--training.{name}" for name in names if {f"--policy.{name}", f"--start.{name}"} <= known}
    assert len(named) > 30
    assert sorted(named - known - shared) == []


def test_nobody_is_made_to_install_accelerator_packages():
    assert len(requirements()) > 10
    assert [one for one in requirements() if one.lower().startswith(ACCELERATOR)] == []


def test_no_rollout_engine_and_no_torch_is_a_dependency():
    assert [one for one in requirements() if re.split(r"[<>=\[;]", one)[0].lower() in ENGINES] == []


def test_no_bot_closes_issues():
    files = [
        path for folder in (".github", ".ci", ".gitlab") for path in (ROOT / folder).glob("**/*") if path.is_file()
    ]
    assert not any("stale" in path.name or b"actions/stale" in path.read_bytes() for path in files)
