"""The Llama network (arXiv:2302.13971, 2407.21783) as flax.linen modules over plain nested dicts of parameters.

model = Llama(config, mesh)
output = model.apply({"params": params}, tokens_bt, positions_bt)
logits_btv = logits(output.hidden_btd, params, config, mesh)
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from models import kv_cache
from models.attention import attend, repeat_heads, visible
from models.config import LlamaConfig, ModelError
from models.kv_cache import KVCache
from models.parameters import parameter_table
from models.rope import rotary_angles, rotate
from models.sharding import constrain, head_axis

REMAT_POLICIES: Mapping[str, Any] = {"full": None}
"""Name -> policy of jax.checkpoint: what the backward pass keeps of a layer beside its input. "none": no remat."""


@flax.struct.dataclass
class LlamaOutput:
    """Hidden states after the final norm [B, T, D] in the compute dtype, and the cache with this call's tokens."""

    hidden_btd: jax.Array
    cache: KVCache | None


@flax.struct.dataclass
class Places:
    """Where the tokens of a call stand, the same for every layer.

    angles_bth: rotary angles [B, T, H/2]. slots_bt: the key slot of each token, which also bounds what it sees.
    """

    angles_bth: jax.Array
    slots_bt: jax.Array


Carry = tuple[jax.Array, KVCache | None]
"""What passes from layer to layer: the residual stream [B, T, D] and the cache of all layers."""


class Llama(nn.Module):
    """The network without its unembedding. `remat` is "none" or a name of REMAT_POLICIES; `scan=False` unrolls layers.

    Both forms take the same stacked parameters. They come from `models.parameters.init_params` or
    `models.hf_io.load_llama`; linen's own `init` is not used.
    """

    config: LlamaConfig
    mesh: Mesh
    compute_dtype: DTypeLike = jnp.float32
    remat: str = "full"
    scan: bool = True

    @nn.compact
    def __call__(
        self, tokens_bt: Int[Array, "B T"], positions_bt: Int[Array, "B T"], cache: KVCache | None = None
    ) -> LlamaOutput:
        """LlamaOutput of the tokens.

        Without a cache, token t of a row sees tokens 0..t of the row. With one, keys and values go to slots
        `positions_bt` and each token sees the slots up to its position: consecutive calls continue a row, each row at
        its own position (prefill: T = prompt length; decode: T = 1). A position at or beyond the cache's length writes
        nothing: a way to let a finished row idle. Rows are right-padded; hidden states of padding are meaningless but
        finite, and padding changes no other token.
        Raises ModelError where the rows do not divide over mesh axis "data".
        """
        config, mesh = self.config, self.mesh
        table = parameter_table(config)
        embedding_vd = self.param("embedding", lambda key: table["embedding"].init(key))
        x_btd = embedding_vd[tokens_bt].astype(self.compute_dtype)
        x_btd = constrain(x_btd, mesh, "batch", None, None)
        order_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        places = Places(rotary_angles(positions_bt, config), order_bt if cache is None else positions_bt)

        layers = self._scanned if self.scan else self._unrolled
        x_btd, cache = layers((x_btd, cache), places)

        scale_d = self.param("final_norm", lambda key: table["final_norm"].init(key))
        return LlamaOutput(rms_norm(x_btd, scale_d, config.rms_norm_eps), cache)

    def _scanned(self, carry: Carry, places: Places) -> Carry:
        block = Block if self.remat == "none" else nn.remat(Block, policy=remat_policy(self.remat), prevent_cse=False)
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=self.config.num_layers,
        )(self.config, self.mesh, self.compute_dtype, name="layers")
        return layers(carry, jnp.arange(self.config.num_layers), places)[0]

    def _unrolled(self, carry: Carry, places: Places) -> Carry:
        block = Block(self.config, self.mesh, self.compute_dtype, parent=None)

        def apply(weights: Mapping[str, Any], carry: Carry, layer: jax.Array) -> Carry:
            return block.apply({"params": weights}, carry, layer, places)[0]

        if self.remat != "none":
            apply = jax.checkpoint(apply, policy=remat_policy(self.remat))
        stacked = self.variables["params"]["layers"]
        for layer in range(self.config.num_layers):
            carry = apply(jax.tree.map(lambda weight, layer=layer: weight[layer], stacked), carry, jnp.int32(layer))
        return carry


class Block(nn.Module):
    """One layer: attention, then the mlp, each on the normalised residual stream and added to it."""

    config: LlamaConfig
    mesh: Mesh
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(self, carry: Carry, layer: Int[Array, ""], places: Places) -> tuple[Carry, None]:
        """The carry after this layer (and None, which nn.scan asks for)."""
        (x_btd, cache), shared = carry, (self.config, self.mesh, self.compute_dtype)
        eps = self.config.rms_norm_eps
        normed_btd = rms_norm(x_btd, layer_param(self, "attention_norm", "layers/attention_norm"), eps)
        mixed_btd, cache = Attention(*shared, name="attention")(normed_btd, cache, layer, places)
        x_btd = x_btd + mixed_btd
        normed_btd = rms_norm(x_btd, layer_param(self, "mlp_norm", "layers/mlp_norm"), eps)
        x_btd = x_btd + Mlp(*shared, name="mlp")(normed_btd)
        return (constrain(x_btd, self.mesh, "batch", None, None), cache), None


