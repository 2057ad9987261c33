"""Stages candidates, ranking and turn-pairs: better and worse turns in the same place (section 4.2)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Candidates, Pair, Ranked, Trajectory
from launch.dialogues import seed_of
from launch.run import Run
from launch.run_dir import append_rows, resume_rows, write_rows
from launch.stages.critic import critic_params
from launch.stages.learning import shows_reference
from launch.stages.rollouts import WAVE
from sweet_jax.batch import TokenRow, bucket, default_buckets, pad_rows, truncate
from sweet_jax.chat import privileged_prefix
from sweet_jax.critic import make_value_head_critic
from sweet_jax.logprobs import ReferenceCache, reference_logps
from sweet_jax.mesh import put_rows
from sweet_jax.pairs import turn_pairs
from sweet_jax.rows import (
    CHOSEN_TOKENS,
    REJECTED_TOKENS,
    candidate_row,
    row_to_json,
    trajectory_row,
    turn_output,
    turn_prompt,
)


def candidates(run: Run) -> dict[str, Any]:
    """16 turns of the start policy in every position of the first `data_fraction` of the trajectories."""
    settings = run.config.ranking
    path = run.directory.path / "grading" / "trajectories.jsonl"
    trajectories = read_rows(path, Trajectory)
    used = trajectories[: max(1, round(settings.data_fraction * len(trajectories)))]
    rows = [trajectory_row(t, run.chat, run.system, f"{path}:{line}") for line, t in enumerate(used, start=1)]
    positions = [(index, turn) for index, row in enumerate(rows) for turn in range(1, row.num_turns + 1)]
    target = run.directory.stage("candidates") / "candidates.jsonl"
    chunk = WAVE * run.config.rollouts.rows // settings.candidates
    done = resume_rows(target, Candidates, chunk, len(positions))
    sampler = run.sampler(run.start_params, run.config.rollouts.temperature)
    while done < len(positions):
        part = positions[done : done + chunk]
        prompts = [turn_prompt(rows[index], turn) for index, turn in part]
        seeds = [
            seed_of(run.config.seed, "candidates", used[i].task.task_id, used[i].extra.get("sample", 0), turn)
            for i, turn in part
        ]
        drawn = sampler.sample(prompts, seeds, settings.candidates)
        append_rows(
            target,
            [
                _candidates(run, used[index], rows[index], index, turn, prompt, turns)
                for (index, turn), prompt, turns in zip(part, prompts, drawn, strict=True)
            ],
        )
        done += len(part)
        run.console.progress("candidates", done, len(positions))
    return {"trajectories": len(used), "positions": len(positions), "candidates": len(positions) * settings.candidates}


def _candidates(
    run: Run, trajectory: Trajectory, row: TokenRow, index: int, turn: int, prompt: list[int], drawn: Sequence[Any]
) -> Candidates:
    text = run.chat.decode(prompt)
    prefix = privileged_prefix(trajectory.task.ground_truth) if shows_reference(run) else ""
    return Candidates(
        input=text,
        input_with_ground_truth=prefix + text,
        older_output=run.chat.reply_text(turn_output(row, turn)),
        reward=trajectory.reward or 0.0,
        ground_truth=trajectory.task.ground_truth,
        messages=trajectory.dialogue_history[: 2 * turn - 1],
        additional_outputs=tuple(run.chat.reply_text(sample.ids) for sample in drawn),
        additional_reference_logprobs=tuple(float(sample.logps.mean()) for sample in drawn),
        additional_reference_logprobs_sum=tuple(float(sample.logps.sum()) for sample in drawn),
        extra={
            "trajectory": index,
            "turn": turn,
            "prompt_ids": prompt,
            "output_ids": [sample.ids.tolist() for sample in drawn],
            "prefix_length": row.prefix,
        },
    )


def ranking(run: Run) -> dict[str, Any]:
    """The critic's advantage of every candidate."""
    found = read_rows(run.directory.path / "candidates" / "candidates.jsonl", Candidates)
    limit = run.config.critic.training.max_length
    rows: dict[tuple[Any, ...], TokenRow] = {}  # equal candidates of a position are scored once
    keys = []
    for place, row in enumerate(found):
        prefix = row.input_with_ground_truth[: len(row.input_with_ground_truth) - len(row.input)]
        for ids in row.extra["output_ids"]:
            key = (place, *ids)
            if key not in rows:
                made = candidate_row(row.extra["prompt_ids"], ids, row.extra["prefix_length"])
                made = run.chat.with_prefix(made, prefix) if prefix else made
                rows[key] = truncate(made, limit, "left", place) or made
            keys.append(key)
    hindsight = run.directory.note("critic")["pairs"] == 0  # type: ignore[index]
    public = hindsight or run.config.ranking.reference_context == "public"
    scores = dict(zip(rows, _advantages(run, list(rows.values()), hindsight, public), strict=True))
    if public and (hindsight or run.config.critic.parameterisation == "log-ratio"):
        summed = run.config.critic.aggregation == "sum"
        bases = [
            base
            for row in found
            for base in (row.additional_reference_logprobs_sum if summed else row.additional_reference_logprobs)
        ]
    else:
        bases = [0.0] * len(keys)
    judged = iter(scores[key] - base for key, base in zip(keys, bases, strict=True))
    ranked = [Ranked(row, tuple(itertools.islice(judged, len(row.additional_outputs)))) for row in found]
    write_rows(run.directory.stage("ranking") / "ranked.jsonl", ranked)
    return {"positions": len(ranked), "scored": len(rows)}


