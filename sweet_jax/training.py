"""The training loop of every stage: batches of like length, checkpoints, metrics; killed at any moment, it goes on.

A loop continued from a checkpoint makes the same updates with the same rows in the same order, so its parameters are
bit-identical to those of a loop that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from colbench_env.types import BadInput
from sweet_jax.checkpoint import Checkpoints
from sweet_jax.data import length_batches, num_batches, pair_stream
from sweet_jax.mesh import check_rows
from sweet_jax.metrics import CollapseWatch, MetricsLog, to_floats
from sweet_jax.optim import Hyper, learning_rate, make_optimizer
from sweet_jax.step import Objective, TrainState, abstract_state, init_state, make_train_step, state_shardings


@dataclass(frozen=True)
class Training:
    """How long a stage trains, on what batches, and when it saves.

    batch_size: rows or pairs in an update. micro_batches: parts that a batch is computed in, one after the other.
    epochs: times each row is seen; max_steps: a limit on the updates, 0 for none.
    max_length: tokens of a row; truncation: what happens to longer ones. log_every, save_every: in updates; what is
    saved is logged, too.
    length_window: batches among which rows are sorted by length: less padding, but rows of a batch are alike; 1: not
    at all.
    """

    batch_size: int = 8
    micro_batches: int = 1
    epochs: int = 1
    max_steps: int = 0
    max_length: int = 16384
    truncation: str = "raise"
    log_every: int = 1
    save_every: int = 100
    length_window: int = 1
    hyper: Hyper = field(default_factory=Hyper)

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batches", "epochs", "max_length", "log_every", "save_every", "length_window"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.max_steps < 0:
            raise BadInput(f"max_steps is {self.max_steps}, it must not be negative")
        if self.truncation not in ("raise", "drop-pair", "left"):
            raise BadInput(f"truncation is {self.truncation!r}, expected 'raise', 'drop-pair' or 'left'")

    def steps(self, num_rows: int) -> int:
        """Updates for that many rows."""
        steps = self.epochs * num_batches(num_rows, self.batch_size, epochs=1)  # `length_batches` are cut once
        return min(steps, self.max_steps) if self.max_steps else steps


@dataclass(frozen=True)
class Reporter:
    """Where a loop tells what happens: progress(done, total, line) after every logged update, and warnings."""

    progress: Callable[[int, int, str], None] = lambda done, total, line: None
    warn: Callable[[str], None] = lambda message: None


def fit(
    stage: str,
    params: Any,
    shardings: Any,
    mesh: Mesh,
    objective: Objective,
    lengths: Sequence[int],
    make_batch: Callable[[np.ndarray], Any],
    settings: Training,
    seed: int,
    directory: Path,
    reporter: Reporter,
) -> Any:
    """The parameters after training, on their shardings; `directory` holds `checkpoints/`, metrics and TensorBoard.

    params, shardings: of every parameter that is trained; `params` are left as they are. lengths: tokens of each row.
    make_batch: row numbers -> batch for `objective`. BadInput before anything is compiled where the batch does not
    divide over the mesh. Raises metrics.Diverged where a metric is no longer a number.
    """
    if not lengths:
        raise BadInput(f"stage {stage}: there are no rows to train on")
    check_rows(settings.batch_size, mesh, settings.micro_batches)
    total = settings.steps(len(lengths))
    optimizer = make_optimizer(settings.hyper, total)
    state_layout = state_shardings(optimizer, params, shardings)
    batches = length_batches(lengths, settings.batch_size, seed, settings.length_window)
    stream = pair_stream(len(batches), 1, seed)
    train_step = make_train_step(objective, optimizer, state_layout, mesh, settings.micro_batches)
    watch, shapes = CollapseWatch(total), set()
    with Checkpoints(directory / "checkpoints") as checkpoints:
        restored = checkpoints.restore(abstract_state(optimizer, params, state_layout))
        if restored is None:
            state, done = init_state(optimizer, params, state_layout), 0
        else:
            state, done = restored.state, restored.step
            stream.set_state(restored.iterator)
            reporter.progress(done, total, f"stage={stage} continues after step {done}/{total}")
        with MetricsLog(directory, stage, resume_step=done + 1) as metrics_log:
            while done < total:
                batch = make_batch(batches[int(next(stream)[0])])
                shapes.add(tuple(leaf.shape for leaf in jax.tree.leaves(batch)))
                state, metrics = train_step(state, batch)
                done += 1
                saving = done % settings.save_every == 0 or done == total
                if saving or done % settings.log_every == 0:  # nothing is saved that was not looked at
                    values = to_floats(metrics) | {"lr": float(learning_rate(settings.hyper, total, done - 1))}
                    warnings = watch.step(done, values) + watch.compilations(train_step.compilations, len(shapes))
                    reporter.progress(done, total, metrics_log.write(done, total, values))
                    for warning in warnings:
                        reporter.warn(f"stage {stage}: {warning}")
                if saving:
                    checkpoints.save(done, state, stream.get_state())
    return state.params


def restore_params(directory: Path, params: Any, shardings: Any, settings: Training, num_rows: int) -> Any:
    """The parameters of a stage that has finished, from its last checkpoint.

    params: arrays or shapes of the same tree. BadInput where there is no checkpoint of the last step.
    """
    total = settings.steps(num_rows)
    optimizer = make_optimizer(settings.hyper, total)
    layout = state_shardings(optimizer, params, shardings)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        restored = checkpoints.restore(abstract_state(optimizer, params, layout))
    if restored is None or restored.step != total:
        found = "none" if restored is None else f"step {restored.step}"
        raise BadInput(f"{directory / 'checkpoints'}: expected a checkpoint of step {total}, found {found}")
    state: TrainState = restored.state
    return state.params
