"""The stages of a run, in order. Each reads files of earlier stages, writes its own, and continues where it was killed.

tasks        tasks/train.jsonl, tasks/eval.jsonl
start        start/behaviour.jsonl, start/model/           only with --model=scratch
rollouts     rollouts/trajectories.jsonl                   ungraded, sample-major
grading      grading/trajectories.jsonl                    with rewards and verdicts
pairs        pairs/trajectory_pairs.jsonl                  chosen and rejected dialogues of one task
critic       critic/checkpoints/                           step-wise advantages
candidates   candidates/candidates.jsonl                   16 turns in each position
ranking      ranking/ranked.jsonl                          with the critic's advantages
turn-pairs   turn-pairs/pairs.jsonl                        better and worse turns
policy       policy/checkpoints/, policy/model/
evaluation   evaluation/start.jsonl, evaluation/trained.jsonl
"""

from __future__ import annotations

import itertools
import math
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from colbench_env.grading import Grader
from colbench_env.mini import behaviour_dialogues, make_tasks
from colbench_env.tasks import append_rows, read_rows, write_rows
from colbench_env.types import BadInput, Candidates, Message, Pair, Ranked, Task, Trajectory
from launch.config import SCRATCH, TrainConfig
from launch.dialogues import Assignment, seed_of
from launch.run import Run
from launch.run_dir import resume_rows
from models.config import LlamaConfig, ModelError
from models.hf_io import save_llama
from models.llama import Llama
from models.parameters import init_params, param_shardings
from sweet_jax.batch import (
    RowPair,
    TokenRow,
    bucket,
    default_buckets,
    fit_pairs,
    pad_pairs,
    pad_rows,
    truncate,
    uncounted,
)
from sweet_jax.chat import Chat, privileged_prefix
from sweet_jax.critic import (
    make_value_head_critic,
    value_head_objective,
    value_head_shardings,
    with_value_head,
)
from sweet_jax.logprobs import ReferenceCache, pad_reference, reference_logps
from sweet_jax.mesh import put_rows
from sweet_jax.metrics import CollapseWatch
from sweet_jax.objectives import Preference, PreferenceBatch, nll_objective, preference_objective
from sweet_jax.pairs import trajectory_pairs, turn_pairs
from sweet_jax.rows import (
    CHOSEN_TOKENS,
    REJECTED_TOKENS,
    candidate_row,
    pair_rows,
    row_to_json,
    trajectory_row,
    turn_output,
    turn_prompt,
)
from sweet_jax.tokenizer import train_tokenizer
from sweet_jax.training import Training, fit, restore_params

Note = Mapping[str, Any]
WAVE = 4  # dialogues under way: this many sampler batches; also what is written, and redone after a kill, at once

START_CONFIG = LlamaConfig(
    vocab_size=1024, hidden_size=128, intermediate_size=512, num_layers=4, num_heads=4, num_kv_heads=2, head_size=32,
    max_position_embeddings=1024, tie_word_embeddings=True,
)  # fmt: skip


# --- tasks and the start policy --------------------------------------------------------------------------------------


def tasks(run: Run) -> Note:
    """Train and held-out tasks: the user's files, or the miniature's own."""
    config, folder = run.config, run.directory.stage("tasks")
    wanted = config.evaluation.num_tasks
    if config.tasks is None:
        train = make_tasks("train", config.num_tasks or 400, config.seed)
        held_out = make_tasks("test", wanted, config.seed)
    else:
        rows = _gradable(config.tasks)
        count = config.num_tasks or (len(rows) if config.eval_tasks else len(rows) - wanted)
        train, held_out = rows[: max(count, 0)], rows[max(count, 0) :][:wanted]
        if config.eval_tasks is None and not (train and held_out):
            raise BadInput(
                f"{config.tasks} has {len(rows)} tasks, too few for {config.num_tasks or 'some'} to train on "
                f"and {wanted} held out: give --eval-tasks, --num-tasks or --evaluation.num-tasks"
            )
    if config.eval_tasks is not None:
        held_out = _gradable(config.eval_tasks)[:wanted]
    write_rows(folder / "train.jsonl", train)
    write_rows(folder / "eval.jsonl", held_out)
    return {"train": len(train), "eval": len(held_out)}


