"""The difficulty that an environment starts at: the one that the policy solves half of the time, found by asking.

    pool = begin(search, seed=3)
    while not finished(search, pool):
        difficulty = propose(search, pool)                                # roll out a group of problems there
        pool = observe(search, pool, difficulty, passed=5, count=16)
    start = estimate(search, pool)

ZAYA1's way (report IV-B4): Thompson sampling over an item response model. The pass rate at difficulty d is taken to be
sigmoid(-(d - mu) / s), with mu the difficulty of pass rate 1/2 and s > 0 the width of the slope. A pool of particles
(mu, log s) is drawn from one Gaussian prior, the same for all environments: mu ~ N(mu_mean, mu_deviation^2) and log s ~
N(log s_median, log_s_deviation^2), independent, so that s is never negative. Each group, k of n right at d, multiplies
a particle's weight by Binomial(k; n, p). Next is asked what a particle, drawn by weight, takes for the difficulty of
the target pass rate. When few particles carry the weight, they are drawn anew with replacement and moved by
Metropolis-Hastings steps that leave the posterior as it is (resample-move, Gilks and Berzuini, JRSS B 63, 2001).

The report leaves open: the number of particles, the prior, epsilon, when to draw anew, how recency weighs and when to
stop. Here likelihoods of earlier groups are raised to a power that falls with their age: solvers are no logistic
curves, and what was asked last is nearest to the difficulty that is sought.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.rl import checks
from zaya_jax.rl.checks import check_range

_PRIOR, _PROPOSE, _RESAMPLE = range(3)  # what random numbers are for


@dataclasses.dataclass(frozen=True)
class Search:
    """How start difficulties are sought. The report discloses `target` and `spread`, and none of the others.

    Attributes:
        target: the pass rate whose difficulty is sought.
        epsilon: how often another pass rate is aimed at, uniform within `spread` of the target, to see the slope.
        spread: see epsilon.
        particles: M.
        mu_mean, mu_deviation: of the prior of mu, in levels of difficulty.
        s_median, log_s_deviation: of the prior of s.
        resample_below: particles are drawn anew when the effective sample size, 1 / sum of squared weights, is less
            than this share of M.
        moves: Metropolis-Hastings steps of each particle then.
        recency: power by which a group's likelihood fades with each later group; 1: never.
        groups: asked at most.
        tolerance: in levels: no more is asked when the posterior's deviation of the sought difficulty is at most this.
        cap: the highest difficulty that is asked for.

    Raises:
        UserError: a value is out of range.
    """

    target: float = 0.5
    epsilon: float = 0.1
    spread: float = 0.25
    particles: int = 512
    mu_mean: float = 0.0
    mu_deviation: float = 60.0
    s_median: float = 2.0
    log_s_deviation: float = 1.0
    resample_below: float = 0.5
    moves: int = 4
    recency: float = 0.98
    groups: int = 32
    tolerance: float = 0.4
    cap: int = 200

    def __post_init__(self):
        for name in ("epsilon", "spread", "resample_below", "recency", "tolerance"):
            check_range(self, name, 0, math.inf if name == "tolerance" else 1)
        for name in ("mu_deviation", "s_median", "log_s_deviation"):
            check_range(self, name, 0, above=True)
        for name in ("particles", "moves", "groups"):
            check_range(self, name, 1, whole=True)
        check_range(self, "mu_mean", -math.inf)
        check_range(self, "cap", 0, whole=True)
        if not 0 < self.target - self.spread <= self.target + self.spread < 1:
            found = f"{self.target:g} +- {self.spread:g}"
            raise mistake("no pass rates to aim at", where="Search", expected="target +- spread in (0, 1)", found=found)


@dataclasses.dataclass(frozen=True)
class Group:
    """What a group of problems of one difficulty gave: `passed` of `count` rollouts right."""

    difficulty: int
    passed: int
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """What is believed of one environment.

    Attributes:
        seed: of all draws.
        history: the groups, in order. Pool and weights follow from seed and history: they alone are stored.
        theta_M2: particles (mu, log s), float64.
        drawn_at: groups that the particles were drawn from the posterior of; 0: they are from the prior.
    """

    seed: int
    history: tuple[Group, ...]
    theta_M2: np.ndarray
    drawn_at: int = 0


def begin(search: Search, seed: int) -> Pool:
    """A pool drawn from the prior. Environments are to have seeds of their own."""
    normal_M2 = _generator(seed, _PRIOR).standard_normal((search.particles, 2))
    mean_2, deviation_2 = _prior(search)
    return Pool(seed, (), mean_2 + deviation_2 * normal_M2)


def propose(search: Search, pool: Pool, number: int = 0) -> int:
    """The difficulty to ask next, a whole number from 0 to the cap.

    Args:
        search: how it is sought.
        pool: what is believed.
        number: tells groups apart that are asked with the same pool, where several run at once.
    """
    generator = _generator(pool.seed, _PROPOSE, len(pool.history), number)
    mu, log_s = pool.theta_M2[generator.choice(search.particles, p=weights(search, pool))]
    rate = search.target
    if generator.random() < search.epsilon:
        rate += search.spread * generator.uniform(-1, 1)
    return round(min(max(mu + math.exp(log_s) * _logit(1 - rate), 0.0), float(search.cap)))


def observe(search: Search, pool: Pool, difficulty: int, passed: int, count: int) -> Pool:
    """The pool after a group of `count` rollouts at a difficulty, of which `passed` are right.

    Raises:
        ValueError: the counts are not those of a group.
    """
    if not 0 <= passed <= count or count < 1:
        raise ValueError(f"{passed} of {count} rollouts")
    after = dataclasses.replace(pool, history=(*pool.history, Group(difficulty, passed, count)))
    few = effective_size(weights(search, after)) < search.resample_below * search.particles
    return _drawn_anew(search, after) if few else after


def weights(search: Search, pool: Pool) -> np.ndarray:
    """The particles' weights [M], float64; they add up to 1.

    Particles that stand for the posterior after `drawn_at` groups count by what the likelihood has grown since.
    """
    powers_H = _powers(search, len(pool.history))
    powers_H[: pool.drawn_at] -= _powers(search, pool.drawn_at)
    log_M = log_likelihood(pool.history, powers_H, pool.theta_M2)
    weights_M = np.exp(log_M - log_M.max())
    return weights_M / weights_M.sum()


def log_likelihood(history: Sequence[Group], powers_H: np.ndarray, theta_M2: np.ndarray) -> np.ndarray:
    """Sum over groups of power * log Binomial(k; n, p) for each particle [M], without the constant terms."""
    groups_H3 = np.array([dataclasses.astuple(group) for group in history], np.float64).reshape(-1, 3)
    difficulty_H, passed_H, count_H = groups_H3.T
    x_HM = (difficulty_H[:, None] - theta_M2[:, 0]) * np.exp(-theta_M2[:, 1])
    # log p = -log(1 + e^x) and log(1 - p) = x - log(1 + e^x): neither overflows nor takes the log of 0.
    return (powers_H * (count_H - passed_H)) @ x_HM - (powers_H * count_H) @ np.logaddexp(0, x_HM)


def effective_size(weights_M: np.ndarray) -> float:
    """1 / sum of squares: as many equal weights would tell as much."""
    return float(1 / np.square(weights_M).sum())


def finished(search: Search, pool: Pool) -> bool:
    """Whether enough has been asked: the most groups, or the sought difficulty is known to the tolerance."""
    if len(pool.history) >= search.groups:
        return True
    sought_M, weights_M = _sought(search, pool), weights(search, pool)
    mean = float(weights_M @ sought_M)
    return bool(pool.history) and math.sqrt(float(weights_M @ np.square(sought_M - mean))) <= search.tolerance


def estimate(search: Search, pool: Pool) -> int:
    """The start difficulty: the posterior median of what has the target pass rate, from 0 to the cap, rounded."""
    sought_M = _sought(search, pool)
    order = np.argsort(sought_M)
    running_M = np.cumsum(weights(search, pool)[order])
    return round(float(sought_M[order][min(np.searchsorted(running_M, 0.5), len(order) - 1)]))


def to_json(pool: Pool) -> dict[str, Any]:
    """The record that `from_json` reads: seed and history."""
    return {"seed": pool.seed, "history": [checks.to_json(group) for group in pool.history]}


def from_json(search: Search, record: Mapping[str, Any]) -> Pool:
    """The pool that the same search had: its groups are observed again, which takes no rollouts.

    Raises:
        UserError: the record is none of a pool.
    """
    stored = checks.from_json(_Stored, record, "start difficulty")
    groups = stored.history
    return functools.reduce(lambda pool, one: observe(search, pool, *dataclasses.astuple(one)), groups,
                            begin(search, stored.seed))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Stored:
    seed: int
    history: tuple[Group, ...]


def _sought(search: Search, pool: Pool) -> np.ndarray:
    """Each particle's difficulty of the target pass rate [M], within 0 and the cap, as problems can have it."""
    mu_M, s_M = pool.theta_M2[:, 0], np.exp(pool.theta_M2[:, 1])
    return np.clip(mu_M + s_M * _logit(1 - search.target), 0, search.cap)


