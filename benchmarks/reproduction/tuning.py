"""What was tried for each method before the comparison: eight settings each, on tuning seeds and validation tasks.

`python -m benchmarks.reproduce --only=tuning` runs what is missing. The best setting of each method is in
launch/training/presets/scenes*.yaml. The seeds are in no other table.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.reproduction.methods import CANDIDATES, DIALOGUES, Method

SEEDS = (1000,)
TASKS = 200
"""Validation tasks of a seed on which checkpoints are compared."""

LONGER = "--policy.epochs=8 --policy.save-every=100"
TRIED: Mapping[str, tuple[str, ...]] = {
    "rft": (
        "--policy.learning-rate=5e-5",
        "--policy.learning-rate=1e-4",
        "--policy.learning-rate=2e-4",
        "--policy.learning-rate=4e-4",
        f"--policy.learning-rate=1e-4 {LONGER}",
        f"--policy.learning-rate=2e-4 {LONGER}",
        "--policy.learning-rate=8e-4",
        f"--policy.learning-rate=4e-4 {LONGER}",
    ),
    "mtdpo": (
        "--policy.learning-rate=1e-4",
        f"--policy.learning-rate=5e-5 {LONGER}",
        "--policy.learning-rate=2e-4",
        "--policy.nll-coef=0.1",
        "--policy.beta=0.3",
        f"--policy.nll-coef=0.1 --policy.learning-rate=2e-4 {LONGER}",
        "--policy.learning-rate=4e-4",
        f"--policy.batch-size=32 {LONGER}",
    ),
    "sweet": (
        "--policy.nll-coef=0.1 --policy.learning-rate=1e-4",
        "--policy.nll-coef=0.1 --policy.learning-rate=2e-4",
        "--policy.nll-coef=0.1 --policy.learning-rate=5e-5 --policy.max-steps=600 --policy.epochs=8 "
        "--policy.save-every=150",
        "--policy.nll-coef=0.1 --policy.beta=0.3",
        "--policy.nll-coef=0.3",
        "--policy.nll-coef=0.1 --policy.max-steps=1000 --policy.epochs=8 --policy.save-every=250",
        "--policy.nll-coef=0.3 --policy.learning-rate=2e-4",
        "--policy.nll-coef=1",
    ),
}

TUNING: Mapping[str, Method] = {
    f"tune-{name}-{number}": Method(
        name,
        (f"--algorithm={name}", *flags.split(), f"--policy.select-tasks={TASKS}"),
        len(SEEDS),
        (CANDIDATES if name == "sweet" else DIALOGUES)[1:],
        "tuning",
    )
    for name, tried in TRIED.items()
    for number, flags in enumerate(tried, start=1)
}
