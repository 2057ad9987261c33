"""The jitted programs of an engine. All have fixed shapes, so that a row is computed alike whatever stands beside it.

read    tokens of prompts, in tiles of a few tokens each; tiles of one row and of others stand side by side
decode  up to `chunk` tokens of every row
copy    blocks of the cache to others

Rows, tiles and blocks are those of the device that they lie on: no cache moves between devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from models.inference import next_logits
from models.kv_cache import KVCache, block_spec, init_blocks
from models.llama import Llama, variables
from sweet_jax.generation.sampling import TOP, RowSampling, draw_rows, row_scores
from sweet_jax.mesh import replicated

State = tuple[tuple[Array, ...], tuple[Array, ...]]
"""What stays on the devices: keys and values of the blocks, as in KVCache."""


@dataclass(frozen=True)
class Tiles:
    """How prompts are read: `count` tiles of `tokens` tokens in one program of a device."""

    tokens: int
    count: int


def tiles_of(mesh: Mesh) -> Tiles:
    """Return the tiles that suit the devices: an accelerator needs many tokens for as long as it reads the weights."""
    return Tiles(16, 16) if mesh.devices.flat[0].platform == "cpu" else Tiles(128, 16)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TileInputs:
    """What the host says about each of A tiles: tokens_at [A, T], of which length_a stand at start_a onwards in the row
    whose blocks are table_aj."""

    tokens_at: Any
    start_a: Any
    length_a: Any
    table_aj: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowInputs:
    """What the host says about each of R rows before a chunk.

    length_r: tokens in the cache, whose blocks are table_rj. token_r: the token after these. seed_r, sample_r: what the
    row's key is made of. step_r: tokens of this turn drawn before. remaining_r: tokens to draw at most, 0 where the row
    idles. forced_rc: [R, chunk], tokens that were drawn before, in place of new ones; -1 draws. tops_r: whether
    alternatives are asked for.
    """

    length_r: Any
    table_rj: Any
    token_r: Any
    seed_r: Any
    sample_r: Any
    step_r: Any
    remaining_r: Any
    forced_rc: Any
    sampling: RowSampling
    tops_r: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ChunkOutput:
    """What a chunk drew: ids_rc, logps_rc [R, chunk], how many of them count_r, and alternatives [R, chunk, TOP] with
    their log-probs, zeros where no row asked."""

    ids_rc: Any
    logps_rc: Any
    count_r: Any
    top_ids_rck: Any
    top_logps_rck: Any


@dataclass(frozen=True)
class Programs:
    """The compiled functions of one network, numbers of rows and blocks. `init` makes an empty State."""

    init: Callable[[], State]
    read: Callable[..., State]
    decode: Callable[..., tuple[State, ChunkOutput]]
    copy: Callable[..., State]


@functools.cache  # so that two engines of one network share their programs
def make_programs(
    model: Llama, end_ids: tuple[int, ...], rows: int, blocks: int, block: int, room: int, chunk: int
) -> Programs:
    """Make the programs for `rows` rows of at most `room` blocks, of `blocks` in all with `block` tokens each, that
    draw up to `chunk` tokens a call."""
    config, mesh = model.config, model.mesh
    spec, on_rows = block_spec(config, mesh), PartitionSpec("data")
    shardings = ((NamedSharding(mesh, spec),) * config.num_layers,) * 2

    def init() -> State:
        return init_blocks(config, blocks, mesh, model.compute_dtype, block)

    def read(params: Any, state: State, tiles: TileInputs) -> State:
        step_t = jnp.arange(tiles.tokens_at.shape[1])
        # Padding stands behind the row's last place, where nothing is written.
        position_at = jnp.where(step_t < tiles.length_a[:, None], tiles.start_a[:, None] + step_t, room * block)
        output: Any = model.apply(variables(params), tiles.tokens_at, position_at, KVCache(*state, tiles.table_aj))
        return output.cache.keys, output.cache.values

    def decode(params: Any, state: State, inputs: RowInputs, steps: Array, stop_at: Array) -> tuple[State, ChunkOutput]:
        return _decode(model, params, state, inputs, steps, stop_at, end_ids, room * block)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(spec, on_rows, on_rows), out_specs=spec, check_vma=False)
    def copy_in(held: Array, source_r: Array, target_r: Array) -> Array:
        return held.at[target_r].set(held[source_r], mode="drop")

    def copy(state: State, source_r: Array, target_r: Array) -> State:
        return jax.tree.map(lambda held: copy_in(held, source_r, target_r), state)

    return Programs(
        init=jax.jit(init, out_shardings=shardings),
        read=jax.jit(read, donate_argnums=1, out_shardings=shardings),
        decode=jax.jit(decode, donate_argnums=1, out_shardings=(shardings, replicated(mesh))),
        copy=jax.jit(copy, donate_argnums=0, out_shardings=shardings),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Carry:
    step: Any
    state: State
    token_r: Any
    live_r: Any
    drawn: ChunkOutput


def _decode(
    model: Llama,
    params: Any,
    state: State,
    inputs: RowInputs,
    steps: Array,
    stop_at: Array,
    end_ids: tuple[int, ...],
    room: int,
) -> tuple[State, ChunkOutput]:
    """Draw until at most `stop_at` rows go on, or each has drawn `steps` tokens (at most a chunk).

    A row goes on until it has drawn an end token, or all it may.
    """
    rows, chunk = inputs.forced_rc.shape
    tops = min(TOP, model.config.vocab_size)
    key_r = jax.vmap(jax.random.fold_in)(jax.vmap(jax.random.key)(inputs.seed_r), inputs.sample_r)
    greedy_r = inputs.sampling.temperature_b == 0

    def alternatives(scores_rv: Array) -> tuple[Array, Array]:
        top_score_rk, top_id_rk = jax.lax.top_k(scores_rv, tops)
        return top_id_rk.astype(jnp.int32), top_score_rk

    def none(scores_rv: Array) -> tuple[Array, Array]:
        return jnp.zeros((rows, tops), jnp.int32), jnp.zeros((rows, tops), jnp.float32)

    def one_token(carry: _Carry) -> _Carry:
        step, live_r, drawn = carry.step, carry.live_r, carry.drawn
        position_r = jnp.where(live_r, inputs.length_r + step, room)  # a row that idles writes nothing
        cache = KVCache(*carry.state, inputs.table_rj)
        output: Any = model.apply(variables(params), carry.token_r[:, None], position_r[:, None], cache)
        logits_rv = next_logits(output.hidden_btd[:, 0], params, model.config, model.mesh)
        scores_rv = row_scores(logits_rv, inputs.sampling)
        forced_r = inputs.forced_rc[:, step]
        token_r, total_r = draw_rows(scores_rv, key_r, inputs.step_r + step, greedy_r)
        token_r = jnp.where(forced_r >= 0, forced_r, token_r)
        top_id_rk, top_score_rk = jax.lax.cond((inputs.tops_r & live_r).any(), alternatives, none, scores_rv)
        logp_r = jnp.take_along_axis(scores_rv, token_r[:, None], axis=-1)[:, 0] - total_r
        count_r = drawn.count_r + live_r
        ended_r = (jnp.isin(token_r, jnp.array(end_ids)) & (forced_r < 0)) | (count_r >= inputs.remaining_r)
        return _Carry(
            step=step + 1,
            state=(output.cache.keys, output.cache.values),
            token_r=token_r,
            live_r=live_r & ~ended_r,
            drawn=ChunkOutput(
                ids_rc=drawn.ids_rc.at[:, step].set(token_r),
                logps_rc=drawn.logps_rc.at[:, step].set(logp_r),
                count_r=count_r,
                top_ids_rck=drawn.top_ids_rck.at[:, step].set(top_id_rk),
                top_logps_rck=drawn.top_logps_rck.at[:, step].set(top_score_rk - total_r[:, None]),
            ),
        )

    carry = _Carry(
        step=jnp.int32(0),
        state=state,
        token_r=inputs.token_r,
        live_r=inputs.remaining_r > 0,
        drawn=ChunkOutput(
            ids_rc=jnp.zeros((rows, chunk), jnp.int32),
            logps_rc=jnp.zeros((rows, chunk), jnp.float32),
            count_r=jnp.zeros(rows, jnp.int32),
            top_ids_rck=jnp.zeros((rows, chunk, tops), jnp.int32),
            top_logps_rck=jnp.zeros((rows, chunk, tops), jnp.float32),
        ),
    )
    carry = jax.lax.while_loop(lambda carry: (carry.step < steps) & (carry.live_r.sum() > stop_at), one_token, carry)
    return carry.state, carry.drawn
