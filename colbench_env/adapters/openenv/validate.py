"""Validate the package with OpenEnv's own checks and ours, and print the figures of its statistical checks.

    python -m colbench_env.adapters.openenv.validate DIR [--process] [--attacks=FILE] [--json]

DIR holds openenv.yaml. OpenEnv 0.10 declares an entry point for graders and a level SEMANTIC, but its command loads and
runs neither; this one does. Its runtime checks need Docker; with --process the server is a process on this machine in
place of a container, and no image is built. --attacks: JSON Lines with `id` and `answer`, graded beside the canaries.
Exit status 0, 1 where a check fails, 2 where DIR is no package.
"""

import argparse
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from openenv.validation import Level, SignatureError, UnsupportedPackageError, run_validation
from openenv.validation.graders import GraderRegistry, Subject
from openenv.validation.manifest import ExecutionDeclaration
from openenv.validation.providers import StartupError
from openenv.validation.runtime.contracts import LaunchSpec
from openenv.validation.runtime.scheduler import execute_graders
from openenv.validation.types import ProviderCapability

from colbench_env.adapters.openenv.graders import TASKS, attack_rewards, floors, play
from colbench_env.adapters.openenv.oracle import oracle_turns
from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.source import Source

STARTUP_SECONDS = 60.0


class ServerProcess:
    """A validation provider that starts the server as a process here: nothing is built and no network is denied."""

    name = "process"
    capabilities = frozenset({ProviderCapability.IMAGE_BUILD})
    supported_network_modes = frozenset({"public"})

    def build(self, root: Path, execution: ExecutionDeclaration) -> str:
        """Return a hash of the Dockerfile in place of an image's."""
        return "sha256:" + hashlib.sha256((root / execution.dockerfile).read_bytes()).hexdigest()

    def start(self, spec: LaunchSpec) -> "RunningProcess":
        """Start the server and wait until it is healthy. Raises StartupError."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "colbench_env.adapters.openenv.server:app", f"--port={port}"]
        environment = os.environ | spec.env_vars
        running = RunningProcess(
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
            f"http://127.0.0.1:{port}",
        )
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and running.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{running.base_url}/health", timeout=5):
                    return running
            except OSError:
                time.sleep(0.1)
        running.stop()
        raise StartupError("the server process did not become healthy")


class RunningProcess:
    """The server while it is validated."""

    def __init__(self, process: subprocess.Popen[bytes], base_url: str):
        self.process, self.base_url = process, base_url

    def inspect(self) -> dict[str, Any]:
        """Say what runs."""
        return {"kind": "process", "pid": self.process.pid}

    def logs(self, max_bytes: int = 65536) -> str:
        """Return nothing: none are kept."""
        return ""

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(timeout=30)


def main(arguments: Sequence[str] | None = None) -> int:
    """Validate, print a line for each check and each figure, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--process", action="store_true", help="no container: the server is a process here")
    parser.add_argument("--attacks", type=Path, help="JSON Lines of further attacks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    told = parser.parse_args(arguments)
    try:
        report = run_validation(told.package, provider=ServerProcess() if told.process else None)
    except (SignatureError, UnsupportedPackageError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    results = [result for result in report.results if not result.check_id.startswith("semantic.")]
    if report.manifest is not None:
        subject = Subject(told.package, report.manifest, None, None, told.package / "outputs")
        registry = GraderRegistry()
        registry.load_entry_points()
        results += execute_graders(registry.select(report.manifest, Level.SEMANTIC), subject)
    figures = statistics(Source.from_environment(), told.package, told.attacks)
    rows = [json.loads(result.model_dump_json()) for result in results]
    if told.json:
        print(json.dumps({"checks": rows, "statistical": figures}))
    else:
        for row in rows:
            found = f"{'; '.join(row['evidence'][:3])} {row['measured'] or ''}"
            print(f"{row['status'].upper():5s} {row['check_id']}: {found}")
        for name, figure in figures.items():
            print(f"      statistical.{name}: {figure}")
    return int(any(row["status"] in ("fail", "error") for row in rows))


def statistics(source: Source, package: Path, attacks: Path | None = None) -> dict[str, float | int]:
    """Measure the seven figures of the level STATISTICAL on the first tasks of the last split.

    reward_reachability: share of tasks whose reference is worth 1. difficulty_separation: oracle's mean reward less
    that of an agent that answers without asking. headroom: 1 less that agent's. variance_bound: largest variance of a
    task's reward over repeated episodes with the same turns. training_signal: share of tasks on which agents that know
    a random part succeed sometimes and not always. adversarial_floor: the best attack's reward. gameability_gap: that
    less the best answer's without knowledge, at least 0.
    """
    tasks = source.tasks_of(source.splits[-1])[:TASKS]
    oracle = [play(source, index, oracle_turns(task))[1] or 0.0 for index, task in enumerate(tasks)]
    again = [play(source, index, oracle_turns(task))[1] or 0.0 for index, task in enumerate(tasks)]
    by_floor = floors(source)
    guesses = _guesses(source)
    rewards = attack_rewards(package / "adapters" / "openenv" / "canaries.jsonl")
    if attacks is not None:
        rewards |= attack_rewards(attacks)
    best = max(1.0 if reward is None else reward for reward in rewards.values())
    blind = max(by_floor.values())
    return {
        "reward_reachability": sum(reward == 1.0 for reward in oracle) / len(tasks),
        "difficulty_separation": sum(oracle) / len(tasks) - blind,
        "headroom": 1.0 - blind,
        "variance_bound": max((one - other) ** 2 / 4 for one, other in zip(oracle, again, strict=True)),
        "training_signal": sum(0 < sum(found) < len(found) for found in guesses) / len(tasks),
        "adversarial_floor": best,
        "gameability_gap": max(0.0, best - blind),
        "attacks": len(rewards),
    }


def _guesses(source: Source, samples: int = 8) -> list[list[bool]]:
    """Play each task several times with an agent that has the reference right with a chance of a half."""
    rng, found = random.Random(0), []
    wrong: Callable[[str], str] = lambda answer: answer.replace("return ", "return None and ", 1)  # noqa: E731
    for index, task in enumerate(source.tasks_of(source.splits[-1])[:TASKS]):
        answers = [task.ground_truth if rng.random() < 0.5 else wrong(task.ground_truth) for _ in range(samples)]
        found.append([play(source, index, [f"{ANSWER_MARKER}\n{answer}"])[1] == 1.0 for answer in answers])
    return found


if __name__ == "__main__":
    sys.exit(main())
