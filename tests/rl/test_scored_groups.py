"""Groups that a scorer pays: advantages by hand, what the scorer is shown, what curricula see, what is on record."""

import dataclasses

import numpy as np
import pytest

from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failure
from zaya_jax.rl import completion
from zaya_jax.rl.advantages import AdvantageConfig
from zaya_jax.rl.generation import Answered, Asked
from zaya_jax.rl.judge import Bias
from zaya_jax.rl.length_reward import LengthRewardConfig
from zaya_jax.rl.metrics import of_environments, of_groups
from zaya_jax.rl.records import best_solve_rate
from zaya_jax.rl.reward_scores import GroupScores, RewardModelConfig
from zaya_jax.rl.rollout import Rollout
from zaya_jax.rl.rollout_log import rows
from zaya_jax.rl.scheduling import Schedule, Source
from zaya_jax.rl.scoring import RewardConfig, score

SCHEDULE = Schedule((Source("some"),))
RIGHT, WRONG = Verdict(0.75, True, True), Verdict(0.25, False, True, "not so")


def rewards(gate="none", **changes):
    return RewardConfig(
        AdvantageConfig("grpo", eps=0.0), key="score", model=RewardModelConfig("x"), gate=gate, **changes
    )


def rollout(count=5, token=None):
    tokens = np.arange(count) if token is None else np.full(count, token)
    routes = np.zeros((1, count), np.int8)
    return Rollout(
        np.zeros(1, np.int32), tokens.astype(np.int32), -np.ones(count), np.ones(count, bool), routes,
        np.zeros(count, np.int32),
    )  # fmt: skip


def answered(responses, verdicts, ended=None, rollouts=None):
    size = len(responses)
    asked = Asked(0, "some", 0, Problem("p", "the prompt", {"kind": "x"}), (1,))
    rollouts = tuple(rollouts or [rollout()] * size)
    return Answered(
        asked, rollouts, tuple(responses), tuple(responses), tuple(verdicts), (False,) * size,
        tuple(ended or [True] * size),
    )  # fmt: skip


class Scorer:
    """Says what it was told to; blank answers have no score and -9 in its place."""

    def __init__(self, *values, bias=None):
        self.values, self.bias, self.asked = values, bias, []

    def __call__(self, prompt, responses):
        self.asked.append((prompt, tuple(responses)))
        known = np.array([bool(text.strip()) for text in responses])
        return GroupScores(np.where(known, self.values, -9.0), known, self.bias)


def scored(config, group, scorer):
    return score(config, SCHEDULE, completion.start(SCHEDULE), group, 0, scorer)


def test_advantages_of_scores_by_hand():
    """Scores 1, 3, 3, 5: mean 3, standard deviation sqrt 2."""
    _, found = scored(rewards(), answered("abcd", [RIGHT] * 4), Scorer(1, 3, 3, 5))
    assert found.rewards.tolist() == [1, 3, 3, 5] and found.reason is None
    np.testing.assert_allclose(found.advantages, [-(2**0.5), 0, 0, 2**0.5])


def test_advantages_behind_the_reports_gate_by_hand():
    """Rewards 4, 0, 0, 4: the second and the third failed, whatever their scores."""
    _, found = scored(rewards("report"), answered("abcd", [RIGHT, WRONG, WRONG, RIGHT]), Scorer(4, 9, -9, 4))
    assert found.rewards.tolist() == [4, 0, 0, 4]
    np.testing.assert_allclose(found.advantages, [1, -1, -1, 1])


def lengths_rewarded(**changes):
    values = {"max_length": 20, "free_tokens": 0, "first_weight": 0.5, "last_weight": 1.0, "ramp_steps": 10}
    return RewardConfig(AdvantageConfig("max_rl"), length=LengthRewardConfig(**values | changes))


def test_max_rl_with_the_length_reward_by_hand():
    """Right answers of 10, 15 and 20 tokens and a wrong one; p = 3/4. lambda~ = 1/2, 0, -1/2; at step 5 of 10 c = 3/4:
    bonus c p lambda~ = 9/32, 0, -9/32. Numerators less their mean 3/4, over mean 3/4."""
    group = answered("abcd", [RIGHT] * 3 + [WRONG], rollouts=[rollout(count) for count in (10, 15, 20, 9)])
    progress = completion.start(SCHEDULE)
    after, found = score(lengths_rewarded(), SCHEDULE, progress, group, 5)
    assert found.rewards.tolist() == [1, 1, 1, 0] and found.bonus.tolist() == [9 / 32, 0, -9 / 32, 0]
    np.testing.assert_allclose(found.advantages, [17 / 24, 1 / 3, -1 / 24, -1])
    assert best_solve_rate(after.records, "some") == 0.75


def test_the_length_reward_asks_for_the_best_rate_before_the_group():
    """Three of four, then two of four: below 3/4 - 0.1 there is no bonus; the first group is not measured by itself."""
    group = answered("abcd", [RIGHT] * 3 + [WRONG], rollouts=[rollout(count) for count in (10, 15, 20, 9)])
    worse = answered("abcd", [RIGHT] * 2 + [WRONG] * 2, rollouts=[rollout(count) for count in (10, 15, 20, 9)])
    progress, first = score(lengths_rewarded(), SCHEDULE, completion.start(SCHEDULE), group, 0)
    assert first.bonus.any()
    _, second = score(lengths_rewarded(), SCHEDULE, progress, worse, 0)
    assert not second.bonus.any() and second.advantages.tolist() == [1, 1, -1, -1]
    _, tolerant = score(lengths_rewarded(rate_margin=0.3), SCHEDULE, progress, worse, 0)
    assert tolerant.bonus.any()


