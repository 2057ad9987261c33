"""One training step: micro-batches, exact division, sharded gradients, one jitted and donated function.

An objective says how a batch becomes a loss; the step knows nothing of dialogues. Both of its functions see data:

    counts(batch)               what the whole batch is divided by, from data columns alone (pairs, tokens)
    loss(params, batch, counts) the share of the loss that these rows contribute, already divided by the counts of the
                                whole batch, and metrics as (sum, count)

Because the shares of the micro-batches add up, 1 and 4 micro-batches give the same update, however uneven the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.parameters import flatten, nest
from sweet_jax.losses import MeanMetric, Metrics
from sweet_jax.mesh import check_rows, replicated, rows_sharding

PyTree = Any


@dataclass(frozen=True)
class Objective:
    """What a stage minimises; see the top of this file for both functions."""

    counts: Callable[[PyTree], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree], tuple[Any, Metrics]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """params: nested dict of what is trained, float32 masters; opt_state: optax's; step: int32, updates made."""

    params: PyTree
    opt_state: PyTree
    step: Any


def state_shardings(optimizer: optax.GradientTransformation, params: PyTree, param_shardings: PyTree) -> TrainState:
    """The shardings of a TrainState: moments lie as their parameter does, counters are whole on every device.

    params: arrays or shapes; param_shardings: the same tree of NamedSharding.
    """
    whole = replicated(jax.tree.leaves(param_shardings)[0].mesh)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, params),
        param_shardings,
        transform_non_params=lambda _: whole,
    )
    return TrainState(param_shardings, opt_state, whole)


def init_state(optimizer: optax.GradientTransformation, params: PyTree, shardings: TrainState) -> TrainState:
    """The state before the first update. The parameters are copied, because the step donates its own: the caller's stay
    usable as the frozen reference."""
    return jax.jit(lambda given: _first_state(optimizer, given), out_shardings=shardings)(params)


def abstract_state(optimizer: optax.GradientTransformation, params: PyTree, shardings: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of the state, to restore a checkpoint onto; nothing is allocated."""
    shapes = jax.eval_shape(lambda given: _first_state(optimizer, given), params)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def _first_state(optimizer: optax.GradientTransformation, params: PyTree) -> TrainState:
    return TrainState(jax.tree.map(jnp.copy, params), optimizer.init(params), jnp.zeros((), jnp.int32))


def split_micro_batches(batch: PyTree, micro_batches: int, mesh: Mesh) -> PyTree:
    """The batch [B, ...] as [M, B/M, ...]: micro-batch m takes rows m, m+M, m+2M, ...

    Rows are dealt out in turn, not cut into M blocks: device d holds the d-th block of the batch, and so already holds
    its share of every micro-batch. Nothing moves between devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    def deal(x: jax.Array) -> jax.Array:
        dealt = x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(dealt, sharding)

    return jax.tree.map(deal, batch)


def merge_params(frozen: PyTree, trained: PyTree) -> PyTree:
    """The parameters that an objective sees: the nested dicts of what stays as it is and of what is trained, in one.

    In:  frozen {"layers": {"q": W}}, trained {"lora": {"q": A}}
    Out: {"layers": {"q": W}, "lora": {"q": A}}
    """
    return nest(flatten(frozen) | flatten(trained))


def compute_gradients(
    objective: Objective,
    params: PyTree,
    batch: PyTree,
    shardings: PyTree,
    mesh: Mesh,
    micro_batches: int,
    frozen: PyTree,
) -> tuple[PyTree, Metrics]:
    """Gradients of the whole batch by `params`, with their shardings, and metrics including "loss"."""
    counts = objective.counts(batch)

    def loss_of(params: PyTree, rows: PyTree) -> tuple[Any, Metrics]:
        return objective.loss(merge_params(frozen, params), rows, counts)

    def of_rows(rows: PyTree) -> PyTree:
        (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(params, rows)
        # Without this the compiler may keep whole gradients on every device: sharding would be lost silently.
        return jax.lax.with_sharding_constraint(grads, shardings), (loss, metrics)

    if micro_batches == 1:  # no accumulator beside the gradients: 4 bytes a parameter less
        grads, (loss, metrics) = of_rows(batch)
    else:
        dealt = split_micro_batches(batch, micro_batches, mesh)
        outputs = (params, jax.eval_shape(loss_of, params, jax.tree.map(lambda x: x[0], dealt)))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), outputs)
        (grads, (loss, metrics)), _ = jax.lax.scan(
            lambda so_far, rows: (jax.tree.map(jnp.add, so_far, of_rows(rows)), None), zeros, dealt
        )
    return grads, {"loss": MeanMetric(loss, jnp.ones(())), **metrics}


class TrainStep:
    """Callable (state, batch) -> (state, metrics); `compilations` counts how often it was compiled.

    The given state is donated: only the returned one can be used afterwards. The batch's leaves are arrays [B, ...] of
    the host or the devices. BadInput if B does not divide, before anything is compiled. `jitted` is the compiled
    function (state, frozen, batch).
    """

    def __init__(
        self,
        update: Callable[[TrainState, PyTree, PyTree], tuple[TrainState, Metrics]],
        shardings: TrainState,
        mesh: Mesh,
        micro_batches: int,
        frozen: PyTree,
    ):
        self.compilations = 0
        self._mesh, self._micro_batches, self._frozen = mesh, micro_batches, frozen

        def counted(state: TrainState, frozen: PyTree, batch: PyTree) -> tuple[TrainState, Metrics]:
            self.compilations += 1  # this line runs while tracing only: once for every new shape
            return update(state, frozen, batch)

        self.jitted = jax.jit(
            counted,
            in_shardings=(shardings, jax.tree.map(lambda x: x.sharding, frozen), rows_sharding(mesh)),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        )

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """The state after one update and the metrics of its batch."""
        for rows in {leaf.shape[0] for leaf in jax.tree.leaves(batch)}:
            check_rows(rows, self._mesh, self._micro_batches)
        return self.jitted(state, self._frozen, batch)

    def lower(self, state: TrainState, batch: PyTree) -> jax.stages.Lowered:
        """The step for those shapes and shardings, to be compiled without being run (`launch.plan`)."""
        return self.jitted.lower(state, self._frozen, batch)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
    mesh: Mesh,
    micro_batches: int = 1,
    frozen: PyTree | None = None,
) -> TrainStep:
    """The train step. Its metrics are the objective's, "loss" and "grad_norm" (before clipping), of the whole batch.

    frozen: parameters that the objective sees together with the trained ones (`merge_params`), as arrays or sharded
    shapes: the network under LoRA adapters. They are an argument of the compiled function, no constants of it.
    """

    def update(state: TrainState, frozen: PyTree, batch: PyTree) -> tuple[TrainState, Metrics]:
        grads, metrics = compute_gradients(
            objective, state.params, batch, shardings.params, mesh, micro_batches, frozen
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = MeanMetric(optax.tree.norm(grads), jnp.ones(()))
        return TrainState(params, opt_state, state.step + 1), metrics

    return TrainStep(update, shardings, mesh, micro_batches, frozen or {})
