"""One training step: micro-batches, sharded gradients and the optimiser in one jitted function.

An `Objective` says how a batch becomes a loss; the step itself knows nothing of dialogues. It has two functions:

    counts(batch)               the divisors of the whole batch (pairs, tokens), from its data columns alone
    loss(params, rows, counts)  the part of the loss that these rows contribute, already divided by those counts, and
                                the metrics as (sum, count)

The parts of the micro-batches add up to the loss of the batch. So 1 and 4 micro-batches give the same update, however
unevenly tokens lie in them.
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
    """What a stage minimises: the two functions described at the top of this file."""

    counts: Callable[[PyTree], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree], tuple[Any, Metrics]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """What an update changes.

    params: nested dict of the trained parameters, float32.
    opt_state: the optimiser's state (optax).
    step: int32 scalar, updates made.
    """

    params: PyTree
    opt_state: PyTree
    step: Any


def state_shardings(optimizer: optax.GradientTransformation, params: PyTree, param_shardings: PyTree) -> TrainState:
    """Give the shardings of a TrainState: moments are sharded as their parameter is, counters are replicated.

    params: a tree of arrays or shapes. param_shardings: the same tree of NamedSharding.
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
    """Make the state before the first update.

    The parameters are copied, because the step donates its state: the caller's stay usable as the frozen reference.
    """
    return jax.jit(lambda given: _first_state(optimizer, given), out_shardings=shardings)(params)


def abstract_state(optimizer: optax.GradientTransformation, params: PyTree, shardings: TrainState) -> TrainState:
    """Describe the state by jax.ShapeDtypeStruct with shardings, to restore a checkpoint; nothing is allocated."""
    shapes = jax.eval_shape(lambda given: _first_state(optimizer, given), params)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def _first_state(optimizer: optax.GradientTransformation, params: PyTree) -> TrainState:
    return TrainState(jax.tree.map(jnp.copy, params), optimizer.init(params), jnp.zeros((), jnp.int32))


def split_micro_batches(batch: PyTree, micro_batches: int, mesh: Mesh) -> PyTree:
    """Split a batch [B, ...] into micro-batches [M, B/M, ...]: micro-batch m takes rows m, m+M, m+2M, ...

    Device d holds the d-th block of the batch, so with every M-th row it already holds its part of each micro-batch,
    and nothing moves between devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    def deal(x: jax.Array) -> jax.Array:
        dealt = x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(dealt, sharding)

    return jax.tree.map(deal, batch)


def merge_params(frozen: PyTree, trained: PyTree) -> PyTree:
    """Merge the nested dicts of frozen and of trained parameters into the one that an objective sees.

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
    """Compute the gradients of the whole batch and its metrics, "loss" among them.

    shardings: of `params`, and so of the gradients. frozen: parameters without a gradient (see `merge_params`).
    """
    counts = objective.counts(batch)

    def loss_of(params: PyTree, rows: PyTree) -> tuple[Any, Metrics]:
        return objective.loss(merge_params(frozen, params), rows, counts)

    def of_rows(rows: PyTree) -> PyTree:
        (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(params, rows)
        # Without this the compiler may keep whole gradients on every device: sharding would be lost silently.
        return jax.lax.with_sharding_constraint(grads, shardings), (loss, metrics)

    if micro_batches == 1:  # needs no accumulator of gradients: 4 bytes less for each parameter
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
    """A compiled update: (state, batch) -> (state, metrics).

    The given state is donated: only the returned one can be used afterwards. The batch's leaves are arrays [B, ...] of
    the host or the devices. BadInput if B does not divide, before anything is compiled.

    jitted: the function (state, frozen, batch).
    compilations: how often it was compiled, once for every new batch shape.
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

        def counting_update(state: TrainState, frozen: PyTree, batch: PyTree) -> tuple[TrainState, Metrics]:
            self.compilations += 1  # this line runs while tracing only: once for every new shape
            return update(state, frozen, batch)

        self.jitted = jax.jit(
            counting_update,
            in_shardings=(shardings, jax.tree.map(lambda x: x.sharding, frozen), rows_sharding(mesh)),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
        )

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        """Make one update; returns the new state and the metrics of the batch."""
        for rows in {leaf.shape[0] for leaf in jax.tree.leaves(batch)}:
            check_rows(rows, self._mesh, self._micro_batches)
        return self.jitted(state, self._frozen, batch)

    def lower(self, state: TrainState, batch: PyTree) -> jax.stages.Lowered:
        """Lower the step for those shapes and shardings, to compile it without a run (`launch.plan`)."""
        return self.jitted.lower(state, self._frozen, batch)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
    mesh: Mesh,
    micro_batches: int = 1,
    frozen: PyTree | None = None,
) -> TrainStep:
    """Make the train step. Metrics of a batch: the objective's, "loss", and "grad_norm" before clipping.

    shardings: of the state (`state_shardings`). micro_batches: parts of a batch, computed one after the other.
    frozen: parameters that the objective sees together with the trained ones (`merge_params`), as arrays or sharded
    shapes: the network under LoRA adapters. They are an argument of the compiled function, not constants of it.
    """

    def update(state: TrainState, frozen: PyTree, batch: PyTree) -> tuple[TrainState, Metrics]:
        grads, metrics = compute_gradients(
            objective, state.params, batch, shardings.params, mesh, micro_batches, frozen
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = MeanMetric(optax.tree.norm(grads), jnp.ones(()))
        return TrainState(params, opt_state, state.step + 1), {**metrics, "grad_norm": norm}

    return TrainStep(update, shardings, mesh, micro_batches, frozen or {})