def _gradable(path: Path) -> list[Task]:
    rows = read_rows(path, Task)
    for line, row in enumerate(rows, start=1):
        if not row.test_cases:
            raise BadInput(
                f"{path}:{line}: the task has no 'test_cases', expected a backend task with call expressions"
            )
    return rows


def start(run: Run) -> Note:
    """The start policy of the miniature: a tokenizer and a network trained on scripted dialogues of mixed quality."""
    settings, folder = run.config.start, run.directory.stage("start")
    path = folder / "behaviour.jsonl"
    if not path.exists():
        write_rows(path, (_behaviour_row(d) for d in behaviour_dialogues("train", settings.dialogues, run.config.seed)))
    dialogues = read_rows(path, Trajectory)
    tokenizer = train_tokenizer(
        (m.content for d in dialogues[:4000] for m in d.dialogue_history), START_CONFIG.vocab_size
    )
    chat = Chat(tokenizer)
    rows = [chat.turn_ids(dialogue.dialogue_history) for dialogue in dialogues]
    params = init_params(START_CONFIG, jax.random.key(run.config.seed), run.mesh)
    model = Llama(START_CONFIG, run.mesh, remat=run.config.remat)
    buckets = default_buckets(settings.training.max_length)

    def make_batch(indices: np.ndarray) -> Any:
        chosen = [rows[index] for index in indices]
        return pad_rows(chosen, bucket(max(map(len, chosen)), buckets), chat.pad_id, nll="all")

    params = fit(
        "start", params, param_shardings(START_CONFIG, run.mesh), run.mesh, nll_objective(model),
        [len(row) for row in rows], make_batch, settings.training, run.config.seed, folder, run.reporter("start"),
    )  # fmt: skip
    _export(folder / "model", START_CONFIG, params, tokenizer)
    return {"dialogues": len(dialogues), "complete": sum(bool(d.extra["complete"]) for d in dialogues) / len(dialogues)}


def _behaviour_row(dialogue: Any) -> Trajectory:
    messages = tuple(
        Message(role, text, output=text if role == "assistant" else None) for role, text in dialogue.messages
    )
    return Trajectory(Task(messages[0].content), messages, dialogue.answer, extra={"complete": dialogue.complete})


def _export(directory: Path, config: LlamaConfig, params: Any, tokenizer: Any) -> None:
    """A Hugging Face directory, whole or not there."""
    beside = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        save_llama(beside, config, params)
        tokenizer.save_pretrained(beside)
        shutil.rmtree(directory, ignore_errors=True)
        beside.rename(directory)
    except ModelError:
        raise
    except Exception as error:  # safetensors and tokenizers have errors of their own for a full disk
        raise BadInput(f"{directory}: the model cannot be written: {error}") from error


# --- dialogues and their rewards -------------------------------------------------------------------------------------


def _play(
    run: Run, stage: str, path: Path, params: Any, wanted: Sequence[Assignment], temperature: float, seed: int
) -> None:
    """Plays what is missing in `path`, a wave at a time."""
    wave = WAVE * run.config.rollouts.rows
    done = resume_rows(path, Trajectory, wave, len(wanted))
    if done == len(wanted):
        return
    table, watch = run.table(params, temperature, seed), CollapseWatch(len(wanted))
    while done < len(wanted):
        part = wanted[done : done + wave]
        so_far = done
        played = table.play(part, lambda ended, so_far=so_far: run.console.progress(stage, so_far + ended, len(wanted)))
        append_rows(path, played)
        done += len(part)
        tokens = [turn.extra["tokens"] for trajectory in played for turn in trajectory.agent_turns]
        for warning in watch.replies(float(np.mean(tokens))):
            run.console.warn(f"stage {stage}: {warning}")
        run.console.progress(stage, done, len(wanted))


