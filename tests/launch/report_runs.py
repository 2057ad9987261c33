"""Runs with made-up dialogues, of which reports are made; no model is loaded."""

import io
import json

from colbench_env.tasks import write_rows
from colbench_env.types import Message, Task, Trajectory
from launch.common.benchmarks import Backend
from launch.common.console import Console
from launch.common.files import write_json
from launch.common.run_dir import RunDir
from launch.training.config import TrainConfig
from launch.training.run import Run
from models.config import LlamaConfig
from sweet_jax.mesh import DeviceReport, MeshShape

NETWORK = LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=16, num_layers=1, num_heads=2, num_kv_heads=1, head_size=4,
    max_position_embeddings=64, tie_word_embeddings=True,
)  # fmt: skip
EVIL = '<script>alert(1)</script> & "quoted"'
NUM_TASKS = 20


def trajectory(number, questions, passed, tokens, reward=None):
    tests = {f"test{i}": f"f({i}) <b>" for i in range(1, 11)}
    task = Task(f"Task {number}: {EVIL}", "def f(x):\n    return x < 3", tests)
    history = [Message("user", task.problem_description)]
    for question in range(questions):
        history += [Message("assistant", f"Which {question}?", extra={"tokens": tokens}), Message("user", EVIL)]
    history.append(Message("assistant", "I WANT TO ANSWER:\ndef f(x): ...", extra={"tokens": tokens}))
    verdicts = {f"test{i}": "pass" if i <= passed else "wrong" for i in range(1, 11)}
    reward = passed / 10 if reward is None else reward
    return Trajectory(task, tuple(history), "def f(x): ...", reward, {"verdicts": verdicts})


def metrics_rows(names, steps=250):
    return [{"stage": "s", "step": s, "total": steps} | {name: 1 / s for name in names} for s in range(1, steps + 1)]


def write_metrics(folder, rows):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(folder, **changes):
    folder.mkdir(parents=True)
    config = TrainConfig(run_dir=folder, model="scratch", **changes)
    directory = RunDir(folder)
    write_json(folder / "start" / "model" / "config.json", NETWORK.to_hf())
    write_metrics(folder / "start", metrics_rows(["loss", "nll", "grad_norm"]))
    for stage in ("critic", "policy"):
        write_metrics(folder / stage, metrics_rows(["loss", "rewards/accuracies", "rewards/margins", "nll"]))
    (folder / "evaluation").mkdir()
    numbers = range(1, NUM_TASKS + 1)
    start = [trajectory(n, questions=0, passed=10 if n <= 5 else 5, tokens=20) for n in numbers]
    trained = [trajectory(n, questions=2, passed=10 if 2 <= n <= 17 else 0, tokens=10) for n in numbers]
    write_rows(folder / "evaluation" / "start.jsonl", start)
    if config.algorithm != "zero-shot":
        write_rows(folder / "evaluation" / "trained.jsonl", trained)
    directory.finish("start", {"dialogues": 400, "complete": 0.4275, "seconds": 83.5})
    directory.finish("critic", {"pairs": 120, "steps": 250, "seconds": 10.0})
    directory.finish("evaluation", {"start": {"success": float("nan")}, "seconds": 6.5})
    (folder / "log.txt").write_text("hello\nwarning: stage critic: an old one\nwarning: stage critic: an old one\n")
    console = Console(io.StringIO())
    console.warn("stage policy: a new <one>")
    return Run(config, directory, console, DeviceReport("cpu", "cpu", 1, 1, False), MeshShape(), Backend())


def printed(run):
    return run.console._stream.getvalue()


def read_json(run):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((run.directory.path / "report.json").read_text(), parse_constant=refuse)
