"""The grouped product written as its definition: every expert meets every row, and a mask picks. E-fold work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def grouped_matmul(lhs_MK, rhs_ENK, group_sizes_E):
    """See `api.grouped_matmul`."""
    dtype = jnp.promote_types(lhs_MK.dtype, jnp.float32)
    stop_E = jnp.cumsum(group_sizes_E)
    row_M = jnp.arange(lhs_MK.shape[0])[:, None]
    own_ME = (row_M >= stop_E - group_sizes_E) & (row_M < stop_E)
    wide_ENK = rhs_ENK.astype(dtype)
    rounded_ENK = wide_ENK + lax.stop_gradient(rhs_ENK.astype(lhs_MK.dtype).astype(dtype) - wide_ENK)
    every = jnp.einsum("mk,enk->men", lhs_MK.astype(dtype), rounded_ENK)
    return jnp.where(own_ME[..., None], every, 0).sum(axis=1)


def grouped_swiglu(lhs_MK, rhs_ENK, group_sizes_E):
    """See `api.grouped_swiglu`."""
    return swiglu(grouped_matmul(lhs_MK, rhs_ENK, group_sizes_E)).astype(lhs_MK.dtype)


def swiglu(halves_MN):
    """silu of the first half of the columns, times the second half."""
    gated, up = jnp.split(halves_MN, 2, axis=-1)
    return jax.nn.silu(gated) * up
