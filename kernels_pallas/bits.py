"""bfloat16 numbers moved as the integers of their bits.

XLA:CPU has no gather, scatter, concatenation, pad or transposition of bfloat16: it converts to float32 before and back
after, and for a gather or a scatter it converts the *whole* array that is read from or written to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def as_integers(x: jax.Array) -> jax.Array:
    """bfloat16 as uint16, anything else as it is; `like` takes it back. Not differentiable."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def like(x: jax.Array, other: jax.Array) -> jax.Array:
    """Undoes `as_integers` if `other` is what it was given."""
    return lax.bitcast_convert_type(x, other.dtype) if x.dtype != other.dtype else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def moved(move: Callable, *arrays: jax.Array) -> jax.Array:
    """`move(*arrays)`, which must do no more than bring elements of arrays of one type to other places."""
    return like(move(*map(as_integers, arrays)), arrays[0])


def _forward(move, *arrays):
    return moved(move, *arrays), arrays


def _backward(move, arrays, g):
    return jax.linear_transpose(move, *arrays)(g)


moved.defvjp(_forward, _backward)
