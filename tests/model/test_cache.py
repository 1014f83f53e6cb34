"""decode == prefill, in float64: what a row gets does not depend on how its tokens are cut into calls.

The oracle is one call over whole rows without a cache, which `test_oracle.py` holds against numpy.
"""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.helpers import (
    EXACT,
    FULL,
    LAYOUTS,
    SLIDING,
    assert_close,
    compiled,
    lay_out,
    random_variables,
    small,
)
from zaya_jax.model import Execution, grow_cache, init_cache

pytestmark = pytest.mark.usefixtures("x64")

CONFIG = small()  # sliding layers with a window of 5, full ones in between
# Unstacked layers are compiled one by one: two of them are both kinds.
CONFIGS = {"stacked": CONFIG, "unstacked": small((SLIDING, FULL))}
LENGTHS = (23, 14, 6)
CAPACITY = 32
WIDTHS = (1, 4, 9)  # 9 is wider than the window


def execution(layout, **options):
    return Execution(dtype="float64", layout=layout, **options)


@functools.cache
def whole_rows(config):
    """Tokens of the rows, and the logits and routes of one call over all of them."""
    batch = lay_out(config, [[length, length - max(LENGTHS)] for length in LENGTHS], seed=3)
    out = compiled(config)(random_variables(config), *batch)
    return batch.tokens, np.asarray(out.logits), np.asarray(out.routes_LBT)


class Reader:
    """Feeds the rows to a model call by call, with random tokens and positions as padding."""

    def __init__(self, layout="stacked", capacity=CAPACITY, **options):
        self.config, self.execution = CONFIGS[layout], execution(layout, **options)
        self.cache = init_cache(self.config, self.execution, len(LENGTHS), capacity)
        self.done = np.zeros(len(LENGTHS), int)
        self.random = np.random.RandomState(9)

    def call(self, counts, width, starts=None):
        """The next `counts` tokens of the rows, in columns from `starts` of a call of `width`; checks all results."""
        tokens, logits, routes = whole_rows(self.config)
        starts = starts or [0] * len(counts)
        shape = (len(counts), width)
        now, positions = self.random.randint(0, self.config.vocab_size, shape), self.random.randint(0, 99, shape)
        segments = np.zeros(shape, np.int32)
        spans = []
        for row, (count, start) in enumerate(zip(counts, starts, strict=True)):
            here, there = slice(start, start + count), slice(self.done[row], self.done[row] + count)
            now[row, here], positions[row, here], segments[row, here] = tokens[row, there], np.r_[there], 1
            spans.append((row, here, there))
        call = compiled(self.config, self.execution)
        out = call(random_variables(self.config, self.execution), now, positions, segments, cache=self.cache)
        # As numpy's arrays: a slice of jax's would be a program.
        found_logits, found_routes = np.asarray(out.logits), np.asarray(out.routes_LBT)
        for row, here, there in spans:
            where = f"row {row}, tokens {there.start}..{there.stop - 1}: "
            np.testing.assert_array_equal(found_routes[:, row, here], routes[:, row, there], err_msg=where)
            assert_close(found_logits[row, here], logits[row, there], 1e-10, where)
        self.cache, self.done = out.cache, self.done + counts
        np.testing.assert_array_equal(self.cache.length_B, self.done)
        return out

    def finish(self, width=1):
        """Reads what is left in calls of one width; rows that are through idle along."""
        while (left := np.array(LENGTHS) - self.done).any():
            self.call(np.minimum(left, width), width)
        return self


def memory(cache, layout):
    """What a cache remembers, as a list over rows and layers: stored keys and values, convolution and delayed state."""
    remembered = []
    for row, length in enumerate(np.asarray(cache.length_B)):
        for entry in cache.layers:
            copies = range(entry.k_BSKH.shape[0]) if layout == "stacked" else [None]
            for copy in copies:
                k, v, conv, delayed = (
                    (np.asarray(a) if copy is None else np.asarray(a)[copy])[row]
                    for a in (entry.k_BSKH, entry.v_BSKH, entry.conv_B2U, entry.delayed_BX)
                )
                remembered.append((k[:length], v[:length], conv, delayed))
    return remembered


