"""x W as each platform computes it quickly. XLA multiplies bfloat16 on a CPU fast only where the result is float32."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from models.sharding import is_cpu_bfloat16

FEW_ROWS = 64  # of a product, up to which a CPU is faster with the weights as its first factor


def multiply(x_mi: Float[Array, "M I"], weight_io: Float[Array, "I O"], mesh: Mesh) -> Float[Array, "M O"]:
    """x W, for training: differentiable, in the dtype of `x`, which is that of `weight_io`."""
    return _multiply_rounded(x_mi, weight_io) if is_cpu_bfloat16(mesh, x_mi.dtype) else x_mi @ weight_io


def multiply_cached(x_mi: Float[Array, "M I"], weight: Float[Array, "..."], mesh: Mesh) -> Float[Array, "M O"]:
    """x W^T, for sampling, in the dtype of `x`. weight: [O, I] or [I, O], as `models.inference` lays it."""
    weight = weight.astype(x_mi.dtype)
    if is_cpu_bfloat16(mesh, x_mi.dtype):
        return _contract(x_mi, weight, 1, 0)
    if mesh.devices.flat[0].platform != "cpu" or x_mi.shape[0] > FEW_ROWS:
        return x_mi @ weight.T
    # Without the barriers XLA turns the product round again.
    x_im = jax.lax.optimization_barrier(x_mi.T)
    return jax.lax.optimization_barrier(weight @ x_im).T


def _contract(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """Multiply matrices along those axes, with sums in float32, in the dtype of `left`."""
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32).astype(left.dtype)


@jax.custom_vjp
def _multiply_rounded(x_mi: Array, weight_io: Array) -> Array:
    return _contract(x_mi, weight_io, 1, 0)


def _save(x_mi: Array, weight_io: Array) -> tuple[Array, tuple[Array, Array]]:
    return _contract(x_mi, weight_io, 1, 0), (x_mi, weight_io)


def _backward(saved: tuple[Array, Array], grad_mo: Array) -> tuple[Array, Array]:
    # JAX's own rule multiplies float32 gradients by bfloat16 weights, and XLA converts what is transposed to float32.
    x_mi, weight_io = saved
    return _contract(grad_mo, weight_io, 1, 1), _contract(x_mi, grad_mo, 0, 0).astype(weight_io.dtype)


_multiply_rounded.defvjp(_save, _backward)
