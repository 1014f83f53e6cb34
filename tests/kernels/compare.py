"""One operation, two implementations: results and all gradients, in three types.

float64 tells whether they are the same function. In float32 the fast path may be at most four times as far from the
float64 truth as the definition is; in bfloat16, 1% of the largest value, from operands that are rounded already.
"""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def results_and_gradients(function, arguments: dict, cotangents, quick=False):
    """Results of `function(**arguments)` and the gradients of its floating arguments, as trees of float64 numpy."""
    floating = {k: v for k, v in arguments.items() if jnp.issubdtype(jax.tree.leaves(v)[0].dtype, jnp.floating)}
    return _compiled(function, quick)(floating, {k: v for k, v in arguments.items() if k not in floating}, cotangents)


@functools.lru_cache(maxsize=64)
def _compiled(function, quick):
    def run(floating, rest, cotangents):
        results, pull = jax.vjp(lambda f: function(**f, **rest), floating)
        given = jax.tree.map(lambda g, r: g.astype(r.dtype), cotangents, results)
        return results, pull(given)[0]

    return (quick_jit if quick else jax.jit)(run)


def cast(tree, dtype):
    """Floating arrays in another type."""

    def one(a):
        return jnp.asarray(a, dtype) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.asarray(a)

    return jax.tree.map(one, tree)


def error(found, truth) -> dict[str, tuple[float, float]]:
    """Of each array: its largest difference, and the largest value of the truth."""
    left, right = jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(truth)
    assert jax.tree.structure(found) == jax.tree.structure(truth)
    measured = {}
    for (path, a), b in zip(left, right, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, path
        measured[jax.tree_util.keystr(path)] = (np.abs(a - b).max(initial=0), np.abs(b).max(initial=1e-300))
    return measured


def assert_same_function(fast, definition, arguments, cotangents, tolerance=1e-12):
    """In float64, which has to be switched on; relative to the largest value of each array, at least to 1.

    (The gradient of a lone key is zero, or what is left of it after a subtraction.)
    """
    arguments, cotangents = cast(arguments, "float64"), cast(cotangents, "float64")
    assert jax.tree.leaves(cotangents)[0].dtype == jnp.float64
    found = results_and_gradients(fast, arguments, cotangents, quick=True)
    truth = results_and_gradients(definition, arguments, cotangents, quick=True)
    for name, (difference, size) in error(found, truth).items():
        size = max(size, 1.0)
        assert difference <= tolerance * size, f"{name}: off by {difference / size:.1e} of the largest value"


def assert_as_exact_as_the_definition(fast, definition, arguments, cotangents, quick=False):
    """float32, against the definition in float64. Quick where what runs elsewhere is not what LLVM makes of it here."""
    rough = cast(arguments, "float32")
    with jax.enable_x64(True):
        truth = results_and_gradients(definition, cast(rough, "float64"), cast(cotangents, "float64"), quick=True)
        truth = jax.tree.map(np.asarray, truth)
    noise = error(results_and_gradients(definition, rough, cotangents, quick), truth)
    found = error(results_and_gradients(fast, rough, cotangents, quick), truth)
    for name, (difference, _) in found.items():
        assert difference <= 4 * noise[name][0], f"{name}: {difference:.1e}, the definition {noise[name][0]:.1e}"


def assert_close_in_bfloat16(
    fast, definition, arguments, cotangents, tolerance=1e-2, also=lambda rounded: rounded, quick=False
):
    """Against the definition in float64 from the same rounded operands; `also` puts back what is never rounded."""
    rounded, cotangents = also(cast(arguments, "bfloat16")), cast(cotangents, "bfloat16")
    with jax.enable_x64(True):
        truth = results_and_gradients(definition, cast(rounded, "float64"), cast(cotangents, "float64"), quick=True)
        truth = jax.tree.map(np.asarray, truth)
    found = results_and_gradients(fast, rounded, cotangents, quick)
    for name, (difference, size) in error(found, truth).items():
        assert difference <= tolerance * size, f"{name}: off by {difference / size:.1e} of the largest value"
    return found


def largest_array(compiled) -> int:
    """Elements of the largest array in a compiled program."""

    text = compiled.as_text()
    sizes = [np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", text)]
    return int(max(sizes))


def flops(compiled) -> float:
    """As XLA counts them; the body of a loop counts once."""
    analysis = compiled.cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]
