"""Averages, their errors, bootstrap and Holm against formulas, plain loops and cases worked by hand."""

import math

import numpy as np
import pytest

from tests.evaluation.made import run, sample
from zaya_jax.errors import UserError
from zaya_jax.evaluation.score import (
    compare,
    holm,
    paired_bootstrap,
    sampling_error,
    score,
    standard_error,
)

RUN = {"a": "XXXX", "b": "XXyz", "c": "yyX.", "d": "...."}


def test_a_run_worked_by_hand():
    found = score(*run(RUN), "ours")
    assert found.accuracies == {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.0}
    assert found.average == pytest.approx(7 / 16)
    assert (found.benchmark, found.run, found.k) == ("b", "ours", (4, 4))
    assert found.error == pytest.approx(np.std([1, 0.5, 0.25, 0], ddof=1) / 2)
    assert found.sampling == pytest.approx(math.sqrt(0.25 / 3 + 0.1875 / 3) / 4)
    assert found.format == 11 / 16 and found.truncated == 0
    assert list(found.passes) == [1, 2, 4]
    assert (found.passes[1], found.majorities[1]) == pytest.approx((7 / 16, 7 / 16))
    assert found.passes[4] == 3 / 4
    assert found.passes[2] == pytest.approx((1 + 5 / 6 + 1 / 2 + 0) / 4)
    assert found.majorities[4] == pytest.approx((1 + 1 + 0 + 0) / 4)


def test_problems_count_alike_however_many_samples_they_have():
    found = score(*run({"a": "XXXXXXXX", "b": "yX"}))
    assert found.average == pytest.approx(0.75) and found.k == (2, 8) and list(found.passes) == [1, 2]


def test_tokens_truncation_and_the_cost_of_a_population():
    settings = {"T": 2, "N": 16, "C": 4, "beta": 16384, "tau": 4096}
    samples, grades = run({"a": "XX", "b": "Xy"}, meta=settings | {"rounds": [1, 2, 3]}, generated=27_500)
    samples[0] = sample("a", 0, meta=settings, finish_reason="length", generated=27_500)
    found = score(samples, grades)
    assert found.settings == settings and (found.generated, found.cost) == (27_500, 440_000)
    assert found.truncated == 0.25
    assert score(*run({"a": "X"}, generated=100)).cost == 100


def test_without_classes_there_is_no_majority():
    samples, grades = run({"a": "Xy"})
    grades = [type(one)(**(vars(one) | {"cluster": None})) for one in grades]
    assert all(math.isnan(value) for value in score(samples, grades).majorities.values())


def test_errors_of_averages_that_say_nothing_are_not_numbers():
    found = score(*run({"a": "X"}))
    assert math.isnan(found.error) and math.isnan(found.sampling)
    assert math.isnan(sampling_error(np.array([0.5, 1.0]), np.array([4, 1])))


def test_the_errors_are_what_repeated_experiments_show():
    generator = np.random.default_rng(0)
    chances, k, rounds = generator.uniform(size=40), 16, 4000
    again = generator.binomial(k, chances, size=(rounds, 40)) / k  # the same problems, sampled again
    estimates = [sampling_error(row, np.full(40, k)) for row in again]
    assert np.sqrt(np.mean(np.square(estimates))) == pytest.approx(again.mean(axis=1).std(), rel=0.05)
    others = generator.binomial(k, generator.uniform(size=(rounds, 40))) / k  # other problems
    estimates = [standard_error(row) for row in others]
    assert np.sqrt(np.mean(np.square(estimates))) == pytest.approx(others.mean(axis=1).std(), rel=0.05)


def test_the_bootstrap_is_a_plain_loop():
    differences = np.random.default_rng(3).normal(0.1, 0.3, size=17)
    generator = np.random.default_rng(11)
    means = [np.mean([differences[i] for i in generator.integers(17, size=17)]) for _ in range(999)]
    low, high, p = paired_bootstrap(differences, seed=11, draws=999)
    assert low == pytest.approx(np.quantile(means, 0.025)) and high == pytest.approx(np.quantile(means, 0.975))
    below, above = sum(m <= 0 for m in means), sum(m >= 0 for m in means)
    assert p == pytest.approx(2 * (1 + min(below, above)) / 1000)
    assert paired_bootstrap(differences, seed=11, draws=999) != paired_bootstrap(differences, seed=12, draws=999)


def test_the_bootstrap_does_not_depend_on_its_blocks(monkeypatch):
    differences = np.random.default_rng(3).normal(size=7)
    whole = paired_bootstrap(differences, seed=1, draws=101)
    monkeypatch.setattr("zaya_jax.evaluation.score._BLOCK", 20)
    assert paired_bootstrap(differences, seed=1, draws=101) == whole


def test_the_interval_holds_the_truth_as_often_as_it_says_and_chance_is_seldom_significant():
    generator, held, significant = np.random.default_rng(5), 0, 0
    for seed in range(300):
        low, high, p = paired_bootstrap(generator.normal(0, 0.2, size=60), seed, draws=400)
        held += low <= 0 <= high
        significant += p < 0.05
    assert 0.90 <= held / 300 <= 0.985 and significant / 300 < 0.1


def test_runs_are_compared_problem_by_problem():
    a = score(*run({"a": "XX", "b": "Xy", "c": "yy", "only a": "XX"}), "a")
    b = score(*run({"c": "Xy", "b": "XX", "a": "XX", "only b": "yy"}), "b")
    found = compare(a, b, seed=2)
    assert (found.n, found.left_out, found.a, found.b) == (3, 2, "a", "b")
    assert found.difference == pytest.approx(1 / 3)
    assert (found.low, found.high, found.p) == paired_bootstrap(np.array([0, 0.5, 0.5]), 2)
    back = compare(b, a, seed=2)
    assert (back.difference, back.low, back.high) == pytest.approx((-found.difference, -found.high, -found.low))
    assert back.p == found.p


def test_equal_runs_do_not_differ():
    a = score(*run({"a": "Xy", "b": "XX", "c": "yX"}), "a")
    found = compare(a, a)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_holm_worked_by_hand():
    # Sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1; none may fall below the one before.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.4, "b": 0.9}) == pytest.approx({"a": 0.8, "b": 0.9})
    assert holm({"a": 0.9, "b": 0.6}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_mistakes():
    samples, grades = run({"a": "Xy", "b": "X"})
    with pytest.raises(UserError, match="mine: samples without a grade; found 1, the first of problem b; grade them"):
        score(samples, grades[:2], "mine")
    with pytest.raises(UserError, match="not the samples of one benchmark; expected one; found no samples"):
        score([], [])
    with pytest.raises(UserError, match="not the samples of one benchmark; expected one; found b, c"):
        score([sample(), sample(benchmark="c")], [])
    with pytest.raises(UserError, match=r"no pass@2; expected k from 1 to 1, the fewest samples of a problem"):
        score(samples, grades, ks=[2])
    other = score(*run({"a": "X"}, benchmark="c"), "r")
    with pytest.raises(UserError, match="r: runs on different benchmarks; expected b; found c"):
        compare(score(samples, grades), other)
    with pytest.raises(UserError, match="no problem in common"):
        compare(score(samples, grades, "s"), score(*run({"z": "X"}), "r"))
