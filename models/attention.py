"""Grouped-query attention of query tokens over key slots, and its kernels.

xla      any device; long rows block by block (`models.block_attention`), of short ones all scores are an array
splash   TPU: Pallas flash attention, no array of scores (arXiv:2205.14135), of trees a kernel of our own
         (`models.block_kernels`); interpreted on a CPU
cudnn    NVIDIA: flash attention of cuDNN; bfloat16 or float16 compute

Every kernel runs on the rows, tokens and heads that its device holds (`sharded`): keys and values of a row are gathered
over "sequence", which grouped heads make cheap, and nothing else moves.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from models.block_attention import SAVED_ATTENTION, Form, block_attention
from models.config import ModelError
from models.seen_blocks import BLOCK, MASK_VALUE
from models.sharding import activation_sharding

AttentionName = Literal["xla", "splash", "cudnn"]
ATTENTION = ("xla", "splash", "cudnn")
TREES = ("xla", "splash")  # the kernels that compute rows that are trees

LANES = 128  # of a TPU: splash reads whole blocks of this many tokens, and heads padded to it
BLOCKS = (512, 256, LANES)
SHORT = 2 * BLOCK  # tokens of a row up to which kernel "xla" makes an array of all scores


def causal_mask(slots_bt: Int[Array, "B T"], length: int) -> Bool[Array, "B T S"]:
    """Which of `length` slots each query sees: its own and those before it.

    In: slots [[0, 1], [2, 3]], length 4. Out: [[[1,0,0,0], [1,1,0,0]], [[1,1,1,0], [1,1,1,1]]].
    Right padding needs no mask of its own: a padding slot lies after every true token of its row.
    """
    return jnp.arange(length)[None, None, :] <= slots_bt[:, :, None]


def causal_attention(
    kernel: AttentionName,
    q_btnh: Float[Array, "B T N H"],
    k_bsgh: Float[Array, "B T G H"],
    v_bsgh: Float[Array, "B T G H"],
    mesh: Mesh,
    query_axis: str | None,
    kv_axis: str | None,
    ends_bt: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T N H"]:
    """Each token's values averaged over the tokens before it and itself (see `attend`), by the kernel of that name.

    ends_bt: rows that are trees (`sweet_jax.data.trees`): a token sees slot s only before ends[s]; TREES only.
    query_axis, kv_axis: logical axes of the head dimensions (`sharding.head_axis`); where query heads are split and
    key/value heads are not, each query head has been given a key/value head of its own. Raises ModelError for what the
    kernel cannot compute (`check_kernel`).
    """
    if ends_bt is not None and kernel not in TREES:
        raise ModelError(f"attention {kernel!r} cannot compute rows that are trees: use 'xla'")
    check_kernel(kernel, mesh, q_btnh.dtype)
    tokens, parts = q_btnh.shape[1], mesh.shape.get("sequence", 1)
    if kernel == "splash" and parts > 1 and tokens % (parts * LANES):
        raise ModelError(
            f"rows of {tokens} tokens do not divide into blocks of {LANES} over mesh axis 'sequence' of {parts}"
        )
    query = activation_sharding(mesh, q_btnh.shape, "batch", "tokens", query_axis, None).spec
    keys = activation_sharding(mesh, k_bsgh.shape, "batch", None, kv_axis, None).spec
    tokens_axis = "sequence" if "sequence" in mesh.shape else None
    ends = None if ends_bt is None else activation_sharding(mesh, ends_bt.shape, "batch", None).spec
    if kernel == "splash" and ends_bt is not None:
        form: Form = "interpreted" if mesh.devices.flat[0].platform == "cpu" else "kernel"
        run = _LocalKernel(functools.partial(_by_blocks, tokens_axis=tokens_axis, form=form), ends_bt, ends)
    elif kernel == "splash":
        run = _make_splash(q_btnh.shape[1], q_btnh.shape[2] // _shards(mesh, query, 2), mesh)
    elif kernel == "cudnn":
        run = _LocalKernel(_cudnn)
    else:
        run = _LocalKernel(functools.partial(_xla, tokens_axis=tokens_axis), ends_bt, ends)
    # Every device has the rows, tokens and heads that it computes; what a kernel is inside is none of the compiler's
    # business, so nothing needs to be checked to be equal over the axes that the specs leave out.
    local = jax.shard_map(
        run.apply, mesh=mesh, in_specs=(run.spec, query, keys, keys), out_specs=query, check_vma=False
    )
    return local(run.tables, q_btnh, k_bsgh, v_bsgh)


def check_kernel(kernel: str, mesh: Mesh, dtype: Any, remat: str = "full") -> None:
    """Raise ModelError where the kernel is unknown, or that mesh, dtype or rematerialisation is not for it."""
    if kernel not in ATTENTION:
        raise ModelError(f"attention {kernel!r} is not one of {list(ATTENTION)}")
    platform, parts = mesh.devices.flat[0].platform, mesh.shape.get("sequence", 1)
    if kernel == "splash" and platform == "gpu":
        raise ModelError(
            "attention 'splash' is a TPU kernel (interpreted on a CPU), and this mesh has GPUs: use 'cudnn'"
        )
    if kernel == "cudnn":
        if platform != "gpu":
            raise ModelError(
                f"attention 'cudnn' needs NVIDIA GPUs, and the devices of this mesh are {platform}: "
                f"use {'splash' if platform == 'tpu' else 'xla'!r}"
            )
        if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
            raise ModelError(f"attention 'cudnn' computes in bfloat16 or float16, not in {jnp.dtype(dtype)}")
        if parts > 1:
            raise ModelError(
                f"attention 'cudnn' does not split the tokens of a row over mesh axis 'sequence' of {parts}"
            )
        if remat == "attention":
            raise ModelError(
                "remat 'attention' saves nothing with attention 'cudnn', which computes its log-sum-exp again: "
                "use remat 'full' or 'dots', or attention 'xla'"
            )


@dataclass(frozen=True)
class _LocalKernel:
    """What runs on each device: apply(tables, q, k, v), and tables that are split by `spec`."""

    apply: Callable[..., jax.Array]
    tables: Any = None
    spec: Any = None


def _xla(
    ends_bs: jax.Array | None, q_btnh: jax.Array, k_bsgh: jax.Array, v_bsgh: jax.Array, tokens_axis: str | None
) -> jax.Array:
    if k_bsgh.shape[1] > SHORT:
        return _by_blocks(ends_bs, q_btnh, k_bsgh, v_bsgh, tokens_axis, "loop")
    slots_bt = jnp.broadcast_to(_slots(q_btnh, tokens_axis), q_btnh.shape[:2])
    mask_bts = causal_mask(slots_bt, k_bsgh.shape[1])
    if ends_bs is not None:
        mask_bts &= slots_bt[:, :, None] < ends_bs[:, None, :]
    return attend(q_btnh, k_bsgh, v_bsgh, mask_bts)


def _by_blocks(
    ends_bs: jax.Array | None,
    q_btnh: jax.Array,
    k_bsgh: jax.Array,
    v_bsgh: jax.Array,
    tokens_axis: str | None,
    form: Form,
) -> jax.Array:
    return block_attention(q_btnh, k_bsgh, v_bsgh, _slots(q_btnh, tokens_axis), ends_bs, form)


def _slots(q_btnh: jax.Array, tokens_axis: str | None) -> jax.Array:
    """Slots of the tokens that this device has."""
    tokens = q_btnh.shape[1]
    first = 0 if tokens_axis is None else jax.lax.axis_index(tokens_axis) * tokens
    return first + jnp.arange(tokens)


def _cudnn(_: None, q_btnh: jax.Array, k_bsgh: jax.Array, v_bsgh: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(q_btnh, k_bsgh, v_bsgh, is_causal=True, implementation="cudnn")


def _make_splash(tokens: int, heads: int, mesh: Mesh) -> _LocalKernel:
    """Make the Pallas kernel for rows of `tokens` tokens and that many query heads on a device."""
    parts = mesh.shape.get("sequence", 1)
    padded = -(-tokens // LANES) * LANES
    block = next(size for size in BLOCKS if (padded // parts) % size == 0)
    sizes: dict[str, Any] = {
        f"block_{name}": block
        for name in ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    }
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([splash_attention_mask.CausalMask((padded, padded))] * heads),
        block_sizes=splash_attention_kernel.BlockSizes(**sizes),
        head_shards=1,  # all heads have the same mask: a device is given that of its own number of heads
        q_seq_shards=parts,
        residual_checkpoint_name=SAVED_ATTENTION,
        interpret=mesh.devices.flat[0].platform == "cpu",
    )
    axis = "sequence" if parts > 1 else None
    spec = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, axis)))

    def apply(kernel: Any, q_btnh: jax.Array, k_bsgh: jax.Array, v_bsgh: jax.Array) -> jax.Array:
        behind = [(0, 0), (0, padded - tokens), (0, 0), (0, 0)]  # later than every true token, so none sees it
        q, k, v = (jnp.pad(x, behind).swapaxes(1, 2) for x in (q_btnh * q_btnh.shape[-1] ** -0.5, k_bsgh, v_bsgh))
        return jax.vmap(kernel)(q, k, v).swapaxes(1, 2)[:, : q_btnh.shape[1]]

    return _LocalKernel(apply, kernel, spec)


def _shards(mesh: Mesh, spec: PartitionSpec, dimension: int) -> int:
    return 1 if spec[dimension] is None else mesh.shape[spec[dimension]]


def attend(
    q_btnh: Float[Array, "B T N H"],
    k_bsgh: Float[Array, "B S G H"],
    v_bsgh: Float[Array, "B S G H"],
    mask_bts: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Values averaged with weights softmax(q k / sqrt(H)) over unmasked slots (Vaswani et al. 2017, eq. 1).

    Query heads n = g R .. g R + R - 1 read key/value head g (arXiv:2305.13245). Scores and softmax are float32, the
    weighted sum is taken in the dtype of `q`, which is also the dtype of the result.
    """
    batch, queries, heads, size = q_btnh.shape
    groups = k_bsgh.shape[2]
    repeats = heads // groups
    # The query heads of a group are rows of one matrix product with their key/value head: [R T, H] x [H, S].
    q_bgmh = (
        q_btnh.reshape(batch, queries, groups, repeats, size).transpose(0, 2, 3, 1, 4).reshape(batch, groups, -1, size)
    )
    k_bghs = k_bsgh.astype(q_btnh.dtype).transpose(0, 2, 3, 1)
    v_bgsh = v_bsgh.astype(q_btnh.dtype).transpose(0, 2, 1, 3)
    score_bgms = jnp.matmul(q_bgmh, k_bghs, preferred_element_type=jnp.float32) * size**-0.5
    mask_b1ms = jnp.tile(mask_bts[:, None], (1, 1, repeats, 1))
    score_bgms = jnp.where(mask_b1ms, score_bgms, MASK_VALUE)
    weight_bgms = jax.nn.softmax(score_bgms, axis=-1).astype(q_btnh.dtype)
    mixed_bgrth = jnp.matmul(weight_bgms, v_bgsh).reshape(batch, groups, repeats, queries, size)
    return mixed_bgrth.transpose(0, 3, 1, 2, 4).reshape(q_btnh.shape)


def repeat_heads(x_bsgh: Float[Array, "B S G H"], count: int) -> Float[Array, "B S N H"]:
    """Each key/value head `count` times in a row, so that query head n reads head n."""
    return jnp.repeat(x_bsgh, count, axis=2)
