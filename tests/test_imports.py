"""Imports go down only: launch -> sweet_jax -> models and colbench_env, and so do those among the rooms of each."""

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
    "sweet_jax": {
        "sweet_jax",
        "models",
        *(
            f"colbench_env.{name}"
            for name in (
                "types dialogue episodes rollouts humans prompts tasks terminal_text thoughts replace_file grading "
                "mini import_function"
            ).split()
        ),
    },
    "models": {"models"},
    "colbench_env": {"colbench_env"},
}
OURS = {*ALLOWED, "tests", "benchmarks"}
FLOORS = {  # of a package, from the top: what stands on one imports only what stands below
    "launch": (
        ("train", "rollout", "evaluate", "rank", "convert", "serve", "show", "plan", "data"),
        ("ranking",),
        ("training", "rollouts", "evaluation", "data_tools", "serving", "viewer", "planning", "export"),
        ("common",),
        ("reporting",),
    ),
    "sweet_jax": (("sweet",), ("rollout",), ("generation",)),
}
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


@pytest.mark.slow
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


def arrows() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, wherever in the file."""
    files = {path for top in ALLOWED for path in (ROOT / top).rglob("*.py")}
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    found = {}
    for module, path in modules.items():
        package = ".".join(path.relative_to(ROOT).parent.parts)
        names = imported_names(path.read_text(encoding="utf-8"), package)
        nearest = {name if name in modules else name.rpartition(".")[0] for name in names}
        found[module] = (nearest & modules.keys()) - {module}
    return found


@pytest.mark.slow
def test_no_files_import_one_another_in_a_circle():
    left = arrows()
    while ends := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in ends}
    assert sorted(left) == []  # what is in a circle, or imports it


@pytest.mark.slow
@pytest.mark.parametrize("top", FLOORS)
def test_rooms_import_only_what_stands_below_them(top):
    floors = {f"{top}.{name}": number for number, names in enumerate(FLOORS[top]) for name in names}

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    upward = [
        (module, name)
        for module, imported in arrows().items()
        for name in sorted(imported)
        if room(module) != room(name)
        and room(name) in floors
        and floors.get(room(module), len(FLOORS[top]) if module.startswith(f"{top}.") else -1) >= floors[room(name)]
    ]
    assert upward == []


def test_launch_has_no_loose_files():
    loose = {path.stem for path in (ROOT / "launch").glob("*.py")}
    assert loose == {"__init__", *FLOORS["launch"][0]}


@pytest.mark.parametrize(
    ("package", "source", "forbidden"),
    [
        ("models", "import sweet_jax.losses", ["sweet_jax.losses"]),
        ("models", "def f():\n    from colbench_env.types import BadInput", ["colbench_env.types.BadInput"]),
        ("sweet_jax", "from colbench_env.types import BadInput", []),
        ("sweet_jax", "from colbench_env import types, design", ["colbench_env.design"]),
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


@pytest.mark.slow
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
