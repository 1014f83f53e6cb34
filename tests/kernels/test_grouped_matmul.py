"""The grouped product and its sorting: the fast path next to the definition, the definition next to numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example as explicit
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.grouped_matmul import grouped_matmul, sort_by_expert, take_sorted, unsort
from tests.kernels.compare import (
    assert_as_exact_as_the_definition,
    assert_close_in_bfloat16,
    assert_same_function,
    flops,
    largest_array,
    quick_jit,
)


def product(implementation):
    def run(lhs, rhs, sizes):
        return grouped_matmul(lhs, rhs, sizes, implementation=implementation)

    return run


FAST, DEFINITION = product("xla"), product("reference")
M, E = 41, 5


def example(sizes, rows=M, K=6, N=7, seed=0):
    random = np.random.RandomState(seed)
    arguments = {
        "lhs": random.standard_normal((rows, K)),
        "rhs": random.standard_normal((len(sizes), N, K)) / np.sqrt(K),
        "sizes": np.array(sizes, np.int32),
    }
    return arguments, random.standard_normal((rows, N))


def group_sizes(rows=M, experts=E):
    """Any partition of some of the rows, empty groups and one that holds all of them included."""
    edges = st.lists(st.integers(0, rows), min_size=experts, max_size=experts)
    return edges.map(lambda e: np.diff([0, *sorted(e)]).tolist())


@pytest.mark.parametrize("implementation", ["xla", "reference"])
@pytest.mark.parametrize("sizes", [[10, 0, 20, 3, 0], [0, 0, 0, 0, 0], [0, 41, 0, 0, 0]])
def test_the_definition(sizes, implementation, x64):
    arguments, _ = example(sizes)
    found = np.asarray(product(implementation)(**arguments))
    expert = np.repeat(np.arange(E), sizes)
    for m in range(M):
        expected = arguments["rhs"][expert[m]] @ arguments["lhs"][m] if m < len(expert) else np.zeros(7)
        np.testing.assert_allclose(found[m], expected, atol=1e-12)


@explicit([M, 0, 0, 0, 0])
@explicit([0, 0, 0, 0, M])
@explicit([0, 0, 0, 0, 0])
@explicit([1, 1, 1, 1, 1])
@explicit([9, 8, 7, 8, 9])
@settings(max_examples=40)
@given(group_sizes())
def test_same_function_whatever_the_groups(sizes):
    with jax.enable_x64(True):
        assert_same_function(FAST, DEFINITION, *example(sizes))


@pytest.mark.parametrize(
    "rows, experts, K, N", [(1, 1, 3, 2), (1, 8, 4, 4), (3, 2, 1, 5), (300, 3, 4, 2), (64, 16, 8, 8)]
)
def test_same_function_in_other_sizes(rows, experts, K, N, x64):
    random = np.random.RandomState(rows)
    sizes = np.bincount(random.randint(0, experts + 1, rows), minlength=experts + 1)[:experts].tolist()
    assert_same_function(FAST, DEFINITION, *example(sizes, rows, K, N))


def test_what_lies_behind_the_last_group_gives_zeros_and_gets_no_gradient(x64):
    arguments, cotangents = example([5, 0, 7, 0, 4])
    arguments = jax.tree.map(jnp.asarray, arguments)
    for run in (FAST, DEFINITION):
        out, pull = jax.vjp(lambda a, b, run=run: run(a, b, arguments["sizes"]), arguments["lhs"], arguments["rhs"])
        d_lhs, d_rhs = pull(jnp.asarray(cotangents))
        assert (np.asarray(out)[16:] == 0).all() and (np.asarray(d_lhs)[16:] == 0).all()
        assert (np.asarray(d_rhs)[[1, 3]] == 0).all()


def test_as_exact_as_the_definition():
    assert_as_exact_as_the_definition(FAST, DEFINITION, *example([70, 0, 9, 31, 2], rows=120, K=64, N=48))


def test_bfloat16():
    arguments, cotangents = example([70, 0, 9, 31, 2], rows=120, K=64, N=48)
    found = assert_close_in_bfloat16(FAST, DEFINITION, arguments, cotangents)
    assert found[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("K, N", [(8, 8), (64, 192), (256, 128), (128, 512)])
def test_bfloat16_in_sizes_that_compile_to_other_products(K, N):
    """XLA:CPU has several products of bfloat16; one of them is not implemented and fails when it is run."""
    arguments, cotangents = example([130, 0, 40, 1, 9], rows=200, K=K, N=N)
    assert_close_in_bfloat16(FAST, DEFINITION, arguments, cotangents)


@pytest.mark.parametrize("run", [FAST, DEFINITION])
def test_a_wider_rhs_is_rounded_where_it_is_read_and_its_gradient_is_not(run):
    arguments, cotangents = example([70, 0, 9, 31, 2], rows=120, K=64, N=48)
    lhs, g = (jnp.asarray(a, jnp.bfloat16) for a in (arguments["lhs"], cotangents))
    rhs, sizes = jnp.asarray(arguments["rhs"], jnp.float32), jnp.asarray(arguments["sizes"])
    out, pull = jax.vjp(lambda b: run(lhs, b, sizes), rhs)
    np.testing.assert_array_equal(out, run(lhs, rhs.astype(jnp.bfloat16), sizes))
    (found,) = pull(g)
    expert = np.repeat(np.arange(E), arguments["sizes"])
    expected = np.zeros(rhs.shape)
    for m, e in enumerate(expert):
        expected[e] += np.outer(np.asarray(g[m], np.float64), np.asarray(lhs[m], np.float64))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_accumulates_in_float32():
    """4096 products of 1 and 1/256: a bfloat16 sum would stand still at 1; the float32 one is exact."""
    lhs, rhs = jnp.ones((2, 4096), jnp.bfloat16), jnp.full((1, 1, 4096), 1 / 256, jnp.bfloat16)
    out = grouped_matmul(lhs, rhs, jnp.array([2]), preferred_element_type=jnp.float32)
    assert out.dtype == jnp.float32 and (np.asarray(out) == 16).all()


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "backward"])
def test_neither_memory_nor_work_is_multiplied_by_the_experts(gradient):
    """The compiled program for 4096 rows and 16 experts: no array of rows x experts x width, no dense product."""
    rows, experts, K, N = 4096, 16, 128, 512
    shapes = [
        jax.ShapeDtypeStruct((rows, K), jnp.float32),
        jax.ShapeDtypeStruct((experts, N, K), jnp.float32),
        jax.ShapeDtypeStruct((experts,), jnp.int32),
    ]

    def run(lhs, rhs, sizes):
        return (grouped_matmul(lhs, rhs, sizes, implementation="xla") ** 2).sum()

    program = quick_jit(jax.grad(run, argnums=(0, 1)) if gradient else run).lower(*shapes).compile()
    assert largest_array(program) < 2 * max(rows * N, experts * N * K)
    once = 2 * rows * K * N * (3 if gradient else 1)
    assert flops(program) < 1.5 * once + 50 * rows * N


experts_of_rows = st.lists(st.integers(-2, E + 1), min_size=M, max_size=M)


@explicit([-1] * M)
@explicit([E - 1] * M)
@given(experts_of_rows)
def test_sorting(experts):
    """Stable, by expert, strangers last; sizes count the experts' own."""
    experts = np.array(experts)
    order = sort_by_expert(jnp.asarray(experts, jnp.int32), E)
    key = np.where((experts >= 0) & (experts < E), experts, E)
    np.testing.assert_array_equal(order.order_M, np.argsort(key, kind="stable"))
    np.testing.assert_array_equal(np.asarray(order.order_M)[np.asarray(order.inverse_M)], np.arange(M))
    np.testing.assert_array_equal(order.group_sizes_E, np.bincount(key, minlength=E + 1)[:E])


