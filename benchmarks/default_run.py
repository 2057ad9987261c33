"""Where the time of a training run goes: each stage by the clock, by the processor, and what compiling took of it.

    python -m benchmarks.default_run [--cold] [flags of launch.train]

Runs `launch.train` in this process with those flags, in a fresh directory unless `--run-dir` is among them. `--cold`:
nothing is compiled before, as in a first run on a machine; otherwise the user's cache is used. Prints a table, and one
line of JSON last: seconds, and of each stage its numbers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from unittest import mock

COMPILING = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "traced",
    "/jax/core/compile/backend_compile_duration": "compiled",
}


@dataclass
class Spent:
    """Of one stage, in seconds. processor: of all threads and of processes that have ended. traced: Python and
    lowering of programs. compiled: XLA, or reading the program from the cache. programs: how many."""

    clock: float = 0.0
    processor: float = 0.0
    traced: float = 0.0
    compiled: float = 0.0
    programs: int = 0


class Profile:
    """What each stage has spent so far; what is before the first is "start"."""

    def __init__(self) -> None:
        self.stages: dict[str, Spent] = {}
        self._begun = time.monotonic(), _processor()
        self._stage = ""
        self.enter("start")

    def enter(self, stage: str) -> None:
        """Count for another stage from now on."""
        now = time.monotonic(), _processor()
        if self._stage:
            spent = self.stages[self._stage]
            spent.clock += now[0] - self._begun[0]
            spent.processor += now[1] - self._begun[1]
        self._begun, self._stage = now, stage
        self.stages.setdefault(stage, Spent())

    def compiling(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Hear of a program that jax has made."""
        kind = COMPILING.get(event)
        if kind is None:
            return
        spent = self.stages[self._stage]
        setattr(spent, kind, getattr(spent, kind) + duration_secs)
        spent.programs += kind == "compiled"


def main() -> None:
    """Run and tell."""
    flags = sys.argv[1:]
    if "--help" in flags:
        print(__doc__)
        return
    with tempfile.TemporaryDirectory() as directory:
        if "--cold" in flags:
            flags.remove("--cold")
            os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(directory, "compiled")
        if not any(flag.startswith("--run-dir") for flag in flags):
            flags.append(f"--run-dir={os.path.join(directory, 'run')}")
        profile = _run(flags)
    seconds = sum(spent.clock for spent in profile.stages.values())
    print("\n| stage | seconds | share | processor | cores busy | tracing | compiling | programs |")
    print("|---|---|---|---|---|---|---|---|")
    for name, spent in [*profile.stages.items(), ("all", _sum(profile))]:
        print(
            f"| {name} | {spent.clock:.1f} | {spent.clock / seconds:.0%} | {spent.processor:.1f} "
            f"| {spent.processor / max(spent.clock, 0.1):.2f} | {spent.traced:.1f} | {spent.compiled:.1f} "
            f"| {spent.programs} |"
        )
    stages = {
        name: {key: round(value, 1) for key, value in asdict(spent).items()} for name, spent in profile.stages.items()
    }
    print(json.dumps({"seconds": round(seconds, 1), "stages": stages}))


def _run(flags: list[str]) -> Profile:
    """Run `launch.train`."""
    profile = Profile()
    import jax.monitoring

    from launch import train
    from launch.training import stages

    jax.monitoring.register_event_duration_secs_listener(profile.compiling)
    run_stage = stages.run_stage

    def timed(run: object, stage: str) -> object:
        profile.enter(stage)
        try:
            return run_stage(run, stage)  # type: ignore[arg-type]
        finally:
            profile.enter("between stages")

    with mock.patch.object(stages, "run_stage", timed), mock.patch.object(sys, "argv", ["launch.train", *flags]):
        train.main()
    profile.enter("end")
    del profile.stages["end"]
    return profile


def _sum(profile: Profile) -> Spent:
    total = Spent()
    for spent in profile.stages.values():
        for key, value in asdict(spent).items():
            setattr(total, key, getattr(total, key) + value)
    return total


def _processor() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