def test_the_best_rate_may_be_that_of_several_groups():
    """All right once in four groups: of single groups p* is 1, of a running mean of four it is less."""
    progress = [completion.start(SCHEDULE, span) for span in (1, 4)]
    for right in (4, 0, 0, 0):
        group = answered("abcd", [RIGHT] * right + [WRONG] * (4 - right))
        progress = [score(lengths_rewarded(), SCHEDULE, one, group, 0)[0] for one in progress]
    assert [best_solve_rate(one.records, "some") for one in progress] == [1.0, 0.25]


def test_an_answer_that_goes_round_in_circles_is_not_right_for_anybody():
    """Neither for the advantages, nor for the curriculum, nor for the bonus of the others."""
    group = answered("abcd", [RIGHT] * 4, rollouts=[rollout(), rollout(), rollout(20_000, token=7), rollout()])
    after, found = score(
        lengths_rewarded(first_weight=0.0, last_weight=0.0), SCHEDULE, completion.start(SCHEDULE), group, 0
    )
    assert found.degenerate == (False, False, True, False) and found.correct == (True, True, False, True)
    assert found.rewards.tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(found.advantages, [1 / 3, 1 / 3, -1, 1 / 3])
    assert after.records.sources["some"].passed == 3


def test_the_scorer_is_shown_the_answers_that_came_to_an_end():
    scorer, loop = Scorer(1, 2, 3, 4), rollout(20_000, token=7)
    group = answered(
        ["a", "b", "c", ""], [RIGHT] * 3 + [WRONG], [True, False, True, False], [rollout()] * 2 + [loop] * 2
    )
    _, found = scored(rewards(), group, scorer)
    assert scorer.asked == [("the prompt", ("a", "", "", ""))]
    assert found.degenerate == (False, False, True, True)
    assert found.rewards.tolist() == [1, -9, -9, -9]
    assert np.all(found.advantages[1:] < 0) and found.advantages[0] > 0


def test_a_group_without_a_verdict_is_dropped_and_not_scored():
    scorer = Scorer(1, 2)
    _, found = scored(rewards(), answered("ab", [RIGHT, Failure("some", "timeout", "10 s")]), scorer)
    assert found.reason == completion.VERIFIER_FAILED and found.paid is None and not scorer.asked
    assert np.isnan(found.rewards).all() and not found.advantages.any()
    assert [row["score"] for row in rows(1, found)] == [None, None]


@pytest.mark.parametrize(
    ("verdicts", "reason"), [([RIGHT] * 2, "all right"), ([WRONG] * 2, "all wrong"), ([RIGHT, WRONG], "all alike")]
)
def test_groups_whose_scores_are_alike_are_dropped(verdicts, reason):
    _, found = scored(rewards(), answered("ab", verdicts), Scorer(2, 2))
    assert found.reason == reason and not found.advantages.any()
    _, differ = scored(rewards(), answered("ab", verdicts), Scorer(2, 3))
    assert differ.reason is None


def test_curricula_see_what_is_right_and_not_what_is_paid():
    progress, _ = scored(rewards(), answered("ab", [RIGHT] * 2), Scorer(-5, -6))
    assert progress.schedule.tracks[0].level.difficulty == 1
    progress, _ = scored(rewards(), answered("ab", [WRONG] * 2), Scorer(5, 6))
    assert progress.schedule.tracks[0].level.difficulty == 0


def test_what_is_on_record():
    group = answered(["a", "b", ""], [RIGHT, WRONG, WRONG])
    _, found = scored(rewards("report"), group, Scorer(-1, 2, 0))
    found_rows = list(rows(1, found))
    assert [(row["score"], row["gated"], row["reward"]) for row in found_rows] == [
        (-1, False, -1), (2, True, 0), (None, None, -1)]  # fmt: skip
    told = of_groups([found], 300)["scores"]
    assert told == {
        "mean": 0.5,
        "std": 1.5,
        "none": pytest.approx(1 / 3),
        "gated": pytest.approx(2 / 3),
        "outranked": 2,
    }
    environment = of_environments([found], completion.start(SCHEDULE))["some"]
    assert environment["pass_rate"] == pytest.approx(1 / 3) and environment["verified"] == pytest.approx(1.25 / 3)


def test_what_a_judge_said_of_pairs_is_added_up():
    bias = Bias(pairs=1, unreadable=0, inconsistent=1, shown_first=2, shown_second=0)
    groups = [scored(rewards(), answered("ab", [RIGHT] * 2), Scorer(0.5, 1.0, bias=bias))[1] for _ in range(3)]
    assert of_groups(groups, 300)["scores"]["judge"] == {name: 3 * n for name, n in dataclasses.asdict(bias).items()}


def test_runs_without_a_scorer_are_as_before():
    config = RewardConfig(AdvantageConfig("grpo", eps=0.0))
    _, found = score(config, SCHEDULE, completion.start(SCHEDULE), answered("ab", [RIGHT, WRONG]), 0)
    assert found.rewards.tolist() == [1, 0] and found.paid is None
    assert "scores" not in of_groups([found], 300)
