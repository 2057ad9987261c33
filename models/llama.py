"""The Llama network (arXiv:2302.13971, 2407.21783) and its relatives (`models.families`), as flax.linen modules over
plain nested dicts of parameters.

model = Llama(config, mesh)
output = model.apply(variables(params), tokens_bt, positions_bt)
logits_btv = logits(output.hidden_btd, params, config, mesh)
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from models.attention import SAVED_ATTENTION, AttentionName, causal_attention, repeat_heads
from models.cached_attention import Reading, cached_attention, plan_reading
from models.config import LlamaConfig, ModelError
from models.families import FAMILIES
from models.inference import inference_table, is_fused
from models.kv_cache import KVCache
from models.lora import LORA, LoraConfig
from models.norms import rms_norm
from models.parameters import parameter_table
from models.products import multiply, multiply_cached
from models.rope import rotary_angles, rotate
from models.sharding import constrain, head_axis
from models.token_chunks import map_tokens

REMAT_POLICIES: Mapping[str, Any] = {
    "full": None,
    "attention": jax.checkpoint_policies.save_only_these_names(SAVED_ATTENTION),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""Name -> policy of jax.checkpoint: what the backward pass keeps of a layer besides its input, and so does not compute
again. "full": nothing. "attention": the output of attention (with splash its logsumexp, too). "dots": the products with
weights. "none", which is not here: everything, no remat."""


@flax.struct.dataclass
class LlamaOutput:
    """Hidden states after the final norm [B, T, D] in the compute dtype, and the cache with this call's tokens."""

    hidden_btd: jax.Array
    cache: KVCache | None


@flax.struct.dataclass
class Positions:
    """Where the tokens of a call stand, the same for every layer.

    angles_bth: rotary angles [B, T, H/2]. reading: what they read of a cache; without one, token t sees tokens 0..t of
    this call, of these only slots s with t < ends_bt[s].
    """

    angles_bth: jax.Array
    ends_bt: jax.Array | None
    reading: Reading | None


LayerCache = tuple[jax.Array, jax.Array]
"""Keys and values of a layer, as in KVCache."""


