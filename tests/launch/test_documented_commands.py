"""Every command of README and docs is taken as it stands there, but for its placeholders.

Training, rollouts, ranking, serving, plans and browsers end where their heavy work begins (`fuzz_command_lines`); what
reads, grades, shows or converts runs to its end.
"""

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import released
from released import SMALL

from colbench_env import __main__ as colbench
from colbench_env.design.mini import make_page_tasks
from colbench_env.mini import make_tasks
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import Message, Trajectory
from launch import convert, train
from sweet_jax.data.chat import Chat
from tests.colbench_env.endpoints import Served, completion
from tests.launch.evaluate_rows import three_tasks
from tests.launch.fuzz_command_lines import BORDERS, ended, without_work
from tests.random_clip import save_clip

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUN_WHOLE = {
    "colbench_env.grading.Grader",
    "launch.export.convert_checkpoint.load_llama",
    "launch.export.convert_checkpoint.open_llama",
}


def documented(page: Path) -> Iterator[tuple[str, ...]]:
    """The commands in a page's code blocks as a shell splits them: `launch.NAME` or `colbench`, and the arguments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for fenced, indented in re.findall(r"^```\w*\n(.*?)^```|((?:^    .*\n)+)", text, re.M | re.S):
        for line in (fenced or indented).splitlines():
            if "-m launch." in line or line.startswith("colbench "):
                words = shlex.split(line, comments=True)
                inner = [word for word in words if "-m launch." in word]  # what another command is given, in quotes
                words = shlex.split(inner[0]) if inner else words
                module = next((at for at, word in enumerate(words) if word.startswith("launch.")), 0)
                yield tuple(word for word in words[module:] if word != "&")


PAGES = (ROOT / "README.md", ROOT / "colbench_env" / "README.md", *(ROOT / "docs").glob("*.md"))
COMMANDS = sorted({command for page in PAGES for command in documented(page)})


def filled(word: str, url: str) -> str:
    """An argument with its placeholder filled, for eight devices."""
    word = re.sub(r"^(--(?:human|agent)-url)=.*", rf"\1={url}", word)
    return word.replace("=/shared/", "=").replace("$i", "0").replace("=8x4", "=4x2").replace("=8x2", "=4x2")


def write_backend(folder: Path) -> None:
    """Tasks and dialogues about functions, under the names that the pages use."""
    rows = read_rows(three_tasks(folder / "old.jsonl"), Trajectory)
    for name in ("tasks", "test", "backend_test", "train", "backend_train"):
        made = make_tasks("train" if "train" in name else "test", 6, 0)
        write_rows(folder / f"{name}.jsonl", [*made, *(row.task for row in rows[:3])])
    right = [dataclasses.replace(row, answer=row.task.ground_truth) for row in rows[:3]]
    for name in ("rows", "new"):
        write_rows(folder / f"{name}.jsonl", [*right, *rows])  # three samples of three tasks
    write_rows(folder / "graded.jsonl", [dataclasses.replace(row, reward=0.5) for row in rows])
    agent = re.search(r"^(WISHES = .*?)^rows = ", (ROOT / "docs/colbench.md").read_text(), re.M | re.S)
    assert agent
    (folder / "agent.py").write_text(agent[1])


def write_frontend(folder: Path) -> None:
    """The same about pages."""
    tasks = make_page_tasks("test", 3, 0)
    for name in ("frontend_test", "train", "test"):
        write_rows(folder / f"{name}.jsonl", make_page_tasks("train" if name == "train" else "test", 3, 0))
    history = [(Message("user", task.problem_description), Message("assistant", task.ground_truth)) for task in tasks]
    for name in ("rows", "ours", "gpt-4o"):
        write_rows(
            folder / f"{name}.jsonl",
            [Trajectory(task, said, task.ground_truth) for task, said in zip(tasks, history, strict=True)],
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model, in_process) -> Path:
    """A folder that has the models, runs and files which the pages speak of."""
    folder = tmp_path_factory.mktemp("documented")
    for name in ("DIR", "llama"):
        shutil.copytree(tiny_model, folder / name)
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16_384}))
    for name in ("CLIPDIR", "clip-vit-base-patch32"):
        save_clip(folder / name)
    shutil.copytree(ROOT / "examples" / "plugins", folder / "examples" / "plugins")
    rows = released.trajectories(Chat.load(tiny_model))
    pairs = released.write(folder / "pairs.jsonl", released.critic_pairs(rows))
    candidates = released.write(folder / "candidates.jsonl", released.candidates(rows))
    released.write(folder / "colbench_code_offline_15k_llama8b.jsonl", rows)
    for run, flags in (
        ("default", (f"--candidates={candidates}",)),
        ("lora", ("--algorithm=mtdpo", "--lora.rank=2")),
    ):
        run_dir = f"--run-dir={folder / 'runs' / run}"
        made = in_process(train.main, f"--model={folder / 'DIR'}", run_dir, *SMALL, f"--pairs={pairs}", *flags)
        assert made.status == 0, made.stderr
    shutil.copytree(folder / "runs" / "default", folder / "runs" / "real")
    made = in_process(convert.main, f"--from={folder / 'runs/real/critic'}", f"--to={folder / 'CRITIC_DIR'}")
    assert made.status == 0, made.stderr
    return folder


@pytest.fixture
def endpoint(folder, tmp_path, monkeypatch) -> Iterator[str]:
    """The URL of an endpoint that answers; the working directory is a copy of the folder."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")
    served = Served(lambda body: completion())
    yield served.url
    served.close()


def test_the_pages_name_every_command():
    modules = ("train", "rollout", "evaluate", "rank", "convert", "serve", "show", "plan", "data")
    assert {command[0] for command in COMMANDS} == {"colbench", *(f"launch.{name}" for name in modules)}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_documented_command_is_taken_as_it_stands(command, endpoint, tmp_path):
    name, *arguments = (filled(word, endpoint) for word in command)
    pages = {"--benchmark=frontend", "--preset=paper-frontend", "--pictures"} & set(arguments)
    (write_frontend if pages else write_backend)(tmp_path)
    for word in arguments:  # its output is to be made anew, and so is a run that is not read
        flag, _, value = word.partition("=")
        if flag in ("--output", "--run-dir") and Path(value).exists() and name != "launch.show":
            shutil.rmtree(value) if Path(value).is_dir() else Path(value).unlink()
    if name == "launch.train" and not any(word.startswith("--run-dir=") for word in arguments):
        shutil.rmtree("runs")
    if name == "colbench":
        assert colbench.main(arguments) == 0
        return
    with without_work(tmp_path, set(BORDERS) - RUN_WHOLE):
        found = ended(name.removeprefix("launch."), arguments)
    assert (found.status, "Traceback" in found.said) == (0, False), found.said
