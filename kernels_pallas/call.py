"""The one door to Pallas: what calls a kernel, and what kernels multiply with.

The Triton backend is the only one that compiles for MI300X in jax 0.10; jax 0.11 calls it deprecated. What replaces it
(jax_triton) is to be put here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton


def call(
    kernel: Callable,
    name: str,
    grid: tuple[int, ...],
    results: Sequence[jax.ShapeDtypeStruct],
    arrays: Sequence[jax.Array],
    *,
    num_warps: int,
    num_stages: int,
    interpret: bool,
    **static,
) -> list[jax.Array]:
    """Runs `kernel(*refs of arrays, *refs of results, **static)` for every point of the grid.

    The refs are of whole arrays, wherever these lie: kernels read and write the parts they want, masked.
    """
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    run = pl.pallas_call(
        functools.partial(kernel, **static),
        grid=grid,
        in_specs=[anywhere] * len(arrays),
        out_specs=[anywhere] * len(results),
        out_shape=list(results),
        compiler_params=triton.CompilerParams(num_warps=num_warps, num_stages=num_stages),
        interpret=interpret,
        name=name,
    )
    return run(*arrays)


def dot(a: jax.Array, b: jax.Array, **transposed: bool) -> jax.Array:
    """float32 operands are multiplied as such: MI300X would otherwise take 10 bits of their mantissas (xf32)."""
    return triton.dot(a, b, precision=lax.Precision.HIGHEST if a.dtype == jnp.float32 else None, **transposed)


def within(start: jax.Array, size: int, stop: jax.Array | int) -> jax.Array:
    """Which of `size` places from `start` on lie before `stop`."""
    return start + jnp.arange(size) < stop
