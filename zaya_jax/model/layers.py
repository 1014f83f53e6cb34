"""The small parts: matrix products under a precision policy, RMSNorm, rotary angles, shifts along a sequence.

Shape letters, used as suffixes of array names everywhere (`q_BTNH`):

    B batch               N query heads            E experts               L layers
    T query positions     K key-value heads        F expert width          P flattened tokens, B*T
    S key positions       H head width             R router width          C router classes, E + 1
    D model width         U conv channels, (N+K)H  V vocabulary
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from kernels_pallas.bits import as_integers, like
from kernels_pallas.products import outer
from zaya_jax.model.config import Rope
from zaya_jax.model.cpu import multiplies_tiles
from zaya_jax.model.execution import Execution
from zaya_jax.model.lora import Adapted, product
from zaya_jax.parallel import column_shards

_FEW_ROWS = 64
_LARGE = 2**20  # weights of fewer elements are not worth compiling a loop of their own for
_LANES = 32  # bfloat16 numbers of a cache line of 64 bytes
_WIDE = 64 * _LANES  # the vectoriser gives up on more slices than 64
_CONTRACT_LAST = (((1,), (1,)), ((), ()))


PRODUCT = "product"  # what remat "dots" keeps


def dense(execution: Execution, x: jax.Array, weight: jax.Array | Adapted, bias: jax.Array | None = None) -> jax.Array:
    """x [..., in] times weight [out, in] (+ bias [out]), accumulated and returned in the exact type."""
    # Where rows and columns are spread over devices, to make one axis of them would gather the columns.
    flat = x if column_shards(execution.mesh) > 1 else x.reshape(-1, x.shape[-1])
    y = product(functools.partial(matmul, execution), flat, weight).reshape(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias.astype(y.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def matmul(execution: Execution, x_MI: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """x times the transposed weight, [M, O], in the exact type. The products of its gradients are of the compute type.
    M may be several axes.

    `preferred_element_type` is always given: without it XLA:CPU upcasts both bfloat16 operands first. The unstacked
    layout, which is the CPU's, has forms of its own for few rows, where reading the weight is all the work
    (`docs/performance.md`).
    """
    x, weight = x_MI.astype(execution.compute_dtype), weight_OI.astype(execution.compute_dtype)
    rows, exact = x.shape[0] if x.ndim == 2 else x.size, execution.exact_dtype
    few = execution.layout == "unstacked" and rows <= _FEW_ROWS
    if few and (multiplies_tiles(execution) or (rows > 1 and x.dtype != jnp.bfloat16)):
        return matmul_few(execution, x, weight)
    if few and rows == 1 and x.dtype == jnp.bfloat16:
        # Tied to x, the weight is no constant of the decoding loop: XLA would upcast all of those before the loop.
        x, weight = lax.optimization_barrier((x, weight))
        if weight.size >= _LARGE and weight.shape[1] <= _WIDE and weight.shape[1] % (2 * _LANES) == 0:
            return _row_times_large(x.astype(exact), weight)
        return jnp.sum(weight.astype(exact) * x.astype(exact), axis=1)[None]
    return matmul_nt(execution, x, weight)


def _matmul_forward(execution: Execution, x_MI, weight_OI):
    # Named here: a policy of remat sees the operations of this rule, not those that it gives the gradient of.
    return checkpoint_name(matmul(execution, x_MI, weight_OI), PRODUCT), (x_MI, weight_OI)


def _matmul_backward(execution: Execution, saved, g_MO):
    x_MI, weight_OI = saved
    dx_MI = matmul_nn(execution, g_MO, weight_OI).astype(x_MI.dtype)
    return dx_MI, matmul_tn(execution, g_MO, x_MI).astype(weight_OI.dtype)


matmul.defvjp(_matmul_forward, _matmul_backward)


def _row_times_large(x_1I: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """One exact row times a large bfloat16 weight, [1, O]: the sum over I in two steps, up to twice as fast as in one.

    XLA:CPU may not reorder a sum, so it does not vectorise one along the minor axis; YNNPACK does, at half the speed of
    memory. First therefore elementwise over lanes (`_sums_by_lane`), then that times ones.
    """
    ones = jnp.ones((1, _LANES), x_1I.dtype)
    return lax.dot_general(ones, _sums_by_lane(x_1I, weight_OI), _CONTRACT_LAST, preferred_element_type=x_1I.dtype)


@jax.jit  # traced once for each shape, however many weights have it
def _sums_by_lane(x_1I: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """x times the weight, summed over every _LANES-th column, [O, _LANES].

    Slices are added in pairs, which halves the chain of dependent additions and still reads a row from left to right.
    The barrier gives each slice a weight of its own: XLA would otherwise upcast the one they share, whole.
    """
    (rows, width), dtype = weight_OI.shape, x_1I.dtype
    starts = range(0, width, _LANES)
    x_1I, *weights = lax.optimization_barrier((x_1I, *[weight_OI] * len(starts)))
    products = [
        lax.slice(weight, (0, i), (rows, i + _LANES)).astype(dtype) * lax.slice(x_1I, (0, i), (1, i + _LANES))
        for weight, i in zip(weights, starts, strict=True)
    ]
    return functools.reduce(jnp.add, [a + b for a, b in zip(products[::2], products[1::2], strict=True)])


def matmul_nt(execution: Execution, x_MI: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """`matmul` in its plain form. On a CPU a row has the same bits whatever the number of rows, from two on."""
    x, weight = x_MI.astype(execution.compute_dtype), weight_OI.astype(execution.compute_dtype)
    return _contract_last(execution, x, weight, 1)


def matmul_few(execution: Execution, x_MI: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """`matmul` with the weight on the left: up to twice as fast for few rows, in float32 and on AMX tiles.

    On tiles a row has the same bits whatever the number of rows. A single row is multiplied twice there: the product of
    a matrix and a vector runs at a quarter of the speed.
    """
    x, weight = x_MI.astype(execution.compute_dtype), weight_OI.astype(execution.compute_dtype)
    alone = x.shape[0] == 1
    if alone:
        x = like(jnp.repeat(as_integers(x), 2, axis=0), x)
    y_OM = lax.dot_general(weight, x, _CONTRACT_LAST, preferred_element_type=execution.exact_dtype)
    y_MO = lax.optimization_barrier(y_OM).T  # without the barrier XLA swaps the operands back
    return y_MO[:1] if alone else y_MO


def matmul_nn(execution: Execution, x_MO: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """x times the weight as it is, [M, I], in the exact type: the gradient of `matmul` with respect to x."""
    x, weight = x_MO.astype(execution.compute_dtype), weight_OI.astype(execution.compute_dtype)
    return _contract_last(execution, x, weight, 0)


def _contract_last(execution: Execution, x: jax.Array, weight: jax.Array, axis: int) -> jax.Array:
    contracted = (((x.ndim - 1,), (axis,)), ((), ()))
    return lax.dot_general(x, weight, contracted, preferred_element_type=execution.exact_dtype)


def matmul_tn(execution: Execution, g_MO: jax.Array, x_MI: jax.Array) -> jax.Array:
    """g transposed times x, [O, I], in the exact type: the gradient of `matmul` with respect to the weight."""
    if g_MO.ndim > 2:
        g, x, axes = (
            g_MO.astype(execution.compute_dtype),
            x_MI.astype(execution.compute_dtype),
            tuple(range(g_MO.ndim - 1)),
        )
        return lax.dot_general(g, x, ((axes, axes), ((), ())), preferred_element_type=execution.exact_dtype)
    return outer(g_MO, x_MI, execution.compute_dtype, execution.exact_dtype)


@jax.custom_vjp
def take_rows(table_VD: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of a table, [..., D]."""
    # Tied to the index, the table is no constant of the decoding loop, which XLA would prepare whole before the loop.
    index, table = lax.optimization_barrier((index, table_VD))
    return like(jnp.take(as_integers(table), index, axis=0), table_VD)