def test_sorting_goes_there_and_back_with_its_gradients(x64):
    random = np.random.RandomState(0)
    order = sort_by_expert(jnp.asarray(random.randint(-1, E + 1, M)), E)
    x, g = jnp.asarray(random.standard_normal((M, 3))), jnp.asarray(random.standard_normal((M, 3)))
    there, pull = jax.vjp(lambda a: take_sorted(a, order), x)
    back, pull_back = jax.vjp(lambda a: unsort(a, order), there)
    np.testing.assert_array_equal(there, np.asarray(x)[np.asarray(order.order_M)])
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(pull_back(g)[0], np.asarray(g)[np.asarray(order.order_M)])
    np.testing.assert_array_equal(pull(pull_back(g)[0])[0], g)


WRONG = {
    r"do not fit \[M, K\] and \[E, N, K\]": {"lhs": np.zeros((M, 5))},
    r"do not fit": {"rhs": np.zeros((E, 6))},
    r"expected integers \[5\]": {"sizes": np.zeros(4, int)},
    r"group_sizes is float": {"sizes": np.zeros(5)},
    r"rhs is float16, expected the type of lhs": {"rhs": np.zeros((E, 7, 6), np.float16)},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_named(message):
    arguments, _ = example([1] * E)
    with pytest.raises(ValueError, match=f"grouped_matmul: .*{message}"):
        FAST(**arguments | WRONG[message])


def test_unknown_implementations_are_named():
    arguments, _ = example([1] * E)
    with pytest.raises(ValueError, match="grouped_matmul: unknown implementation 'fast'"):
        product("fast")(**arguments)
