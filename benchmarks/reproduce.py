"""`python -m benchmarks.reproduce`: the paper's comparisons on the toy benchmark of scenes, with error bars.

Every cell is one method with one seed (benchmarks/reproduction/methods.py). What cells of a seed have in common (tasks,
dialogues, candidates, the start policy's evaluation) is made once and copied. A finished cell is one line in --cells
and is never run again, so the command may be killed at any moment and goes on, also on another machine that has the
file; only a run that other cells go on from is made again where its directory is gone, and it is said whether it
succeeds at the same tasks. Two cells run side by side, each on a core of its own. At the end docs/reproduction.json and
the tables of docs/reproduction.md are written from the lines.

    python -m benchmarks.reproduce --hours=2                 # as much as fits
    python -m benchmarks.reproduce --only=main --seeds=0,1   # also ablations, scaling, iterations, best-of, truth
    python -m benchmarks.reproduce --only=tuning             # what was tried before: benchmarks/reproduction/tuning.py
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from benchmarks.reproduction import methods, tuning
from benchmarks.reproduction.methods import BASE, BASE_FLAGS, BASE_STAGES, METHODS, Method
from benchmarks.reproduction.pages import write_leaderboard, write_pages

ROOT = Path(__file__).parents[1]
CELLS = ROOT / "benchmarks" / "reproduction" / "cells.jsonl"
COMMON = ("--preset=scenes",)
GROUPS = {
    "main": methods.MAIN,
    "ablations": methods.ABLATIONS,
    "scaling": methods.SCALING,
    "iterations": methods.ITERATIONS,
    "best-of": methods.BEST_OF,
    "truth": methods.TRUTHS,
    "tuning": tuning.TUNING,
}
EVERY = {**METHODS, **tuning.TUNING}
KEPT = ("tasks", "evaluation", "truth", "report.json", "log.txt", "config.json")  # of a finished run, for a look


def main() -> None:
    """Run the cells that are missing, then write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "reproduction", help="directory of the runs")
    parser.add_argument("--cells", type=Path, default=CELLS, help="JSON Lines of finished cells")
    parser.add_argument("--only", default="", help=f"methods or {', '.join(GROUPS)}; default: all but tuning")
    parser.add_argument("--seeds", default="", help="seeds, separated by commas; default: those of each method")
    parser.add_argument("--hours", type=float, default=24.0, help="no cell is begun after that time")
    parser.add_argument("--cores", default="0,1", help="cores that cells run on, one each")
    parser.add_argument("--pages", action="store_true", help="write the pages from the finished cells, run nothing")
    told = parser.parse_args()
    if not told.pages:
        named = [name for name in told.only.split(",") if name]
        unknown = [name for name in named if name not in GROUPS | EVERY]
        if unknown:
            parser.error(f"--only={told.only}: no method is called {', '.join(unknown)}")
        wanted = {
            name: method
            for part in (GROUPS.get(name, {name: EVERY.get(name)}) for name in named)
            for name, method in part.items()
        }
        seeds = [int(seed) for seed in told.seeds.split(",") if seed]
        Reproduction(told.runs, told.cells, time.monotonic() + 3600 * told.hours).run(
            wanted or METHODS, seeds, [int(core) for core in told.cores.split(",")]
        )
    cells = read_cells(told.cells)
    write_pages(cells, ROOT / "docs")
    write_leaderboard(cells, ROOT / "README.md")


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Read the finished cells."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class Reproduction:
    """Runs cells side by side and appends what they gave to one file."""

    def __init__(self, runs: Path, cells: Path, deadline: float):
        self.runs, self.cells, self.deadline = runs, cells, deadline
        self.done = {(cell["method"], cell["seed"]): cell for cell in read_cells(cells)}
        self.lock, self.ready = threading.Lock(), dict[tuple[str, int], threading.Event]()
        self.failed = 0

    def run(self, methods: Mapping[str, Method], seeds: Sequence[int], cores: Sequence[int]) -> None:
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
                except Exception as error:  # the other cells go on, and the exit status says so
                    self.failed += 1
                    told = f"FAILED, see {self.runs / str(seed) / name}.log ({error!r})"
                finally:
                    self.ready[name, seed].set()
                print(f"seed {seed} {name}: {told} ({time.monotonic() - started:.0f} s)", flush=True)

        workers = [threading.Thread(target=work, args=(core,)) for core in cores]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.failed:
            sys.exit(1)

    def _jobs(self, methods: Mapping[str, Method], seeds: Sequence[int]) -> list[tuple[str, Method, int]]:
        """List the missing cells, each seed's base a seed ahead, so that nobody waits for it."""
        by_seed: dict[int, list[tuple[str, Method, int]]] = {}
        for name, method in methods.items():
            for seed in seeds or (tuning.SEEDS if method.kind == "tuning" else range(method.seeds)):
                if (name, seed) not in self.done:
                    by_seed.setdefault(seed, []).append((name, method, seed))
        for seed, missing in by_seed.items():
            gone = {method.after for _, method, _ in missing if method.after} - {name for name, _, _ in missing}
            gone = {name for name in gone if not (self._folder(name, seed) / "report.json").exists()}
            by_seed[seed] = [(name, EVERY[name], seed) for name in sorted(gone)] + missing
        order = sorted(by_seed)
        needs_base = [
            seed for seed in order if any(method.shares or method.kind == "training" for _, method, _ in by_seed[seed])
        ]
        jobs = [(BASE, Method("", BASE_FLAGS), seed) for seed in needs_base[:1]]
        for place, seed in enumerate(order):
            jobs += [(BASE, Method("", BASE_FLAGS), ahead) for ahead in needs_base[1:][place : place + 1]]
            jobs += by_seed[seed]
        self.ready = {(name, seed): threading.Event() for name, _, seed in jobs}
        return jobs

    def _cell(self, name: str, method: Method, seed: int, core: int) -> str:
        folder = self._folder(name, seed)
        for needed in (BASE, method.after):
            if name != needed and (needed, seed) in self.ready:
                self.ready[needed, seed].wait()
        if name == BASE:
            for stage in BASE_STAGES:
                if not (folder / stage / "done.json").exists():
                    self._train(folder, core, seed, *method.flags, f"--stage={stage}")
            return "made"
        started = time.monotonic()
        found = getattr(self, f"_{method.kind.replace('-', '_')}")(folder, method, seed, core)
        cell = {"method": name, "seed": seed, "seconds": round(time.monotonic() - started)} | found
        cell |= {"commit": _commit(), "flags": list(method.flags)}
        known = self.done.get((name, seed))
        if known:
            same = known.get("tasks") == cell.get("tasks")
            return "made again: " + ("the same tasks succeed" if same else "OTHER tasks succeed than in the first run")
        with self.lock, self.cells.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")
        if folder.exists() and all(name != other.after for other in METHODS.values()):  # which go on with that run
            _prune(folder)
        return " -> ".join(f"{cell[key]:.1f}" for key in ("start", "success") if key in cell)

    def _folder(self, name: str, seed: int) -> Path:
        return self.runs / str(seed) / name

    def _training(self, folder: Path, method: Method, seed: int, core: int) -> dict[str, Any]:
        """Train, and read success on the held-out tasks. The start policy's evaluation is that of zero-shot."""
        self._share(folder, seed, method)
        zero_shot = self.runs / str(seed) / "zero-shot" / "evaluation"
        if zero_shot.is_dir() and zero_shot.parent != folder and not (folder / "evaluation").exists():
            (folder / "evaluation").mkdir(parents=True)
            for path in zero_shot.glob("start*.jsonl"):
                shutil.copy(path, folder / "evaluation")
        self._train(folder, core, seed, *method.flags)
        return self._found(folder)

    def _tuning(self, folder: Path, method: Method, seed: int, core: int) -> dict[str, Any]:
        """Train, and read success of the checkpoints on validation tasks; held-out tasks are not played."""
        self._share(folder, seed, method)
        between = ("pairs", "critic", "candidates", "ranking", "turn-pairs") if method.told == "sweet" else ("pairs",)
        for stage in ("tasks", *(() if method.told == "rft" else between), "policy", "selection"):
            self._train(folder, core, seed, *method.flags, f"--stage={stage}")
        note = json.loads((folder / "selection" / "done.json").read_text(encoding="utf-8"))
        return {
            "tunes": method.told,
            "success": 100 * note["success"][str(note["step"])],
            "validation": {"step": note["step"], "success": note["success"]},
        }

    def _iteration(self, folder: Path, method: Method, seed: int, core: int) -> dict[str, Any]:
        """Train the policy of the finished run `after` again, on dialogues of its own."""
        source = self.runs / str(seed) / method.after
        if not folder.exists():
            shutil.copytree(source, folder.with_name(folder.name + ".partial"), dirs_exist_ok=True)
            folder.with_name(folder.name + ".partial").rename(folder)
        self._train(folder, core, seed, *EVERY[method.after].flags, *method.flags)
        return self._found(folder / "iteration-2")

    def _best_of(self, folder: Path, method: Method, seed: int, core: int) -> dict[str, Any]:
        """Play the held-out tasks with the start policy, the critic of the run `after` choosing each turn."""
        run = self.runs / str(seed) / method.after
        folder.mkdir(parents=True, exist_ok=True)
        played, graded = folder / "played.jsonl", folder / "graded.jsonl"
        self._command(
            folder, core, "launch.rollout", "--model=embedded-scenes", f"--critic={run}", f"--best-of={method.number}",
            f"--tasks={run / 'tasks' / 'eval.jsonl'}", "--max-turns=6", "--max-new-tokens=96", f"--seed={seed}",
            f"--output={played}",
        )  # fmt: skip
        self._command(folder, core, "launch.evaluate", f"--trajectories={played}", f"--output={graded}")
        bits = _bits(graded)
        return {"success": 100 * bits.count("1") / len(bits), "tasks": {"trained": bits}}

    def _truth(self, folder: Path, method: Method, seed: int, core: int) -> dict[str, Any]:
        """Count what the scores of the critic of the run `after` are worth; the continuations are those of any run."""
        run = self.runs / str(seed) / method.after
        known = self.runs / str(seed) / "continuations.jsonl"
        if known.exists() and not (run / "truth").exists():
            (run / "truth").mkdir()
            shutil.copy(known, run / "truth")
        self._train(run, core, seed, *EVERY[method.after].flags, *method.flags)
        shutil.copy(run / "truth" / "continuations.jsonl", known)
        return {"truth": json.loads((run / "truth" / "truth.json").read_text(encoding="utf-8"))}

    def _share(self, folder: Path, seed: int, method: Method) -> None:
        for stage in method.shares:
            source = self.runs / str(seed) / BASE / stage
            if source.is_dir() and not (folder / stage).exists():
                own = ("done.json", "ranked.jsonl") if stage == "ranking" else ()
                partial = folder / f"{stage}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*own))
                partial.rename(folder / stage)

    def _train(self, folder: Path, core: int, seed: int, *flags: str) -> None:
        self._command(folder, core, "launch.train", *COMMON, f"--run-dir={folder}", f"--seed={seed}", *flags)

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
                rewards[name] = _bits(path)
        means = {name: 100 * bits.count("1") / len(bits) for name, bits in rewards.items()}
        found = {"success": means.get("trained", means["start"]), "start": means["start"], "tasks": rewards}
        stages = report["stages"]
        if "selection" in stages:
            found["validation"] = {"step": stages["selection"]["step"], "success": stages["selection"]["success"]}
        return found


def _bits(path: Path) -> str:
    """Read which rows of a graded file succeed, as "0110..."."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "".join("1" if json.loads(line)["reward"] == 1.0 else "0" for line in lines)


def _prune(folder: Path) -> None:
    for part in folder.iterdir():
        if part.name not in KEPT:
            shutil.rmtree(part) if part.is_dir() else part.unlink()


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
