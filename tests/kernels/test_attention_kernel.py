"""The attention kernels in interpret mode, in small tiles that no length is a multiple of, next to their definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from kernels_pallas.aot import lowered
from kernels_pallas.choose import Unavailable
from kernels_pallas.flash_attention import attention
from kernels_pallas.flash_attention import kernel as kernels
from kernels_pallas.flash_attention.reference import visible
from kernels_pallas.flash_attention.tiles import Tiles, parts, spans
from tests.kernels.compare import (
    assert_as_exact_as_the_definition,
    assert_close_in_bfloat16,
    assert_same_function,
    quick_jit,
)
from tests.kernels.test_attention import DEFINITION, WINDOWS, attend, cached, example, packed

TILES = Tiles(rows=16, keys=16)


@functools.lru_cache
def kernel(window):
    def run(q, k, v, q_index, k_index, q_segments, k_segments):
        return kernels.attention_and_lse(q, k, v, q_index, k_index, q_segments, k_segments, window, True, TILES)[0]

    return run


HEADS = {"8:1": (8, 1, 4), "2:1": (4, 2, 6), "3:1": (3, 1, 4), "1:1": (4, 4, 2)}
ALWAYS = [("8:1", 1), ("2:1", None), ("2:1", 3), ("3:1", None), ("3:1", 1), ("3:1", 3), ("1:1", 3)]
SELDOM = [(name, window) for name in HEADS for window in WINDOWS if (name, window) not in ALWAYS]


@pytest.mark.parametrize("name, window", [*ALWAYS, *(pytest.param(*case, marks=pytest.mark.slow) for case in SELDOM)])
def test_same_function(name, window, x64):
    heads = HEADS[name]
    arguments, cotangents = example(2, 37, 37, *heads)
    assert_same_function(kernel(window), DEFINITION[window, False], arguments | packed(2, 37), cotangents)


@settings(max_examples=15)
@given(st.sampled_from([(1, 9), (5, 35)]), st.sampled_from([None, 3]), st.integers(0, 999))
def test_same_function_whatever_the_slots_hold(sizes, window, seed):
    with jax.enable_x64(True):
        arguments, cotangents = example(2, *sizes, 4, 2, 4, seed)
        assert_same_function(kernel(window), DEFINITION[window, False], arguments | cached(2, *sizes, seed), cotangents)


@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.integers(1, 40), st.integers(0, 20), st.sampled_from([(4, 2), (3, 1), (8, 1)]), st.sampled_from([None, 1, 7]),
    st.integers(0, 999),
)  # fmt: skip
def test_same_function_in_any_shape(length, past, heads, window, seed):
    """Rows of documents, and new tokens behind cached ones: no length is a tile's."""
    with jax.enable_x64(True):
        arguments, cotangents = example(1, length, length, *heads, 4, seed)
        assert_same_function(
            kernel(window), attend("reference", window), arguments | packed(1, length, seed), cotangents
        )
        behind_cached_ones(length, past, heads, window, seed)


@pytest.mark.parametrize("length, past, heads, window", [(23, 18, (3, 1), 7), (17, 0, (8, 1), None)])
def test_same_function_behind_cached_tokens(length, past, heads, window, x64):
    behind_cached_ones(length, past, heads, window, seed=0)


def behind_cached_ones(length, past, heads, window, seed):
    arguments, cotangents = example(1, length, length + past, *heads, 4, seed)
    place = cached(1, length, length + past, seed)
    assert_same_function(kernel(window), attend("reference", window), arguments | place, cotangents)


@pytest.mark.parametrize("length, window", [(1, None), (1, 40), (3, None)])
def test_long_caches_are_read_in_parts(length, window, x64):
    """Of which some may hold nothing that can be seen."""
    assert parts(programs=4, blocks=19) == 2
    arguments, cotangents = example(2, length, 300, 4, 2, 4)
    for seed in range(3):
        place = cached(2, length, 300, seed)
        assert_same_function(kernel(window), attend("reference", window), arguments | place, cotangents)


@pytest.mark.parametrize(
    "programs, blocks, expected", [(512, 128, 1), (2, 2048, 256), (64, 2048, 10), (2, 16, 2), (2, 9, 1)]
)
def test_parts_fill_the_gpu(programs, blocks, expected):
    assert parts(programs, blocks) == expected