def rollouts(run: Run) -> Note:
    """Dialogues of the start policy: row j * num_tasks + i is sample j of task i."""
    path = run.directory.stage("rollouts") / "trajectories.jsonl"
    if run.config.trajectories is not None:
        given = read_rows(run.config.trajectories, Trajectory)
        write_rows(path, given)
        return {"trajectories": len(given), "from": str(run.config.trajectories)}
    train = read_rows(run.directory.path / "tasks" / "train.jsonl", Task)
    wanted = [Assignment(task, sample) for sample in range(run.config.rollouts.samples) for task in train]
    _play(run, "rollouts", path, run.start_params, wanted, run.config.rollouts.temperature, run.config.seed)
    return {"trajectories": len(wanted)}


def _grade(run: Run, stage: str, source: Path, target: Path) -> list[Trajectory]:
    """The trajectories of `source` with rewards and verdicts, also written to `target`."""
    trajectories = read_rows(source, Trajectory)
    ungraded = [t for t in trajectories if t.reward is None]
    for line, trajectory in enumerate(trajectories, start=1):
        if trajectory.reward is None and not (trajectory.task.ground_truth and trajectory.task.test_cases):
            raise BadInput(f"{source}:{line}: the task has no reference or no tests, so the answer cannot be graded")
    with Grader(run.config.grader, workers=run.config.grader_workers, unsafe=run.config.unsafe) as grader:
        counter = itertools.count(1)
        grades = grader.grade_many(
            [(t.task, t.answer) for t in ungraded],
            on_done=lambda *_: run.console.progress(stage, next(counter), len(ungraded)),
        )
    by_trajectory = dict(zip(map(id, ungraded), grades, strict=True))
    graded = [
        t if id(t) not in by_trajectory else _with_grade(t, by_trajectory[id(t)], run.config) for t in trajectories
    ]
    lost = sum(t.reward is None for t in graded)
    if lost:
        run.console.warn(
            f"stage {stage}: {lost} answers could not be graded for lack of a working sandbox and are left out"
        )
    write_rows(target, graded)
    return graded


def _with_grade(trajectory: Trajectory, grade: Any, config: TrainConfig) -> Trajectory:
    verdicts = {v.name: str(v.verdict) for v in grade.verdicts}
    extra = dict(trajectory.extra) | {"grader": config.grader, "verdicts": verdicts}
    reward = None if grade.excluded else grade.fraction
    return Trajectory(trajectory.task, trajectory.dialogue_history, trajectory.answer, reward, extra)


def grading(run: Run) -> Note:
    """Rewards of the rollouts: the share of a task's tests that the answer passes."""
    source, folder = run.directory.path / "rollouts" / "trajectories.jsonl", run.directory.stage("grading")
    graded = _grade(run, "grading", source, folder / "trajectories.jsonl")
    return {"trajectories": len(graded), **_outcome(graded)}


def _outcome(graded: Sequence[Trajectory]) -> dict[str, float]:
    rewards = [t.reward for t in graded if t.reward is not None]
    return {
        "tests_passed": float(np.mean(rewards)) if rewards else math.nan,
        "success": float(np.mean([reward == 1.0 for reward in rewards])) if rewards else math.nan,
        "turns": float(np.mean([len(t.agent_turns) for t in graded])),
    }


# --- the critic ------------------------------------------------------------------------------------------------------


def _shows_reference(run: Run) -> bool:
    return run.config.algorithm == "sweet" and run.config.critic.privileged


def pairs(run: Run) -> Note:
    """Trajectory pairs: of each task's samples the best, if it passes all tests, against every worse one."""
    path = run.directory.path / "grading" / "trajectories.jsonl"
    by_task: dict[str, list[tuple[int, Trajectory]]] = defaultdict(list)
    for line, trajectory in enumerate(read_rows(path, Trajectory), start=1):
        if trajectory.reward is not None:
            by_task[trajectory.task.task_id].append((line, trajectory))
    rows = [
        _pair(run, path, samples[pair.chosen], samples[pair.rejected])
        for samples in by_task.values()
        for pair in trajectory_pairs([trajectory.reward for _, trajectory in samples])
    ]
    if not rows:
        raise BadInput(
            f"{path}: no task has both a sample that passes all tests and a worse one, so there are no pairs "
            "to learn from: sample more (--num-tasks, --rollouts.samples) or give better --trajectories"
        )
    write_rows(run.directory.stage("pairs") / "trajectory_pairs.jsonl", rows)
    return {"pairs": len(rows), "tasks": len(by_task)}