def _drawn_anew(search: Search, pool: Pool) -> Pool:
    """The same posterior in particles of equal weight: drawn with replacement, then moved apart."""
    generator = _generator(pool.seed, _RESAMPLE, len(pool.history))
    weights_M = weights(search, pool)
    step_22 = _step(search, pool.theta_M2, weights_M)
    theta_M2 = pool.theta_M2[generator.choice(search.particles, size=search.particles, p=weights_M)]
    for _ in range(search.moves):
        theta_M2 = _moved(search, pool.history, theta_M2, step_22, generator)
    return dataclasses.replace(pool, theta_M2=theta_M2, drawn_at=len(pool.history))


def _step(search: Search, theta_M2: np.ndarray, weights_M: np.ndarray) -> np.ndarray:
    """Shape of the proposals [2, 2]: the posterior's covariance times 2.38^2 / 2 (Roberts, Gelman, Gilks 1997).

    A single particle that carries all weight has no spread; the fewer there are, the more of the prior's is added.
    """
    centred_M2 = theta_M2 - weights_M @ theta_M2
    covariance_22 = centred_M2.T @ (weights_M[:, None] * centred_M2)
    covariance_22 += np.diag(np.square(_prior(search)[1])) / effective_size(weights_M) ** 2
    return np.linalg.cholesky(2.38**2 / 2 * covariance_22)


