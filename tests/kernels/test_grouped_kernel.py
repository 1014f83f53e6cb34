"""The grouped kernels in interpret mode, in tiles that no size is a multiple of, next to their definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example as explicit
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.aot import lowered
from kernels_pallas.grouped_matmul import grouped_matmul, grouped_swiglu, reference, xla
from kernels_pallas.grouped_matmul import kernel as kernels
from kernels_pallas.grouped_matmul.tiles import Tiles, schedule, tiles_for
from tests.kernels.compare import (
    assert_as_exact_as_the_definition,
    assert_close_in_bfloat16,
    assert_same_function,
    quick_jit,
)
from tests.kernels.test_grouped_matmul import E, M, example, group_sizes

TILES = Tiles(rows=16, columns=32, depth=16, num_warps=4, num_stages=1)
OPERATIONS = ["grouped_matmul", "grouped_swiglu"]


@functools.lru_cache
def kernel(operation):
    if operation == "grouped_swiglu":
        return lambda lhs, rhs, sizes: kernels.grouped_swiglu(lhs, rhs, sizes, True, TILES)
    return lambda lhs, rhs, sizes, scale=None: kernels.grouped_matmul(lhs, rhs, sizes, scale, True, TILES)


@functools.lru_cache
def definition(operation):
    return lambda lhs, rhs, sizes: getattr(reference, operation)(lhs, rhs, sizes)


def case(operation, sizes, rows=M, K=21, N=38):
    arguments, cotangents = example(sizes, rows, K, N)
    return arguments, cotangents[:, : N // 2] if operation == "grouped_swiglu" else cotangents


@pytest.mark.parametrize("implementation", ["xla", "reference", "interpret"])
def test_swiglu_is_what_numpy_says(implementation, x64):
    arguments, _ = example([10, 0, 20, 3, 0], M, 21, 38)
    found = quick_jit(functools.partial(grouped_swiglu, implementation=implementation))(*arguments.values())
    expected = np.zeros((M, 19))
    for m, expert in enumerate(np.repeat(np.arange(E), arguments["sizes"])):
        gate, up = np.split(arguments["rhs"][expert] @ arguments["lhs"][m], 2)
        expected[m] = gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("operation", OPERATIONS)
@explicit([M, 0, 0, 0, 0])
@explicit([0, 0, 0, 0, 0])
@explicit([15, 16, 0, 1, 9])
@settings(max_examples=15)
@given(group_sizes())
def test_same_function_whatever_the_groups(operation, sizes):
    with jax.enable_x64(True):
        assert_same_function(kernel(operation), definition(operation), *case(operation, sizes))


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=6)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 9), st.integers(1, 40), st.integers(1, 20))
def test_same_function_in_any_shape(operation, sizes, behind, K, half):
    """Groups of any size, rows behind them, widths that no tile divides."""
    rows = max(sum(sizes) + behind, 1)
    with jax.enable_x64(True):
        assert_same_function(kernel(operation), definition(operation), *case(operation, sizes, rows, K, 2 * half))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("rows, experts, K, N", [(1, 3, 16, 32), (33, 2, 48, 64), (64, 16, 7, 2), (29, 5, 37, 26)])
def test_same_function_in_other_sizes(operation, rows, experts, K, N, x64):
    sizes = np.bincount(np.random.RandomState(rows).randint(0, experts + 1, rows), minlength=experts + 1)[:experts]
    assert_same_function(kernel(operation), definition(operation), *case(operation, sizes.tolist(), rows, K, N))


def scaled_definition(lhs, rhs, sizes, scale):
    return reference.grouped_matmul(lhs, rhs, sizes) * scale[:, None]


@settings(max_examples=10)
@given(group_sizes())
def test_rows_times_their_scale(sizes):
    """The gate of each row, in the product's kernel; rows behind the last group have one too."""
    with jax.enable_x64(True):
        arguments, cotangents = case("grouped_matmul", sizes)
        arguments["scale"] = np.random.RandomState(1).uniform(-1, 1, M)
        assert_same_function(kernel("grouped_matmul"), scaled_definition, arguments, cotangents)


def test_scales_in_bfloat16():
    arguments, cotangents = case("grouped_matmul", [70, 0, 9, 31, 2], rows=120, K=64, N=48)
    arguments["scale"] = np.random.RandomState(1).uniform(0, 1, 120)
    assert_close_in_bfloat16(kernel("grouped_matmul"), scaled_definition, arguments, cotangents, quick=True)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_as_exact_as_the_definition(operation):
    arguments = case(operation, [70, 0, 9, 31, 2], rows=120, K=64, N=48)
    assert_as_exact_as_the_definition(kernel(operation), definition(operation), *arguments, quick=True)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_bfloat16(operation):
    arguments = case(operation, [70, 0, 9, 31, 2], rows=120, K=64, N=48)
    assert_close_in_bfloat16(kernel(operation), definition(operation), *arguments, quick=True)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_matrices_of_a_wider_type_are_rounded_as_they_are_read(operation):
    arguments, _ = case(operation, [20, 0, 9, 3, 2])
    lhs, rhs = jnp.asarray(arguments["lhs"], jnp.bfloat16), jnp.asarray(arguments["rhs"], jnp.float32)
    run = quick_jit(kernel(operation))
    np.testing.assert_array_equal(
        run(lhs, rhs, arguments["sizes"]), run(lhs, rhs.astype(jnp.bfloat16), arguments["sizes"])
    )


