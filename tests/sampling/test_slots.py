"""Reading a prompt in pieces, from what is known and from nothing, in float64."""

import itertools

import jax
import numpy as np
import pytest

from tests.sampling.models import CONFIG, prompt, tiny
from zaya_jax.model import Execution, Zaya, grow_cache, init_cache
from zaya_jax.sampling import slots
from zaya_jax.sampling.prefixes import cuts

SLOTS, CAPACITY, CHUNK = 3, 64, 16


def double(layout="stacked"):
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), tiny(layout)[1])
    return Zaya(CONFIG, Execution("float64", layout=layout)), variables


def at_once(model, variables, tokens):
    """Logits [V] behind a prompt read in one call, and its cache."""
    tokens_1T = np.array([tokens], np.int32)
    place = np.arange(len(tokens), dtype=np.int32)[None], np.ones_like(tokens_1T)

    @jax.jit
    def read(variables):
        cache = init_cache(CONFIG, model.execution, 1, 0)
        out = model.apply(variables, tokens_1T, *place, cache=cache, logits="last")
        return out.logits[0], grow_cache(CONFIG, model.execution.layout, out.cache, CAPACITY)

    return read(variables)


def row(cache, slot, layout):
    """A row's memory as a flat list of arrays."""
    pick = (slice(None), slot) if layout == "stacked" else slot
    return [np.asarray(x[pick]) for x in jax.tree.leaves(cache.layers)], int(cache.length_B[slot])


def same_memory(cache, slot, other, layout):
    (found, length), (expected, wanted) = row(cache, slot, layout), row(other, 0, layout)
    assert length == wanted
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def in_pieces(model, variables, cache, slot, tokens, pieces, pieces_kept):
    """Reads a prompt piece by piece as the engine does."""
    for start, stop in pieces:
        padded = np.zeros((1, CHUNK), np.int32)
        padded[0, : stop - start] = tokens[start:stop]
        where, count = np.array([slot], np.int32), np.array([stop - start], np.int32)
        room = 0 if start == 0 else CAPACITY
        cache, piece, logits, _ = slots.run_read(model, variables, cache, where, padded, count, room=room, last=True)
        pieces_kept.append((start, piece))
    return cache, logits[0]


@pytest.mark.parametrize("layout", ["stacked", "unstacked"])
@pytest.mark.parametrize("length, prefix", [(1, 0), (16, 0), (40, 0), (41, 23)])
def test_pieces_and_what_is_known_are_the_whole(x64, layout, length, prefix):
    model, variables = double(layout)
    tokens = prompt(length)
    expected, memory = at_once(model, variables, tokens)
    cache, kept = slots.empty(model, SLOTS, CAPACITY).cache, []
    cache, logits = in_pieces(model, variables, cache, 1, tokens, cuts(length, prefix, CHUNK), kept)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-10)
    same_memory(cache, 1, memory, layout)
    # What was kept of them, put into another row, is the same to the last bit.
    for start, piece in kept:
        cache = slots.run_put(model, cache, np.array([2], np.int32), np.array([start], np.int32), piece)
    for a, b in zip(row(cache, 1, layout)[0], row(cache, 2, layout)[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert row(cache, 0, layout)[1] == 0, "others are left alone"


def test_two_prompts_with_a_common_beginning_share_it(x64):
    model, variables = double()
    head, tails = prompt(20, 1), (prompt(9, 2), prompt(12, 3))
    cache, kept = slots.empty(model, SLOTS, CAPACITY).cache, []
    cache, _ = in_pieces(model, variables, cache, 0, head, cuts(20, 0, CHUNK), kept)
    for slot, tail in enumerate(tails, 1):
        for start, piece in kept:
            cache = slots.run_put(model, cache, np.array([slot], np.int32), np.array([start], np.int32), piece)
        cache, logits = in_pieces(model, variables, cache, slot, (*head, *tail), [(20, 20 + len(tail))], [])
        expected, memory = at_once(model, variables, (*head, *tail))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-10)
        same_memory(cache, slot, memory, "stacked")


def test_cuts():
    assert cuts(5, 0, 16) == [(0, 5)]
    assert cuts(33, 0, 16) == [(0, 16), (16, 32), (32, 33)]
    assert cuts(33, 20, 16) == [(0, 16), (16, 20), (20, 33)]
    assert cuts(40, 20, 16) == [(0, 16), (16, 20), (20, 36), (36, 40)]
    assert cuts(20, 20, 16) == [(0, 16), (16, 20)]
    for length, prefix in [(1, 0), (16, 16), (17, 1), (50, 32), (50, 49)]:
        pieces = cuts(length, prefix, 16)
        assert pieces[0][0] == 0 and pieces[-1][1] == length
        assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
        assert all(0 < stop - start <= 16 for start, stop in pieces)
        assert prefix in (0, *(stop for _, stop in pieces))