def _moved(search: Search, history: Sequence[Group], theta_M2, step_22, generator: np.random.Generator) -> np.ndarray:
    """One Metropolis-Hastings step of every particle."""
    proposed_M2 = theta_M2 + generator.standard_normal(theta_M2.shape) @ step_22.T
    gain_M = _log_posterior(search, history, proposed_M2) - _log_posterior(search, history, theta_M2)
    accepted_M = np.log(generator.random(len(theta_M2))) < gain_M
    return np.where(accepted_M[:, None], proposed_M2, theta_M2)


def _log_posterior(search: Search, history: Sequence[Group], theta_M2: np.ndarray) -> np.ndarray:
    mean_2, deviation_2 = _prior(search)
    prior_M = -0.5 * np.square((theta_M2 - mean_2) / deviation_2).sum(axis=1)
    return prior_M + log_likelihood(history, _powers(search, len(history)), theta_M2)


def _powers(search: Search, groups: int) -> np.ndarray:
    """Of each group's likelihood [groups]: recency^age; the last one has age 0."""
    return search.recency ** np.arange(groups - 1, -1, -1, dtype=np.float64)


def _prior(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation [2] of (mu, log s)."""
    mean_2 = np.array([search.mu_mean, math.log(search.s_median)])
    return mean_2, np.array([search.mu_deviation, search.log_s_deviation])


def _generator(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, *numbers]))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
