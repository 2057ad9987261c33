"""The methods that are compared, their flags, the contrasts that are tested, and the configurations tuned over.

What a method does not say is as in `--preset=scenes` (launch/training/presets/scenes*.yaml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BASE = "base"  # of a seed: dialogues, candidates, their pmi and, in the first seeds, what playing on from them is worth
DIALOGUES = ("tasks", "rollouts", "grading")
CANDIDATES = (*DIALOGUES, "candidates")


@dataclass(frozen=True)
class Method:
    """A row of the table.

    told: its name in the table, "" for none. flags: of launch.train. seeds: how many. shares: stages that are copied
    from `base` of the seed, or from the base.
    """

    told: str
    flags: tuple[str, ...] = ()
    seeds: int = 10
    shares: tuple[str, ...] = DIALOGUES
    base: str = BASE
    keeps: tuple[str, ...] = ()


MAIN_SEEDS, OTHER_SEEDS = 10, 5

METHODS: Mapping[str, Method] = {
    "zero-shot": Method("zero-shot", ("--algorithm=zero-shot",)),
}
"""Name -> method, in the order of the table."""

CONTRASTS = (
    ("sweet", "mtdpo"),
    ("mtdpo", "rft"),
    ("rft", "zero-shot"),
    ("sweet", "sweet-no-information"),
)

PAPER: Mapping[str, str] = {
    "zero-shot": "22.4",
    "rft": "28.2",
    "mtdpo": "34.4",
    "sweet": "40.4",
    "sweet-no-information": "31.2",
    "sweet-value-head": "36.2",
    "sweet-sum": "3.6",
}
"""Success of Llama-3.1-8B on ColBench backend (arXiv 2503.15478, tables 2 and 3)."""

TUNING: Mapping[str, Method] = {}
"""The configurations that each recipe was chosen from, all with one seed that is in no table."""
