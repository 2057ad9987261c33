"""The Llama network (arXiv:2302.13971, 2407.21783) as flax.linen modules over plain nested dicts of parameters.

model = Llama(config, mesh)
output = model.apply(variables(params), tokens_bt, positions_bt)
logits_btv = logits(output.hidden_btd, params, config, mesh)
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from models import kv_cache
from models.attention import SAVED_ATTENTION, AttentionName, attend, causal_attention, causal_mask, repeat_heads
from models.config import LlamaConfig, ModelError
from models.kv_cache import KVCache
from models.lora import LORA, LoraConfig
from models.parameters import parameter_table
from models.rope import rotary_angles, rotate
from models.sharding import constrain, head_axis

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

    angles_bth: rotary angles [B, T, H/2]. slots_bt: the key slot of each token, which also bounds what it sees.
    causal: token t sees tokens 0..t of this call and nothing else. ends_bt: of these only slots s with t < ends[s].
    """

    angles_bth: jax.Array
    slots_bt: jax.Array
    ends_bt: jax.Array | None
    causal: bool = flax.struct.field(pytree_node=False)


Carry = tuple[jax.Array, KVCache | None]
"""What passes from layer to layer: the residual stream [B, T, D] and the cache of all layers."""


class Llama(nn.Module):
    """The network without its unembedding. `remat` is "none" or a name of REMAT_POLICIES; `scan=False` unrolls layers.

    Both forms take the same stacked parameters. They come from `models.parameters.init_params` or
    `models.hf_io.load_llama`; linen's own `init` is not used. attention: the kernel (`models.attention`) of tokens that
    see only one another. lora: of the adapters, where `variables` hold some.
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
        cache_is_empty: bool = False,
        ends_bt: Int[Array, "B T"] | None = None,
    ) -> LlamaOutput:
        """LlamaOutput of the tokens.

        Without a cache, token t of a row sees tokens 0..t of the row. With one, keys and values go to slots
        `positions_bt` and each token sees the slots up to its position: consecutive calls continue a row, each row at
        its own position (prefill: T = prompt length; decode: T = 1). A position at or beyond the cache's length writes
        nothing: a way to let a finished row idle. Rows are right-padded; hidden states of padding are meaningless but
        finite, and padding changes no other token. cache_is_empty: token t stands at position t of an empty cache, so
        that nothing has to be read from it.
        ends_bt: without a cache, rows that are trees (`sweet_jax.data.trees`), whose tokens stand at `positions_bt`.
        Raises ModelError where the rows do not divide over mesh axis "data", the tokens over "sequence", or adapters
        are given to a network without `lora`.
        """
        config, mesh = self.config, self.mesh
        if LORA in self.variables["params"]:
            raise ModelError("LoRA adapters lie among the weights: call apply with `variables(params)`")
        if self.lora is None and LORA in self.variables:
            raise ModelError("the parameters hold LoRA adapters, but the network was made without a LoRA configuration")
        table = parameter_table(config)
        embedding_vd = self.param("embedding", lambda key: table["embedding"].init(key))
        x_btd = embedding_vd[tokens_bt].astype(self.compute_dtype)
        x_btd = constrain(x_btd, mesh, "batch", tokens_axis(cache), residual_axis(cache))
        causal = cache is None or cache_is_empty
        positions = Positions(rotary_angles(positions_bt, config), positions_bt, ends_bt, causal)

        layers = self._scanned if self.scan else self._unrolled
        x_btd, cache = layers((x_btd, cache), positions)

        scale_d = self.param("final_norm", lambda key: table["final_norm"].init(key))
        return LlamaOutput(rms_norm(x_btd, scale_d, config.rms_norm_eps), cache)

    def _scanned(self, carry: Carry, positions: Positions) -> Carry:
        block = Block if self.remat == "none" else nn.remat(Block, policy=remat_policy(self.remat), prevent_cse=False)
        layers = nn.scan(
            block,
            variable_axes={"params": 0, LORA: 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=self.config.num_layers,
        )(*self._shared, name="layers")
        return layers(carry, jnp.arange(self.config.num_layers), positions)[0]

    def _unrolled(self, carry: Carry, positions: Positions) -> Carry:
        block = Block(*self._shared, parent=None)

        def apply(weights: Mapping[str, Any], carry: Carry, layer: jax.Array) -> Carry:
            return block.apply(weights, carry, layer, positions)[0]

        if self.remat != "none":
            apply = jax.checkpoint(apply, policy=remat_policy(self.remat))
        stacked = {name: held["layers"] for name, held in self.variables.items()}
        for layer in range(self.config.num_layers):
            carry = apply(jax.tree.map(lambda weight, layer=layer: weight[layer], stacked), carry, jnp.int32(layer))
        return carry

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

    def weight(self, name: str, path: str) -> jax.Array:
        """Declare this layer's slice of the table's parameter `path` as `name`, and return it.

        linen compares the shape with that of the given value, so a wrong tree fails here and not in an einsum.
        """
        return self.param(name, nn.initializers.zeros, parameter_table(self.config)[path].shape[1:])

    def project(self, x_bti: Float[Array, "B T I"], name: str, path: str) -> Float[Array, "B T O"]:
        """x W in the dtype of `x`, plus scale (x a) b where the parameters hold an adapter (arXiv:2106.09685, eq. 3).

        Rows and tokens are one axis in the product, which halves XLA's backward pass on a CPU.
        """
        x_mi = x_bti.reshape(-1, x_bti.shape[-1])
        y_mo = x_mi @ self.weight(name, path).astype(x_bti.dtype)
        if self.lora is not None and self.has_variable(LORA, name):
            adapter: Any = self.get_variable(LORA, name)
            a_ir, b_ro = adapter["a"].astype(x_bti.dtype), adapter["b"].astype(x_bti.dtype)
            y_mo = y_mo + (x_mi @ a_ir) @ b_ro * self.lora.scale
        return y_mo.reshape(*x_bti.shape[:-1], -1)


class Block(Layer):
    """One layer: attention, then the mlp, each on the normalised residual stream and added to it."""

    @nn.compact
    def __call__(self, carry: Carry, layer: Int[Array, ""], positions: Positions) -> tuple[Carry, None]:
        """Return the carry after this layer (and None, which nn.scan asks for)."""
        (x_btd, cache), tokens = carry, tokens_axis(carry[1])
        shared, eps = (self.config, self.mesh, self.compute_dtype, self.kernel, self.lora), self.config.rms_norm_eps
        normed_btd = rms_norm(x_btd, self.weight("attention_norm", "layers/attention_norm"), eps)
        mixed_btd, cache = Attention(*shared, name="attention")(normed_btd, cache, layer, positions)
        x_btd = x_btd + mixed_btd
        normed_btd = rms_norm(x_btd, self.weight("mlp_norm", "layers/mlp_norm"), eps)
        x_btd = x_btd + Mlp(*shared, name="mlp")(normed_btd, tokens)
        return (constrain(x_btd, self.mesh, "batch", tokens, residual_axis(cache)), cache), None


class Attention(Layer):
    """Rotary grouped-query attention with flat projections [D, heads * H]."""

    @nn.compact
    def __call__(
        self, x_btd: Float[Array, "B T D"], cache: KVCache | None, layer: Int[Array, ""], positions: Positions
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """Compute what attention adds to the residual stream, and the cache with this layer's keys and values."""
        config, mesh, axes, tokens = self.config, self.mesh, head_axis(self.config, self.mesh), tokens_axis(cache)

        def heads(name: str, count: int, axis: str, head: str | None) -> jax.Array:
            flat = constrain(self.project(x_btd, name, f"layers/attention/{name}"), mesh, "batch", tokens, axis)
            return constrain(flat.reshape(*flat.shape[:2], count, config.head_size), mesh, "batch", tokens, head, None)

        q_btnh = rotate(heads("q", config.num_heads, "heads", axes.query), positions.angles_bth)
        k_bsgh = rotate(heads("k", config.num_kv_heads, "kv", axes.kv), positions.angles_bth)
        v_bsgh = heads("v", config.num_kv_heads, "kv", axes.kv)
        if cache is not None:
            keys = kv_cache.write(cache.k_lbsgh, k_bsgh, layer, positions.slots_bt)
            values = kv_cache.write(cache.v_lbsgh, v_bsgh, layer, positions.slots_bt)
            cache = KVCache(*(constrain(x, mesh, None, "batch", None, axes.kv, None) for x in (keys, values)))
            if not positions.causal:
                k_bsgh, v_bsgh = cache.k_lbsgh[layer], cache.v_lbsgh[layer]
        if axes.query is not None and axes.kv is None:
            # Query heads are split and key/value heads are not: give every query head a key/value head of its own,
            # else grouping the query heads would gather them.
            repeats = config.num_heads // config.num_kv_heads
            k_bsgh, v_bsgh = (
                constrain(repeat_heads(x, repeats), mesh, "batch", tokens, axes.query, None) for x in (k_bsgh, v_bsgh)
            )
        if positions.causal:
            kv = axes.kv or axes.query
            ends = positions.ends_bt
            mixed_btnh = causal_attention(self.kernel, q_btnh, k_bsgh, v_bsgh, mesh, axes.query, kv, ends)
        else:
            mixed_btnh = attend(q_btnh, k_bsgh, v_bsgh, causal_mask(positions.slots_bt, k_bsgh.shape[1]))
        mixed_btnh = checkpoint_name(mixed_btnh, SAVED_ATTENTION)
        mixed_btnh = constrain(mixed_btnh, mesh, "batch", tokens, axes.query, None)
        flat = constrain(mixed_btnh.reshape(*x_btd.shape[:2], -1), mesh, "batch", tokens, "heads")
        return self.project(flat, "o", "layers/attention/o"), cache


