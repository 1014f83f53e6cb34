"""Matrix products in the form that the platform computes fastest."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

_ROWS_FIRST = Layout((0, 1))


def outer(g_MX: jax.Array, x_MY: jax.Array, dtype: jnp.dtype, preferred_element_type: jnp.dtype) -> jax.Array:
    """g transposed times x, [X, Y], from operands rounded to `dtype`: the gradient of a product's matrix.

    XLA:CPU has no product of bfloat16 in this form and upcasts both operands. It would also take back a transposition
    made for it, were the result's place in memory not fixed. Twice as fast with it (`docs/performance.md`).
    """

    def contract(left, right, axis):
        return lax.dot_general(left, right, (((axis,), (0,)), ((), ())), preferred_element_type=preferred_element_type)

    def as_it_lies(g, x):
        return contract(g.astype(dtype), x.astype(dtype), axis=0)

    def transposed_first(g, x):
        return contract(with_layout_constraint(g.T.astype(dtype), _ROWS_FIRST), x.astype(dtype), axis=1)

    if dtype != jnp.bfloat16:
        return as_it_lies(g_MX, x_MY)
    return lax.platform_dependent(g_MX, x_MY, cpu=transposed_first, default=as_it_lies)