@functools.cache
def final_memory(layout):
    """After one call that fills an empty cache."""
    reader = Reader(layout)
    reader.call(LENGTHS, max(LENGTHS))
    return memory(reader.cache, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_by_token(layout):
    reader = Reader(layout).finish(width=1)
    assert_close(memory(reader.cache, layout), final_memory(layout))


@st.composite
def cuts(draw):
    """Calls of one of three widths; each row takes some tokens of a call, or none, padded on both sides."""
    left, calls = list(LENGTHS), []
    while any(left):
        width = draw(st.sampled_from(WIDTHS))
        counts = [draw(st.integers(0, min(width, rest))) for rest in left]
        starts = [draw(st.integers(0, width - count)) for count in counts]
        calls.append((counts, width, starts))
        left = [rest - count for rest, count in zip(left, counts, strict=True)]
        if len(calls) == 7:
            break
    return calls


@settings(max_examples=20)
@given(cuts())
def test_uneven_chunks_padded_on_either_side(calls):
    reader = Reader()
    for counts, width, starts in calls:
        reader.call(counts, width, starts)
    reader.finish(width=9)
    assert_close(memory(reader.cache, "stacked"), final_memory("stacked"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_ragged_prompts_in_a_fresh_cache(side, layout):
    """The usual way of generating: capacity 0, one call over padded prompts, grown, then one token at a time."""
    prompts, width = [9, 4, 1], 9
    reader = Reader(layout, capacity=0)
    reader.call(prompts, width, [width - p for p in prompts] if side == "left" else None)
    reader.cache = grow_cache(reader.config, layout, reader.cache, CAPACITY)
    reader.finish(width=1)
    assert_close(memory(reader.cache, layout), final_memory(layout))


def test_fresh_prompt_shorter_than_the_window():
    """The ring is then smaller than it will be, and grows without moving a token."""
    reader = Reader(capacity=0)
    reader.call([4, 3, 0], 4)
    reader.cache = grow_cache(CONFIG, "stacked", reader.cache, CAPACITY)
    reader.finish(width=9)
    assert_close(memory(reader.cache, "stacked"), final_memory("stacked"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_restored_from_the_host_into_a_larger_cache(layout):
    reader = Reader(layout, capacity=12)
    reader.call([9, 5, 2], 9, [0, 2, 7])
    saved = jax.tree.map(np.array, reader.cache)  # numpy arrays, nothing left on the device
    reader.cache = grow_cache(reader.config, layout, saved, CAPACITY)
    reader.finish(width=1)
    assert_close(memory(reader.cache, layout), final_memory(layout))


def test_a_cache_with_room_to_spare_does_not_shrink():
    before = Reader().cache
    after = grow_cache(CONFIG, "stacked", before, 3)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, before)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_without_tokens_keeps_its_state(width):
    reader = Reader()
    reader.call([9, 4, 1], 9)
    before = jax.tree.map(np.asarray, reader.cache)
    reader.call([0, 1, 0], width, [0, width - 1, 0])
    for entry, old in zip(reader.cache.layers, before.layers, strict=True):
        for field in ("k_BSKH", "v_BSKH", "conv_B2U", "delayed_BX"):
            now = np.asarray(getattr(entry, field))
            for row in (0, 2):
                np.testing.assert_array_equal(now[:, row], getattr(old, field)[:, row])
            assert (now[:, 1] != getattr(old, field)[:, 1]).any()


def test_only_the_last_or_no_logits():
    config = small((FULL,))
    batch, variables = lay_out(config, [[9, -6], [-6, 9], [-2, 5, -8]]), random_variables(config)
    everything = np.asarray(compiled(config)(variables, *batch).logits)
    last = compiled(config, EXACT, "last")(variables, *batch).logits
    assert_close(last, np.stack([everything[0, 8], everything[1, 14], everything[2, 6]]), 1e-12)
    assert compiled(config, EXACT, "none")(variables, *batch).logits is None


def test_on_the_kernels():
    """A prompt, a part of one behind it, and single tokens, in interpret mode."""
    reader = Reader(attention="interpret", cca="interpret", experts="interpret")
    reader.call((9, 8, 2), 9)
    reader.call((4, 0, 3), 9)
    reader.finish()
