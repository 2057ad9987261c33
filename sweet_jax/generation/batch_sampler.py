"""Sampling of whole agent turns: bucketed prefill, KV cache, one `while_loop` of decode steps.

A prompt's result depends on the prompt, its seed and the parameters alone. Every row draws with a key of its own, rows
are padded to a bucket that depends on their own length only, and a batch always has the same number of rows, so that
the very same program computes a row whatever stands beside it. n samples of one prompt share one prefill.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from colbench_env.types import BadInput
from models.kv_cache import KVCache, init_cache
from models.llama import Llama, logits, variables
from models.sharding import constrain
from sweet_jax.data.batch import bucket
from sweet_jax.mesh import put_rows, replicated

HIDDEN_LOGIT = -1e30  # finite: a token that top-k or top-p leaves out


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    temperature: 0 is greedy. top_k: keep the k likeliest tokens, 0 keeps all. top_p: keep the smallest set of likeliest
    tokens with at least this probability, 1 keeps all. max_new_tokens: the longest turn, its end token included.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or self.top_k < 0:
            raise BadInput(f"temperature {self.temperature} and top_k {self.top_k} must be finite and not negative")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p is {self.top_p}, it must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {self.max_new_tokens}, it must be at least 1")


@dataclass(frozen=True, eq=False)
class Sample:
    """One sampled turn.

    ids: int32 [T], as drawn, the end token included if one was drawn. logps: float32 [T], log-prob of each under the
    distribution it was drawn from (after temperature, top-k and top-p; greedy: under the plain distribution).
    ended: an end token was drawn; False means that the turn was cut at `max_new_tokens`.
    """

    ids: np.ndarray
    logps: np.ndarray
    ended: bool


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """Carry of the decode loop.

    step: number of tokens drawn so far. ids_bm, logps_bm: [B, M], what was drawn; 0 behind the end of a row.
    count_b: tokens drawn of each row. done_b: an end token was drawn. logits_bv: float32 [B, V], of the next token.
    """

    step: Any
    cache: KVCache
    ids_bm: Any
    logps_bm: Any
    count_b: Any
    done_b: Any
    logits_bv: Any


def sampling_logits(logits_bv: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Logits of the distribution that tokens are drawn from; tokens left out get a large negative finite value.

    Greedy sampling leaves them as they are.

    In:  logits [[0, 1, 2, 3]], temperature 1, top_k 2
    Out: [[-1e30, -1e30, 2, 3]]
    """
    if sampling.temperature == 0:
        return logits_bv
    logits_bv = logits_bv / sampling.temperature
    if sampling.top_k:
        kth_b1 = jax.lax.top_k(logits_bv, min(sampling.top_k, logits_bv.shape[-1]))[0][:, -1:]
        logits_bv = jnp.where(logits_bv < kth_b1, HIDDEN_LOGIT, logits_bv)
    if sampling.top_p < 1:
        sorted_bv = jnp.sort(logits_bv, axis=-1, descending=True)
        probability_bv = jax.nn.softmax(sorted_bv, axis=-1)
        before_bv = jnp.cumsum(probability_bv, axis=-1) - probability_bv  # what the likelier tokens hold together
        smallest_b1 = jnp.where(before_bv < sampling.top_p, sorted_bv, jnp.inf).min(axis=-1, keepdims=True)
        logits_bv = jnp.where(logits_bv < smallest_b1, HIDDEN_LOGIT, logits_bv)
    return logits_bv


def draw(
    logits_bv: Float[Array, "B V"], key_b: Array, step: Int[Array, ""], sampling: Sampling
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """A token of every row, drawn with the row's own key and the step, and its log-prob."""
    scores_bv = sampling_logits(logits_bv, sampling)
    if sampling.temperature == 0:
        token_b = jnp.argmax(scores_bv, axis=-1)
    else:
        token_b = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, step), row))(
            key_b, scores_bv
        )
    logp_bv = jax.nn.log_softmax(scores_bv, axis=-1)
    return token_b.astype(jnp.int32), jnp.take_along_axis(logp_bv, token_b[:, None], axis=-1)[:, 0]


def prefill(
    model: Llama, params: Any, tokens_bt: Int[Array, "B T"], length_b: Int[Array, " B"], slots: int
) -> tuple[KVCache, Float[Array, "B V"]]:
    """The cache of `slots` slots after right-padded prompts, and the logits [B, V] of the token that follows each."""
    rows, length = tokens_bt.shape
    cache = init_cache(model.config, rows, slots, model.mesh, model.compute_dtype)
    position_bt = jnp.broadcast_to(jnp.arange(length), (rows, length))
    output = model.apply(variables(params), tokens_bt, position_bt, cache, cache_is_empty=True)
    last_b1d = jnp.take_along_axis(output.hidden_btd, (length_b - 1)[:, None, None], axis=1)
    return output.cache, logits(last_b1d, params, model.config, model.mesh)[:, 0]


