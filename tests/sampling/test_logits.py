"""Filters and draws against plain definitions on one row at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.models import log_softmax
from zaya_jax.sampling.logits import Controls, controls, filter_logits, highest, noise, sample, sample_kept
from zaya_jax.sampling.request import Request, Sampling

B, V = 4, 23
sample_jit = jax.jit(sample)
kept_jit = jax.jit(sample_kept, static_argnums=3)
filter_jit = jax.jit(filter_logits)


def kept_oracle(logits, s: Sampling) -> np.ndarray:
    """Which tokens of a row survive, token by token, from the definitions; float64."""
    x = np.asarray(logits, np.float64) / (s.temperature or 1)
    kept = np.ones(len(x), bool)
    if s.top_k > 0:
        kept = np.array([(x > value).sum() < s.top_k for value in x])
    if s.top_p < 1:
        p = np.where(kept, np.exp(x - x.max()), 0)
        p /= p.sum()
        kept &= np.array([p[x > value].sum() < s.top_p for value in x])
    return kept & (np.exp(x - x.max()) >= s.min_p)


def rows(samplings, seeds=None) -> Controls:
    seeds = seeds or range(len(samplings))
    return controls([Request("r", (1,), seed=seed, sampling=s) for seed, s in zip(seeds, samplings)])


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.37, 1e-6]),
    top_k=st.sampled_from([-1, 0, 1, 2, 5, V, V + 9, 2**30]),
    min_p=st.sampled_from([0.0, 0.015, 0.21, 1.0]),
)
# Quarters give many ties; powers of e are far from every threshold of the lists above.
tied = st.lists(st.integers(-8, 8).map(lambda n: n / 4), min_size=V, max_size=V)


@given(st.lists(tied, min_size=B, max_size=B), st.lists(samplings, min_size=B, max_size=B))
def test_filters_keep_what_their_definitions_keep(logits, settings):
    filtered = np.asarray(filter_jit(np.array(logits, np.float32), rows(settings)))
    for row, setting, result in zip(logits, settings, filtered):
        kept = kept_oracle(row, setting)
        np.testing.assert_array_equal(np.isfinite(result), kept)
        expected = (np.array(row) - max(row)) / (setting.temperature or 1)
        np.testing.assert_allclose(result[kept], expected[kept], rtol=1e-6)


def test_filters_are_those_of_transformers_on_a_known_row():
    logits = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))

    def kept(**setting):
        return np.flatnonzero(np.isfinite(filter_jit(logits, rows([Sampling(**setting)]))[0])).tolist()

    assert kept() == kept(top_p=1.0, top_k=-1, min_p=0.0) == kept(top_k=0) == [0, 1, 2, 3]
    assert kept(top_k=3) == [0, 1, 2]
    assert kept(top_p=0.5) == [0]  # the smallest set that reaches p
    assert kept(top_p=0.51) == [0, 1]
    assert kept(top_p=1e-9) == kept(top_k=1) == kept(min_p=1.0) == [0]
    assert kept(min_p=0.3) == [0, 1, 2]
    # top-p counts the mass of what top-k has left: 0.5 / 0.75 of the first two
    assert kept(top_k=2, top_p=0.6) == [0]
    assert kept(top_p=0.6) == [0, 1]
    # and the mass after temperature
    assert kept(temperature=0.5, top_p=0.7) == [0]


@pytest.mark.parametrize("value", [0.0, -0.0, -3.5, 1e30])
def test_equal_logits_share_their_fate(value):
    logits = np.full((1, V), value, np.float32)
    logits[0, 1] = -value  # both zeros are one value
    for setting in (Sampling(top_k=1), Sampling(top_p=0.2), Sampling(min_p=1.0)):
        kept = np.isfinite(filter_jit(logits, rows([setting])))[0]
        assert kept.sum() == (V if value == 0 else V - 1 if value > 0 else 1)


def test_extreme_logits_do_not_break_a_row():
    logits = np.array([[1e38, -1e38, -np.inf, 1.0], [0, 0, -np.inf, -np.inf]], np.float32)
    setting = [Sampling(temperature=1e-5, top_p=0.9, top_k=3, min_p=0.1)] * 2
    drawn = sample_jit(logits, rows(setting), np.array([0, 1]))
    assert drawn.token_B[0] == 0 and drawn.token_B[1] in (0, 1)
    np.testing.assert_allclose(drawn.logprob_sampling_B, [0, np.log(0.5)], atol=1e-6)
    assert np.isfinite(drawn.logprob_model_B).all()


@given(st.lists(tied, min_size=B, max_size=B), st.lists(samplings, min_size=B, max_size=B), st.integers(0, 2**31))
def test_draws_and_their_logprobs(logits, settings, step):
    logits = np.array(logits, np.float32)
    drawn = sample_jit(logits, rows(settings), np.full(B, step, np.int32))
    for b, (row, setting) in enumerate(zip(logits, settings)):
        token = int(drawn.token_B[b])
        np.testing.assert_allclose(drawn.logprob_model_B[b], log_softmax(row)[token], atol=2e-6)
        if setting.temperature == 0:
            assert token == np.argmax(row)
            assert drawn.logprob_sampling_B[b] == 0
        else:
            kept = kept_oracle(row, setting)
            assert kept[token]
            expected = log_softmax(np.where(kept, row.astype(np.float64) / setting.temperature, -np.inf))[token]
            np.testing.assert_allclose(drawn.logprob_sampling_B[b], expected, atol=3e-6)


def test_a_row_depends_on_its_own_seed_and_step_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, V)).astype(np.float32)
    settings = [Sampling(), Sampling(0.0), Sampling(0.7, top_p=0.9), Sampling(top_k=4), Sampling(min_p=0.1), Sampling()]
    seeds, steps = list(range(6)), np.arange(6, dtype=np.int32)
    drawn = sample_jit(logits, rows(settings, seeds), steps)
    for _ in range(5):
        order = rng.permutation(6)
        again = sample_jit(logits[order], rows([settings[i] for i in order], [seeds[i] for i in order]), steps[order])
        # other neighbours: every other row is replaced
        mates = np.where(np.arange(6)[:, None] % 2 == 0, logits[order], rng.normal(size=(6, V))).astype(np.float32)
        others = rows(
            [settings[i] if n % 2 == 0 else Sampling(0.0) for n, i in enumerate(order)], [seeds[i] for i in order]
        )
        alone = sample_jit(mates, others, steps[order])
        for field in ("token_B", "logprob_model_B", "logprob_sampling_B"):
            np.testing.assert_array_equal(getattr(again, field), np.asarray(getattr(drawn, field))[order])
            np.testing.assert_array_equal(getattr(alone, field)[::2], np.asarray(getattr(drawn, field))[order][::2])


def test_noise_changes_with_seed_and_step_and_is_gumbel():
    seeds = np.array([0, 0, 1, 2**32 - 1], np.uint32)
    g = np.asarray(noise(seeds, np.array([0, 1, 0, 0]), 50_000))
    assert np.isfinite(g).all()
    assert np.abs(np.corrcoef(g) - np.eye(4)).max() < 0.02
    np.testing.assert_array_equal(g[:1], noise(seeds[:1], np.array([0]), 50_000))
    np.testing.assert_allclose(g.mean(axis=1), 0.5772, atol=0.03)
    np.testing.assert_allclose(g.var(axis=1), np.pi**2 / 6, atol=0.06)


@pytest.mark.parametrize(
    "setting", [Sampling(), Sampling(0.6, top_p=0.95), Sampling(1.5, top_k=5), Sampling(min_p=0.05)]
)
def test_draws_follow_the_filtered_softmax(setting):
    """Chi-square of 20,000 draws with fixed seeds: one row's steps."""
    logits = np.random.default_rng(1).normal(scale=1.5, size=8).astype(np.float32)
    count = 20_000
    many = Controls(*(np.repeat(getattr(rows([setting], [7]), f), count) for f in Controls.__dataclass_fields__))
    drawn = sample_jit(jnp.broadcast_to(logits, (count, 8)), many, np.arange(count, dtype=np.int32))
    kept = kept_oracle(logits, setting)
    p = np.exp(log_softmax(np.where(kept, logits / setting.temperature, -np.inf)))
    seen = np.bincount(drawn.token_B, minlength=8)
    assert seen[~kept].sum() == 0
    expected = count * p[kept]
    chi_square = ((seen[kept] - expected) ** 2 / expected).sum()
    assert chi_square < 24.3  # 0.1 % of 7 degrees of freedom