def _take_rows_forward(table_VD, index):
    return take_rows(table_VD, index), (table_VD, index)


def _take_rows_backward(saved, g):
    table_VD, index = saved
    return jnp.zeros_like(table_VD).at[index].add(g), None


take_rows.defvjp(_take_rows_forward, _take_rows_backward)


def rms_norm(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis, in the type of x (which is exact)."""
    inverse = lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon)
    return x * inverse * weight.astype(x.dtype)


def rotary_angles(positions_BT: jax.Array, rope: Rope, head_dim: int, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """cos and sin [B, T, half of the rotated width] of the angles position * theta^(-2i / rotated width)."""
    rotated = int(head_dim * rope.fraction)
    frequency = rope.theta ** -(np.arange(0, rotated, 2, dtype=np.float64) / rotated)
    angles = positions_BT.astype(dtype)[..., None] * jnp.asarray(frequency, dtype)
    return jnp.cos(angles), jnp.sin(angles)


def follows(segments_BT: jax.Array) -> jax.Array:
    """Whether position t continues the document of position t - 1 in the same row, boolean [B, T]."""
    same = (segments_BT[:, 1:] == segments_BT[:, :-1]) & (segments_BT[:, 1:] != 0)
    return jnp.pad(same, ((0, 0), (1, 0)))


def shift(x_BTX: jax.Array, first_BX: jax.Array, follows_BT: jax.Array) -> jax.Array:
    """The previous token's x; `first_BX` where a document (or what follows a cache) begins."""
    previous = jnp.pad(x_BTX[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return jnp.where(follows_BT[..., None], previous, first_BX[:, None].astype(x_BTX.dtype))


def positions_from_segments(segments_BT: jax.Array) -> jax.Array:
    """Position of each token within its document, int32 [B, T]; 0 for padding (segment 0)."""
    index = jnp.arange(segments_BT.shape[1], dtype=jnp.int32)[None]
    start = lax.cummax(jnp.where(follows(segments_BT), 0, index), axis=1)
    return jnp.where(segments_BT != 0, index - start, 0)