class Llama(nn.Module):
    """The network without its unembedding. `remat` is "none" or a name of REMAT_POLICIES; `scan=False` unrolls layers.

    Both forms take the same stacked parameters. They come from `models.parameters.init_params` or
    `models.hf_io.load_llama`; linen's own `init` is not used. With a cache they are those of `models.inference`.
    attention: the kernel (`models.attention`) of tokens that see only one another. lora: of the adapters, where
    `variables` hold some.
    """

    config: LlamaConfig
    mesh: Mesh
    compute_dtype: DTypeLike = jnp.float32
    remat: str = "full"
    scan: bool = True
    attention: AttentionName = "xla"
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(
        self,
        tokens_bt: Int[Array, "B T"],
        positions_bt: Int[Array, "B T"],
        cache: KVCache | None = None,
        ends_bt: Int[Array, "B T"] | None = None,
    ) -> LlamaOutput:
        """LlamaOutput of the tokens.

        Without a cache, token t of a row sees tokens 0..t of the row. With one, keys and values go where the row has
        room for position `positions_bt`, and each token sees what the row holds up to its position: consecutive calls
        continue a row, each row at its own position (prefill: T = prompt length; decode: T = 1). A position beyond the
        row's room writes nothing: a way to let a finished row idle, and padding. Hidden states of padding are
        meaningless but finite, and padding changes no other token.
        ends_bt: without a cache, rows that are trees (`sweet_jax.data.trees`), whose tokens stand at `positions_bt`.
        Raises ModelError where the rows do not divide over mesh axis "data", the tokens over "sequence", or adapters
        are given to a network without `lora`, or with a cache.
        """
        config, mesh = self.config, self.mesh
        if LORA in self.variables["params"]:
            raise ModelError("LoRA adapters lie among the weights: call apply with `variables(params)`")
        if self.lora is None and LORA in self.variables:
            raise ModelError("the parameters hold LoRA adapters, but the network was made without a LoRA configuration")
        if cache is not None and LORA in self.variables:
            raise ModelError("a network with a cache takes no LoRA adapters: merge them into its weights")
        table = parameter_table(config)
        embedding_vd = self.param("embedding", lambda key: table["embedding"].init(key))
        x_btd = embedding_vd[tokens_bt].astype(self.compute_dtype)
        x_btd = constrain(x_btd, mesh, "batch", tokens_axis(cache), residual_axis(cache))
        reading = None if cache is None else plan_reading(cache, positions_bt, mesh)
        positions = Positions(rotary_angles(positions_bt, config), ends_bt, reading)
        if cache is not None:
            x_btd, cache = self._cached(x_btd, positions, cache)
        else:
            x_btd = (self._scanned if self.scan else self._unrolled)(x_btd, positions)

        scale_d = self.param("final_norm", lambda key: table["final_norm"].init(key))
        return LlamaOutput(rms_norm(x_btd, scale_d, config.rms_norm_eps), cache)

    def _scanned(self, x_btd: jax.Array, positions: Positions) -> jax.Array:
        block = Block if self.remat == "none" else nn.remat(Block, policy=remat_policy(self.remat), prevent_cse=False)
        layers = nn.scan(
            block,
            variable_axes={"params": 0, LORA: 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.config.num_layers,
        )(*self._shared, name="layers")
        return layers(x_btd, positions)[0]

    def _unrolled(self, x_btd: jax.Array, positions: Positions) -> jax.Array:
        block = Block(*self._shared, parent=None)

        def apply(weights: Mapping[str, Any], x_btd: jax.Array) -> jax.Array:
            return block.apply(weights, x_btd, positions)[0]

        if self.remat != "none":
            apply = jax.checkpoint(apply, policy=remat_policy(self.remat))
        stacked = {name: held["layers"] for name, held in self.variables.items()}
        for layer in range(self.config.num_layers):
            x_btd = apply(jax.tree.map(lambda weight, layer=layer: weight[layer], stacked), x_btd)
        return x_btd

    def _cached(self, x_btd: jax.Array, positions: Positions, cache: KVCache) -> tuple[jax.Array, KVCache]:
        if "0" not in self.variables["params"]["layers"]:
            raise ModelError("with a cache the network takes weights laid out by models.inference.inference_params")
        block, caches = Block(*self._shared, parent=None), []
        for layer, held in enumerate(zip(cache.keys, cache.values, strict=True)):
            weights = {"params": self.variables["params"]["layers"][str(layer)]}
            output: Any = block.apply(weights, x_btd, positions, held)
            x_btd, held = output
            caches.append(held)
        keys, values = zip(*caches, strict=True)
        return x_btd, KVCache(keys, values, cache.table_bj)

    @property
    def _shared(self) -> tuple[Any, ...]:
        return self.config, self.mesh, self.compute_dtype, self.attention, self.lora


class Layer(nn.Module):
    """What the parts of a layer are made with; see Llama."""

    config: LlamaConfig
    mesh: Mesh
    compute_dtype: DTypeLike
    kernel: AttentionName
    lora: LoraConfig | None

    def weight(self, name: str, path: str, cached: bool = False) -> jax.Array:
        """Declare this layer's slice of the table's parameter `path` as `name`, and return it.

        linen compares the shape with that of the given value, so a wrong tree fails here and not in an einsum.
        cached: in the layout of inference.
        """
        if cached:
            shape = inference_table(self.config, self.mesh, self.compute_dtype)[f"layers/0/{path}"].shape
        else:
            shape = parameter_table(self.config)[f"layers/{path}"].shape[1:]
        return self.param(name, nn.initializers.zeros, shape)

    def projection(self, name: str, path: str, cached: bool) -> Callable[[jax.Array], jax.Array]:
        """Give the function x -> x W of [..., I], plus the bias where the family has one, plus scale (x a) b where the
        parameters hold an adapter (arXiv:2106.09685, eq. 3).

        Rows and tokens are one axis in the product, which halves XLA's backward pass on a CPU.
        """
        weight, dtype = self.weight(name, path, cached).astype(self.compute_dtype), self.compute_dtype
        biased = FAMILIES[self.config.family].qkv_bias and name in ("q", "k", "v", "qkv")
        bias_o = self.weight(f"{name}_bias", f"{path}_bias", cached).astype(dtype) if biased else None
        a_ir = b_ro = None
        if self.lora is not None and self.has_variable(LORA, name):
            adapter: Any = self.get_variable(LORA, name)
            a_ir, b_ro = adapter["a"].astype(dtype), adapter["b"].astype(dtype)

        def apply(x: jax.Array) -> jax.Array:
            x_mi = x.reshape(-1, x.shape[-1])
            y_mo = (multiply_cached if cached else multiply)(x_mi, weight, self.mesh)
            if bias_o is not None:
                y_mo = y_mo + bias_o
            if self.lora is not None and a_ir is not None and b_ro is not None:
                y_mo = y_mo + multiply(multiply(x_mi, a_ir, self.mesh), b_ro, self.mesh) * self.lora.scale
            return y_mo.reshape(*x.shape[:-1], -1)

        return apply


class Block(Layer):
    """One layer: attention, then the mlp, each on the normalised residual stream and added to it."""

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, positions: Positions, cache: LayerCache | None = None
    ) -> tuple[jax.Array, LayerCache | None]:
        """Return the residual stream [B, T, D] after this layer, and the layer's cache with this call's tokens."""
        tokens = tokens_axis(cache)
        shared, eps = (self.config, self.mesh, self.compute_dtype, self.kernel, self.lora), self.config.rms_norm_eps
        normed_btd = rms_norm(x_btd, self.weight("attention_norm", "attention_norm"), eps)
        mixed_btd, cache = Attention(*shared, name="attention")(normed_btd, positions, cache)
        x_btd = x_btd + mixed_btd
        normed_btd = rms_norm(x_btd, self.weight("mlp_norm", "mlp_norm"), eps)
        x_btd = x_btd + Mlp(*shared, name="mlp")(normed_btd, cache is not None)
        return constrain(x_btd, self.mesh, "batch", tokens, residual_axis(cache)), cache