def decode(
    model: Llama,
    params: Any,
    state: DecodeState,
    length_b: Int[Array, " B"],
    key_b: Array,
    end_ids: tuple[int, ...],
    sampling: Sampling,
) -> DecodeState:
    """The state after every row has drawn an end token or `max_new_tokens` tokens."""

    def going_on(state: DecodeState) -> Bool[Array, ""]:
        return (state.step < sampling.max_new_tokens) & ~state.done_b.all()

    def one_token(state: DecodeState) -> DecodeState:
        token_b, logp_b = draw(state.logits_bv, key_b, state.step, sampling)
        live_b = ~state.done_b
        output = model.apply(variables(params), token_b[:, None], (length_b + state.step)[:, None], state.cache)
        return DecodeState(
            step=state.step + 1,
            cache=output.cache,
            ids_bm=state.ids_bm.at[:, state.step].set(jnp.where(live_b, token_b, 0)),
            logps_bm=state.logps_bm.at[:, state.step].set(jnp.where(live_b, logp_b, 0.0)),
            count_b=state.count_b + live_b,
            done_b=state.done_b | jnp.isin(token_b, jnp.array(end_ids)),
            logits_bv=logits(output.hidden_btd, params, model.config, model.mesh)[:, 0],
        )

    return jax.lax.while_loop(going_on, one_token, state)


class Sampler:
    """Samples agent turns of one model in batches of `rows` rows.

    params: laid out for inference (`models.parameters.inference_shardings`). prompt_buckets: prompt lengths that
    programs are compiled for.
    """

    def __init__(
        self,
        model: Llama,
        params: Any,
        end_ids: Sequence[int],
        pad_id: int,
        sampling: Sampling,
        rows: int,
        prompt_buckets: Sequence[int],
    ):
        self.model, self.params, self.sampling = model, params, sampling
        self.pad_id, self.rows, self.prompt_buckets = pad_id, rows, tuple(prompt_buckets)
        self._end_ids = tuple(sorted(end_ids))

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        samples: int = 1,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[list[Sample]]:
        """`samples` turns after each prompt. Prompt i draws with `seeds[i]` (unsigned 32 bits) and the sample's number.

        `progress` is told how many prompts a finished batch held. BadInput where `samples` or the mesh does not divide
        the rows, or a prompt is empty or longer than the largest bucket.
        """
        if samples < 1 or self.rows % samples:
            raise BadInput(f"{samples} samples of a prompt do not fill a batch of {self.rows} rows evenly")
        per_batch = self.rows // samples
        by_bucket: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            if not len(prompt):
                raise BadInput(f"prompt {index} of {len(prompts)} is empty: there is nothing to go on from")
            by_bucket.setdefault(bucket(len(prompt), self.prompt_buckets), []).append(index)
        found: list[list[Sample]] = [[] for _ in prompts]
        for length, indices in sorted(by_bucket.items()):
            for start in range(0, len(indices), per_batch):
                part = indices[start : start + per_batch]
                drawn = self._run([prompts[i] for i in part], [seeds[i] for i in part], length, samples, per_batch)
                for index, turns in zip(part, drawn, strict=True):
                    found[index] = turns
                progress(len(part))
        return found

    def _run(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], length: int, samples: int, per_batch: int
    ) -> list[list[Sample]]:
        tokens_bt = np.full((per_batch, length), self.pad_id, np.int32)
        length_b, seed_b = np.ones(per_batch, np.int32), np.zeros(per_batch, np.uint32)
        for row, prompt in enumerate(prompts):
            tokens_bt[row, : len(prompt)] = prompt
            length_b[row], seed_b[row] = len(prompt), seeds[row]
        live_b = np.arange(per_batch) < len(prompts)
        generate = make_generate(self.model, self._end_ids, self.sampling, samples)
        arrays = put_rows((tokens_bt, length_b, seed_b, live_b), self.model.mesh)
        ids_bm, logps_bm, count_b, done_b = jax.device_get(generate(self.params, *arrays))
        return [
            [
                Sample(ids_bm[r, : count_b[r]], logps_bm[r, : count_b[r]], bool(done_b[r]))
                for r in range(row * samples, (row + 1) * samples)
            ]
            for row in range(len(prompts))
        ]


@functools.cache  # so that two samplers of one network, before and after training, share their programs
def make_generate(model: Llama, end_ids: tuple[int, ...], sampling: Sampling, samples: int) -> Callable[..., Any]:
    """The jitted program: prompts [B, T] -> (ids [B n, M], logps, counts, done) of n samples each."""

    def generate(
        params: Any, tokens_bt: Array, length_b: Array, seed_b: Array, live_b: Array
    ) -> tuple[Array, Array, Array, Array]:
        slots = tokens_bt.shape[1] + sampling.max_new_tokens
        cache, logits_bv = prefill(model, params, tokens_bt, length_b, slots)

        def shared(x: Array, axis: int = 0) -> Array:
            return jnp.repeat(x, samples, axis=axis)

        key_b = jax.vmap(jax.random.key)(shared(seed_b))
        key_b = jax.vmap(jax.random.fold_in)(key_b, jnp.tile(jnp.arange(samples), tokens_bt.shape[0]))
        rows = tokens_bt.shape[0] * samples
        state = DecodeState(
            step=jnp.int32(0),
            cache=KVCache(shared(cache.k_lbsgh, 1), shared(cache.v_lbsgh, 1)),
            ids_bm=jnp.zeros((rows, sampling.max_new_tokens), jnp.int32),
            logps_bm=jnp.zeros((rows, sampling.max_new_tokens), jnp.float32),
            count_b=jnp.zeros(rows, jnp.int32),
            done_b=~shared(live_b),
            logits_bv=constrain(shared(logits_bv), model.mesh, "batch", "vocab"),
        )
        state = decode(model, params, state, shared(length_b), key_b, end_ids, sampling)
        return state.ids_bm, state.logps_bm, state.count_b, state.done_b

    return jax.jit(generate, out_shardings=replicated(model.mesh))  # every process reads every row
