"""The jitted programs of an engine. All have fixed shapes, so that a row is computed alike whatever stands beside it.

prefill  prompts, `prefill_count` at a time, one program a bucket of lengths; each goes to one row or to several
extend   more tokens of rows that hold some, `prefill_count` rows at a time, one program a bucket of EXTEND_BUCKETS
decode   up to `chunk` tokens of every row
park, unpark   a row's cache, cut to a bucket of lengths, out of the batch and back

Rows are read by the device that holds them, so no cache moves between devices: place a of a program is for a row of the
device that place a lies on. Only a prompt that goes to several rows is sent to those of other devices.

A prompt is read by a program for the same number of prompts whether others wait or not: programs for one, four and 64
prompts give other last bits (on a CPU, too).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from models.kv_cache import KVCache, cache_sharding, init_cache
from models.llama import Llama, logits, variables
from models.sharding import activation_sharding, constrain
from sweet_jax.generation.sampling import TOP, RowSampling, draw_rows, row_scores
from sweet_jax.mesh import replicated

EXTEND_BUCKETS = (16, 64)  # tokens
PREFILL_TOKENS = 256  # of a device in one program: fewer cost an accelerator as long, as it must read the weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What stays on the devices: the cache of R rows, and float32 logits [R, V] of the token that follows each row."""

    cache: Any
    logits_rv: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowInputs:
    """What the host says about each of R rows before a chunk.

    length_r: tokens in the cache. seed_r, sample_r: what the row's key is made of. step_r: tokens of this turn drawn
    before. remaining_r: tokens to draw at most, 0 where the row idles. forced_rc: [R, chunk], tokens that were drawn
    before and are only read again; -1 draws. tops_r: whether alternatives are asked for.
    """

    length_r: Any
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
    """The compiled functions of one network, number of rows and length. `init` makes an empty State."""

    init: Callable[[], State]
    prefill: Callable[..., State]
    extend: Callable[..., State]
    decode: Callable[..., tuple[State, ChunkOutput]]
    park: Callable[..., tuple[Array, Array]]
    unpark: Callable[..., State]