def test_noise_tells_rare_tokens_apart():
    """The largest of four million draws: of 23-bit ones, a fifth would be equal to another."""
    draws = np.sort(np.asarray(noise(np.arange(4, dtype=np.uint32), np.zeros(4, np.int32), 1 << 20)).ravel())
    assert len(np.unique(draws[-1000:])) > 990
    above = (draws > np.log((1 << 20) / 250)).sum()
    assert abs(above - 1000) < 3.3 * 1000**0.5


def test_parameters_are_no_constants_of_the_program():
    before = sample_jit._cache_size()
    for setting in (Sampling(0.0), Sampling(0.31), Sampling(top_p=0.77), Sampling(top_k=9), Sampling(min_p=0.3)):
        sample_jit(np.zeros((B, V), np.float32), rows([setting] * B), np.zeros(B, np.int32))
    assert sample_jit._cache_size() - before <= 1


def test_the_highest_column_is_the_first_of_equals():
    rows = np.array([[0, 3, 3, 1], [-np.inf, -np.inf, -np.inf, -np.inf], [5, -1, 2, 5], [0, np.nan, 1, 2]], np.float32)
    assert np.asarray(highest(rows)).tolist() == [1, 0, 0, 3]


@given(st.lists(tied, min_size=B, max_size=B), st.lists(samplings, min_size=B, max_size=B), st.sampled_from([1, 3, V]))
def test_a_draw_from_kept_ids_is_one_from_the_most_probable_that_filters_leave(logits, settings, most):
    logits, step = np.array(logits, np.float32), np.arange(B)
    drawn = kept_jit(logits, rows(settings), step, most)
    alike = sample_jit(logits, rows(settings), step)
    for row, s in enumerate(settings):
        x = np.asarray(logits[row], np.float64) / (s.temperature or 1)
        left = np.flatnonzero(kept_oracle(logits[row], s))
        best = left[np.argsort(-x[left], kind="stable")][: 1 if s.temperature == 0 else most]
        np.testing.assert_array_equal(drawn.kept_KB[:, row], np.pad(best, (0, most - len(best)), constant_values=-1))
        (place,) = np.flatnonzero(best == drawn.token_B[row])
        np.testing.assert_allclose(drawn.logprob_sampling_B[row], log_softmax(x[best])[place], atol=1e-6)
        np.testing.assert_allclose(drawn.logprob_model_B[row], log_softmax(logits[row])[best[place]], atol=2e-6)
        if s.temperature == 0 or len(left) <= most:
            assert drawn.token_B[row] == alike.token_B[row], "the same noise draws the same token"
