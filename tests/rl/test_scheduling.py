"""Draws follow their weights, even out, depend on seed, number and state alone, and go on where they stopped."""

import collections
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.environments.environment import Problem
from zaya_jax.errors import UserError
from zaya_jax.rl.curriculum import Adaptive, Level, Window
from zaya_jax.rl.scheduling import (
    Schedule,
    Source,
    State,
    Track,
    from_json,
    hardest_of,
    next_problem,
    observe,
    probabilities,
    start,
    to_json,
)
from zaya_jax.train.settings import from_dict, to_dict

THREE = (Source("a"), Source("b"), Source("c"))


def draws(schedule, state, count):
    out = []
    for _ in range(count):
        assignment, state = next_problem(schedule, state)
        out.append(assignment)
    return out, state


def drawn(*counts):
    return State(sum(counts), tuple(Track(name, Level(), n) for name, n in zip("abc", counts)))


def test_the_least_sampled_are_likelier_by_the_formula():
    schedule = Schedule(THREE, evenness=2.0)
    weights = [1.0, math.exp(-1), math.exp(-2.5)]
    expected = [w / sum(weights) for w in weights]
    assert probabilities(schedule, drawn(10, 12, 15)) == pytest.approx(expected, rel=1e-12)
    assert probabilities(schedule, drawn(7, 7, 7)) == pytest.approx([1 / 3] * 3)
    # Twice the share is due twice the draws: 4 of b are no more than 2 of a.
    schedule = Schedule((Source("a"), Source("b", share=2.0), Source("c", share=0.5)))
    weights = [1.0, 1.0, math.exp(-2)]
    assert probabilities(schedule, drawn(2, 4, 2)) == pytest.approx([w / sum(weights) for w in weights])
    assert probabilities(schedule, drawn(10**6, 0, 10**6))[1] == 1.0  # neither overflows nor divides by zero


def test_counts_keep_close_to_the_shares_however_long_the_run():
    schedule = Schedule((Source("a"), Source("b", share=2.0), Source("c", share=0.5)), seed=3)
    found, _ = draws(schedule, start(schedule), 3500)
    counts = collections.Counter(one.environment for one in found)
    # Independent draws deviate by about sqrt(3500 * 2/7 * 5/7) = 27.
    assert abs(counts["a"] - 1000) <= 5 and abs(counts["b"] - 2000) <= 5 and abs(counts["c"] - 500) <= 5


def test_a_straggler_is_caught_up_with():
    schedule = Schedule(THREE)
    found, state = draws(schedule, drawn(40, 20, 40), 20)
    assert [one.environment for one in found].count("b") >= 18
    assert max(track.drawn for track in state.tracks) - min(track.drawn for track in state.tracks) <= 4


def test_fixed_shares_are_independent_draws():
    schedule = Schedule((Source("a", 3), Source("b", 1), Source("c", 0.5)), weights="shares", seed=1)
    assert probabilities(schedule, drawn(1000, 0, 0)) == pytest.approx([3 / 4.5, 1 / 4.5, 0.5 / 4.5])
    found, _ = draws(schedule, start(schedule), 4500)
    counts = collections.Counter(one.environment for one in found)
    expected = {"a": 3000, "b": 1000, "c": 500}
    assert sum((counts[name] - n) ** 2 / n for name, n in expected.items()) < 13.82  # 99.9 %, 2 degrees of freedom
    # Independent: a pair of neighbours is as likely as its members' product says.
    pairs = collections.Counter((one.environment, two.environment) for one, two in zip(found[::2], found[1::2]))
    chances = {name: n / 4500 for name, n in expected.items()}
    chi_square = sum((pairs[x, y] - 2250 * p * q) ** 2 / (2250 * p * q)
                     for x, p in chances.items() for y, q in chances.items())  # fmt: skip
    assert chi_square < 26.12  # 99.9 %, 8 degrees of freedom


def test_a_schedule_comes_from_a_configuration():
    values = {"sources": [{"environment": "a", "start": 3}], "rule": "window", "window": {"width": 2}}
    expected = Schedule((Source("a", start=3),), "window", window=Window(width=2))
    assert from_dict(Schedule, values) == expected and from_dict(Schedule, to_dict(expected)) == expected
    assert expected.chosen == Window(width=2) and Schedule(THREE).chosen == Adaptive()


