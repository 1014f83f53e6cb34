"""Start difficulties: weights against exact posteriors on a grid, and synthetic solvers whose difficulty is known."""

import dataclasses
import json
import math
import types

import numpy as np
import pytest

from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failures
from zaya_jax.errors import UserError
from zaya_jax.rl.generation import Asked
from zaya_jax.rl.start_difficulty import (
    Search,
    begin,
    effective_size,
    estimate,
    finished,
    from_json,
    observe,
    propose,
    to_json,
    weights,
)
from zaya_jax.rl.starting import _observed

HISTORY = [(10, 15, 16), (40, 3, 16), (30, 8, 16), (25, 11, 16), (33, 4, 8), (28, 9, 16)]


def after(search, seed, history):
    pool = begin(search, seed)
    for group in history:
        pool = observe(search, pool, *group)
    return pool


def grid_posterior(search, history):
    """Mean and deviation of mu and log s, and the chance of mu < 30, summed over a fine grid in float64."""
    mu, log_s = np.meshgrid(np.arange(-100, 160, 0.2) + 0.1, np.linspace(-4.5, 6, 221), indexing="ij")
    log_p = -((mu - search.mu_mean) ** 2) / (2 * search.mu_deviation**2)
    log_p -= (log_s - math.log(search.s_median)) ** 2 / (2 * search.log_s_deviation**2)
    for age, (d, k, n) in enumerate(reversed(history)):
        p = np.clip(1 / (1 + np.exp(np.clip((d - mu) / np.exp(log_s), -500, 500))), 1e-200, 1 - 1e-16)
        log_p += search.recency**age * (math.log(math.comb(n, k)) + k * np.log(p) + (n - k) * np.log1p(-p))
    p = np.exp(log_p - log_p.max())
    return moments(p.ravel() / p.sum(), mu.ravel(), log_s.ravel())


def moments(p, mu, log_s):
    means = p @ mu, p @ log_s
    deviations = math.sqrt(p @ (mu - means[0]) ** 2), math.sqrt(p @ (log_s - means[1]) ** 2)
    return np.array([*means, *deviations, p @ (mu < 30)])


def test_weights_are_products_of_binomial_chances():
    search = Search(particles=50, resample_below=0, recency=1.0, mu_mean=25, mu_deviation=10)
    pool = after(search, 0, HISTORY)
    expected = []
    for mu, log_s in begin(search, 0).theta_M2:
        product = 1.0
        for d, k, n in HISTORY:
            p = 1 / (1 + math.exp((d - mu) / math.exp(log_s)))
            product *= math.comb(n, k) * p**k * (1 - p) ** (n - k)
        expected.append(product)
    np.testing.assert_allclose(weights(search, pool), np.array(expected) / sum(expected), atol=1e-12)


@pytest.mark.parametrize("recency", [1.0, 0.8])
@pytest.mark.parametrize(
    ("particles", "resample_below", "tolerance"),
    [(100_000, 0.0, 0.06), (30_000, 0.5, 0.05), (20_000, 1.0, 0.05)],
    ids=["never drawn anew", "when few count", "after every group"],
)
def test_the_pool_is_the_exact_posterior(recency, particles, resample_below, tolerance):
    search = Search(particles=particles, resample_below=resample_below, recency=recency, moves=5)
    pool = after(search, 1, HISTORY)
    assert (pool.drawn_at > 0) == (resample_below > 0)
    found = moments(weights(search, pool), *pool.theta_M2.T)
    exact = grid_posterior(search, HISTORY)
    scale = np.array([exact[2], exact[3], exact[2], exact[3], 1.0])
    np.testing.assert_allclose((found - exact) / scale, 0, atol=tolerance)


def test_the_prior_is_the_one_that_is_documented():
    search = Search(particles=40_000, mu_mean=7, mu_deviation=20, s_median=3, log_s_deviation=0.5)
    mu, log_s = begin(search, 2).theta_M2.T
    assert mu.mean() == pytest.approx(7, abs=0.4) and mu.std() == pytest.approx(20, rel=0.02)
    assert np.median(np.exp(log_s)) == pytest.approx(3, rel=0.02) and log_s.std() == pytest.approx(0.5, rel=0.02)
    assert abs(np.corrcoef(mu, log_s)[0, 1]) < 0.02
    assert effective_size(weights(search, begin(search, 2))) == pytest.approx(40_000)


def solver(mu, s):
    """Pass rates of a logistic solver."""
    return lambda d: 1 / (1 + math.exp((d - mu) / s))


def search_with(search, rate, seed, size=16):
    """Estimate and groups asked."""
    chance, pool = np.random.default_rng([seed, 99]), begin(search, seed)
    while not finished(search, pool):
        difficulty = propose(search, pool)
        assert type(difficulty) is int and 0 <= difficulty <= search.cap
        pool = observe(search, pool, difficulty, int(chance.binomial(size, rate(difficulty))), size)
    return estimate(search, pool), len(pool.history)


