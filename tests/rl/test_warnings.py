"""Warnings on both sides of every limit, once each, and again after they have ceased."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.rl.warnings import CHECKS, Limits, Step, Watch, from_json, look, to_json

GOOD = {"truncated": 0.1, "no_signal": 0.3, "entropy": 1.0, "reward": 0.4}


def run(limits, series, watch=None):
    """Texts after each step; `series` holds what differs from a good step."""
    watch, out = watch or Watch(), []
    for changes in series:
        watch, texts = look(limits, watch, Step(**(GOOD | changes)))
        out.append(texts)
    return out, watch


def told(out):
    """Steps that gave a warning."""
    return [number for number, texts in enumerate(out) if texts]


def test_a_good_run_is_quiet():
    out, watch = run(Limits(), [{"held_out": 0.3 + 0.01 * n, "reward": 0.4 + 0.01 * n} for n in range(40)])
    assert told(out) == [] and watch.given == () and len(watch.recent) == 8


@pytest.mark.parametrize(("name", "limit"), [("truncated", 0.5), ("no_signal", 0.8)])
def test_shares_beyond_their_limits(name, limit):
    limits = Limits(steps=4)
    assert told(run(limits, [{name: limit}] * 10)[0]) == []
    out, _ = run(limits, [{name: limit + 0.01}] * 10)
    assert told(out) == [3] and len(out[3]) == 1  # with the fourth step, once
    assert f"{limit + 0.01:.0%}" in out[3][0] and f"(limit {limit:.0%})" in out[3][0] and "\n" not in out[3][0]
    # One bad batch is not enough: three good ones bring the mean of four down to .325 and .475; four are.
    spike = [{}] * 4 + [{name: 1.0}] + [{}] * 6
    assert told(run(limits, spike)[0]) == []
    assert len(told(run(limits, spike + [{name: 1.0}] * 4)[0])) == 1


def test_a_warning_is_given_again_after_it_has_ceased():
    bad, good = [{"truncated": 0.9}], [{"truncated": 0.0}]
    out, _ = run(Limits(steps=2), bad * 6 + good * 3 + bad * 4)
    # Means of two: above .5 at steps 1 to 5; .45 at 6 ends it; .9 at step 10 begins it anew.
    assert told(out) == [1, 10]


def test_the_cause_of_no_signal_is_told_by_the_reward():
    hard, _ = run(Limits(steps=2), [{"no_signal": 0.95, "reward": 0.02}] * 2)
    easy, _ = run(Limits(steps=2), [{"no_signal": 0.95, "reward": 0.97}] * 2)
    assert "too hard" in hard[1][0] and "too easy" in easy[1][0]
    assert "too easy" not in hard[1][0] and "too hard" not in easy[1][0]


def test_entropy_below_a_share_of_its_start():
    limits = Limits(steps=2, entropy=0.5)
    start = [{"entropy": 1.8}, {"entropy": 2.2}]  # 2.0
    assert told(run(limits, start + [{"entropy": 1.0}] * 8)[0]) == []  # half is not below half
    out, watch = run(limits, start + [{"entropy": 0.98}] * 8)
    assert told(out) == [3] and watch.start_entropy == 2.0
    assert "0.98 nats a token from 2 at the start" in out[3][0]
    assert told(run(limits, [{"entropy": 0.01}] * 9)[0]) == []  # it began there


def test_reward_up_while_held_out_falls():
    limits = Limits(held_out=3, rise=0.02, fall=0.03)

    def series(rewards, held_out):
        """Every third step looks at held-out problems; the rewards in between are alike."""
        return [
            {"reward": r, **({"held_out": h} if i == 2 else {})} for r, h in zip(rewards, held_out) for i in range(3)
        ]

    worse = series((0.40, 0.50, 0.60), (0.30, 0.28, 0.25))
    out, _ = run(limits, worse)
    assert told(out) == [8] and "reward rose by 0.200 while held-out accuracy fell by 0.050" in out[8][0]
    for rewards, held_out in [
        ((0.40, 0.50, 0.60), (0.30, 0.29, 0.275)),  # within the error of a look
        ((0.40, 0.40, 0.41), (0.30, 0.28, 0.25)),  # both
        ((0.60, 0.50, 0.40), (0.30, 0.28, 0.25)),  # a run that falls apart, which is seen anyway
        ((0.40, 0.50, 0.60), (0.25, 0.28, 0.30)),
    ]:
        assert told(run(limits, series(rewards, held_out))[0]) == []
    out, _ = run(limits, worse + series((0.6, 0.6, 0.6), (0.35, 0.4, 0.4)) + series((0.7, 0.8), (0.3, 0.2)))
    assert told(out) == [8, 20]  # ceased in between; three looks back from the seventh are .6 -> .7 and .4 -> .3


def test_two_kinds_at_once():
    out, watch = run(Limits(steps=1), [{"truncated": 0.9, "no_signal": 0.9}])
    assert len(out[0]) == 2 and watch.given == ("truncation", "no signal")


def test_steps_without_a_complete_group_warn_of_nothing_and_are_left_out():
    nothing = {"no_signal": None, "reward": None}
    out, watch = run(Limits(steps=2), [{}] * 2 + [nothing] * 4)
    assert told(out) == [] and json.loads(json.dumps(to_json(watch), allow_nan=False))
    assert from_json(to_json(watch)) == watch
    assert told(run(Limits(steps=2), [nothing, {"no_signal": 0.9}])[0]) == [1], "the mean of what is known"
    looks = [nothing | {"held_out": 0.9}, {"reward": 0.9, "held_out": 0.1}]
    assert told(run(Limits(steps=9, held_out=2), looks)[0]) == [], "no reward has risen from nothing"


STEPS = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(GOOD, st.sampled_from([0.0, 0.3, 0.6, 1.0])),
        optional={"held_out": st.sampled_from([0.1, 0.5])},
    ),
    max_size=12,
)


@given(STEPS, STEPS)
def test_a_stored_watch_goes_on_as_the_unstored_one(before, behind):
    limits = Limits(steps=2, held_out=2)
    _, watch = run(limits, before)
    stored = from_json(json.loads(json.dumps(to_json(watch))))
    assert stored == watch and run(limits, behind, stored) == run(limits, behind, watch)


@given(STEPS)
def test_no_kind_is_given_twice_without_a_break(series):
    limits, watch = Limits(steps=2, held_out=2), Watch()
    for changes in series:
        before = set(watch.given)
        watch, texts = look(limits, watch, Step(**changes))
        assert len(texts) == len(set(watch.given) - before)
        assert set(watch.given) == {name for name, check in CHECKS.items() if check(limits, watch)}


def test_limits_that_are_not_right():
    for wrong in [{"steps": 0}, {"truncated": 1.5}, {"entropy": -1}, {"held_out": 1}, {"fall": None}]:
        with pytest.raises(UserError, match=rf"Limits.{next(iter(wrong))}: out of range"):
            Limits(**wrong)


def test_a_reward_model_that_is_pleased_while_held_out_answers_get_worse():
    """Scores have no bounds: from -3 to 2 while the pass rate falls by a fifth; and nothing is said if it does not."""
    limits = Limits(held_out=3)
    for fall, said in ((0.1, 1), (0.0, 0)):
        watch, found = Watch(), []
        for number in range(3):
            step = Step(truncated=0, no_signal=0, entropy=1, reward=-3 + 2.5 * number, held_out=0.9 - fall * number)
            watch, texts = look(limits, watch, step)
            found += texts
        assert len(found) == said
        assert not said or "reward rose by 5.000 while held-out accuracy fell by 0.200" in found[0]
