"""Attention: the fast path next to the definition, and the definition next to loops in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_pallas.flash_attention import attention
from tests.kernels.compare import (
    assert_as_exact_as_the_definition,
    assert_close_in_bfloat16,
    assert_same_function,
    largest_array,
    quick_jit,
)


# Made once: compiled programs are found again by the function.
@functools.cache
def attend(implementation, window=None, aligned=False):
    def run(q, k, v, q_index, k_index, q_segments, k_segments):
        options = {"window": window, "aligned": aligned, "implementation": implementation}
        return attention(q, k, v, q_index, k_index, q_segments, k_segments, **options)

    return run


WINDOWS = (None, 1, 3)
FAST = {(window, aligned): attend("xla", window, aligned) for window in WINDOWS for aligned in (False, True)}
DEFINITION = {(window, aligned): attend("reference", window) for window, aligned in FAST}


def example(B, T, S, N, K, H, seed=0):
    """Queries and keys of equal rows; the segments and indices are for the tests to set."""
    random = np.random.RandomState(seed)
    arguments = {
        "q": 2 * random.standard_normal((B, T, N, H)),
        "k": 2 * random.standard_normal((B, S, K, H)),
        "v": random.standard_normal((B, S, K, H)),
    }
    return arguments, random.standard_normal((B, T, N, H))


def packed(B, T, seed=0):
    """Rows of documents of some tokens each, a few of them padding."""
    random = np.random.RandomState(seed)
    lengths = random.randint(1, max(2, T // 2), (B, T))
    segments = np.stack([np.repeat(np.arange(1, T + 1), row)[:T] for row in lengths]).astype(np.int32)
    segments[random.uniform(size=(B, T)) < 0.15] = 0
    index = np.broadcast_to(np.arange(T, dtype=np.int32), (B, T))
    return {"q_index": index, "k_index": index, "q_segments": segments, "k_segments": segments}


def cached(B, T, S, seed=0):
    """New queries against slots in any order, some of them empty (index -1) or of nobody (segment 0)."""
    random = np.random.RandomState(seed)
    k_index = np.stack([random.permutation(S) for _ in range(B)]).astype(np.int32)
    k_index[k_index >= S - 1 - random.randint(0, S, (B, 1))] = -1
    q_index = (
        k_index.max(1, keepdims=True) + np.arange(T, dtype=np.int32) - random.randint(0, 3, (B, 1)).astype(np.int32)
    )
    q_segments, k_segments = np.ones((B, T), np.int32), (k_index >= 0).astype(np.int32)
    q_segments[0, 0] = 0
    return {"q_index": q_index, "k_index": k_index, "q_segments": q_segments, "k_segments": k_segments}


def loops(q, k, v, q_index, k_index, q_segments, k_segments, window):
    """The definition once more, in numpy."""
    B, T, N, H = q.shape
    out = np.zeros((B, T, N, v.shape[-1]))
    for b in range(B):
        for t in range(T):
            distance = q_index[b, t] - k_index[b]
            seen = (distance >= 0) & (k_segments[b] == q_segments[b, t]) & (k_index[b] >= 0)
            seen &= distance < (np.inf if window is None else window)
            if q_segments[b, t] == 0 or not seen.any():
                continue
            for n in range(N):
                head = n // (N // k.shape[2])
                scores = k[b, seen, head] @ q[b, t, n] / np.sqrt(H)
                weights = np.exp(scores - scores.max())
                out[b, t, n] = weights @ v[b, seen, head] / weights.sum()
    return out


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_the_definition(implementation, window, x64):
    arguments, _ = example(2, 4, 9, 4, 2, 8)
    for place in (cached(2, 4, 9), cached(2, 4, 9, seed=1)):
        found = quick_jit(attend(implementation, window))(**arguments | place)
        np.testing.assert_allclose(found, loops(**arguments | place, window=window), atol=1e-12)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("heads", [(8, 1, 4), (4, 2, 6), (4, 4, 2)], ids=["8:1", "2:1", "1:1"])
def test_same_function(heads, window, aligned, x64):
    arguments, cotangents = example(2, 11, 11, *heads)
    key = window, aligned
    assert_same_function(FAST[key], DEFINITION[key], arguments | packed(2, 11), cotangents)


@settings(max_examples=25)
@given(st.sampled_from([(1, 9), (5, 13)]), st.sampled_from([None, 3]), st.integers(0, 999))
def test_same_function_whatever_the_slots_hold(sizes, window, seed):
    with jax.enable_x64(True):
        arguments, cotangents = example(2, *sizes, 4, 2, 4, seed)
        key = window, False
        assert_same_function(FAST[key], DEFINITION[key], arguments | cached(2, *sizes, seed), cotangents)


@pytest.mark.parametrize("window", [None, 90])
def test_more_queries_than_a_block(window, x64):
    """Blocks of queries, the last of them not full."""
    arguments, cotangents = example(1, 557, 557, 2, 1, 4)
    fast, definition = attend("xla", window, aligned=True), attend("reference", window)
    assert_same_function(fast, definition, arguments | packed(1, 557), cotangents)


@pytest.mark.parametrize("aligned", [False, True])
def test_as_exact_as_the_definition(aligned):
    arguments, cotangents = example(2, 64, 64, 4, 2, 16)
    key = None, aligned
    assert_as_exact_as_the_definition(FAST[key], DEFINITION[key], arguments | packed(2, 64), cotangents)


def test_bfloat16():
    arguments, cotangents = example(2, 64, 64, 4, 2, 16)
    key = None, True
    found = assert_close_in_bfloat16(FAST[key], DEFINITION[key], arguments | packed(2, 64), cotangents)
    assert found[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_nothing_to_see_gives_zeros_and_no_gradient(implementation, x64):
    arguments, cotangents = example(1, 3, 4, 2, 1, 4)
    place = {
        "q_index": np.array([[0, 5, 9]]),
        "k_index": np.array([[1, -1, 2, 3]]),
        "q_segments": np.array([[1, 0, 2]]),
        "k_segments": np.array([[1, 1, 1, 0]]),
    }
    run = attend(implementation)
    arrays = {name: jnp.asarray(value) for name, value in arguments.items()}

    def both(arrays, cotangents):
        out, pull = jax.vjp(lambda a: run(**a, **place), arrays)
        return out, pull(cotangents)

    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(quick_jit(both)(arrays, cotangents)))


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("window", [None, 512])
def test_scores_never_exist_as_a_whole(window, gradient):
    """No array of the compiled program comes near T x S elements for every head."""
    B, T, N, K, H = 1, 4096, 4, 2, 16
    shapes = [(B, T, N, H), (B, T, K, H), (B, T, K, H)]
    floats = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    whole = [jax.ShapeDtypeStruct((B, T), jnp.int32)] * 4

    def run(q, k, v, *rest):
        return attention(q, k, v, *rest, window=window, aligned=True, implementation="xla").sum()

    program = quick_jit(jax.grad(run, argnums=(0, 1, 2)) if gradient else run)
    assert largest_array(program.lower(*floats, *whole).compile()) <= T * T * N / 8


WRONG = {
    "v_BSKH": {"v": np.zeros((2, 9, 1, 8))},
    "q_index_BT": {"q_index": np.zeros((2, 9), int)},
    "k_segments_BS": {"k_segments": np.zeros((1, 9), int)},
    "4 query heads are not a multiple of 3 key heads": {"k": np.zeros((2, 9, 3, 8)), "v": np.zeros((2, 9, 3, 8))},
}


@pytest.mark.parametrize("blamed", WRONG)
def test_wrong_shapes_are_named(blamed):
    arguments, _ = example(2, 4, 9, 4, 2, 8)
    with pytest.raises(ValueError, match=f"attention: .*{blamed}"):
        FAST[None, False](**arguments | cached(2, 4, 9) | WRONG[blamed])


def test_aligned_needs_equal_lengths():
    arguments, _ = example(2, 4, 9, 4, 2, 8)
    with pytest.raises(ValueError, match="S = 9 and T = 4"):
        FAST[None, True](**arguments | cached(2, 4, 9))


def test_unknown_implementations_are_named():
    arguments, _ = example(2, 4, 9, 4, 2, 8)
    with pytest.raises(ValueError, match="attention: unknown implementation 'fast'"):
        attend("fast")(**arguments | cached(2, 4, 9))
