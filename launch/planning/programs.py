"""The very programs that the pipeline runs, with shapes in place of arrays: nothing is allocated or computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from launch.planning.config import PlanConfig
from models.attention import AttentionName
from models.config import LlamaConfig
from models.inference import inference_shapes
from models.kv_cache import BLOCK
from models.llama import Llama
from models.lora import LoraConfig, lora_shapes
from models.parameters import param_shapes
from sweet_jax.data.batch import PairBatch, TurnBatch
from sweet_jax.data.trees import TreeBatch
from sweet_jax.generation.programs import RowInputs, TileInputs, make_programs, tiles_of
from sweet_jax.generation.sampling import RowSampling
from sweet_jax.mesh import rows_sharding
from sweet_jax.reference import score
from sweet_jax.train.loop import shardings_of
from sweet_jax.train.objectives import PreferenceBatch, PreferenceLoss, preference_objective
from sweet_jax.train.optim import make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import abstract_state, make_train_step, merge_params, state_shardings

TOTAL_STEPS, LORA_ALPHA = 1000, 32.0  # no shape depends on them


@dataclass(frozen=True)
class Program:
    """lower: makes the program, ready to be compiled. params, optimizer, batch: trees of sharded shapes, what the
    devices hold when it starts; optimizer is empty where nothing is trained."""

    lower: Callable[[], jax.stages.Lowered]
    params: Any
    optimizer: Any
    batch: Any


def make_program(config: PlanConfig, network: LlamaConfig, mesh: Mesh) -> Program:
    """Make the program of the stage. Raises BadInput or ModelError for what it could not compute."""
    if config.stage == "sample":
        return _sample(config, network, mesh)
    dtype, lora = jnp.dtype(config.compute_dtype), None
    if config.lora_rank and config.trains:
        lora = LoraConfig(config.lora_rank, LORA_ALPHA)
    kernel = cast(AttentionName, config.attention)  # "auto" has been replaced: `planning.with_kernel`
    model = Llama(network, mesh, dtype, config.remat, attention=kernel, lora=lora)
    return _score(config, model) if config.stage == "score" else _train(config, model)


def _train(config: PlanConfig, model: Llama) -> Program:
    """Make a training step. critic: whole dialogues, turn by turn; policy: a prompt and one turn (`stages.policy`)."""
    mesh = model.mesh
    frozen, trained = {}, param_shapes(model.config, mesh)
    if model.lora is not None:
        frozen = param_shapes(model.config, mesh, model.compute_dtype)
        trained = lora_shapes(model.config, model.lora, mesh)
    optimizer = make_optimizer(Training(moment_dtype=config.moment_dtype), TOTAL_STEPS)
    layout = state_shardings(optimizer, trained, shardings_of(trained))
    preference = PreferenceLoss() if config.stage == "critic" else PreferenceLoss("sum", max_turns=1)
    objective = preference_objective(model, preference)
    step = make_train_step(objective, optimizer, layout, mesh, config.micro_batches, frozen)
    state = abstract_state(optimizer, trained, layout)
    batch = PreferenceBatch(
        PairBatch(_rows(config, mesh), _rows(config, mesh)),
        *(_array(mesh, jnp.float32, config.batch_size, config.tokens) for _ in range(2)),
    )
    return Program(lambda: step.lower(state, batch), merge_params(frozen, state.params), state.opt_state, batch)


def _score(config: PlanConfig, model: Llama) -> Program:
    """Make the program for the log-probs of the rows of as many pairs (`launch.training.stages.learning`)."""
    params = param_shapes(model.config, model.mesh)
    tokens_bt = _array(model.mesh, jnp.int32, 2 * config.batch_size, config.tokens)
    rows = TreeBatch(tokens_bt, tokens_bt, None, *(tokens_bt,) * 3)  # separate rows, all of whose tokens count
    return Program(lambda: score.lower(model, params, rows, 1.0), params, {}, tokens_bt)


def _sample(config: PlanConfig, network: LlamaConfig, mesh: Mesh) -> Program:
    """Prompts and a whole turn after each, in the sampler's layout of the weights (`launch.training.run`)."""
    model = Llama(network, mesh, jnp.dtype(config.compute_dtype), remat="none")
    params = inference_shapes(network, mesh, model.compute_dtype)
    rows, new, devices, tiles = config.rows, config.new_tokens, mesh.shape["data"], tiles_of(mesh)
    room = -(-(config.tokens + new) // BLOCK)
    ends = network.eos_token_ids or (network.vocab_size - 1,)
    programs = make_programs(model, ends, rows, rows * (room + 1), BLOCK, room, new)
    calls = -(-(rows // config.samples // devices * config.tokens) // (tiles.tokens * tiles.count))

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return _array(mesh, dtype, *shape)

    ints, floats, seeds = array(jnp.int32, rows), array(jnp.float32, rows), array(jnp.uint32, rows)
    sampling, tops, table_rj = RowSampling(floats, ints, floats), array(jnp.bool_, rows), array(jnp.int32, rows, room)
    inputs = RowInputs(ints, table_rj, ints, seeds, seeds, ints, ints, array(jnp.int32, rows, new), sampling, tops)
    count = tiles.count * devices
    each = array(jnp.int32, count)
    read = TileInputs(array(jnp.int32, count, tiles.tokens), each, each, array(jnp.int32, count, room))

    def generate(params: Any, read: TileInputs, inputs: RowInputs) -> Any:
        state = jax.lax.fori_loop(0, calls, lambda _, state: programs.read(params, state, read), programs.init())
        return programs.decode(params, state, inputs, jnp.int32(new), jnp.int32(0))

    return Program(lambda: jax.jit(generate).lower(params, read, inputs), params, {}, (read, inputs))


def _rows(config: PlanConfig, mesh: Mesh) -> TurnBatch:
    size = (config.batch_size, config.tokens)
    return TurnBatch(
        _array(mesh, jnp.int32, *size),
        _array(mesh, jnp.int32, *size),
        _array(mesh, jnp.bool_, *size),
        _array(mesh, jnp.int32, config.batch_size),
    )


def _array(mesh: Mesh, dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=rows_sharding(mesh))


def device_bytes(tree: Any) -> int:
    """Count the bytes that one device holds of a tree of sharded shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(_size(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in leaves)


def replicated_share(tree: Any) -> float:
    """Return the share of the bytes of a tree that every device holds whole, from 0 to 1."""
    leaves = jax.tree.leaves(tree)
    whole = sum(_size(leaf.shape, leaf.dtype) for leaf in leaves if leaf.sharding.is_fully_replicated)
    return whole / sum(_size(leaf.shape, leaf.dtype) for leaf in leaves)


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    size = jnp.dtype(dtype).itemsize
    for side in shape:
        size *= side
    return size
