"""Adapters against the installed packages that they are for: the same 50 dialogues, replies and rewards.

Each package gets an environment of its own, made with `pip install './colbench_env[NAME]'`, as a user would; two of
them would bring torch or another jax, so that they are put over this environment without what they ask for.
"""

import functools
import importlib
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from colbench_env.source import Source
from colbench_env.types import BadInput
from launch.training.config import Critic, TrainConfig, settings_of
from sweet_jax.train.settings import Training
from tests.colbench_env.chromium import chromium_or_skip

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
    "trl": ("trl>=1.16", "accelerate", "datasets", "dill", "multiprocess", "xxhash", "pyarrow", "pandas"),
}  # fmt: skip
SOME = {"verifiers": 3}
"""Dialogues said in the suite where each turn starts a process of its own; all 50 were by hand."""


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """Return (name of an adapter) -> the interpreter of an environment with its package."""
    uv = [sys.executable, "-m", "uv"]

    @functools.cache
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


def replay(interpreter, name, *others, count=ALL, script=REPLAY):
    done = subprocess.run(
        [interpreter, script, name, f"--count={count}", *others],
        cwd=REPLAY.parent, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')], done.stderr


def assert_same(found, count=ALL):
    expected = [{"replies": row["replies"], "reward": row["reward"]} for row in DIALOGUES[:count]]
    assert found == expected


@pytest.mark.slow
def test_without_a_package_the_dialogues_are_the_recorded_ones():
    assert_same(replay(sys.executable, "core")[0])


@pytest.mark.slow
def test_the_trainer_of_trl_plays_the_dialogues_by_its_tools_and_takes_a_step(python, tmp_path):
    pytest.importorskip("torch")
    found, errors = replay(python("trl"), str(tmp_path), script=REPLAY.with_name("trl_training.py"), count=10)
    assert_same(found, 10)
    mean = sum(row["reward"] for row in DIALOGUES[:10]) / 10
    assert json.loads(errors.splitlines()[-1])["rewards/Recorded/mean"] == pytest.approx(mean)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXTRAS, "inspect_model", *OVER])
def test_an_adapter_has_the_recorded_replies_and_rewards(name, python, tmp_path):
    count = SOME.get(name, ALL)
    found, errors = replay(python(name.removesuffix("_model")), name, f"--logs={tmp_path}", count=count)
    assert_same(found, count)
    if name == "inspect":
        assert '"tests_passed": ["ci_lower", "ci_upper", "mean", "stderr"]' in errors
        assert list(tmp_path.glob("*.eval")), "Inspect's viewer has nothing to show"


CREDITED = """
import json, sys
sys.path += sys.argv[1:3]  # jax and what else the critic needs, after OpenEnv's own packages
from colbench_env.adapters.openenv import ColBenchAction, ColBenchEnvironment
from colbench_env.source import Source
from launch.ranking.credit import load_credit

environment = ColBenchEnvironment(Source(), load_credit(sys.argv[3]))
environment.reset(split="test", index=0, seed=0)
first = environment.step(ColBenchAction(text="What about digits?"))
last = environment.step(ColBenchAction(text="I WANT TO ANSWER:\\ndef f(x): pass"))
print(json.dumps([first.turn_credits, last.turn_credits, last.reward, load_credit(sys.argv[3])(environment.graded)]))
"""