def _pair(run: Run, path: Path, chosen: tuple[int, Trajectory], rejected: tuple[int, Trajectory]) -> Pair:
    prefix = privileged_prefix(chosen[1].task.ground_truth) if _shows_reference(run) else ""
    texts, tokens = [], []
    for line, trajectory in (chosen, rejected):
        row = trajectory_row(trajectory, run.chat, run.system, f"{path}:{line}")
        last = row.num_turns
        said = run.chat.reply_text(turn_output(row, last))
        texts.append(prefix + run.chat.decode(turn_prompt(row, last)) + said)
        tokens.append(row_to_json(run.chat.with_prefix(row, prefix) if prefix else row))
    extra = {"task": chosen[1].task.task_id, CHOSEN_TOKENS: tokens[0], REJECTED_TOKENS: tokens[1]}
    return Pair(texts[0], texts[1], extra)


def _fitted(run: Run, stage: str, path: Path, training: Training, last_turn_only: bool) -> tuple[RowPair, ...]:
    """The pairs of a file as token rows within the length limit; what was cut, dropped or empty is told."""
    rows = [
        pair_rows(pair, run.chat, last_turn_only, f"{path}:{line}")
        for line, pair in enumerate(read_rows(path, Pair), start=1)
    ]
    _check_lengths(stage, path, [(line, len(pair)) for line, pair in enumerate(rows, start=1)], training)
    fitted = fit_pairs(rows, training.max_length, training.truncation)
    watch = CollapseWatch(len(rows))
    empty = uncounted([row for pair in fitted.pairs for row in (pair.chosen, pair.rejected)])
    for warning in watch.rows(2 * len(rows), len(empty), len(fitted.cut)):
        run.console.warn(f"stage {stage}: {warning}")
    if fitted.dropped:
        run.console.warn(f"stage {stage}: {len(fitted.dropped)} of {len(rows)} pairs were too long and were dropped")
    return fitted.pairs


def _check_lengths(stage: str, path: Path, lengths: Sequence[tuple[int, int]], training: Training) -> None:
    """BadInput naming the first (line, length) over the limit, unless longer rows are to be cut or dropped."""
    for line, length in lengths:
        if length > training.max_length and training.truncation == "raise":
            raise BadInput(
                f"{path}:{line}: the row has {length} tokens, more than {stage}.training.max_length of "
                f"{training.max_length}: raise it, or choose a {stage}.training.truncation"
            )


def _train_on_pairs(
    run: Run, stage: str, pairs: Sequence[RowPair], settings: Preference, training: Training, nll: str
) -> None:
    """Preference training of the network, its start being the reference; leaves checkpoints in the stage's folder."""
    folder, mesh = run.directory.stage(stage), run.mesh
    buckets = default_buckets(training.max_length)
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    reference = reference_logps(
        run.model, run.start_params, rows,
        batch_size=2 * training.batch_size, buckets=buckets, pad_id=run.chat.pad_id,
        cache=ReferenceCache(folder / "reference"),
        progress=lambda done, total: run.console.progress(f"{stage}: reference log-probs", done, total),
    )  # fmt: skip

    def make_batch(indices: np.ndarray) -> PreferenceBatch:
        chosen = [pairs[index] for index in indices]
        length = bucket(max(map(len, chosen)), buckets)
        return PreferenceBatch(
            pad_pairs(chosen, length, run.chat.pad_id, nll),  # type: ignore[arg-type]
            pad_reference([reference[2 * index] for index in indices], length),
            pad_reference([reference[2 * index + 1] for index in indices], length),
        )

    fit(
        stage, run.start_params, run.shardings, mesh, preference_objective(run.model, settings),
        [len(pair) for pair in pairs], make_batch, training, run.config.seed, folder, run.reporter(stage),
    )  # fmt: skip


