"""Imports go down only: launch -> sweet_jax -> models, launch -> colbench_env."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each package may import of ours. A name allows everything below it.
ALLOWED = {
    "launch": {"launch", "sweet_jax", "models", "colbench_env"},
    "sweet_jax": {"sweet_jax", "models", "colbench_env.types"},
    "models": {"models"},
    "colbench_env": {"colbench_env"},
}
OURS = {*ALLOWED, "tests", "benchmarks"}
NEVER = {"colbench_env": {"jax", "jaxlib", "flax", "torch"}}


def imported_names(source: str, package: str) -> Iterator[str]:
    """Full names of all that a module of `package` (dotted) imports, wherever in the file the statement stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def forbidden_imports(source: str, package: str) -> list[str]:
    """The imports of a module of `package` that the rules do not allow."""
    top = package.split(".")[0]
    return [
        name
        for name in imported_names(source, package)
        if name.split(".")[0] in NEVER.get(top, ())
        or (name.split(".")[0] in OURS and not any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED[top]))
    ]


@pytest.mark.parametrize("top", ALLOWED)
def test_every_file_imports_only_what_its_package_may(top):
    files = sorted((ROOT / top).rglob("*.py"))
    assert files, f"{top} has no files: the walk looks in the wrong place"
    found = {}
    for file in files:
        package = ".".join(file.relative_to(ROOT).parent.parts)
        if names := forbidden_imports(file.read_text(encoding="utf-8"), package):
            found[str(file.relative_to(ROOT))] = names
    assert found == {}


@pytest.mark.parametrize(
    ("package", "source", "forbidden"),
    [
        ("models", "import sweet_jax.losses", ["sweet_jax.losses"]),
        ("models", "def f():\n    from colbench_env.types import BadInput", ["colbench_env.types.BadInput"]),
        ("sweet_jax", "from colbench_env.types import BadInput", []),
        ("sweet_jax", "from colbench_env import types, tasks", ["colbench_env.tasks"]),
        ("sweet_jax", "from colbench_env.types_more import x", ["colbench_env.types_more.x"]),
        ("sweet_jax", "import launch", ["launch"]),
        ("colbench_env", "import jax.numpy as jnp\nimport json", ["jax.numpy"]),
        ("colbench_env.humans", "from ..types import Task\nfrom . import scripted", []),
        ("colbench_env.humans", "from ...models import llama", ["models.llama"]),
        ("launch", "import sweet_jax, models.llama, colbench_env.tasks, tests", ["tests"]),
    ],
)
def test_the_walk_sees_a_forbidden_import(package, source, forbidden):
    assert forbidden_imports(source, package) == forbidden


@pytest.mark.parametrize(
    "module",
    [
        "colbench_env",
        "colbench_env.tasks",
        "colbench_env.row_file",
        "colbench_env.samples",
        "colbench_env.flags",
        "colbench_env.tfds",
        "colbench_env.dialogue",
        "colbench_env.humans.scripted",
    ],
)
def test_importing_the_benchmark_leaves_jax_out(module):
    code = f"import sys, {module}; print(sorted({{'jax', 'jaxlib', 'flax', 'torch'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_every_folder_with_modules_is_a_package_that_an_install_takes_along(package):
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert folders
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