SOLVERS = {
    "0.3": (solver(0.3, 1), 0.3),
    "5": (solver(5, 1.5), 5),
    "40": (solver(40, 3), 40),
    "120": (solver(120, 4), 120),
    "a cliff": (lambda d: float(d <= 37), 37.5),  # no logistic curve
    "never": (lambda d: 0.0, 0),
    "only below 0": (solver(-8, 2), 0),
    "always": (lambda d: 1.0, 200),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_difficulty_of_half_the_answers_right_is_found(name):
    """Of 30 seeds 28 within one level: a search that is right three times in four would do that 1 time in 100."""
    rate, truth = SOLVERS[name]
    found = [search_with(Search(), rate, seed) for seed in range(30)]
    assert max(groups for _, groups in found) <= 32
    assert sum(abs(one - truth) <= 1 for one, _ in found) >= 28, found
    if name in ("never", "always"):
        assert {one for one, _ in found} == {truth} and max(groups for _, groups in found) <= 16


def test_another_target_pass_rate():
    search = Search(target=0.75, spread=0.2)
    truth = 40 - 3 * math.log(3)
    found = [search_with(search, solver(40, 3), seed)[0] for seed in range(20)]
    assert sum(abs(one - truth) <= 1 for one in found) >= 17, found  # 0.6 would do that 1 time in 60


def test_a_single_particle_that_carries_all_weight_does_not_end_the_search():
    # 190 and all right: about one particle in a thousand of the prior is beyond.
    sizes, search = [], Search()
    for seed in range(40):
        pool = begin(search, seed)
        before = observe(Search(resample_below=0), pool, 190, 16, 16)
        sizes.append(effective_size(weights(search, before)))
        pool = observe(search, pool, 190, 16, 16)
        assert pool.drawn_at == 1 and not finished(search, pool)
        assert len(np.unique(pool.theta_M2[:, 0])) > 50 and pool.theta_M2[:, 0].std() > 2
    assert min(sizes) < 1.01


def test_the_cap_is_never_passed():
    search = Search(cap=6)
    assert {search_with(search, lambda d: 1.0, seed)[0] for seed in range(5)} == {6}
    assert {search_with(Search(cap=0), lambda d: 0.5, seed)[0] for seed in range(3)} == {0}


def test_what_is_asked_follows_thompson_sampling():
    """Drawn by weight: the asked difficulties have the distribution of the particles' own."""
    search = Search(epsilon=0, particles=400)
    pool = after(search, 3, HISTORY)
    asked = np.array([propose(search, pool, number) for number in range(3000)])
    weights_M, mu_M = weights(search, pool), np.clip(pool.theta_M2[:, 0], 0, search.cap)
    mean = weights_M @ mu_M
    assert asked.mean() == pytest.approx(mean, abs=4 * mu_M.std() / math.sqrt(3000) + 0.05)
    assert asked.std() == pytest.approx(math.sqrt(weights_M @ (mu_M - mean) ** 2 + 1 / 12), rel=0.1)


def test_other_pass_rates_are_aimed_at_as_often_as_epsilon_says():
    # One particle, mu 100 and s 20: the target's difficulty is 100, those of 0.75 and 0.25 are 78 and 122.
    search = Search(
        epsilon=0.3, particles=1, mu_mean=100, mu_deviation=1e-9, s_median=20, log_s_deviation=1e-9, cap=1000
    )
    asked = np.array([propose(search, begin(search, 0), number) for number in range(4000)])
    assert asked.min() == 78 and asked.max() == 122
    inside = 0.3 * (np.abs(1 / (1 + np.exp((np.arange(78, 123) - 100) / 20)) - 0.5) > 0.00625).mean()
    assert (asked != 100).mean() == pytest.approx(inside, abs=0.03)
    assert (asked > 100).sum() == pytest.approx((asked < 100).sum(), rel=0.15)


def test_a_stored_pool_goes_on_as_the_unstored_one():
    search = Search()
    pool = after(search, 4, HISTORY)
    stored = from_json(search, json.loads(json.dumps(to_json(pool))))
    np.testing.assert_array_equal(stored.theta_M2, pool.theta_M2)
    assert (stored.seed, stored.history, stored.drawn_at) == (pool.seed, pool.history, pool.drawn_at)
    assert [propose(search, stored, n) for n in range(9)] == [propose(search, pool, n) for n in range(9)]
    assert len({propose(search, pool, n) for n in range(9)}) > 1  # groups asked at once are not all alike


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Search(particles=0), "Search.particles: out of range; expected a whole number from 1 up; found 0"),
        (lambda: Search(recency=1.2), "Search.recency: out of range"),
        (lambda: Search(s_median=0), "Search.s_median: out of range; expected a number above 0 up; found 0"),
        (lambda: Search(target=0.8), "Search: no pass rates to aim at; expected target +- spread in (0, 1)"),
        (lambda: from_json(Search(), {"seed": 1}), "start difficulty.history: missing key"),
        (
            lambda: from_json(Search(), {"seed": 1, "history": [{"difficulty": 1, "passed": 1}]}),
            "start difficulty.history[0].count: missing key",
        ),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)


def test_counts_that_are_no_group():
    with pytest.raises(ValueError, match="5 of 4 rollouts"):
        observe(Search(), begin(Search(), 0), 0, 5, 4)


def test_a_group_beyond_the_end_of_difficulties_counts_for_the_last_one():
    """It was asked for at 60, and its problem was of difficulty 4, as all from 4 up are."""
    search = dataclasses.replace(Search(), cap=4)
    pools, right = {"some": begin(search, seed=0)}, Verdict(1.0, True, True)
    asked = Asked(0, "some", 60, Problem("p", "p", {}), (1,))
    answered = types.SimpleNamespace(asked=asked, verdicts=(right, right))
    asking = types.SimpleNamespace(failures=Failures())
    pool = _observed(asking, {"some": search}, pools, answered)
    assert [(one.difficulty, one.passed, one.count) for one in pool.history] == [(4, 2, 2)]