class Mlp(Layer):
    """SwiGLU (arXiv:2002.05202): down(silu(gate x) * up x)."""

    @nn.compact
    def __call__(self, x_btd: Float[Array, "B T D"], tokens: str | None) -> Float[Array, "B T D"]:
        """Compute what the mlp adds to the residual stream. tokens: logical axis of T."""
        gate_btf = self.project(x_btd, "gate", "layers/mlp/gate")
        up_btf = self.project(x_btd, "up", "layers/mlp/up")
        inner_btf = constrain(jax.nn.silu(gate_btf) * up_btf, self.mesh, "batch", tokens, "mlp")
        return self.project(inner_btf, "down", "layers/mlp/down")


def variables(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange parameters for `Llama.apply`. Without "lora" among them the adapters are off."""
    adapters = {LORA: params[LORA]} if LORA in params else {}
    return {"params": {name: value for name, value in params.items() if name != LORA}, **adapters}


def tokens_axis(cache: KVCache | None) -> str | None:
    """Logical axis of T: rows that are read or written through a cache are whole on their device."""
    return "tokens" if cache is None else None


def residual_axis(cache: KVCache | None) -> str | None:
    """Logical axis of D between layers: with a cache, where nothing is kept for a backward pass, it is whole."""
    return "residual" if cache is None else None


def rms_norm(x_btd: Float[Array, "B T D"], scale_d: Float[Array, " D"], eps: float) -> Float[Array, "B T D"]:
    """x / sqrt(mean(x^2) + eps) * scale (arXiv:1910.07467, eq. 4), computed in float32, in the dtype of `x`."""
    x_float = x_btd.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x_float), axis=-1, keepdims=True)
    return (x_float * jax.lax.rsqrt(mean_square + eps) * scale_d.astype(jnp.float32)).astype(x_btd.dtype)


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