@pytest.mark.parametrize("call, path", [(grouped_matmul, xla.grouped_matmul), (grouped_swiglu, xla.grouped_swiglu)])
def test_the_interface_runs_the_kernels(call, path):
    arguments, _ = case("grouped_matmul", [10, 0, 20, 3, 0])
    lhs, rhs, sizes = (jnp.asarray(a) for a in arguments.values())
    found, path = quick_jit(functools.partial(call, implementation="interpret"))(lhs, rhs, sizes), quick_jit(path)
    np.testing.assert_allclose(found, path(lhs, rhs, sizes), atol=1e-5)
    batched = quick_jit(jax.vmap(functools.partial(call, implementation="interpret"), (0, None, 0)))
    both = batched(jnp.stack([lhs, 2 * lhs]), rhs, jnp.stack([sizes, sizes[::-1]]))
    np.testing.assert_allclose(both[0], found, atol=1e-5)
    np.testing.assert_allclose(both[1], path(2 * lhs, rhs, sizes[::-1]), atol=1e-5)


@settings(max_examples=50)
@given(group_sizes())
def test_every_row_is_in_one_tile_of_its_expert(sizes):
    plan = schedule(jnp.asarray(sizes, jnp.int32), M, 16)
    owners = [[] for _ in range(M)]
    for expert, start, stop in zip(*map(np.asarray, plan), strict=True):
        for row in range(start, min(start + 16, stop)):
            owners[row].append(expert)
    expected = np.concatenate([np.repeat(np.arange(E), sizes), np.full(M - sum(sizes), E)])
    assert owners == [[expert] for expert in expected]


@pytest.mark.parametrize("platform", ["rocm", "cuda"])
@pytest.mark.parametrize("rows, expected", [(32768, 128), (1024, 64), (64, 16), (1, 16)])
def test_tiles_follow_the_share_of_an_expert(platform, rows, expected):
    assert tiles_for(platform, rows, 16).rows == expected


@pytest.mark.parametrize("platform", ["rocm", "cuda"])
@pytest.mark.parametrize("operation, count", [("grouped_matmul", 3), ("grouped_swiglu", 4)])
def test_forward_and_backward_lower_for_gpus(platform, operation, count):
    def run(lhs, rhs, sizes):
        out, pull = jax.vjp(lambda a, b: getattr(kernels, operation)(a, b, sizes), lhs, rhs)
        return out, pull(out)

    shapes = [
        jax.ShapeDtypeStruct((4096, 256), jnp.bfloat16),
        jax.ShapeDtypeStruct((16, 512, 256), jnp.bfloat16),
        jax.ShapeDtypeStruct((16,), jnp.int32),
    ]
    assert len(lowered((run, shapes), platform)) == count


@pytest.mark.parametrize("implementation", ["xla", "reference", "interpret"])
def test_sizes_that_do_not_fit_the_rows(implementation):
    """Known ones are refused; traced ones are cut, so that no kernel leaves its arrays."""
    lhs, rhs = jnp.ones((4, 3)), jnp.ones((2, 6, 3))
    run = functools.partial(grouped_matmul, implementation=implementation)
    for sizes in ([3, 2], [5, -1]):
        with pytest.raises(ValueError, match=r"grouped_matmul: group_sizes \[2\] sum to \d.* 4 rows of lhs"):
            run(lhs, rhs, np.array(sizes))
    np.testing.assert_array_equal(jax.jit(run)(lhs, rhs, jnp.array([3, 99])), run(lhs, rhs, np.array([3, 1])))
    np.testing.assert_array_equal(jax.jit(run)(lhs, rhs, jnp.array([-7, 3])), run(lhs, rhs, np.array([0, 3])))


def test_a_scale_of_another_length_is_named():
    with pytest.raises(ValueError, match=r"grouped_matmul: scale_M has shape \(3,\), expected \(4,\)"):
        grouped_matmul(jnp.ones((4, 3)), jnp.ones((2, 6, 3)), np.array([1, 2]), jnp.ones(3))


def test_an_odd_number_of_gate_and_up_rows_is_named():
    with pytest.raises(ValueError, match=r"grouped_swiglu: rhs .* odd number of rows"):
        grouped_swiglu(np.zeros((4, 3)), np.zeros((2, 5, 3)), np.array([1, 2]))
