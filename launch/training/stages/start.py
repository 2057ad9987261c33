"""Stages tasks and start: what is asked of the agent, and the policy that everything begins with."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from colbench_env.tasks import read_located_rows, read_rows
from colbench_env.types import BadInput, Task, Trajectory
from launch.common.run_dir import write_rows
from launch.training.config import MINI_TASKS
from launch.training.run import Run
from models.config import LlamaConfig
from models.llama import Llama
from models.parameters import init_params, param_shapes
from sweet_jax import processes
from sweet_jax.data.batch import TokenRow, bucket, default_buckets, pad_rows
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.data.tokenizer import train_tokenizer
from sweet_jax.export import export_model
from sweet_jax.train.loop import fit
from sweet_jax.train.objectives import nll_objective

START_CONFIG = LlamaConfig(
    vocab_size=2048, hidden_size=128, intermediate_size=512, num_layers=4, num_heads=4, num_kv_heads=2, head_size=32,
    max_position_embeddings=1024, tie_word_embeddings=True,
)  # fmt: skip


def tasks(run: Run) -> dict[str, Any]:
    """Train and held-out tasks: the user's files, or the miniature's own."""
    config, folder = run.config, run.directory.stage("tasks")
    wanted, note = config.evaluation.num_tasks, {}
    if config.tasks is None:
        train = run.benchmark.tasks("train", config.num_tasks or MINI_TASKS, config.seed)
        held_out = run.benchmark.tasks("test", wanted, config.seed)
    else:
        rows = _gradable(run, config.tasks)
        count = config.num_tasks or (len(rows) if config.eval_tasks else len(rows) - wanted)
        train, held_out = rows[: max(count, 0)], rows[max(count, 0) :][:wanted]
        if config.eval_tasks is None and not (train and held_out):
            raise BadInput(
                f"{config.tasks} has {len(rows)} tasks, too few for {config.num_tasks or 'some'} to train on "
                f"and {wanted} held out: give --eval-tasks, --num-tasks or --evaluation.num-tasks"
            )
    if config.eval_tasks is not None:
        held_out = _gradable(run, config.eval_tasks)[:wanted]
    for flag, asked, found in (("num-tasks", config.num_tasks, train), ("evaluation.num-tasks", wanted, held_out)):
        if len(found) < asked:
            run.console.warn(f"stage tasks: --{flag} is {asked}, the tasks given are {len(found)}: all are taken")
    if config.policy_stage == "selection":
        note = {"validation": len(validation := _validation_tasks(run))}
        write_rows(folder / "validation.jsonl", validation)
    write_rows(folder / "train.jsonl", train)
    write_rows(folder / "eval.jsonl", held_out)
    return {"train": len(train), "eval": len(held_out)} | note


def _validation_tasks(run: Run) -> list[Task]:
    config, wanted = run.config, run.config.policy.select_tasks
    if config.validation_tasks is None:
        return run.benchmark.tasks("validation", wanted, config.seed)
    return _gradable(run, config.validation_tasks)[:wanted]


def _gradable(run: Run, path: Path) -> list[Task]:
    rows = read_located_rows(path, Task)
    for found in rows:
        if reason := run.benchmark.grading_error(found.row):
            raise BadInput(f"{found.location}: {reason}")
    return [found.row for found in rows]


def start(run: Run) -> dict[str, Any]:
    """Train the start policy of the miniature: a tokenizer and a network, on scripted dialogues of mixed quality."""
    settings, folder = run.config.start, run.directory.stage("start")
    path = folder / "behaviour.jsonl"
    processes.publish(path, lambda: None if path.exists() else _write_dialogues(run, path))
    dialogues = read_rows(path, Trajectory)
    tokenizer = train_tokenizer(_start_texts(dialogues[:4000]), START_CONFIG.vocab_size)
    chat = Chat(tokenizer)
    rows = start_rows(dialogues, chat, settings.privileged_fraction, run.config.seed)
    model = Llama(START_CONFIG, run.mesh, remat=run.config.remat)
    buckets = default_buckets(settings.training.max_length)

    def make_batch(indices: np.ndarray, longest: int) -> Any:
        return pad_rows([rows[index] for index in indices], bucket(longest, buckets), chat.pad_id, nll="all")

    params = fit(
        "start",
        shapes=param_shapes(START_CONFIG, run.mesh),
        first=lambda: init_params(START_CONFIG, jax.random.key(run.config.seed), run.mesh),
        mesh=run.mesh,
        objective=nll_objective(model),
        lengths=[len(row) for row in rows],
        make_batch=make_batch,
        settings=settings.training,
        seed=run.config.seed,
        directory=folder,
        reporter=run.reporter("start"),
    )
    export_model(folder / "model", START_CONFIG, params, tokenizer)
    return {"dialogues": len(dialogues), "complete": sum(bool(d.extra["complete"]) for d in dialogues) / len(dialogues)}


def _write_dialogues(run: Run, path: Path) -> None:
    write_rows(path, _scripted(run))


def _scripted(run: Run) -> Iterator[Trajectory]:
    settings = run.config.start
    return run.benchmark.scripted_dialogues(settings.dialogues, run.config.seed, settings.privileged_fraction)


def start_rows(dialogues: Sequence[Trajectory], chat: Chat, privileged_fraction: float, seed: int) -> list[TokenRow]:
    """Give the dialogues as token rows, that part of them with the reference solution in front.

    Where the rows say whose agent saw the reference (`sees_reference`), it is those.
    """
    rows = [chat.turn_ids(dialogue.dialogue_history) for dialogue in dialogues]
    shown = random.Random(seed).sample(range(len(rows)), round(privileged_fraction * len(rows)))
    if any("sees_reference" in dialogue.extra for dialogue in dialogues):
        shown = [index for index, dialogue in enumerate(dialogues) if dialogue.extra.get("sees_reference")]
    for index in shown:
        rows[index] = chat.add_prefix(rows[index], privileged_prefix(dialogues[index].task.ground_truth))
    return rows


def _start_texts(dialogues: Sequence[Trajectory]) -> Iterator[str]:
    for dialogue in dialogues:
        yield privileged_prefix(dialogue.task.ground_truth)
        yield from (message.content for message in dialogue.dialogue_history)