class Attention(Layer):
    """Rotary grouped-query attention with flat projections [D, heads * H]."""

    @nn.compact
    def __call__(
        self, x_btd: Float[Array, "B T D"], positions: Positions, cache: LayerCache | None
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """Compute what attention adds to the residual stream, and the layer's cache with the new keys and values."""
        mesh, axes, tokens = self.mesh, head_axis(self.config, self.mesh), tokens_axis(cache)
        q_btnh, k_btgh, v_btgh = self._queries_keys_values(x_btd, cache is not None)
        if FAMILIES[self.config.family].qk_norm:
            eps = self.config.rms_norm_eps
            q_btnh = rms_norm(q_btnh, self.weight("q_norm", "attention/q_norm"), eps)
            k_btgh = rms_norm(k_btgh, self.weight("k_norm", "attention/k_norm"), eps)
        q_btnh, k_btgh = (rotate(x, positions.angles_bth) for x in (q_btnh, k_btgh))
        if cache is not None:
            assert positions.reading is not None
            mixed_btnh, keys, values = cached_attention(
                q_btnh, k_btgh, v_btgh, *cache, positions.reading, self.config, mesh
            )
            cache = keys, values
        else:
            if axes.query is not None and axes.kv is None:
                # Query heads are split and key/value heads are not: give every query head a key/value head of its own,
                # else grouping the query heads would gather them.
                repeats = self.config.num_heads // self.config.num_kv_heads
                k_btgh, v_btgh = (
                    constrain(repeat_heads(x, repeats), mesh, "batch", tokens, axes.query, None)
                    for x in (k_btgh, v_btgh)
                )
            kv, ends = axes.kv or axes.query, positions.ends_bt
            mixed_btnh = causal_attention(self.kernel, q_btnh, k_btgh, v_btgh, mesh, axes.query, kv, ends)
            mixed_btnh = checkpoint_name(mixed_btnh, SAVED_ATTENTION)
        mixed_btnh = constrain(mixed_btnh, mesh, "batch", tokens, axes.query, None)
        flat = constrain(mixed_btnh.reshape(*x_btd.shape[:2], -1), mesh, "batch", tokens, "heads")
        project = self.projection("o", "attention/o", cache is not None)
        return map_tokens(project, flat, mesh) if cache is None else project(flat), cache

    def _queries_keys_values(self, x_btd: jax.Array, cached: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        config, mesh, axes = self.config, self.mesh, head_axis(self.config, self.mesh)
        tokens, shape = None if cached else "tokens", x_btd.shape[:2]

        def heads(name: str, count: int, axis: str, head: str | None) -> jax.Array:
            project = self.projection(name, f"attention/{name}", cached)
            flat = constrain(
                project(x_btd) if cached else map_tokens(project, x_btd, mesh), mesh, "batch", tokens, axis
            )
            return constrain(flat.reshape(*shape, count, config.head_size), mesh, "batch", tokens, head, None)

        if not cached or not is_fused(config, mesh):
            return (
                heads("q", config.num_heads, "heads", axes.query),
                heads("k", config.num_kv_heads, "kv", axes.kv),
                heads("v", config.num_kv_heads, "kv", axes.kv),
            )
        groups, repeats = config.num_kv_heads, config.num_heads // config.num_kv_heads
        all_btgrh = heads("qkv", groups * (repeats + 2), "kv", axes.kv).reshape(*shape, groups, repeats + 2, -1)
        q_btnh = all_btgrh[:, :, :, :repeats].reshape(*shape, config.num_heads, -1)
        return q_btnh, all_btgrh[:, :, :, repeats], all_btgrh[:, :, :, repeats + 1]


class Mlp(Layer):
    """SwiGLU (arXiv:2002.05202): down(silu(gate x) * up x)."""

    @nn.compact
    def __call__(self, x_btd: Float[Array, "B T D"], cached: bool) -> Float[Array, "B T D"]:
        """Compute what the mlp adds to the residual stream. cached: with weights in the layout of inference."""
        mesh, down = self.mesh, self.projection("down", "mlp/down", cached)
        if cached:  # of each device gate, then up
            gate_up = self.projection("gate_up", "mlp/gate_up", cached)
            both_btf = constrain(gate_up(x_btd), mesh, "batch", None, "mlp")
            both_btp2f = both_btf.reshape(*x_btd.shape[:2], mesh.shape["tensor"], 2, -1)
            inner_btf = jax.nn.silu(both_btp2f[:, :, :, 0]) * both_btp2f[:, :, :, 1]
            return down(constrain(inner_btf.reshape(*x_btd.shape[:2], -1), mesh, "batch", None, "mlp"))
        gate, up = (self.projection(name, f"mlp/{name}", cached) for name in ("gate", "up"))

        def mlp(x_btd: jax.Array) -> jax.Array:
            return down(constrain(jax.nn.silu(gate(x_btd)) * up(x_btd), mesh, "batch", "tokens", "mlp"))

        return map_tokens(mlp, x_btd, mesh)


def variables(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange parameters for `Llama.apply`. Without "lora" among them the adapters are off."""
    adapters = {LORA: params[LORA]} if LORA in params else {}
    return {"params": {name: value for name, value in params.items() if name != LORA}, **adapters}


def tokens_axis(cache: Any) -> str | None:
    """Logical axis of T: rows that are read or written through a cache are whole on their device."""
    return "tokens" if cache is None else None


def residual_axis(cache: Any) -> str | None:
    """Logical axis of D between layers: with a cache, where nothing is kept for a backward pass, it is whole."""
    return "residual" if cache is None else None


def unembedding(params: Mapping[str, Any], config: LlamaConfig) -> Float[Array, "D V"]:
    """Return the matrix that turns hidden states into logits: the embedding transposed where tied, else `lm_head`."""
    return params["embedding"].T if config.tie_word_embeddings else params["lm_head"]


def logits(
    hidden_btd: Float[Array, "B T D"], params: Mapping[str, Any], config: LlamaConfig, mesh: Mesh
) -> Float[Array, "B T V"]:
    """Logits in float32, vocabulary over "tensor": for sampling and tests; training goes through chunks instead."""
    weight_dv = unembedding(params, config).astype(hidden_btd.dtype)
    logits_btv = jnp.einsum("btd,dv->btv", hidden_btd, weight_dv, preferred_element_type=jnp.float32)
    return constrain(logits_btv, mesh, "batch", None, "vocab")


def remat_policy(name: str) -> Any:
    """Return the rematerialisation policy of that name. Raises ModelError for a name that is not there."""
    if name not in REMAT_POLICIES:
        raise ModelError(f"remat {name!r} is not one of {['none', *REMAT_POLICIES]}")
    return REMAT_POLICIES[name]
