"""colbench_env without the rest of the project, and the examples of docs/colbench.md, word for word."""

import ast
import asyncio
import json
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import colbench_env
from colbench_env import mini
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import Trajectory

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "colbench.md"
PARTS = {
    path.stem for path in (ROOT / "colbench_env").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
}

COMPARE_PAGES = frozenset(
    {f"colbench_env.design.{name}" for name in ("matching", "similarity", "differences")}
    | {f"colbench_env.humans.{name}" for name in ("design", "vision")}
)
ADAPTERS = frozenset(
    {f"colbench_env.adapters.{name}" for name in ("inspect_tasks", "openenv", "skyrl", "tinker", "tunix", "verifiers")}
)

# Imports everything under colbench_env where nothing but the standard library and the named packages can be imported.
WALK = """
import importlib, importlib.abc, json, pkgutil, sys

allowed = {"colbench_env", *sys.argv[1].split(","), *sys.stdlib_module_names}

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] not in allowed and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{name} is walled off", name=name)

sys.meta_path.insert(0, Wall())
import colbench_env

names, failed = [], {}
for module in pkgutil.walk_packages(colbench_env.__path__, "colbench_env."):
    if not module.name.startswith("colbench_env.tfds"):
        names.append(module.name)
        try:
            importlib.import_module(module.name)
        except ImportError as problem:
            failed[module.name] = str(problem)
print(json.dumps([names, failed]))
"""


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_everything_but_statistics_gym_and_who_compares_pages_needs_the_standard_library_alone():
    names, failed = python("-c", WALK, "")
    assert {"colbench_env.grading.worker", "colbench_env.humans.chat", "colbench_env.mini.tasks"} <= set(names)
    assert (
        set(failed)
        <= {"colbench_env.gym", "colbench_env.statistics", "colbench_env.critic_truth"} | COMPARE_PAGES | ADAPTERS
    )
    assert failed["colbench_env.adapters.skyrl"] == "skyrl_gym is walled off"
    assert failed["colbench_env.gym"] == "gymnasium is walled off"


@pytest.mark.slow
@pytest.mark.parametrize("packages, missing", [("numpy", COMPARE_PAGES), ("numpy,scipy,PIL", frozenset())])
def test_statistics_need_numpy_and_who_compares_pages_scipy_and_pillow_too(packages, missing):
    names, failed = python("-c", WALK, packages)
    assert "colbench_env.statistics" in names and set(names) >= COMPARE_PAGES
    assert set(failed) == {"colbench_env.gym"} | missing | ADAPTERS


def test_the_package_alone_imports_none_of_its_parts():
    code = "import sys, json, colbench_env; print(json.dumps([m for m in sys.modules if m.startswith('colbench_env')]))"
    assert python("-c", code) == ["colbench_env"]


def test_a_name_brings_its_own_part_only():
    code = "import sys, json; from colbench_env import read_rows; print(json.dumps(sorted(sys.modules)))"
    assert not {"colbench_env.grading", "colbench_env.episodes", "subprocess"} & set(python("-c", code))


@pytest.mark.parametrize("name", colbench_env.__all__)
def test_a_public_name_exists_and_no_part_of_that_name_can_hide_it(name):
    assert getattr(colbench_env, name) is not None
    assert name not in PARTS


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'colbench_env' has no attribute 'Gradr'"):
        colbench_env.Gradr  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'plya'"):
        from colbench_env import plya  # noqa: F401


def test_the_table_of_the_package_names_parts_that_exist_and_those_of_the_public_names():
    named = set(re.findall(r"^    (\w+) ", colbench_env.__doc__, re.MULTILINE))
    assert named <= PARTS
    assert {module.split(".")[0] for module in colbench_env._NAMES} <= named


def test_the_distribution_of_its_own_needs_nothing_and_ships_what_the_whole_one_ships():
    alone = tomllib.loads((ROOT / "colbench_env" / "pyproject.toml").read_text(encoding="utf-8"))
    (call,) = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if _is_setup(node)]
    whole = {keyword.arg: keyword.value for keyword in call.keywords}
    assert alone["project"]["dependencies"] == []
    for key, name in (("version", "version"), ("requires-python", "python_requires"), ("license", "license")):
        assert alone["project"][key] == ast.literal_eval(whole[name])
    data = ast.literal_eval(whole["package_data"])
    ours = {package: files for package, files in data.items() if package.startswith("colbench_env")}
    patterns = [
        f"{package}/{name}".replace(".", "/", package.count(".")).removeprefix("colbench_env/")
        for package, files in ours.items()
        for name in files
    ]
    assert alone["tool"]["hatch"]["build"]["include"] == ["**/*.py", *patterns]
    assert ast.literal_eval(whole["entry_points"])["console_scripts"] == [
        f"{name}={place}" for name, place in alone["project"]["scripts"].items()
    ]
    extras = ast.literal_eval(whole["extras_require"])
    assert alone["project"]["optional-dependencies"]["gym"] == extras["gym"]
    assert alone["project"]["optional-dependencies"]["openai"] == extras["openai"]
    for extra in ("statistics", "tfds"):
        assert set(alone["project"]["optional-dependencies"][extra]) <= set(ast.literal_eval(whole["install_requires"]))


def _is_setup(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"


class Completions:
    """Stands for OpenAI's client: the agent is down for tasks about texts, the user simulator busy once."""

    def __init__(self):
        self.human_calls = 0

    def create(self, *, model, messages, temperature, seed=None):
        if model == "gpt-4o-mini":
            self.human_calls += 1
            if self.human_calls == 1:
                raise ConnectionError("busy")
            return self.reply("I do not mind.")
        assert [message["role"] for message in messages[:2]] == ["system", "user"] and seed is None
        if "text" in messages[1]["content"]:
            raise ConnectionError("down")
        return self.reply("Which rule?" if len(messages) < 4 else "I WANT TO ANSWER: def f(): return 1")

    @staticmethod
    def reply(text):
        message = types.SimpleNamespace(content=text)
        return types.SimpleNamespace(choices=[types.SimpleNamespace(message=message)])


@pytest.mark.slow
def test_the_examples_of_the_document_run_word_for_word(tmp_path, monkeypatch, capsys):
    client = types.SimpleNamespace(chat=types.SimpleNamespace(completions=Completions()))
    monkeypatch.setitem(sys.modules, "openai", types.SimpleNamespace(OpenAI=lambda timeout: client))
    pause = asyncio.sleep
    monkeypatch.setattr("colbench_env.episodes.asyncio.sleep", lambda seconds: pause(0))
    monkeypatch.chdir(tmp_path)
    write_rows("backend_test.jsonl", mini.make_tasks("test", count=6, seed=1))
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shown, names = [], {}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)
        shown.append(capsys.readouterr().out)
    assert len(blocks) == 4
    assert re.search(r"^sandbox: .*\ntests passed: \d+\.\d%, solved: [1-9]\d* of 20\n$", shown[0])
    failed = int(shown[1].split()[0])
    rows = read_rows("gpt-4o.graded.jsonl", Trajectory)
    assert 0 < failed < 12 and len(rows) == 12 - failed
    assert {row.extra["agent"] for row in rows} == {"gpt-4o"} and all(row.reward is not None for row in rows)
    assert shown[2] == "0.0 False x = 1\n"
    assert shown[3] == ""
