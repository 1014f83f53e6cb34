"""Both rules against sequences worked by hand, and what may never happen."""

import collections
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.checks import from_json, to_json
from zaya_jax.rl.curriculum import Adaptive, Level, Window, draw, observe

RULES = st.one_of(
    st.builds(Window, width=st.integers(1, 5), groups=st.integers(1, 3), group_size=st.just(4)),
    st.builds(Adaptive, lower_needs_current=st.booleans()),
)
GROUP = st.tuples(st.integers(0, 6), st.integers(0, 4))  # difficulty, right ones of 4


def after(rule, level, *groups):
    """Difficulties after each group (difficulty, passed, count)."""
    out = []
    for group in groups:
        level = observe(rule, level, *group)
        out.append(level.difficulty)
    return out


def test_the_window_rises_when_enough_rollouts_at_its_upper_end_are_right():
    rule = Window(groups=2, group_size=10, accuracy=0.9)
    level = observe(rule, Level(), 0, 8, 10)
    assert level == Level(0, 8, 10)
    assert observe(rule, level, 0, 10, 10) == Level(1)  # 18 of 20 is 0.9
    assert observe(rule, level, 0, 9, 10) == Level(0)  # 17 of 20 is not; counted anew either way
    assert observe(rule, Level(1, 5, 10), 0, 10, 10) == Level(1, 5, 10)  # an easier group does not count
    assert observe(rule, Level(1, 5, 10), 2, 10, 10) == Level(1, 5, 10)
    # Counters are of rollouts: 12 and 12 are two groups' worth, and one group of 20 is enough.
    assert after(rule, Level(3), (3, 12, 12), (3, 12, 12), (4, 20, 20)) == [3, 4, 5]


def test_the_window_with_the_original_constants():
    assert Window() == Window(width=4, groups=8, group_size=16, accuracy=0.9)
    perfect = [(0, 16, 16)] * 8
    assert after(Window(), Level(), *perfect) == [0] * 7 + [1]
    poor = [(0, 0, 16)] + [(0, 16, 16)] * 7  # 112 of 128 is 0.875
    assert after(Window(), Level(), *poor, *perfect) == [0] * 8 + [0] * 7 + [1]


def test_the_adaptive_rule_worked_by_hand():
    rule = Adaptive()
    groups = [(0, 12, 16), (1, 16, 16), (2, 11, 16), (2, 0, 16), (1, 1, 16), (1, 0, 16), (0, 0, 16), (0, 12, 16)]
    #          .75: up      up           .6875: stays (2, 0): down  1/16: stays down     floor         up
    assert after(rule, Level(), *groups) == [1, 2, 2, 1, 1, 0, 0, 1]
    assert after(rule, Level(4), (4, 7, 10), (4, 8, 10)) == [4, 5]  # 0.7 is not above 0.7


def test_a_stale_group_never_raises_but_may_lower():
    assert after(Adaptive(), Level(3), (2, 16, 16), (4, 16, 16), (0, 16, 16)) == [3, 3, 3]
    assert after(Adaptive(), Level(3), (5, 0, 16), (5, 0, 16), (2, 0, 16)) == [2, 1, 0]
    current = Adaptive(lower_needs_current=True)
    assert after(current, Level(3), (5, 0, 16), (2, 0, 16), (3, 0, 16), (3, 0, 16)) == [3, 3, 2, 2]


def test_groups_in_flight_raise_a_difficulty_once():
    # Eight groups drawn at 0 all come back right: one level, not eight.
    assert after(Adaptive(), Level(), *[(0, 16, 16)] * 8) == [1] * 8


@given(RULES, st.lists(GROUP, max_size=30))
def test_a_difficulty_moves_by_one_and_never_below_0_and_a_window_never_falls(rule, groups):
    level = Level(2)
    for difficulty, passed in groups:
        new = observe(rule, level, difficulty, passed, 4)
        assert new.difficulty >= 0 and abs(new.difficulty - level.difficulty) <= 1
        if isinstance(rule, Window) or passed:
            assert new.difficulty >= level.difficulty
        if difficulty != level.difficulty:
            assert new.difficulty <= level.difficulty
        assert 0 <= new.passed <= new.count < (rule.groups * 4 if isinstance(rule, Window) else 1)
        level = new


@given(RULES, st.lists(GROUP, max_size=12), st.lists(GROUP, max_size=12))
def test_a_stored_level_goes_on_as_the_unstored_one(rule, before, behind):
    def run(level, groups):
        for difficulty, passed in groups:
            level = observe(rule, level, difficulty, passed, 4)
        return level

    level = run(Level(), before)
    stored = from_json(Level, json.loads(json.dumps(to_json(level))), "level")
    assert stored == level and run(stored, behind) == run(level, behind)


@pytest.mark.parametrize(("upper", "asked"), [(0, [0]), (2, [0, 1, 2]), (3, [0, 1, 2, 3]), (9, [6, 7, 8, 9])])
def test_a_window_asks_its_difficulties_equally_often(upper, asked):
    rng, draws = random.Random(0), 4000
    counts = collections.Counter(draw(Window(), Level(upper), rng) for _ in range(draws))
    assert sorted(counts) == asked
    expected = draws / len(asked)
    chi_square = sum((counts[d] - expected) ** 2 / expected for d in asked)
    assert chi_square < 16.27  # the 99.9 % point for 3 degrees of freedom, the most there are here


def test_the_adaptive_rule_asks_the_current_difficulty():
    assert {draw(Adaptive(), Level(7), random.Random(seed)) for seed in range(20)} == {7}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(width=0), "Window.width: out of range; expected a whole number from 1 up; found 0"),
        (lambda: Window(groups=1.5), "Window.groups: out of range; expected a whole number from 1 up; found 1.5"),
        (lambda: Window(accuracy=0), "Window.accuracy: out of range; expected a number above 0 up to 1; found 0"),
        (lambda: Window(accuracy=float("nan")), "Window.accuracy: out of range"),
        (lambda: Window(group_size=True), "Window.group_size: out of range"),
        (lambda: Adaptive(raise_above=1.1), "Adaptive.raise_above: out of range; expected a number from 0 up to 1;"),
        (lambda: Adaptive(lower_at=0.5, raise_above=0.4), "Adaptive.raise_above: out of range; expected a number from"),
    ],
)
def test_constants_that_are_not_right(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("counts", [(1, 0), (0, 0), (5, 4), (-1, 4)])
def test_counts_that_are_no_group(counts):
    with pytest.raises(ValueError, match="rollouts"):
        observe(Adaptive(), Level(), 0, *counts)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"difficulty": 1, "passed": 0}, "level.count: missing key; was it written by another version?"),
        ({"difficulty": 1.5, "passed": 0, "count": 0}, "level.difficulty: wrong type; expected int; found 1.5"),
        ({"difficulty": 1, "passed": 0, "count": 0, "h": 1}, "level.h: unknown key"),
        ([1, 0, 0], "level: not a state; expected a JSON object; found list"),
    ],
)
def test_records_that_are_no_level(record, message):
    with pytest.raises(UserError) as caught:
        from_json(Level, record, "level")
    assert message in str(caught.value)