def test_each_problem_has_a_seed_of_its_own_and_each_run_its_own():
    found, _ = draws(Schedule(THREE), start(Schedule(THREE)), 2000)
    others, _ = draws(Schedule(THREE, seed=1), start(Schedule(THREE)), 2000)
    seeds = {one.seed for one in found} | {one.seed for one in others}
    assert len(seeds) == 4000 and 0 <= min(seeds) and max(seeds) < 2**62
    assert [one.number for one in found] == list(range(2000))


GROUPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 4)), max_size=12)


@given(
    GROUPS, st.integers(0, 20), st.sampled_from(["adaptive", "window"]), st.sampled_from(["least_sampled", "shares"])
)
def test_a_run_that_goes_on_from_a_stored_state_asks_the_same(groups, before, rule, weights):
    schedule = Schedule(THREE, rule, window=Window(groups=1, group_size=4), weights=weights, seed=5)
    _, state = draws(schedule, start(schedule), before)
    for name, difficulty, passed in groups:
        state = observe(schedule, state, name, difficulty, passed, 4)
    stored = from_json(schedule, json.loads(json.dumps(to_json(state))))
    assert stored == state and draws(schedule, stored, 8) == draws(schedule, state, 8)


def test_what_is_observed_of_one_environment_moves_that_one():
    schedule = Schedule((Source("a", start=4), Source("b"), Source("c", start=9)))
    state = observe(schedule, start(schedule), "a", 4, 16, 16)
    state = observe(schedule, state, "c", 9, 0, 16)
    assert [track.level.difficulty for track in state.tracks] == [5, 0, 8]
    assert [track.observed for track in state.tracks] == [1, 0, 1]
    asked = {(one.environment, one.difficulty) for one in draws(schedule, state, 60)[0]}
    assert asked == {("a", 5), ("b", 0), ("c", 8)}


@pytest.mark.parametrize("rule", ["adaptive", "window"])
def test_difficulties_stay_within_caps(rule):
    sources = (Source("a", cap=2), Source("b"), Source("c", cap=0))
    schedule = Schedule(sources, rule, window=Window(groups=1, group_size=16))
    state = start(schedule)
    for _ in range(5):
        for place, name in enumerate("abc"):
            state = observe(schedule, state, name, state.tracks[place].level.difficulty, 16, 16)
    assert [track.level for track in state.tracks] == [Level(2), Level(5), Level(0)]


@pytest.mark.parametrize("rule", ["adaptive", "window"])
def test_no_difficulty_rises_above_the_hardest_that_an_environment_has(rule):
    """And one that begins above it comes down to it at once: what lies between is all the same."""
    schedule = Schedule((Source("a", start=1), Source("b", start=30)), rule, window=Window(groups=1, group_size=16))
    state = start(schedule)
    for _ in range(6):
        for place, name in enumerate("ab"):
            difficulty = state.tracks[place].level.difficulty
            problem = Problem("p", "p", {}, {"level": min(difficulty, 3), "saturated": difficulty >= 3})
            state = observe(schedule, state, name, difficulty, 16, 16, hardest_of(problem, difficulty))
            assert state.tracks[place].level.difficulty <= 3
    assert [track.level.difficulty for track in state.tracks] == [3, 3]


def test_what_a_problem_tells_of_difficulties():
    def told(**meta):
        return hardest_of(Problem("p", "p", {}, meta), 9)

    assert told() is told(saturated=False, level=3) is None
    assert told(saturated=True, level=3, difficulty=9) == 3 and told(saturated=True, difficulty=6) == 6
    assert told(saturated=True) == 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(()), "Schedule.sources: no environment; expected at least one"),
        (lambda: Schedule((*THREE, Source("b"))), "Schedule.sources: the same environment twice; found 'b'"),
        (
            lambda: Schedule(THREE, rule="windows"),
            "Schedule.rule: unknown; expected adaptive or window; found 'windows'",
        ),
        (lambda: Schedule(THREE, weights="even"), "Schedule.weights: unknown; expected least_sampled or shares"),
        (lambda: Schedule(THREE, evenness=0), "Schedule.evenness: out of range; expected a number above 0 up; found 0"),
        (lambda: Source("a", share=-1), "Source.share: out of range"),
        (lambda: Source("a", start=-1), "Source.start: out of range"),
        (lambda: Source("a", start=5, cap=4), "environment 'a': starts beyond its cap; found start 5, cap 4"),
        (lambda: observe(Schedule(THREE), drawn(0, 0, 0), "d", 0, 1, 1), "found 'd'"),
        (
            lambda: from_json(Schedule(THREE[:2]), to_json(start(Schedule(THREE)))),
            "schedule state: a state of other environments; expected a, b; found a, b, c; go on with",
        ),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