@pytest.mark.slow
def test_openenv_hands_out_what_a_critic_of_launch_train_says(python, tmp_path):
    critic = Critic(parameterisation="pmi", training=Training(max_length=512))  # which needs no training
    (tmp_path / "critic").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(settings_of(TrainConfig(critic=critic))))
    done = subprocess.run(
        [python("openenv"), "-c", CREDITED, sysconfig.get_path("purelib"), ROOT, tmp_path],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, last, reward, expected = json.loads(done.stdout.splitlines()[-1])
    assert first is None and last == expected and len(last) == 2 and last != [0.0, reward]


PAGES = """
import json
from colbench_env.adapters import Session
from colbench_env.source import Source

session = Session(Source(benchmark="frontend", count=2))
session.begin("test", 0)
said = session.step("<html><body><h1>Hello</h1></body></html>")
session.step("I WANT TO ANSWER:\\n" + session.source.task("test", 0).ground_truth)
print(json.dumps([said, session.reward]))
"""


@pytest.mark.slow
def test_a_page_is_looked_at_and_graded_in_a_session_of_the_frontend():
    chromium_or_skip()
    done = subprocess.run(
        [sys.executable, "-c", PAGES], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said, reward = json.loads(done.stdout.splitlines()[-1])
    assert said.startswith("Not quite yet.") and reward == 1.0


@pytest.mark.slow
def test_sessions_of_the_openenv_server_do_not_mix_and_bad_messages_leave_it_alive(python):
    command = [python("openenv"), ROOT / "benchmarks" / "openenv_sessions.py", "--sessions=8", "--episodes=50"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["as_recorded"], found["others"]) == (50, 0)
    bad = found["bad_input"]
    assert bad.pop("no JSON") == "INVALID_JSON" and bad.pop("unknown type") == "UNKNOWN_TYPE"
    assert {bad.pop(name) for name in ("wrong shape", "wrong kind", "10 MB")} == {"VALIDATION_ERROR"}
    assert {bad.pop(name) for name in ("after all that", "clients that vanish")} == {"alive"}
    assert set(bad.values()) == {"EXECUTION_ERROR"}


CHECKS = """
import json, sys
from dataclasses import replace
from pathlib import Path
from openenv.validation import Level
from openenv.validation.graders import GraderRegistry, Subject
from openenv.validation.parsers.openenv_yaml import OpenEnvYamlParser
from openenv.validation.runtime.scheduler import execute_graders

root, manifest = Path(sys.argv[1]), OpenEnvYamlParser().parse(Path(sys.argv[1]))
registry = GraderRegistry()
registry.load_entry_points()
graders = [one for one in registry.select(manifest, Level.SEMANTIC) if one.check_id != "semantic.canary_floor"]
strict = manifest.model_copy(update={"reward": manifest.reward.model_copy(update={"floor_margin": 0.999})})
small = manifest.model_copy(update={"resources": manifest.resources.model_copy(update={"memory_mb": 1})})
for told in (manifest, strict, small):
    two = [one for one in graders if one.check_id in ("semantic.floor_gap", "semantic.resource_envelope")]
    wanted = graders if told is manifest else two
    results = execute_graders(wanted, Subject(root, told, None, None, root))
    print(json.dumps({one.check_id.partition(".")[2]: one.status.value for one in results}))
"""


@pytest.mark.slow
def test_the_graders_of_openenv_pass_the_package_and_fail_what_it_does_not_keep(python):
    done = subprocess.run(
        [python("openenv"), "-c", CHECKS, ROOT / "colbench_env"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    passing, strict, small = map(json.loads, done.stdout.splitlines())
    assert set(passing) == {
        "oracle_max", "floor_gap", "no_solution_leakage", "verifier_determinism", "verifier_portability",
        "resource_envelope", "replayability",
    }  # fmt: skip
    assert set(passing.values()) == {"pass"}, passing
    assert strict == {"floor_gap": "fail", "resource_envelope": "pass"}
    assert small == {"floor_gap": "pass", "resource_envelope": "fail"}


def test_the_canaries_of_the_package_are_the_attacks_of_the_tests(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "colbench_env")
    texts = [importlib.import_module(name).ATTACKS for name in ("test_grader_attacks", "test_grader_attacks_kernel")]
    canaries = (ROOT / "colbench_env" / "adapters" / "openenv" / "canaries.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in canaries.splitlines()]
    assert {row["id"]: row["answer"] for row in rows} == texts[0] | texts[1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"tasks": "nowhere.jsonl"},
            "tasks are 'nowhere.jsonl', expected mini, scenes, or a file or folder that exists",
        ),
        ({"tasks": None}, "tasks is None, expected a text"),
        ({"count": "many"}, "count is 'many', expected a whole number"),
        ({"colour": "red"}, "unknown: colour; expected some of benchmark, tasks"),
        ({"human": "somebody"}, "human is 'somebody', expected scripted, rules, openai or FILE.py:NAME"),
        ({"human": "rules", "benchmark": "frontend"}, "the frontend has scripted and openai"),
    ],
)
def test_a_source_that_cannot_be_is_one_sentence(values, sentence):
    with pytest.raises(BadInput) as refused:
        Source.from_values(values)
    assert sentence in str(refused.value)


def test_turns_are_those_of_the_benchmark():
    frontend = Source(benchmark="frontend").settings
    assert [Source().settings.max_turns, Source(tasks="scenes").settings.max_turns, frontend.max_turns] == [8, 6, 4]
    assert frontend.rules.name == "frontend" and Source(max_turns=3).settings.max_turns == 3


def test_every_adapter_is_short():
    files = [path for path in (ROOT / "colbench_env" / "adapters").glob("*.py") if path.name != "__init__.py"]
    files.append(ROOT / "colbench_env" / "adapters" / "openenv" / "environment.py")
    assert {path.name: count for path in files if (count := len(path.read_text().splitlines())) > 150} == {}


def test_the_rows_of_trl_hold_no_reference_and_its_tools_have_schemas():
    from transformers.utils import get_json_schema

    from colbench_env.adapters.trl import ColBench, rows

    source = Source(count=3)
    assert [row["index"] for row in rows(source, "test")] == [0, 1, 2]
    secrets = [line for task in source.tasks_of("test") for line in task.ground_truth.splitlines()[1:]]
    assert not any(secret in json.dumps(rows(source, "test")) for secret in secrets)
    environment = ColBench(source)
    tools = [get_json_schema(tool)["function"] for tool in (environment.ask_user, environment.submit)]
    assert [tool["name"] for tool in tools] == ["ask_user", "submit"]
    assert [list(tool["parameters"]["properties"]) for tool in tools] == [["question"], ["answer"]]
