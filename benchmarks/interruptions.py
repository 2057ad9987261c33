"""`python -m benchmarks.interruptions`: a small run that is interrupted at random moments ends with the same bits.

Every second signal is SIGTERM, the others are SIGKILL; before a third of the restarts the newest checkpoint is cut off
or garbled, where an older one is there. Prints a line for each interruption, and at the end which files differ from
those of a run that nobody disturbed. Ends with status 1 where one does, or where a process has left a traceback.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

FLAGS = (
    "--mesh=4x2", "--num-tasks=33", "--rollouts.samples=4", "--rollouts.rows=32", "--ranking.candidates=4",
    "--ranking.data-fraction=0.05", "--critic.training.epochs=8", "--evaluation.num-tasks=16",
    *(
        f"--{stage}.training.{flag}"
        for stage in ("critic", "policy")
        for flag in ("batch-size=8", "max-steps=12", "save-every=2", "log-every=1")
    ),
)  # fmt: skip
SAID = "stopped by SIGTERM"


@dataclass(frozen=True)
class Flags:
    """times: interruptions. longest: seconds from a start to the latest moment of one. seed: of the moments."""

    times: int = 40
    longest: float = 30.0
    seed: int = 0
    keep: Annotated[Path | None, tyro.conf.arg(help="folder to work in, kept; else a temporary one")] = None


def main() -> None:
    """Makes the straight run, then runs that are interrupted, as many as the interruptions take."""
    flags = tyro.cli(Flags)
    chance, wrong = random.Random(flags.seed), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.keep or Path(temporary)
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }  # fmt: skip
        straight = folder / "straight"
        _end(_start(straight, environment))
        done = runs = 0
        counts: Counter[str] = Counter()
        while done < flags.times:
            run_dir, runs = folder / f"interrupted-{runs}", runs + 1
            while True:
                process = _start(run_dir, environment)
                if done < flags.times and _waits(process, chance.uniform(0, flags.longest)):
                    number = (signal.SIGTERM, signal.SIGKILL)[done % 2]
                    done += 1
                    wrong += _interrupt(process, number)
                    damaged = _damage(run_dir, chance) if chance.random() < 1 / 3 else None
                    counts.update([number.name, *(["damaged"] if damaged else [])])
                    print(f"{done}: {number.name} in {_stage(run_dir)}{damaged or ''}", flush=True)
                else:
                    _end(process)
                    break
            differ = sorted(_differ(straight, run_dir))
            wrong += len(differ)
            print(f"run {runs} ended; files that differ: {', '.join(differ) or 'none'}", flush=True)
            shutil.rmtree(run_dir)
    print(f"{dict(counts)} over {runs} runs; wrong: {wrong}")
    sys.exit(1 if wrong else 0)


def _start(run_dir: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "launch.train", f"--run-dir={run_dir}", *FLAGS]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"a run ended with status {process.returncode}:\n{said}")


def _waits(process: subprocess.Popen[str], seconds: float) -> bool:
    """Whether the process is still there after this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    return process.poll() is None


def _interrupt(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Sends the signal; how many things were wrong with the end."""
    process.send_signal(number)
    _, said = process.communicate()
    expected = -number if number == signal.SIGKILL else 128 + number
    if process.returncode == 0:  # the signal came when all was done
        return 0
    clean = "Traceback" not in said and "***" not in said
    sentence = number == signal.SIGKILL or process.returncode == -number or said.splitlines()[-1].startswith(SAID)
    status = process.returncode == expected or process.returncode == -number  # before Python has taken the signal over
    if clean and sentence and status:
        return 0
    print(f"  status {process.returncode}, said: {said[-1500:]}", flush=True)
    return 1


def _stage(run_dir: Path) -> str:
    """The stage under way, of the log."""
    log = run_dir / "log.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    begun = [line.split()[2].rstrip(":") for line in lines if line.startswith("stage ")]
    return begun[-1] if begun else "the beginning"


def _damage(run_dir: Path, chance: random.Random) -> str | None:
    """Cuts off or garbles a file of the newest checkpoint of a stage that has two; says what it did."""
    for stage in ("policy", "critic"):
        steps = sorted(run_dir.glob(f"{stage}/checkpoints/[0-9]*"), key=lambda path: int(path.name.split(".")[0]))
        whole = [step for step in steps if step.name.isdigit()]
        if len(whole) < 2 or (run_dir / stage / "done.json").exists():
            continue
        files = sorted(path for path in whole[-1].rglob("*") if path.is_file() and path.stat().st_size)
        one = chance.choice(files)
        data = bytearray(one.read_bytes())
        if chance.random() < 0.5:
            del data[chance.randrange(len(data)) :]
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        one.write_bytes(data)
        return f", then {one.relative_to(run_dir)} damaged"
    return None


def _differ(one: Path, other: Path) -> Iterator[str]:
    """The names of the files that are not the same in both: rows, weights, numbers of the report."""
    names = {path.relative_to(run) for run in (one, other) for path in run.rglob("*") if _counts(path)}
    for name in names:
        if not ((one / name).exists() and (other / name).exists()):
            yield str(name)
        elif name.name == "report.json":
            if _numbers(one / name) != _numbers(other / name):
                yield str(name)
        elif (one / name).read_bytes() != (other / name).read_bytes():
            yield str(name)


def _counts(path: Path) -> bool:
    return path.suffix in (".jsonl", ".safetensors") or path.name == "report.json"


def _numbers(report: Path) -> list[object]:
    found = json.loads(report.read_text())
    return [found["policies"], found["difference"]]


if __name__ == "__main__":
    main()