def test_as_exact_as_the_definition():
    arguments, cotangents = example(2, 64, 64, 4, 2, 16)
    given = arguments | packed(2, 64), cotangents
    assert_as_exact_as_the_definition(kernel(None), DEFINITION[None, False], *given, quick=True)


def test_bfloat16():
    arguments, cotangents = example(2, 64, 64, 4, 2, 16)
    given = arguments | packed(2, 64), cotangents
    assert_close_in_bfloat16(kernel(None), DEFINITION[None, False], *given, quick=True)


def test_log_sum_exp():
    arguments, _ = example(1, 21, 21, 4, 2, 8)
    place = packed(1, 21)
    floats = [jnp.asarray(arguments[name], jnp.float32) for name in ("q", "k", "v")]
    _, lse = quick_jit(lambda *x: kernels.attention_and_lse(*x, *place.values(), None, True, TILES))(*floats)
    keys = np.repeat(arguments["k"], 2, axis=2)
    scores = np.einsum("btnh,bsnh->btns", arguments["q"], keys) / np.sqrt(8)
    seen = np.asarray(visible(*place.values(), None))[:, :, None]
    some = seen.any(-1)[..., 0]
    expected = logsumexp(np.where(seen, scores, -np.inf), axis=-1)
    np.testing.assert_allclose(np.asarray(lse)[some], expected[some], atol=1e-5)


def test_the_interface_runs_the_kernels():
    arguments, _ = example(2, 37, 37, 8, 2, 16)
    floats = {name: jnp.asarray(value, jnp.float32) for name, value in arguments.items()}
    given = [*floats.values(), *packed(2, 37).values()]
    found, expected = (
        quick_jit(functools.partial(attention, aligned=True, implementation=name))(*given)
        for name in ("interpret", "reference")
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=30)
@given(st.sampled_from([None, 1, 5, 20]), st.booleans(), st.integers(0, 999))
def test_no_visible_block_is_left_out(window, packing, seed):
    place = packed(2, 45, seed) if packing else cached(2, 7, 45, seed)
    arrays = [jnp.asarray(a) for a in place.values()]
    first, stop, q_first, q_stop = (np.asarray(a) for a in spans(*arrays, window, 4, 16))
    for b, t, s in np.argwhere(np.asarray(visible(*arrays, window))):
        assert first[b, t // 4] <= s // 16 < stop[b, t // 4]
        assert q_first[b, s // 16] <= t // 4 < q_stop[b, s // 16]


def test_blocks_out_of_sight_are_left_out():
    index, ones = jnp.arange(64)[None], jnp.ones((1, 64), jnp.int32)
    first, stop, _, _ = spans(index, index, ones, ones, None, 16, 16)
    assert first.tolist() == [[0, 0, 0, 0]] and stop.tolist() == [[1, 2, 3, 4]]
    first, stop, _, _ = spans(index, index, ones, ones, 8, 16, 16)
    assert first.tolist() == [[0, 0, 1, 2]] and stop.tolist() == [[1, 2, 3, 4]]
    documents = jnp.repeat(jnp.array([[1, 2]]), 32, axis=1)
    first, stop, q_first, q_stop = spans(index, index, documents, documents, None, 16, 16)
    assert first.tolist() == [[0, 0, 2, 2]] and stop.tolist() == [[1, 2, 3, 4]]
    assert q_first.tolist() == [[0, 1, 2, 3]] and q_stop.tolist() == [[2, 2, 4, 4]]


@pytest.mark.parametrize("platform", ["rocm", "cuda"])
def test_forward_and_backward_lower_for_gpus(platform):
    def run(q, k, v, index, segments):
        out, pull = jax.vjp(lambda *x: kernels.attention(*x, index, index, segments, segments, window=64), q, k, v)
        return out, pull(out)

    q, k = (jax.ShapeDtypeStruct((1, 200, heads, 64), jnp.bfloat16) for heads in (8, 2))
    whole = jax.ShapeDtypeStruct((1, 200), jnp.int32)
    assert len(lowered((run, (q, k, k, whole, whole)), platform)) == 3


def test_sizes_that_a_gpu_cannot_take_are_named():
    arguments, _ = example(1, 5, 5, 3, 1, 8)
    with pytest.raises(Unavailable, match="powers of two and heads from 16 on, found heads of 8 in groups of 3; 'xla'"):
        attention(*arguments.values(), *packed(1, 5).values(), implementation="pallas")
