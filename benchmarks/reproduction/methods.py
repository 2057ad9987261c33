"""The methods that are compared, their flags, and the contrasts that are tested.

What a method does not say is as in `--preset=scenes` (launch/training/presets/scenes*.yaml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

BASE = "base"  # of a seed: dialogues, candidates, and the base policy's log-probs of them
DIALOGUES = ("tasks", "rollouts", "grading")
CANDIDATES = (*DIALOGUES, "candidates", "ranking")
MAIN_SEEDS, OTHER_SEEDS, TRUTH_SEEDS = 10, 5, 3
NUMBERS = (2, 4, 8, 16, 32)
"""Of candidates among which a critic chooses."""

Kind = Literal["training", "best-of", "truth", "iteration", "tuning"]


@dataclass(frozen=True)
class Method:
    """A row of a table.

    told: its name there. flags: of launch.train. seeds: how many. shares: stages that are copied from `base` of the
    seed; of ranking only the log-probs.
    kind: what a cell is. "training": a run and its success on held-out tasks. "best-of": the start policy on them, the
    critic of the run `after` choosing among `number` candidates. "truth": what the scores of that run's critic are
    worth. "iteration": that run's policy, trained again on dialogues of its own. "tuning": success on validation tasks.
    """

    told: str
    flags: tuple[str, ...] = ()
    seeds: int = MAIN_SEEDS
    shares: tuple[str, ...] = CANDIDATES
    kind: Kind = "training"
    after: str = ""
    number: int = 0


def _sweet(told: str, *flags: str, seeds: int = OTHER_SEEDS) -> Method:
    return Method(told, flags, seeds)


def _with_tasks(told: str, tasks: int, *flags: str) -> Method:
    return Method(told, (*flags, f"--num-tasks={tasks}"), OTHER_SEEDS, ())


BASE_FLAGS = ("--critic.parameterisation=pmi",)
BASE_STAGES = CANDIDATES
HEAD = ("--critic.nll-coef=0", "--ranking.min-gap=0")
MAIN: Mapping[str, Method] = {
    "zero-shot": Method("zero-shot", ("--algorithm=zero-shot",), MAIN_SEEDS, ("tasks",)),
    "rft": Method("rejection fine-tuning", ("--algorithm=rft",), MAIN_SEEDS, DIALOGUES),
    "mtdpo": Method("multi-turn DPO", ("--algorithm=mtdpo",), MAIN_SEEDS, DIALOGUES),
    "sweet": _sweet("SWEET-RL, released ranking (learned + pmi)", seeds=MAIN_SEEDS),
    "sweet-no-information": _sweet(
        "SWEET-RL, critic without the reference", "--critic.no-privileged", seeds=MAIN_SEEDS
    ),
}
"""Name -> method, in the order of the table."""

ABLATIONS: Mapping[str, Method] = {
    "sweet-paper-ranking": _sweet("SWEET-RL, equation 3 (learned part)", "--ranking.reference-context=privileged"),
    "sweet-pmi": _sweet("pmi alone, no critic trained", "--critic.parameterisation=pmi"),
    "sweet-turn-mean": _sweet("SWEET-RL, critic with turn means", "--critic.aggregation=turn-mean"),
    "sweet-token-mean": _sweet("SWEET-RL, critic with token means", "--critic.aggregation=token-mean"),
    "sweet-belief": _sweet("belief gained by the turn, no critic trained", "--critic.parameterisation=belief"),
    "sweet-judge": _sweet("the base policy as judge, no critic trained", "--critic.parameterisation=judge"),
    "sweet-value-head": _sweet("SWEET-RL, value head", "--critic.parameterisation=value-head", *HEAD),
    "sweet-prefix-value": _sweet("SWEET-RL, value of every prefix", "--critic.parameterisation=prefix-value", *HEAD),
    "sweet-paper": _sweet(
        "SWEET-RL, the paper's settings throughout",
        "--critic.aggregation=turn-mean",
        "--critic.beta=0.1",
        "--ranking.reference-context=privileged",
        "--ranking.min-gap=0",
        "--ranking.clip-scores=0",
        "--ranking.no-keep-ties",
        "--policy.nll-coef=0.01",
    ),
}

SCALING: Mapping[str, Method] = {
    f"{name}-{tasks}": _with_tasks(f"{told}, {tasks} tasks", tasks, *flags)
    for name, told, flags in (("mtdpo", "multi-turn DPO", ("--algorithm=mtdpo",)), ("sweet", "SWEET-RL", ()))
    for tasks in (160, 480)
}

ITERATIONS: Mapping[str, Method] = {
    "sweet-iteration-2": Method(
        "SWEET-RL, second iteration", ("--iterations=2",), OTHER_SEEDS, (), "iteration", after="sweet"
    )
}

BEST_OF: Mapping[str, Method] = {
    f"best-of-{number}": Method(
        f"start policy, critic chooses among {number}", (), OTHER_SEEDS, (), "best-of", "sweet", number
    )
    for number in NUMBERS
}

TRUTHS: Mapping[str, Method] = {
    f"truth-{name}": Method(
        MAIN.get(name, ABLATIONS.get(name, MAIN["sweet"])).told,
        ("--truth.positions=60", "--truth.continuations=32"),
        TRUTH_SEEDS,
        (),
        "truth",
        after=name,
    )
    for name in (
        "sweet",
        "sweet-no-information",
        "sweet-value-head",
        "sweet-prefix-value",
        "sweet-paper",
        "sweet-belief",
        "sweet-judge",
    )  # fmt: skip
}

METHODS: Mapping[str, Method] = {**MAIN, **ABLATIONS, **SCALING, **ITERATIONS, **BEST_OF, **TRUTHS}

CONTRASTS = (
    ("sweet", "mtdpo"),
    ("mtdpo", "rft"),
    ("rft", "zero-shot"),
    ("sweet", "sweet-no-information"),
    *(("sweet", name) for name in ABLATIONS),
    ("sweet-iteration-2", "sweet"),
    ("best-of-16", "zero-shot"),
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
