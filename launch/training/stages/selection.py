"""Stage selection: which checkpoint of the policy is the best on validation tasks, the start policy among them."""

from __future__ import annotations

import functools
from typing import Any

from colbench_env.episodes import seed_of
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Task
from launch.training.run import Run
from launch.training.stages.playing import Agent, play
from launch.training.stages.policy import export_policy, grade_outcome
from sweet_jax import processes
from sweet_jax.train.checkpoint import Checkpoints


def selection(run: Run) -> dict[str, Any]:
    """Play validation tasks with the start policy and every checkpoint that was kept; the best becomes policy/model.

    The best has the highest success, then the highest mean reward, then the fewest updates; the note has its step, 0
    for the start policy, and the success of each.
    """
    folder, trained = run.directory.stage("selection"), run.directory.note("policy")
    if trained is None:
        raise BadInput(f"{run.directory.path}: there is no trained policy to select: run --stage=policy first")
    tasks = read_rows(run.directory.path / "tasks" / "validation.jsonl", Task)
    seed = seed_of(run.config.seed, "selection")
    training = run.config.policy.training
    with Checkpoints(run.directory.path / "policy" / "checkpoints") as checkpoints:
        kept, last = checkpoints.steps(), training.steps(trained["rows"])
    # Not those of a training that was stopped between two: a run that was never stopped does not have them.
    steps = [0, *(step for step in kept if step % training.save_every == 0 or step == last)]
    for step in steps:  # all play before any is waited for to be graded
        params = run.policy_params(trained["rows"], step) if step else run.start_params
        agent = Agent(f"step {step}", params, run.config.evaluation.temperature)
        play(run, f"selection: step {step}", folder / f"step-{step}_ungraded.jsonl", agent, tasks, 1, seed)
    found = {}
    for step in steps:
        played, graded = (folder / f"step-{step}{end}.jsonl" for end in ("_ungraded", ""))
        grade_played = functools.partial(grade_outcome, run, f"selection: step {step}", played, graded)
        found[step] = processes.broadcast_from_process_0(grade_played)
    best = max(found, key=lambda step: (found[step]["success"], found[step]["reward"], -step))
    export_policy(run, run.policy_params(trained["rows"], best) if best else run.start_params)
    return {"step": best, "tasks": len(tasks)} | {
        figure: {str(step): values[figure] for step, values in found.items()} for figure in ("success", "reward")
    }
