"""The training loop of every stage: batches of like length, checkpoints, metrics.

It may be killed at any moment. A loop continued from a checkpoint makes the same updates with the same rows in the same
order, so its parameters are bit-identical to those of a loop that was never interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from colbench_env.types import BadInput
from sweet_jax import processes
from sweet_jax.data.index_stream import length_batches, pair_stream
from sweet_jax.mesh import check_rows, put_rows
from sweet_jax.train.checkpoint import Checkpoints
from sweet_jax.train.metrics import CollapseWatch, MetricsLog, Values, to_floats
from sweet_jax.train.optim import learning_rate, make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import Objective, TrainState, abstract_state, init_state, make_train_step, state_shardings


class Interrupted(Exception):
    """A loop has ended early because it was asked to; the checkpoint of its last update is on disk."""


@dataclass(frozen=True)
class Reporter:
    """How a loop reports, and how it is asked to end early.

    progress: called with (updates done, updates in all, line of text, metrics) after every logged update.
    warn: called with every warning.
    finishing: a context whose value says, when called, whether the loop should end after the current update.
    """

    progress: Callable[[int, int, str, Values], None] = lambda done, total, line, values: None
    warn: Callable[[str], None] = lambda message: None
    finishing: Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]] = lambda: contextlib.nullcontext(
        lambda: False
    )


def fit(
    stage: str,
    *,
    shapes: Any,
    first: Callable[[], Any],
    mesh: Mesh,
    objective: Objective,
    lengths: Sequence[int],
    make_batch: Callable[[np.ndarray, int], Any],
    settings: Training,
    seed: int,
    directory: Path,
    reporter: Reporter = Reporter(),  # noqa: B008
    frozen: Any = None,
    keep: int = 2,
    groups: Sequence[Hashable] | None = None,
) -> Any:
    """Train and return the parameters, on their shardings; `directory` gets `checkpoints/`, metrics and TensorBoard.

    stage: its name in metrics and messages.
    shapes: sharded jax.ShapeDtypeStruct of every trained parameter.
    first: returns their initial values; called only where there is no checkpoint, and the values are not kept.
    objective: the loss (see `sweet_jax.train.step`).
    lengths: tokens of each row.
    make_batch: (row numbers, tokens) -> batch for `objective`, arrays [B, ...] of the host, the same in every process.
    tokens is the length of the longest row.
    frozen: parameters that the objective sees together with the trained ones.
    keep: checkpoints that stay, the newest ones.
    groups: of each row; rows of an equal group come one after another, and mostly in the same update.
    BadInput, before anything is compiled, where the batch does not divide over the mesh. Raises metrics.Diverged for a
    metric that is not finite, and Interrupted where `reporter` asks for an early end. Several processes agree on that
    at logged updates, so that all of them save the same step.
    """
    if not lengths:
        raise BadInput(f"stage {stage}: there are no rows to train on")
    check_rows(settings.batch_size, mesh, settings.micro_batches)
    total = settings.steps(len(lengths))
    optimizer = make_optimizer(settings, total)
    state_layout = state_shardings(optimizer, shapes, shardings_of(shapes))
    batches = length_batches(lengths, settings.batch_size, seed, settings.length_window, groups)
    stream = pair_stream(len(batches), 1, seed)
    train_step = make_train_step(objective, optimizer, state_layout, mesh, settings.micro_batches, frozen)
    watch, batch_shapes = CollapseWatch(total), set()
    with Checkpoints(directory / "checkpoints", keep) as checkpoints:
        restored = checkpoints.restore(abstract_state(optimizer, shapes, state_layout))
        if restored is None:
            state, done = init_state(optimizer, first(), state_layout), 0
        else:
            state, done = restored.state, restored.step
            stream.set_state(restored.iterator)
            reporter.progress(done, total, f"stage={stage} continues after step {done}/{total}", {})
        with MetricsLog(directory, stage, resume_step=done + 1) as metrics_log, reporter.finishing() as stop_asked:
            while done < total:
                numbers = batches[int(next(stream)[0])]
                longest = max(lengths[number] for number in numbers)
                batch = put_rows(make_batch(numbers, longest), mesh, settings.micro_batches)
                batch_shapes.add(tuple(leaf.shape for leaf in jax.tree.leaves(batch)))
                state, metrics = train_step(state, batch)
                done += 1
                saving = done % settings.save_every == 0 or done == total
                logging = saving or done % settings.log_every == 0
                stopping = (logging or processes.count() == 1) and any(processes.gather(stop_asked()))
                if logging or stopping:  # whatever is saved was checked by the watch
                    values = to_floats(metrics) | {"lr": float(learning_rate(settings, total, done - 1))}
                    warnings = watch.step(done, values) + watch.compilations(train_step.compilations, len(batch_shapes))
                    if logging:  # so the log is that of a loop that was never stopped
                        reporter.progress(done, total, metrics_log.write(done, total, values), values)
                    for warning in warnings:
                        reporter.warn(f"stage {stage}: {warning}")
                if saving or stopping:
                    checkpoints.save(done, state, stream.get_state())
                if stopping and done < total:
                    raise Interrupted(f"after step {done} of stage {stage}")
    return state.params


def rows_in_use(
    lengths: Sequence[int], settings: Training, seed: int, groups: Sequence[Hashable] | None = None
) -> list[int]:
    """List the numbers of the rows that `fit` will see with these arguments, in order: all but where steps are few."""
    if not lengths:
        return []
    batches = length_batches(lengths, settings.batch_size, seed, settings.length_window, groups)
    stream = pair_stream(len(batches), 1, seed)
    used = {int(next(stream)[0]) for _ in range(settings.steps(len(lengths)))}
    return sorted({int(number) for batch in used for number in batches[batch]})


def restore_params(directory: Path, shapes: Any, settings: Training, num_rows: int, step: int | None = None) -> Any:
    """Read the parameters of a finished stage from its last checkpoint, or from that of `step`.

    shapes: as in `fit`. BadInput where there is no checkpoint of the step, or it is damaged.
    """
    total = settings.steps(num_rows)
    wanted = total if step is None else step
    optimizer = make_optimizer(settings, total)
    layout = state_shardings(optimizer, shapes, shardings_of(shapes))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        restored = checkpoints.restore(abstract_state(optimizer, shapes, layout), step)
    if restored is None or restored.step != wanted:
        found = "none" if restored is None else f"step {restored.step}"
        raise BadInput(
            f"{directory / 'checkpoints'}: expected a checkpoint of step {wanted}, found {found}. Delete "
            f"{directory / 'done.json'}, if it is there, and run the same command again: it trains the missing updates"
        )
    state: TrainState = restored.state
    return state.params


def shardings_of(shapes: Any) -> Any:
    """Return the shardings of a tree of sharded shapes or arrays."""
    return jax.tree.map(lambda x: x.sharding, shapes)
