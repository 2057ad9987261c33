"""The stages of a run, in order. Each reads files of earlier stages, writes its own, and continues where it was killed.

tasks        tasks/train.jsonl, tasks/eval.jsonl
start        start/behaviour.jsonl, start/model/           only with --model=scratch
rollouts     rollouts/trajectories.jsonl                   ungraded, sample-major
grading      grading/trajectories.jsonl                    with rewards and verdicts
pairs        pairs/trajectory_pairs.jsonl                  chosen and rejected dialogues of one task
critic       critic/checkpoints/                           step-wise advantages
candidates   candidates/candidates.jsonl                   16 turns in each position
ranking      ranking/ranked.jsonl                          with the critic's advantages
truth        truth/continuations.jsonl, truth/truth.json   only with --truth.positions: what the advantages are worth
turn-pairs   turn-pairs/pairs.jsonl                        better and worse turns
policy       policy/checkpoints/, policy/model/
selection    selection/step-*.jsonl                        only with --policy.select: the best checkpoint
evaluation   evaluation/start.jsonl, evaluation/trained.jsonl
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch.common.cli import Stopped
from launch.common.settings import TRAINED_HERE
from launch.common.stopping import Terminated
from launch.training.config import STAGES, TrainConfig
from launch.training.run import Run
from launch.training.stages import critic, policy, ranking, rollouts, selection, start, truth
from sweet_jax import processes
from sweet_jax.train.loop import Interrupted
from sweet_jax.train.metrics import Diverged

STAGE_FUNCTIONS: Mapping[str, Callable[[Run], dict[str, Any]]] = {
    "tasks": start.tasks,
    "start": start.start,
    "rollouts": rollouts.rollouts,
    "grading": rollouts.grading,
    "pairs": critic.pairs,
    "critic": critic.critic,
    "candidates": ranking.candidates,
    "ranking": ranking.ranking,
    "truth": truth.truth,
    "turn-pairs": ranking.turn_pairs_stage,
    "policy": policy.policy,
    "selection": selection.selection,
    "evaluation": policy.evaluation,
}

ON_THE_FIRST_PROCESS = ("tasks", "grading", "pairs", "turn-pairs")
"""Stages that compute nothing on devices: of several processes the first one does them, the others wait."""


def run_stages(run: Run, stages: Sequence[str], plan: Sequence[str]) -> None:
    """Run those of the stages that have not finished, each followed by its note. Every process has to call this.

    plan: all stages of the run, which the console counts.
    Raises Stopped where training diverges, Terminated where SIGTERM has come.
    """
    for stage in stages:
        title = f"stage {plan.index(stage) + 1}/{len(plan)} {stage}"
        if run.directory.note(stage) is not None:
            run.console.say(f"{title}: already done")
            continue
        started = time.monotonic()
        run.console.say(f"{title}: starts")
        try:
            found = run_stage(run, stage)
        except Diverged as error:
            raise Stopped(f"stage {stage}: {error}") from error
        except Interrupted as interrupted:
            raise Terminated(str(interrupted)) from interrupted
        except Terminated as terminated:
            raise Terminated(f"in stage {stage}") from terminated
        note = found | {"seconds": round(time.monotonic() - started, 1)}
        run.directory.finish(stage, note)
        run.trackers.send_result(stage)
        run.console.say(f"{title}: done " + " ".join(f"{name}={_note_text(value)}" for name, value in note.items()))


def _note_text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(" ", "")


def run_stage(run: Run, stage: str) -> dict[str, Any]:
    """Run the stage and give what it leaves to say. Every process has to call this."""
    if stage in ON_THE_FIRST_PROCESS:
        return processes.broadcast_from_process_0(lambda: STAGE_FUNCTIONS[stage](run))
    return STAGE_FUNCTIONS[stage](run)


def plan_stages(config: TrainConfig) -> tuple[str, ...]:
    """Name the stages that the algorithm needs, in order: what the evaluation reads, what that reads, and so on."""
    last = ("truth", "evaluation") if config.algorithm == "sweet" and config.truth.positions else ("evaluation",)
    wanted = {stage for end in last for stage in required_stages(config, end)}
    wanted |= {"start"} if config.model in TRAINED_HERE else set()
    return tuple(stage for stage in STAGES if stage in wanted)


def required_stages(config: TrainConfig, last: str) -> tuple[str, ...]:
    """Name the stage `last` and every one whose files it reads, directly or not, in order."""
    wanted, remaining = set(), [last]
    while remaining:
        stage = remaining.pop()
        wanted.add(stage)
        remaining += config.reads(stage)
    return tuple(stage for stage in STAGES if stage in wanted)
