"""The one door to Pallas: what calls a kernel, and what kernels multiply with.

The Triton backend is the only one that compiles for MI300X in jax 0.10; jax 0.11 calls it deprecated. What replaces it
(jax_triton) is to be put here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

PLATFORMS = ("rocm", "cuda")


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


def by_platform(name: str, run: Callable, tiles: Callable[[str], Any], arrays: Sequence[Any], interpret: bool) -> Any:
    """`run(tiles(platform), *arrays)` for the GPU that the program is compiled for, known only then.

    Compiling for anything else ends in a ValueError that names the operation. Interpret mode takes MI300X's tiles.
    """
    if interpret:
        return run(tiles("rocm"), *arrays)
    branches = {platform: functools.partial(run, tiles(platform)) for platform in PLATFORMS}
    results = jax.eval_shape(branches["rocm"], *arrays)
    return lax.platform_dependent(*arrays, **branches, default=functools.partial(_refuse, name, results))


def dot(a: jax.Array, b: jax.Array, **transposed: bool) -> jax.Array:
    """float32 operands are multiplied as such: MI300X would otherwise take 10 bits of their mantissas (xf32)."""
    return triton.dot(a, b, precision=lax.Precision.HIGHEST if a.dtype == jnp.float32 else None, **transposed)


def within(start: jax.Array, size: int, stop: jax.Array | int) -> jax.Array:
    """Which of `size` places from `start` on lie before `stop`."""
    return start + jnp.arange(size) < stop


def fits(*sizes: int) -> bool:
    """Whether Triton multiplies arrays of these sizes: powers of two from 16 on. 0 is no size, and passes."""
    return not any(size & (size - 1) or 0 < size < 16 for size in sizes)


def _refuse(name: str, results: Any, *arrays: Any) -> Any:
    """Something of the shapes of `results` that traces, and raises when compiled."""
    shapes, tree = jax.tree.flatten(results)
    shapes = tuple((x.shape, x.dtype) for x in shapes)
    return jax.tree.unflatten(tree, _refused.bind(*jax.tree.leaves(arrays), name=name, shapes=shapes))


_refused = Primitive("kernel_refused")
_refused.multiple_results = True


@_refused.def_abstract_eval
def _shapes_of_refused(*arrays, name, shapes):
    del arrays, name
    return [jax.core.ShapedArray(shape, dtype) for shape, dtype in shapes]


def _lower_refused(context, *arrays, name, shapes):
    del context, arrays, shapes
    raise ValueError(
        f"{name}: implementation 'pallas' runs on a GPU only; elsewhere take 'xla', or 'interpret' (slow) for tests"
    )


def _batch_refused(arrays, dims, *, name, shapes):
    size = next(x.shape[d] for x, d in zip(arrays, dims, strict=True) if d is not None)
    shapes = tuple(((size, *shape), dtype) for shape, dtype in shapes)
    return _refused.bind(*arrays, name=name, shapes=shapes), [0] * len(shapes)


mlir.register_lowering(_refused, _lower_refused)
batching.primitive_batchers[_refused] = _batch_refused