def prefill_count(mesh: Mesh, rows: int, length: int) -> int:
    """Return how many prompts of a bucket of lengths one program reads: as many on each device."""
    devices = mesh.shape["data"]
    return devices * max(1, min(PREFILL_TOKENS // length, rows // devices))


def prefill_rows(
    model: Llama, params: Any, tokens_bt: Int[Array, "B T"], length_b: Int[Array, " B"]
) -> tuple[KVCache, Float[Array, "B V"]]:
    """Return the cache of T slots after right-padded prompts, and the logits of the token that follows each."""
    rows, length = tokens_bt.shape
    cache = init_cache(model.config, rows, length, model.mesh, model.compute_dtype)
    position_bt = jnp.broadcast_to(jnp.arange(length), (rows, length))
    output: Any = model.apply(variables(params), tokens_bt, position_bt, cache, cache_is_empty=True)
    last_b1d = jnp.take_along_axis(output.hidden_btd, (length_b - 1)[:, None, None], axis=1)
    return output.cache, logits(last_b1d, params, model.config, model.mesh)[:, 0]


@functools.cache  # so that two engines of one network share their programs
def make_programs(model: Llama, end_ids: tuple[int, ...], rows: int, slots: int, chunk: int) -> Programs:
    """Make the programs for `rows` rows of `slots` tokens that draw up to `chunk` tokens a call."""
    config, mesh = model.config, model.mesh
    caches = cache_sharding(config, rows, slots, mesh)
    shardings = State(caches, activation_sharding(mesh, (rows, config.vocab_size), "batch", "vocab"))
    whole = replicated(mesh)

    def init() -> State:
        cache = init_cache(config, rows, slots, mesh, model.compute_dtype)
        return State(cache, jnp.zeros((rows, config.vocab_size), jnp.float32))

    row_spec, logits_spec = PartitionSpec("data"), shardings.logits_rv.spec
    arrays_spec = (caches.spec, caches.spec, logits_spec)  # keys, values, logits
    on_own_rows = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def own_rows(row_k: Array) -> Array:
        """Return the rows' numbers on the device that holds them; rows that are not there stay beyond its last."""
        return row_k - jax.lax.axis_index("data") * (rows // mesh.shape["data"])

    @functools.partial(on_own_rows, in_specs=(arrays_spec, row_spec, arrays_spec), out_specs=arrays_spec)
    def put_arrays(held: tuple[Array, ...], row_k: Array, new: tuple[Array, ...]) -> tuple[Array, ...]:
        own_k, (k_lrsgh, v_lrsgh, logits_rv), (k_lktgh, v_lktgh, logits_kv) = own_rows(row_k), held, new
        return (
            k_lrsgh.at[:, own_k, : k_lktgh.shape[2]].set(k_lktgh, mode="drop"),
            v_lrsgh.at[:, own_k, : v_lktgh.shape[2]].set(v_lktgh, mode="drop"),
            logits_rv.at[own_k].set(logits_kv, mode="drop"),
        )

    @functools.partial(on_own_rows, in_specs=(arrays_spec[:2], row_spec), out_specs=arrays_spec[:2])
    def take_arrays(held: tuple[Array, ...], row_a: Array) -> tuple[Array, ...]:
        own_a = own_rows(row_a)
        return tuple(all_lrsgh.at[:, own_a].get(mode="clip") for all_lrsgh in held)

    def put(state: State, row_k: Array, cache: KVCache, logits_kv: Array) -> State:
        held = (state.cache.k_lbsgh, state.cache.v_lbsgh, state.logits_rv)
        k_lrsgh, v_lrsgh, logits_rv = put_arrays(held, row_k, (cache.k_lbsgh, cache.v_lbsgh, logits_kv))
        return State(KVCache(k_lrsgh, v_lrsgh), logits_rv)

    def prefill(
        params: Any, state: State, tokens_at: Array, length_a: Array, row_a: Array, copies: tuple[Array, Array] | None
    ) -> State:
        """Prompt a goes to row `row_a`; or, with copies (source_r, row_r), prompt source_r goes to row row_r."""
        cache, logits_av = prefill_rows(model, params, tokens_at, length_a)
        if copies is None:
            return put(state, row_a, cache, logits_av)
        source_r, row_r = copies
        return put(state, row_r, jax.tree.map(lambda x_latgh: x_latgh[:, source_r], cache), logits_av[source_r])

    def extend(params: Any, state: State, tokens_at: Array, start_a: Array, length_a: Array, row_a: Array) -> State:
        step_t = jnp.arange(tokens_at.shape[1])
        # Padding stands behind the last slot, where nothing is written.
        position_at = jnp.where(step_t < length_a[:, None], start_a[:, None] + step_t, slots)
        output: Any = model.apply(
            variables(params),
            tokens_at,
            position_at,
            KVCache(*take_arrays((state.cache.k_lbsgh, state.cache.v_lbsgh), row_a)),
        )
        last_a1d = jnp.take_along_axis(output.hidden_btd, (length_a - 1)[:, None, None], axis=1)
        return put(state, row_a, output.cache, logits(last_a1d, params, config, mesh)[:, 0])

    def decode(params: Any, state: State, inputs: RowInputs, steps: Array, stop_at: Array) -> tuple[State, ChunkOutput]:
        return _decode(model, params, state, inputs, steps, stop_at, end_ids, slots)

    def park(state: State, row: Array, length: int) -> tuple[Array, Array]:
        def cut(all_lrsgh: Array) -> Array:
            return jax.lax.dynamic_index_in_dim(all_lrsgh, row, axis=1, keepdims=False)[:, :length]

        return cut(state.cache.k_lbsgh), cut(state.cache.v_lbsgh)

    def unpark(state: State, parked: tuple[Array, Array], row: Array) -> State:
        def back(all_lrsgh: Array, one_lpgh: Array) -> Array:
            return jax.lax.dynamic_update_slice(all_lrsgh, one_lpgh[:, None], (0, row, 0, 0, 0))

        k_lpgh, v_lpgh = parked
        return State(KVCache(back(state.cache.k_lbsgh, k_lpgh), back(state.cache.v_lbsgh, v_lpgh)), state.logits_rv)

    return Programs(
        init=jax.jit(init, out_shardings=shardings),
        prefill=jax.jit(prefill, donate_argnums=1, out_shardings=shardings),
        extend=jax.jit(extend, donate_argnums=1, out_shardings=shardings),
        decode=jax.jit(decode, donate_argnums=1, out_shardings=(shardings, whole)),
        park=jax.jit(park, static_argnums=2, out_shardings=whole),
        unpark=jax.jit(unpark, donate_argnums=0, out_shardings=shardings),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Carry:
    step: Any
    state: State
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
    slots: int,
) -> tuple[State, ChunkOutput]:
    """Draw until at most `stop_at` rows go on, or each has drawn `steps` tokens (at most a chunk).

    A row goes on until it has drawn an end token, or all it may.
    """
    rows, chunk = inputs.forced_rc.shape
    tops = min(TOP, model.config.vocab_size)
    key_r = jax.vmap(jax.random.fold_in)(jax.vmap(jax.random.key)(inputs.seed_r), inputs.sample_r)
    greedy_r = inputs.sampling.temperature_b == 0

    def alternatives(logp_rv: Array) -> tuple[Array, Array]:
        top_logp_rk, top_id_rk = jax.lax.top_k(logp_rv, tops)
        return top_id_rk.astype(jnp.int32), top_logp_rk

    def none(logp_rv: Array) -> tuple[Array, Array]:
        return jnp.zeros((rows, tops), jnp.int32), jnp.zeros((rows, tops), jnp.float32)

    def one_token(carry: _Carry) -> _Carry:
        step, live_r, drawn = carry.step, carry.live_r, carry.drawn
        forced_r = inputs.forced_rc[:, step]
        scores_rv = row_scores(carry.state.logits_rv, inputs.sampling)
        token_r = draw_rows(scores_rv, key_r, inputs.step_r + step, greedy_r)
        token_r = jnp.where(forced_r >= 0, forced_r, token_r)
        logp_rv = jax.nn.log_softmax(scores_rv, axis=-1)
        top_id_rk, top_logp_rk = jax.lax.cond((inputs.tops_r & live_r).any(), alternatives, none, logp_rv)
        logp_r = jnp.take_along_axis(logp_rv, token_r[:, None], axis=-1)[:, 0]
        position_r = jnp.where(live_r, inputs.length_r + step, slots)  # a row that idles writes nothing
        output: Any = model.apply(variables(params), token_r[:, None], position_r[:, None], carry.state.cache)
        logits_rv = constrain(
            logits(output.hidden_btd, params, model.config, model.mesh)[:, 0], model.mesh, "batch", "vocab"
        )
        count_r = drawn.count_r + live_r
        ended_r = (jnp.isin(token_r, jnp.array(end_ids)) & (forced_r < 0)) | (count_r >= inputs.remaining_r)
        return _Carry(
            step=step + 1,
            state=State(output.cache, jnp.where(live_r[:, None], logits_rv, carry.state.logits_rv)),
            live_r=live_r & ~ended_r,
            drawn=ChunkOutput(
                ids_rc=drawn.ids_rc.at[:, step].set(token_r),
                logps_rc=drawn.logps_rc.at[:, step].set(logp_r),
                count_r=count_r,
                top_ids_rck=drawn.top_ids_rck.at[:, step].set(top_id_rk),
                top_logps_rck=drawn.top_logps_rck.at[:, step].set(top_logp_rk),
            ),
        )

    carry = _Carry(
        step=jnp.int32(0),
        state=state,
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
