"""`python -m benchmarks.reproduce`: the paper's comparisons on the toy benchmark of scenes, with error bars.

Every cell is one method with one seed: a run of `launch.train`. What cells of a seed have in common (tasks, dialogues,
candidates) is made once and copied. A finished cell is one line in --cells and is never run again, so the command may
be killed at any moment and goes on, also on another machine that has the file. Two cells run side by side, each on a
core of its own. At the end docs/reproduction.json and the tables of docs/reproduction.md are written from the lines.

    python -m benchmarks.reproduce --hours=2                 # as much as fits
    python -m benchmarks.reproduce --only=sweet,mtdpo --seeds=0,1
    python -m benchmarks.reproduce --pages                   # only write the pages again
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from benchmarks.reproduction.methods import BASE, BASE_FLAGS, BASE_STAGES, METHODS, Method
from benchmarks.reproduction.pages import write_pages

ROOT = Path(__file__).parents[1]
CELLS = ROOT / "benchmarks" / "reproduction" / "cells.jsonl"
COMMON = ("--preset=scenes",)
KEPT = ("tasks", "evaluation", "truth", "report.json", "log.txt", "config.json")  # of a finished run, for a look


def main() -> None:
    """Run the cells that are missing, then write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "reproduction", help="directory of the runs")
    parser.add_argument("--cells", type=Path, default=CELLS, help="JSON Lines of finished cells")
    parser.add_argument("--only", default="", help="methods, separated by commas; default: all")
    parser.add_argument("--seeds", default="", help="seeds, separated by commas; default: those of each method")
    parser.add_argument("--hours", type=float, default=24.0, help="no cell is begun after that time")
    parser.add_argument("--cores", default="0,1", help="cores that cells run on, one each")
    parser.add_argument("--pages", action="store_true", help="write the pages from the finished cells, run nothing")
    told = parser.parse_args()
    if not told.pages:
        unknown = [name for name in told.only.split(",") if name and name not in METHODS]
        if unknown:
            parser.error(f"--only={told.only}: no method is called {', '.join(unknown)}")
        wanted = {name: method for name, method in METHODS.items() if not told.only or name in told.only.split(",")}
        seeds = [int(seed) for seed in told.seeds.split(",") if seed]
        Reproduction(told.runs, told.cells, time.monotonic() + 3600 * told.hours).run(
            wanted, seeds, [int(core) for core in told.cores.split(",")]
        )
    write_pages(read_cells(told.cells), ROOT / "docs")


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Read the finished cells."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class Reproduction:
    """Runs cells side by side and appends what they gave to one file."""

    def __init__(self, runs: Path, cells: Path, deadline: float):
        self.runs, self.cells, self.deadline = runs, cells, deadline
        self.done = {(cell["method"], cell["seed"]) for cell in read_cells(cells)}
        self.lock, self.bases = threading.Lock(), dict[int, threading.Event]()
        self.failed = 0

    def run(self, methods: dict[str, Method], seeds: Sequence[int], cores: Sequence[int]) -> None:
        """Run what is missing, seed after seed, so that methods can be compared early. Exits with 1 if one failed."""
        jobs: Queue[tuple[str, Method, int]] = Queue()
        for job in self._jobs(methods, seeds):
            jobs.put(job)
        total = jobs.qsize()
        print(f"{total} cells are missing", flush=True)

        def work(core: int) -> None:
            while time.monotonic() < self.deadline:
                try:
                    name, method, seed = jobs.get_nowait()
                except Empty:
                    return
                started = time.monotonic()
                try:
                    told = self._cell(name, method, seed, core)
                except subprocess.CalledProcessError as error:
                    self.failed += 1
                    told = f"FAILED, see {self.runs / str(seed) / name}.log ({error})"
                finally:
                    if name == BASE:
                        self.bases[seed].set()
                print(f"seed {seed} {name}: {told} ({time.monotonic() - started:.0f} s)", flush=True)

        workers = [threading.Thread(target=work, args=(core,)) for core in cores]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.failed:
            sys.exit(1)

    def _jobs(self, methods: dict[str, Method], seeds: Sequence[int]) -> Iterator[tuple[str, Method, int]]:
        """List the missing cells, each seed's base a seed ahead, so that nobody waits for it."""
        wanted: dict[int, list[str]] = {}
        for name, method in methods.items():
            for seed in seeds or range(method.seeds):
                if (name, seed) not in self.done:
                    wanted.setdefault(seed, []).append(name)
        order = sorted(wanted)
        self.bases = {seed: threading.Event() for seed in order}
        for place, seed in enumerate(order):
            for ahead in order[:2] if place == 0 else order[place + 1 : place + 2]:
                if not (self.runs / str(ahead) / BASE / BASE_STAGES[-1] / "done.json").exists():
                    yield BASE, Method("", BASE_FLAGS), ahead
                else:
                    self.bases[ahead].set()
            for name in wanted[seed]:
                if name != BASE:
                    yield name, methods[name], seed

    def _cell(self, name: str, method: Method, seed: int, core: int) -> str:
        folder = self.runs / str(seed) / name
        if name == BASE:
            for stage in BASE_STAGES:
                self._command(folder, core, "launch.train", *self._flags(folder, seed, method), f"--stage={stage}")
            return "made"
        self.bases[seed].wait()
        for stage in method.shares:
            source = self.runs / str(seed) / BASE / stage
            if source.is_dir() and not (folder / stage).exists():
                own = ("done.json", "ranked.jsonl") if stage == "ranking" else ()
                partial = folder / f"{stage}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*own))
                partial.rename(folder / stage)
        started = time.monotonic()
        self._command(folder, core, "launch.train", *self._flags(folder, seed, method))
        cell = {"method": name, "seed": seed, "seconds": round(time.monotonic() - started)} | self._found(folder)
        cell |= {"commit": _commit(), "flags": list(method.flags)}
        with self.lock, self.cells.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")
        for part in folder.iterdir():
            if part.name not in KEPT:
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        return f"{cell['start']:.1f} -> {cell['success']:.1f} %"

    def _flags(self, folder: Path, seed: int, method: Method) -> tuple[str, ...]:
        return (*COMMON, f"--run-dir={folder}", f"--seed={seed}", *method.flags)

    def _command(self, folder: Path, core: int, module: str, *flags: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(self.runs / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        with Path(f"{folder}.log").open("a", encoding="utf-8") as log:
            subprocess.run(
                [sys.executable, "-m", module, *flags],
                check=True, cwd=ROOT, env=environment, stdout=log, stderr=log,
                preexec_fn=lambda: _begin_child(core),
            )  # fmt: skip

    def _found(self, folder: Path) -> dict[str, Any]:
        """Read what a run has reached: success of both policies, and each held-out task's."""
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        rewards = {}
        for name in ("start", "trained"):
            path = folder / "evaluation" / f"{name}.jsonl"
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines()
                rewards[name] = "".join("1" if json.loads(line)["reward"] == 1.0 else "0" for line in lines)
        means = {name: 100 * bits.count("1") / len(bits) for name, bits in rewards.items()}
        found = {"success": means.get("trained", means["start"]), "start": means["start"], "tasks": rewards}
        stages = report["stages"]
        if "selection" in stages:
            found["validation"] = {"step": stages["selection"]["step"], "success": stages["selection"]["success"]}
        truth = folder / "truth" / "truth.json"
        if truth.exists():
            found["truth"] = json.loads(truth.read_text(encoding="utf-8"))
        return found


def _begin_child(core: int) -> None:
    """Hold this new process to one core, and have it end when the one that started it does."""
    os.sched_setaffinity(0, {core})
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return told.stdout.strip()


if __name__ == "__main__":
    main()