def _advantages(run: Run, rows: list[TokenRow], hindsight: bool, public: bool) -> list[float]:
    """The critic's score of each row's one counted turn; with a public reference without its reference term.

    hindsight: no critic was trained, the start model that sees the reference solution stands in for it.
    """
    settings, folder = run.config.critic, run.directory.stage("ranking")
    buckets = default_buckets(settings.training.max_length)
    options: dict[str, Any] = dict(batch_size=4 * settings.training.batch_size, buckets=buckets, pad_id=run.chat.pad_id)

    def logps(params: Any, name: str) -> list[np.ndarray]:
        return reference_logps(
            run.model, params, rows, cache=ReferenceCache(folder / name),
            progress=lambda done, total: run.console.progress(f"ranking: {name}", done, total), **options,
        )  # fmt: skip

    if settings.parameterisation == "value-head" and not hindsight:
        return _value_head_scores(run, critic_params(run), rows, options)
    scored = logps(run.start_params, "reference") if hindsight else logps(critic_params(run), "critic")
    if not public:
        scored = [mine - theirs for mine, theirs in zip(scored, logps(run.start_params, "reference"), strict=True)]
    combine = np.sum if settings.aggregation == "sum" else np.mean
    return [float(combine(values[row.turns > 0])) for values, row in zip(scored, rows, strict=True)]


def _value_head_scores(run: Run, params: Any, rows: list[TokenRow], options: Mapping[str, Any]) -> list[float]:
    score, size = make_value_head_critic(run.model, 1), options["batch_size"]
    found: list[float] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        filled = part + part[:1] * (size - len(part))
        batch = pad_rows(filled, bucket(max(map(len, part)), options["buckets"]), options["pad_id"])
        found += np.asarray(score(params, put_rows(batch, run.mesh)))[: len(part), 0].tolist()
        run.console.progress("ranking: value head", len(found), len(rows))
    return found


def turn_pairs_stage(run: Run) -> dict[str, Any]:
    """Pairs of one better and one worse turn, drawn from the upper and the lower half of each ranking."""
    settings = run.config.ranking
    rows: list[Pair] = []
    for place, ranked in enumerate(read_rows(run.directory.path / "ranking" / "ranked.jsonl", Ranked)):
        row, rng = ranked.candidates, random.Random(f"{run.config.seed} {place}")
        ids = [tuple(one) for one in row.extra["output_ids"]]
        prompt, prefix = row.extra["prompt_ids"], row.extra["prefix_length"]
        for pair in turn_pairs(ranked.judge_result, ids, settings.num_pairs, rng):
            sides = [(prompt, list(ids[index])) for index in (pair.chosen, pair.rejected)]
            tokens = [row_to_json(candidate_row(before, after, prefix)) for before, after in sides]
            extra = {
                "position": place,
                "advantages": [ranked.judge_result[pair.chosen], ranked.judge_result[pair.rejected]],
                CHOSEN_TOKENS: tokens[0],
                REJECTED_TOKENS: tokens[1],
            }
            texts = [row.input + run.chat.decode(after) for _, after in sides]
            rows.append(Pair(texts[0], texts[1], extra))
    if not rows:
        raise BadInput(
            f"{run.directory.path / 'ranking' / 'ranked.jsonl'}: no turn has two different candidates to compare"
        )
    write_rows(run.directory.stage("turn-pairs") / "pairs.jsonl", rows)
    return {"pairs": len(rows)}
