"""The gate on responses that go round in circles: against whole compressions, and what must and must not pass."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.compressibility import (
    FLUSH_BYTES,
    CompressibilityConfig,
    chunk_ratios,
    id_bytes,
    is_degenerate,
)

CONFIG = CompressibilityConfig()
BYTES = CompressibilityConfig(chunk_tokens=600, bytes_per_id=1)


def packed(pieces):
    """Bytes that a stream has written after its last piece, from a stream of its own."""
    stream = zlib.compressobj(1, zlib.DEFLATED, -10)
    return sum(len(stream.compress(piece)) + len(stream.flush(zlib.Z_SYNC_FLUSH)) for piece in pieces)


def random_ids(count, vocabulary=262_272, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary, count)


def test_an_empty_flush_is_the_overhead():
    """Of a fresh stream: header bits 000 and padding, then the length 0 and its complement."""
    assert zlib.compressobj(1, zlib.DEFLATED, -10).flush(zlib.Z_SYNC_FLUSH) == b"\0\0\0\xff\xff"
    assert FLUSH_BYTES == 5


@given(st.lists(st.integers(0, 3), min_size=20, max_size=90), st.integers(1, 20))
def test_ratios_are_what_each_chunk_adds_to_the_stream(tokens, size):
    config = CompressibilityConfig(chunk_tokens=size, bytes_per_id=2)
    pieces = [tokens[i : i + size] for i in range(0, len(tokens), size)]
    if len(pieces) > 1 and len(pieces[-1]) < size:
        last = pieces.pop()
        pieces[-1] = pieces[-1] + last
    raw = [b"".join(token.to_bytes(2, "little") for token in piece) for piece in pieces]
    totals = [packed(raw[:i]) for i in range(len(raw) + 1)]
    expected = [(after - before - 5) / len(piece) for before, after, piece in zip(totals, totals[1:], raw)]
    np.testing.assert_allclose(chunk_ratios(config, tokens), expected)


def test_a_short_last_chunk_belongs_to_the_one_before_and_a_short_response_is_not_judged():
    sizes = [len(chunk_ratios(CONFIG, random_ids(count))) for count in (0, 1, 127, 128, 255, 256, 257)]
    assert sizes == [0, 0, 0, 1, 1, 2, 2]
    assert not is_degenerate(CONFIG, [7] * 127)
    assert is_degenerate(CONFIG, [7] * 128)


def test_the_stream_remembers_the_chunk_before():
    same = np.tile(random_ids(600, 256), 2)
    first, second = chunk_ratios(BYTES, same)
    assert first > 0.9 and second < 0.05
    assert is_degenerate(BYTES, same)


@pytest.mark.parametrize("distance, found", [(700, True), (762, True), (763, False), (1500, False)])
def test_the_window_is_a_thousand_bytes(distance, found):
    """Less 262 that zlib keeps for looking ahead; its usual window would find all of these."""
    config = CompressibilityConfig(chunk_tokens=distance, bytes_per_id=1)
    later = chunk_ratios(config, np.tile(random_ids(distance, 256), 3))[1:]
    assert np.all(later < 0.4) if found else np.all(later > 0.9)


@pytest.mark.parametrize("seed", range(3))
def test_loops_are_found_wherever_they_begin(seed):
    honest = random_ids(300)
    for period in range(1, 129):
        loop = np.tile(random_ids(period, seed=seed), 700 // period)
        for tokens in (loop, np.concatenate([honest[: 10 * seed + 5], loop, honest])):
            assert is_degenerate(CONFIG, tokens), period


def test_honest_text_passes():
    """Words by frequency, a working that repeats its phrases with other numbers, a paragraph said twice at a distance,
    a short answer."""
    zipf = np.minimum(np.random.default_rng(2).zipf(1.3, 5000), 262_271)
    phrase = list(range(100, 112))
    working = [token for i in range(500) for token in (*phrase, 200 + i % 10, 300 + i * i % 97)]
    twice = [*zipf[:300], *zipf[:300]]
    for tokens in (zipf, working, twice, [5, 6, 7], [], random_ids(5000)):
        assert not is_degenerate(CONFIG, tokens)


def test_the_threshold_is_a_bound_from_below():
    tokens = np.tile(random_ids(600, 256), 2)
    smallest = chunk_ratios(BYTES, tokens).min()
    for threshold, flagged in ((smallest, False), (smallest + 1e-9, True)):
        config = CompressibilityConfig(threshold=threshold, chunk_tokens=600, bytes_per_id=1)
        assert is_degenerate(config, tokens) == flagged


@pytest.mark.parametrize("width", range(1, 9))
def test_ids_are_little_endian_integers(width):
    config = CompressibilityConfig(bytes_per_id=width)
    tokens = [0, 1, min(2 ** (8 * width), 2**63) - 1]
    assert id_bytes(config, tokens) == b"".join(token.to_bytes(width, "little") for token in tokens)


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: chunk_ratios(BYTES, [3, 256]), "expected 0 up to 255"),
        (lambda: chunk_ratios(CONFIG, [-1]), "found -1"),
        (lambda: CompressibilityConfig(threshold=5.0), "CompressibilityConfig.threshold"),
        (lambda: CompressibilityConfig(chunk_tokens=0), "CompressibilityConfig.chunk_tokens"),
        (lambda: CompressibilityConfig(bytes_per_id=9), "CompressibilityConfig.bytes_per_id"),
    ],
)
def test_mistakes(call, told):
    with pytest.raises(UserError, match=told):
        call()
