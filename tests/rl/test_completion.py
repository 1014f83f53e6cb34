"""Groups move curricula and solve rates first, and are kept or dropped then."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl import records as solve_rates
from zaya_jax.rl.completion import (
    ALL_ALIKE,
    ALL_RIGHT,
    ALL_WRONG,
    TOO_SHORT,
    VERIFIER_FAILED,
    Group,
    complete,
    from_json,
    start,
    to_json,
)
from zaya_jax.rl.records import Rate, Records, best_solve_rate, record
from zaya_jax.rl.scheduling import Schedule, Source

SCHEDULE = Schedule((Source("a", start=2), Source("b")))


def group(word, environment="a", problem="p", difficulty=2, rewards=None):
    """A letter a rollout: x right, o wrong, ? no verdict."""
    correct = tuple({"x": True, "o": False, "?": None}[letter] for letter in word)
    return Group(environment, problem, difficulty, correct, rewards)


def after(*groups, progress=None, size=4):
    progress, reasons = progress or start(SCHEDULE), []
    for one in groups:
        progress, reason = complete(SCHEDULE, progress, one, size)
        reasons.append(reason)
    return progress, reasons


def difficulty(progress, place=0):
    return progress.schedule.tracks[place].level.difficulty


@pytest.mark.parametrize(
    ("word", "reason", "moved", "seen"),
    [
        ("xxxo", None, +1, True),
        ("xxoo", None, 0, True),
        ("xxxx", ALL_RIGHT, +1, True),
        ("oooo", ALL_WRONG, -1, True),
        ("xxx", TOO_SHORT, 0, False),
        ("", TOO_SHORT, 0, False),
        ("xxx?", VERIFIER_FAILED, 0, False),
        ("????", VERIFIER_FAILED, 0, False),
    ],
)
def test_what_a_group_does_and_whether_it_is_kept(word, reason, moved, seen):
    progress, reasons = after(group(word))
    assert reasons == [reason] and difficulty(progress) == 2 + moved and difficulty(progress, 1) == 0
    assert progress.schedule.tracks[0].observed == seen
    passed = word.count("x")
    expected = {"a": Rate(1, passed, 4, passed / 4, passed / 4, passed / 4)} if seen else {}
    assert progress.records.sources == expected
    assert progress.records.problems == ({"a": {"p": expected["a"]}} if seen else {})
    assert progress.records.dropped == ({"a": {reason: 1}} if reason else {})


def test_groups_without_signal_move_the_difficulty_before_they_are_dropped():
    groups = [group("xxxx", difficulty=d) for d in (2, 3, 4)] + [group("oooo", difficulty=5)]
    progress, reasons = after(*groups)
    assert difficulty(progress) == 4 and reasons == [ALL_RIGHT] * 3 + [ALL_WRONG]
    assert progress.records.dropped == {"a": {ALL_RIGHT: 3, ALL_WRONG: 1}}


def test_stale_groups_are_recorded_and_do_not_raise():
    progress, _ = after(*[group("xxxx")] * 5)
    assert difficulty(progress) == 3 and progress.records.sources["a"].groups == 5


def test_signal_is_in_the_rewards_where_they_are_not_accuracies():
    _, reasons = after(
        group("xxxx", rewards=(0.1, 0.2, 0.1, 0.1)),
        group("oxox", rewards=(0.0, 0.0, 0.0, 0.0)),
        group("xxxx", rewards=(0.3, 0.3, 0.3, 0.3)),
    )
    assert reasons == [None, ALL_ALIKE, ALL_RIGHT]


def test_rates_of_sources_and_problems_worked_by_hand():
    records = Records()
    for problem, passed in [("p", 3), ("q", 1), ("p", 2)]:
        records = record(records, "a", problem, passed, 4)
    assert records.problems["a"]["p"] == Rate(2, 5, 8, 0.5, 0.5, 0.75)
    assert records.problems["a"]["q"] == Rate(1, 1, 4, 0.25, 0.25, 0.25)
    assert records.sources["a"] == Rate(3, 6, 12, 0.5, 0.5, 0.75)
    assert best_solve_rate(records, "a") == 0.75 and best_solve_rate(records, "b") == 0.0


def test_problems_that_never_come_again_leave_no_record():
    progress, _ = after(group("xxoo", problem=None), group("xooo", problem="p"))
    assert progress.records.sources["a"].groups == 2 and list(progress.records.problems["a"]) == ["p"]


def test_the_best_of_a_mean_over_several_groups():
    records, best = Records(span=2), []
    for passed in (4, 2, 0, 4, 4):  # pass rates 1, .5, 0, 1, 1
        records = record(records, "a", "p", passed, 4)
        best.append(records.sources["a"].best)
    # Means: 1 (one group only), .75, .375, .6875, .84375.
    assert records.sources["a"].recent == 0.84375 and best == [0, 0.75, 0.75, 0.75, 0.84375]


GROUPS = st.lists(
    st.builds(
        group, st.text("xo?", max_size=5), st.sampled_from("ab"), st.sampled_from("pqr"), st.integers(0, 4)
    ),
    max_size=15,
)  # fmt: skip


@given(GROUPS, GROUPS)
def test_stored_progress_goes_on_as_the_unstored_one(before, behind):
    progress, _ = after(*before)
    stored = from_json(SCHEDULE, json.loads(json.dumps(to_json(progress))))
    assert stored == progress
    assert after(*behind, progress=stored) == after(*behind, progress=progress)


@given(GROUPS)
def test_counts_add_up(groups):
    progress, reasons = after(*groups)
    verified = [one for one in groups if len(one.correct) >= 4 and None not in one.correct]
    for place, name in enumerate("ab"):
        own = [one for one in verified if one.environment == name]
        rate = progress.records.sources.get(name, Rate())
        assert rate.groups == progress.schedule.tracks[place].observed == len(own)
        assert rate.passed == sum(sum(one.correct) for one in own)
        assert rate.best == max((sum(one.correct) / len(one.correct) for one in own), default=0)
        assert sum(one.groups for one in progress.records.problems.get(name, {}).values()) == len(own)
    assert sum(sum(own.values()) for own in progress.records.dropped.values()) == sum(map(bool, reasons))
    kept = [one for one, reason in zip(groups, reasons) if reason is None]
    assert kept == [one for one in verified if len(set(one.correct)) == 2]


def test_nothing_that_was_given_is_changed():
    progress, _ = after(group("xxxo"))
    before = json.dumps(to_json(progress))
    after(group("xxxx"), group("oooo", "b"), group("xx?x"), progress=progress)
    assert json.dumps(to_json(progress)) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: after(group("xxxx", "c")), "no such environment in the schedule; expected one of a, b; found 'c'"),
        (lambda: after(group("?", "c")), "found 'c'"),
        (lambda: start(SCHEDULE, span=0), "Records.span: out of range; expected a whole number from 1 up; found 0"),
        (lambda: from_json(SCHEDULE, {"schedule": {}}), "curricula.records: missing key"),
        (lambda: solve_rates.from_json({"span": 1, "sources": [], "problems": {}, "dropped": {}}),
         "solve rates.sources: not an object; found []"),
        (lambda: solve_rates.from_json({"span": 1, "sources": {"a": {}}, "problems": {}, "dropped": {}}),
         "solve rates.sources.a.groups: missing key"),
    ],
)  # fmt: skip
def test_mistakes(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)


def test_counts_that_are_no_group():
    with pytest.raises(ValueError, match="0 of 0 rollouts"):
        record(Records(), "a", "p", 0, 0)