def critic(run: Run) -> Note:
    """The step-level critic: Bradley-Terry on summed turn advantages (eq. 2 and 3)."""
    settings = run.config.critic
    path = run.directory.path / "pairs" / "trajectory_pairs.jsonl"
    pairs = _fitted(run, "critic", path, settings.training, last_turn_only=False)
    preference = Preference(
        settings.aggregation, settings.beta, settings.nll_coef, settings.label_smoothing, run.config.rollouts.max_turns
    )
    if settings.parameterisation == "log-ratio":
        _train_on_pairs(run, "critic", pairs, preference, settings.training, "turn")
    else:
        _train_value_head(run, pairs, preference)
    return {"pairs": len(pairs), "steps": settings.training.steps(len(pairs))}


def _value_head(run: Run) -> tuple[Any, Any]:
    params = with_value_head(run.start_params, jax.random.key(run.config.seed), run.mesh)
    return params, value_head_shardings(run.shardings, run.mesh)


def _train_value_head(run: Run, pairs: Sequence[RowPair], settings: Preference) -> None:
    training, buckets = run.config.critic.training, default_buckets(run.config.critic.training.max_length)
    params, shardings = _value_head(run)

    def make_batch(indices: np.ndarray) -> Any:
        chosen = [pairs[index] for index in indices]
        return pad_pairs(chosen, bucket(max(map(len, chosen)), buckets), run.chat.pad_id)

    fit(
        "critic", params, shardings, run.mesh, value_head_objective(run.model, settings),
        [len(pair) for pair in pairs], make_batch, training, run.config.seed,
        run.directory.stage("critic"), run.reporter("critic"),
    )  # fmt: skip


# --- candidates, their ranks and turn pairs --------------------------------------------------------------------------


def candidates(run: Run) -> Note:
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
    prefix = privileged_prefix(trajectory.task.ground_truth) if _shows_reference(run) else ""
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


def ranking(run: Run) -> Note:
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
    scores = dict(zip(rows, _advantages(run, list(rows.values())), strict=True))
    if run.config.ranking.reference_context == "public" and run.config.critic.parameterisation == "log-ratio":
        public = [mean for row in found for mean in row.additional_reference_logprobs]
    else:
        public = [0.0] * len(keys)
    judged = iter(scores[key] - base for key, base in zip(keys, public, strict=True))
    ranked = [Ranked(row, tuple(itertools.islice(judged, len(row.additional_outputs)))) for row in found]
    write_rows(run.directory.stage("ranking") / "ranked.jsonl", ranked)
    return {"positions": len(ranked), "scored": len(rows)}


def _advantages(run: Run, rows: list[TokenRow]) -> list[float]:
    """The critic's score of each row's one counted turn; with a public reference without its reference term."""
    settings, folder = run.config.critic, run.directory.stage("ranking")
    num_pairs = run.directory.note("critic")["pairs"]  # type: ignore[index]
    buckets = default_buckets(settings.training.max_length)
    options: dict[str, Any] = dict(batch_size=4 * settings.training.batch_size, buckets=buckets, pad_id=run.chat.pad_id)

    def logps(params: Any, name: str) -> list[np.ndarray]:
        return reference_logps(
            run.model, params, rows, cache=ReferenceCache(folder / name),
            progress=lambda done, total: run.console.progress(f"ranking: {name}", done, total), **options,
        )  # fmt: skip

    if settings.parameterisation == "value-head":
        params, shardings = _value_head(run)
        params = restore_params(run.directory.path / "critic", params, shardings, settings.training, num_pairs)
        return _value_head_scores(run, params, rows, options)
    scored = logps(run.trained("critic", settings.training, num_pairs), "critic")
    if run.config.ranking.reference_context == "privileged":
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


def turn_pairs_stage(run: Run) -> Note:
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


# --- the policy and its evaluation -----------------------------------------------------------------------------------


