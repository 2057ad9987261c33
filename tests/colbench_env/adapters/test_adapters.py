"""Every adapter against the installed package that it is for: the same 50 dialogues, replies and rewards.

Each package gets an environment of its own, made with `pip install './colbench_env[NAME]'`, as a user would; two of
them would bring torch or another jax, so that they are put over this environment without what they ask for.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
REPLAY = Path(__file__).with_name("replay.py")
DIALOGUES = [json.loads(line) for line in REPLAY.with_name("dialogues.jsonl").read_text("utf-8").splitlines()]
ALL = len(DIALOGUES)
EXTRAS = {"openenv": "openenv", "verifiers": "verifiers", "inspect": "inspect", "skyrl": "skyrl"}
OVER = {
    "tinker": (
        "tinker-cookbook>=0.6", "tinker", "httpx<1", "httpcore", "distro", "anyio", "sniffio", "h11", "chz", "orjson",
        "blobfile", "pycryptodomex", "lxml", "termcolor", "cloudpickle", "tiktoken", "regex", "tml-renderers", "pyrage",
    ),
    "tunix": ("google-tunix>=0.1.7", "google-metrax", "clu", "perfetto", "qwix", "datasets", "dill", "multiprocess",
              "xxhash", "pyarrow", "pandas", "kagglehub"),
}  # fmt: skip
SOME = {"verifiers": 3}
"""Dialogues said in the suite where each turn starts a process of its own; by hand all are."""


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """Return (name of an adapter) -> the interpreter of an environment with its package."""
    uv = [sys.executable, "-m", "uv"]

    def make(name):
        folder = tmp_path_factory.mktemp("environments") / name
        subprocess.run([*uv, "venv", "-q", f"--python={sys.executable}", folder], check=True)
        interpreter = folder / "bin" / "python"
        install = [*uv, "pip", "install", "-q", f"--python={interpreter}"]
        if name in EXTRAS:
            wanted = [f"{ROOT / 'colbench_env'}[{EXTRAS[name]}]"]
        else:
            own = Path(sysconfig.get_path("purelib"))
            below = folder / "lib" / own.parent.name / "site-packages" / "below.pth"
            below.write_text(f"{own}\n{ROOT}\n")
            wanted = ["--no-deps", *OVER[name]]
        done = subprocess.run([*install, *wanted], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return interpreter

    return make


def replay(interpreter, name, *others, count=ALL):
    done = subprocess.run(
        [interpreter, REPLAY, name, f"--count={count}", *others],
        cwd=REPLAY.parent, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def assert_same(found, count=ALL):
    expected = [{"replies": row["replies"], "reward": row["reward"]} for row in DIALOGUES[:count]]
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["core", "trl"])
def test_without_a_package_the_dialogues_are_the_recorded_ones(name):
    assert_same(replay(sys.executable, name)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXTRAS, *OVER])
def test_an_adapter_has_the_recorded_replies_and_rewards(name, python, tmp_path):
    count = SOME.get(name, ALL)
    found, errors = replay(python(name), name, f"--logs={tmp_path}", count=count)
    assert_same(found, count)
    if name == "inspect":
        assert '"tests_passed": ["ci_lower", "ci_upper", "mean", "stderr"]' in errors
        assert list(tmp_path.glob("*.eval")), "Inspect's viewer has nothing to show"


def test_every_adapter_is_short():
    files = [path for path in (ROOT / "colbench_env" / "adapters").glob("*.py") if path.name != "__init__.py"]
    files.append(ROOT / "colbench_env" / "adapters" / "openenv" / "environment.py")
    assert {path.name: count for path in files if (count := len(path.read_text().splitlines())) > 150} == {}


def test_the_rows_of_trl_hold_no_reference_and_its_tools_have_schemas():
    from transformers.utils import get_json_schema

    from colbench_env.adapters.trl import ColBench, rows
    from colbench_env.source import Source

    source = Source(count=3)
    assert [row["index"] for row in rows(source, "test")] == [0, 1, 2]
    secrets = [line for task in source.tasks_of("test") for line in task.ground_truth.splitlines()[1:]]
    assert not any(secret in json.dumps(rows(source, "test")) for secret in secrets)
    environment = ColBench(source)
    tools = [get_json_schema(tool)["function"] for tool in (environment.ask_user, environment.submit)]
    assert [tool["name"] for tool in tools] == ["ask_user", "submit"]
    assert [list(tool["parameters"]["properties"]) for tool in tools] == [["question"], ["answer"]]