class Attention(nn.Module):
    """Rotary grouped-query attention with flat projections [D, heads * H]."""

    config: LlamaConfig
    mesh: Mesh
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x_btd: Float[Array, "B T D"], cache: KVCache | None, layer: Int[Array, ""], places: Places
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """What attention adds to the residual stream, and the cache with this layer's keys and values."""
        config, mesh, axes = self.config, self.mesh, head_axis(self.config, self.mesh)

        def heads(name: str, count: int, axis: str, head: str | None) -> jax.Array:
            flat = project(x_btd, layer_param(self, name, f"layers/attention/{name}"))
            flat = constrain(flat, mesh, "batch", None, axis)
            return constrain(flat.reshape(*flat.shape[:2], count, config.head_size), mesh, "batch", None, head, None)

        q_btnh = rotate(heads("q", config.num_heads, "heads", axes.query), places.angles_bth)
        k_bsgh = rotate(heads("k", config.num_kv_heads, "kv", axes.kv), places.angles_bth)
        v_bsgh = heads("v", config.num_kv_heads, "kv", axes.kv)
        if cache is not None:
            keys = kv_cache.write(cache.k_lbsgh, k_bsgh, layer, places.slots_bt)
            values = kv_cache.write(cache.v_lbsgh, v_bsgh, layer, places.slots_bt)
            cache = KVCache(*(constrain(x, mesh, None, "batch", None, axes.kv, None) for x in (keys, values)))
            k_bsgh, v_bsgh = cache.k_lbsgh[layer], cache.v_lbsgh[layer]
        if axes.query is not None and axes.kv is None:
            # Query heads are split and key/value heads are not: give every query head a key/value head of its own,
            # else grouping the query heads would gather them.
            repeats = config.num_heads // config.num_kv_heads
            k_bsgh, v_bsgh = (
                constrain(repeat_heads(x, repeats), mesh, "batch", None, axes.query, None) for x in (k_bsgh, v_bsgh)
            )
        mixed_btnh = attend(q_btnh, k_bsgh, v_bsgh, visible(places.slots_bt, k_bsgh.shape[1]))
        mixed_btnh = constrain(mixed_btnh, mesh, "batch", None, axes.query, None)
        flat = constrain(mixed_btnh.reshape(*x_btd.shape[:2], -1), mesh, "batch", None, "heads")
        return project(flat, layer_param(self, "o", "layers/attention/o")), cache


class Mlp(nn.Module):
    """SwiGLU (arXiv:2002.05202): down(silu(gate x) * up x)."""

    config: LlamaConfig
    mesh: Mesh
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(self, x_btd: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the mlp adds to the residual stream."""
        gate_btf = project(x_btd, layer_param(self, "gate", "layers/mlp/gate"))
        up_btf = project(x_btd, layer_param(self, "up", "layers/mlp/up"))
        inner_btf = constrain(jax.nn.silu(gate_btf) * up_btf, self.mesh, "batch", None, "mlp")
        return project(inner_btf, layer_param(self, "down", "layers/mlp/down"))


def layer_param(module: nn.Module, name: str, path: str) -> jax.Array:
    """One layer's slice of the table's parameter `path`, declared in `module` as `name`.

    linen compares the shape with that of the given value, so a wrong tree fails here and not in an einsum.
    """
    shape = parameter_table(module.config)[path].shape[1:]
    return module.param(name, nn.initializers.zeros, shape)


def project(x_bti: Float[Array, "B T I"], weight_io: Float[Array, "I O"]) -> Float[Array, "B T O"]:
    """x W in the dtype of `x`.

    Rows and tokens are one axis in the product, which halves XLA's backward pass on a CPU.
    """
    flat = x_bti.reshape(-1, x_bti.shape[-1]) @ weight_io.astype(x_bti.dtype)
    return flat.reshape(*x_bti.shape[:-1], -1)


def rms_norm(x_btd: Float[Array, "B T D"], scale_d: Float[Array, " D"], eps: float) -> Float[Array, "B T D"]:
    """x / sqrt(mean(x^2) + eps) * scale (arXiv:1910.07467, eq. 4), computed in float32, in the dtype of `x`."""
    x_float = x_btd.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x_float), axis=-1, keepdims=True)
    return (x_float * jax.lax.rsqrt(mean_square + eps) * scale_d.astype(jnp.float32)).astype(x_btd.dtype)


def unembedding(params: Mapping[str, Any], config: LlamaConfig) -> Float[Array, "D V"]:
    """The matrix that turns hidden states into logits: the embedding transposed where tied, else `lm_head`."""
    return params["embedding"].T if config.tie_word_embeddings else params["lm_head"]


def logits(
    hidden_btd: Float[Array, "B T D"], params: Mapping[str, Any], config: LlamaConfig, mesh: Mesh
) -> Float[Array, "B T V"]:
    """Logits in float32, vocabulary over "tensor": for sampling and tests; training goes through chunks instead."""
    weight_dv = unembedding(params, config).astype(hidden_btd.dtype)
    logits_btv = jnp.einsum("btd,dv->btv", hidden_btd, weight_dv, preferred_element_type=jnp.float32)
    return constrain(logits_btv, mesh, "batch", None, "vocab")


def remat_policy(name: str) -> Any:
    """The policy of that name. Raises ModelError for a name that is not there."""
    if name not in REMAT_POLICIES:
        raise ModelError(f"remat {name!r} is not one of {['none', *REMAT_POLICIES]}")
    return REMAT_POLICIES[name]