def policy(run: Run) -> Note:
    """The trained policy: DPO on turn pairs (eq. 4), DPO on trajectory pairs, or imitation of successes."""
    config, settings = run.config, run.config.policy
    if config.algorithm == "rft":
        count = _imitate(run)
    else:
        per_turn = config.algorithm == "sweet"
        path = run.directory.path / ("turn-pairs/pairs.jsonl" if per_turn else "pairs/trajectory_pairs.jsonl")
        pairs = _fitted(run, "policy", path, settings.training, last_turn_only=per_turn)
        turns = 1 if per_turn else config.rollouts.max_turns
        preference = Preference("sum", settings.beta, settings.nll_coef, settings.label_smoothing, turns)
        _train_on_pairs(run, "policy", pairs, preference, settings.training, settings.nll_mask)
        count = len(pairs)
    params = run.policy_params(count)
    _export(run.directory.path / "policy" / "model", run.llama_config, params, run.chat.tokenizer)
    return {"rows": count, "steps": settings.training.steps(count)}


def _imitate(run: Run) -> int:
    """Rejection fine-tuning: the agent's turns of every successful trajectory."""
    settings = run.config.policy
    path = run.directory.path / "grading" / "trajectories.jsonl"
    rows = [
        (line, trajectory_row(t, run.chat, run.system, f"{path}:{line}"))
        for line, t in enumerate(read_rows(path, Trajectory), start=1)
        if t.reward == 1.0
    ]
    _check_lengths("policy", path, [(line, len(row)) for line, row in rows], settings.training)
    fitted = [truncate(row, settings.training.max_length, settings.training.truncation) for _, row in rows]  # type: ignore[arg-type]
    kept = [row for row in fitted if row is not None]
    if not kept:
        raise BadInput(f"{path}: no trajectory passes all tests, so there is nothing to imitate")
    buckets = default_buckets(settings.training.max_length)

    def make_batch(indices: np.ndarray) -> Any:
        chosen = [kept[index] for index in indices]
        return pad_rows(chosen, bucket(max(map(len, chosen)), buckets), run.chat.pad_id, settings.nll_mask)

    fit(
        "policy", run.start_params, run.shardings, run.mesh, nll_objective(run.model), [len(row) for row in kept],
        make_batch, settings.training, run.config.seed, run.directory.stage("policy"), run.reporter("policy"),
    )  # fmt: skip
    return len(kept)


def evaluation(run: Run) -> Note:
    """Start policy and trained policy on held-out tasks: the same tasks, the same seeds."""
    folder = run.directory.stage("evaluation")
    held_out = read_rows(run.directory.path / "tasks" / "eval.jsonl", Task)
    wanted = [Assignment(task, 0) for task in held_out]
    seed = seed_of(run.config.seed, "evaluation")
    policies: dict[str, Callable[[], Any]] = {"start": lambda: run.start_params}
    if run.config.algorithm != "zero-shot":
        trained = run.directory.note("policy")
        if trained is None:
            raise BadInput(f"{run.directory.path}: there is no trained policy to evaluate: run --stage=policy first")
        policies["trained"] = lambda: run.policy_params(trained["rows"])
    note: dict[str, Any] = {}
    for name, params in policies.items():
        played, graded = folder / f"{name}_ungraded.jsonl", folder / f"{name}.jsonl"
        _play(run, f"evaluation: {name}", played, params(), wanted, run.config.evaluation.temperature, seed)
        note[name] = _outcome(_grade(run, f"evaluation: {name}", played, graded))
    return note


STAGE_FUNCTIONS: Mapping[str, Callable[[Run], Note]] = {
    "tasks": tasks,
    "start": start,
    "rollouts": rollouts,
    "grading": grading,
    "pairs": pairs,
    "critic": critic,
    "candidates": candidates,
    "ranking": ranking,
    "turn-pairs": turn_pairs_stage,
    "policy": policy,
    "evaluation": evaluation,
}


def planned(config: TrainConfig) -> tuple[str, ...]:
    """The stages that the algorithm needs, in order."""
    learning = {
        "sweet": ("rollouts", "grading", "pairs", "critic", "candidates", "ranking", "turn-pairs", "policy"),
        "mtdpo": ("rollouts", "grading", "pairs", "policy"),
        "rft": ("rollouts", "grading", "policy"),
        "zero-shot": (),
    }[config.algorithm]
    return ("tasks", *(("start",) if config.model == SCRATCH else ()), *learning, "evaluation")
