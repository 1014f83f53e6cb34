"""Grouped matrix product: each expert's rows times that expert's matrix."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kernels_pallas.choose import choose
from kernels_pallas.grouped_matmul import kernel, reference, xla


def _scaled(product):
    """With every row of the result times its scale, if there is one."""

    def run(lhs_MK, rhs_ENK, group_sizes_E, scale_M):
        out = product(lhs_MK, rhs_ENK, group_sizes_E)
        return out if scale_M is None else out * scale_M[:, None].astype(out.dtype)

    return run


_MATMUL = {
    "xla": _scaled(xla.grouped_matmul),
    "reference": _scaled(reference.grouped_matmul),
    "pallas": kernel.grouped_matmul,
    "interpret": functools.partial(kernel.grouped_matmul, interpret=True),
}
_SWIGLU = {
    "xla": xla.grouped_swiglu,
    "reference": reference.grouped_swiglu,
    "pallas": kernel.grouped_swiglu,
    "interpret": functools.partial(kernel.grouped_swiglu, interpret=True),
}


def grouped_matmul(
    lhs_MK: jax.Array,
    rhs_ENK: jax.Array,
    group_sizes_E: jax.Array,
    scale_M: jax.Array | None = None,
    *,
    preferred_element_type: jnp.dtype | None = None,
    implementation: str = "auto",
) -> jax.Array:
    """out[m] = scale[m] * rhs[expert of row m] @ lhs[m]; rows behind the last group give zeros.

    Exact and dropless: any group sizes, empty ones and one that holds every row among them.

    Args:
        lhs_MK: [M, K], rows sorted by expert.
        rhs_ENK: [E, N, K], the checkpoints' orientation, [out, in]; of the type of lhs or a wider one, which is rounded
            to that of lhs where it is read. Its gradient comes in its own type, unrounded.
        group_sizes_E: int32 [E], rows of each expert; their sum is at most M; traced ones are cut to that.
        scale_M: what each row of the result is multiplied by before it is rounded: its gate. None is 1.
        preferred_element_type: of the result; the type of lhs by default. Products accumulate in float32 (float64).
        implementation: "auto", "xla", "pallas" (on a GPU), "interpret" (the same kernels, slowly, anywhere) or
            "reference".

    Returns:
        [M, N].

    Raises:
        ValueError: shapes or types that do not fit, or an implementation that does not exist.
    """
    _check("grouped_matmul", lhs_MK, rhs_ENK, group_sizes_E)
    if scale_M is not None and scale_M.shape != lhs_MK.shape[:1]:
        raise ValueError(f"grouped_matmul: scale_M has shape {scale_M.shape}, expected {lhs_MK.shape[:1]}")
    sizes_E = _checked("grouped_matmul", lhs_MK.shape[0], group_sizes_E)
    run = choose("grouped_matmul", implementation, _MATMUL, kernel.unmet(lhs_MK))
    scale_M = None if scale_M is None else jnp.asarray(scale_M)
    out = run(jnp.asarray(lhs_MK), jnp.asarray(rhs_ENK), sizes_E, scale_M)
    return out.astype(lhs_MK.dtype if preferred_element_type is None else preferred_element_type)


def grouped_swiglu(
    lhs_MK: jax.Array, rhs_ENK: jax.Array, group_sizes_E: jax.Array, *, implementation: str = "auto"
) -> jax.Array:
    """silu(gate) * up, where gate and up are the halves of `grouped_matmul`'s columns, rounded at the end only.

    The kernels keep both halves in registers and never write them to memory.

    Args:
        lhs_MK: [M, K], rows sorted by expert.
        rhs_ENK: [E, N, K], N/2 gate rows first, then N/2 up rows.
        group_sizes_E: int32 [E], rows of each expert.
        implementation: as in `grouped_matmul`.

    Returns:
        [M, N/2], in the type of lhs.

    Raises:
        ValueError: as in `grouped_matmul`, or an odd N.
    """
    _check("grouped_swiglu", lhs_MK, rhs_ENK, group_sizes_E)
    if rhs_ENK.shape[1] % 2:
        raise ValueError(f"grouped_swiglu: rhs {rhs_ENK.shape} has an odd number of rows, expected gate and up halves")
    sizes_E = _checked("grouped_swiglu", lhs_MK.shape[0], group_sizes_E)
    run = choose("grouped_swiglu", implementation, _SWIGLU, kernel.unmet(lhs_MK))
    return run(jnp.asarray(lhs_MK), jnp.asarray(rhs_ENK), sizes_E)


def _check(operation: str, lhs, rhs, sizes) -> None:
    if lhs.ndim != 2 or rhs.ndim != 3 or lhs.shape[1] != rhs.shape[2]:
        raise ValueError(f"{operation}: lhs {lhs.shape} and rhs {rhs.shape} do not fit [M, K] and [E, N, K]")
    if sizes.shape != rhs.shape[:1] or not jnp.issubdtype(sizes.dtype, jnp.integer):
        raise ValueError(
            f"{operation}: group_sizes is {sizes.dtype}{list(sizes.shape)}, expected integers [{rhs.shape[0]}]"
        )
    if jnp.promote_types(lhs.dtype, rhs.dtype) != rhs.dtype:
        raise ValueError(f"{operation}: rhs is {rhs.dtype}, expected the type of lhs, {lhs.dtype}, or a wider one")


def _checked(operation: str, rows: int, sizes_E) -> jax.Array:
    """The group sizes; where they are traced, and so not known, without what is below zero or beyond the rows."""
    if isinstance(sizes_E, jax.core.Tracer):
        stop_E = jnp.minimum(jnp.cumsum(jnp.maximum(sizes_E, 0)), rows)
        return jnp.diff(stop_E, prepend=0).astype(sizes_E.dtype)
    found = np.asarray(sizes_E)
    if (found < 0).any() or found.sum() > rows:
        raise ValueError(
            f"{operation}: group_sizes {list(found.shape)} sum to {found.sum()}, the least is {found.min()}; expected "
            f"none below 0 and no more than the {rows} rows of lhs"
        )
    return jnp.asarray(sizes_E)
