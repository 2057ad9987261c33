"""The methods that are compared, their flags, and the contrasts that are tested.

What a method does not say is as in `--preset=scenes` (launch/training/presets/scenes*.yaml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BASE = "base"  # of a seed: dialogues, candidates, and the base policy's log-probs of them
DIALOGUES = ("tasks", "rollouts", "grading")
CANDIDATES = (*DIALOGUES, "candidates", "ranking")
MAIN_SEEDS, OTHER_SEEDS = 10, 5


@dataclass(frozen=True)
class Method:
    """A row of the table.

    told: its name there. flags: of launch.train. seeds: how many. shares: stages that are copied from `base` of the
    seed; of ranking only the log-probs.
    """

    told: str
    flags: tuple[str, ...] = ()
    seeds: int = MAIN_SEEDS
    shares: tuple[str, ...] = CANDIDATES


def _sweet(told: str, *flags: str, seeds: int = OTHER_SEEDS) -> Method:
    return Method(told, flags, seeds)


BASE_FLAGS = ("--critic.parameterisation=pmi",)
BASE_STAGES = (*DIALOGUES, "candidates", "ranking")

METHODS: Mapping[str, Method] = {
    "rft": Method("rejection fine-tuning", ("--algorithm=rft",), MAIN_SEEDS, DIALOGUES),
    "mtdpo": Method("multi-turn DPO", ("--algorithm=mtdpo",), MAIN_SEEDS, DIALOGUES),
    "sweet": _sweet("SWEET-RL, released ranking (learned + pmi)", seeds=MAIN_SEEDS),
    "sweet-no-information": _sweet(
        "SWEET-RL, critic without the reference", "--critic.no-privileged", seeds=MAIN_SEEDS
    ),
    "sweet-paper-ranking": _sweet("SWEET-RL, equation 3 (learned part)", "--ranking.reference-context=privileged"),
    "sweet-pmi": _sweet("pmi alone, no critic trained", "--critic.parameterisation=pmi"),
    "sweet-value-head": _sweet(
        "SWEET-RL, value head", "--critic.parameterisation=value-head", "--critic.nll-coef=0", "--ranking.min-gap=0"
    ),
    "sweet-prefix-value": _sweet(
        "SWEET-RL, value of every prefix",
        "--critic.parameterisation=prefix-value",
        "--critic.nll-coef=0",
        "--ranking.min-gap=0",
    ),  # fmt: skip
    "sweet-paper": _sweet(
        "SWEET-RL, the paper's settings throughout",
        "--critic.aggregation=turn-mean",
        "--ranking.reference-context=privileged",
        "--ranking.min-gap=0",
        "--ranking.clip-scores=0",
        "--policy.min-surprisal=0",
        "--policy.nll-coef=0.01",
    ),  # fmt: skip
}
"""Name -> method, in the order of the table. Zero-shot is the start policy of every cell."""

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
}
"""Success of Llama-3.1-8B on ColBench backend (arXiv 2503.15478, tables 2 and 3)."""
