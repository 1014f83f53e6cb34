"""Scores in the loop: the same as alone and in float64, gates, answers without a score, win rates, what is refused."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.searching import write_roomy
from tests.rl.scripted import HEAD, shorter, stubborn, write_reward_model
from tests.sampling.models import tokenizer
from zaya_jax.errors import UserError
from zaya_jax.loading import load
from zaya_jax.model.layers import positions_from_segments
from zaya_jax.rl.judge import Question, one_by_one
from zaya_jax.rl.reward_scores import (
    GroupScores,
    JudgeConfig,
    RewardModelConfig,
    judge_scores,
    model_scores,
    open_scorer,
    pay,
    with_room,
)
from zaya_jax.rl.scoring import RewardConfig
from zaya_jax.train.reward_files import HEAD_FILE, load_reward_model

pytestmark = pytest.mark.usefixtures("quick_programs")
PROMPT = "Tell me of the wet owl, as a list."
RESPONSES = ("- The owl.\n- Thank you.", "THE OWL.", "", "The owl. It is wet. We like it.", " \n\n", "- a" * 60)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_reward_model(tmp_path_factory.mktemp("reward") / "model")


@pytest.fixture(scope="module")
def reward(directory):
    return load_reward_model(directory, "float32")


def config(directory, **changes):
    return RewardModelConfig(str(directory), **{"rows": 4, "length": 512} | changes)


def alone(directory, prompt, response):
    """One conversation as the byte-level ChatML says it, without padding, in float64; numpy takes the last token."""
    text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{response}<|im_end|>\n"
    tokens = np.array([tokenizer().encode(text, special=False)], np.int32)
    model, variables, _ = load(directory, "float64")
    ones = np.ones_like(tokens)
    apply = jax.jit(functools.partial(model.apply, logits="none"))
    hidden = apply(variables, tokens, positions_from_segments(ones), ones).hidden_BTD
    return float(np.asarray(hidden, np.float64)[0, -1] @ HEAD.astype(np.float64))


def test_scores_of_a_group_are_those_of_its_answers_alone(directory, reward, x64):
    found = model_scores(reward, config(directory), PROMPT, RESPONSES)
    assert found.known_G.tolist() == [True, True, False, True, False, True] and found.bias is None
    expected = [alone(directory, PROMPT, RESPONSES[place]) for place in (0, 5)]
    np.testing.assert_allclose(found.values_G[[0, 5]], expected, rtol=2e-4, atol=2e-5)
    assert len(set(np.round(found.values_G[found.known_G], 3))) == 4


def test_scores_are_the_same_every_time_and_white_space_around_an_answer_does_not_count(directory, reward):
    first = model_scores(reward, config(directory), PROMPT, RESPONSES)
    again = model_scores(reward, config(directory), PROMPT, [f"\n\n{text}\n" for text in RESPONSES])
    np.testing.assert_array_equal(first.values_G, again.values_G)
    np.testing.assert_array_equal(first.known_G, again.known_G)


def test_answers_without_a_score_are_one_below_the_worst(directory, reward):
    found = model_scores(reward, config(directory), PROMPT, RESPONSES)
    worst = found.values_G[found.known_G].min()
    np.testing.assert_array_equal(found.values_G[~found.known_G], worst - 1)
    nobody = model_scores(reward, config(directory), PROMPT, ["", " "])
    assert nobody.values_G.tolist() == [0, 0] and not nobody.known_G.any()


def test_what_is_too_long_to_be_read_has_no_score(directory, reward):
    found = model_scores(reward, config(directory, length=100), PROMPT, RESPONSES)
    assert found.known_G.tolist() == [True, True, False, True, False, False]


def test_lengths_are_few(directory, reward, monkeypatch):
    """A program for each length would be compiled at nearly every step."""
    seen = set()

    def spy(model, variables, head_D, tokens_BT, segments_BT):
        seen.add(tokens_BT.shape)
        return np.zeros(len(tokens_BT))

    monkeypatch.setattr("zaya_jax.train.reward_files.score", spy)
    for count in range(1, 400, 7):
        model_scores(reward, config(directory), "x", ["a" * count, "b"])
    assert seen == {(4, 64), (4, 128), (4, 256), (4, 512)}


def scores(values, known=None):
    values = np.array(values, np.float64)
    return GroupScores(values, np.ones(len(values), bool) if known is None else np.array(known))


def test_chat_is_paid_its_scores():
    paid = pay(scores([1.5, -2.0, -3.0], [True, True, False]), None)
    assert paid.rewards_G.tolist() == [1.5, -2.0, -3.0]
    assert not paid.gated_G.any() and paid.outranked == 0


def test_the_reports_gate_and_what_it_turns_round():
    """Answer 1 passed with a negative score: both that failed are above it; the last one, which is none, is not."""
    paid = pay(scores([1.5, -2.0, 3.0, 4.0, -3.0], [True] * 4 + [False]), np.array([True, True, False, False, False]))
    assert paid.rewards_G.tolist() == [1.5, -2.0, 0.0, 0.0, -2.0]
    assert paid.gated_G.tolist() == [False, False, True, True, True] and paid.outranked == 3


@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_no_gate_pays_an_answer_that_is_none_more_than_another(group):
    values, passed, known = (np.array(column) for column in zip(*group))
    for gate in ("report", "logistic"):
        for told in (passed, None):
            rewards = pay(scores(values, known), told, gate).rewards_G
            assert np.all(rewards[~known] <= rewards.min())
    logistic = pay(scores(values, known), passed, "logistic").rewards_G
    assert np.all(logistic[~passed] <= 0) and np.all(logistic[passed & known] > 0)


def test_a_judges_win_rates_by_hand():
    """Lengths 1, 2, 2, 4: the shortest beats three, the two in the middle tie and beat the longest."""
    found = judge_scores(one_by_one(shorter), "p", ["a", "bb", "", "cc", "dddd"])
    np.testing.assert_allclose(found.values_G, [1, 0.5, 0, 0.5, 0])
    assert found.known_G.tolist() == [True, True, False, True, True]
    assert (found.bias.pairs, found.bias.inconsistent) == (6, 0)


def test_a_judge_that_does_not_read_tells_nothing():
    found = judge_scores(one_by_one(stubborn), "p", ["a", "bb", "ccc"])
    assert found.values_G.tolist() == [0.5] * 3 and (found.bias.inconsistent, found.bias.lean) == (3, 1)
    assert judge_scores(one_by_one(stubborn), "p", ["a", ""]).values_G.tolist() == [0.5, 0]
    assert judge_scores(one_by_one(stubborn), "p", ["", ""]).values_G.tolist() == [0, 0]


def test_questions_without_room_are_not_asked():
    asked = []

    def judge(questions):
        asked.extend(questions)
        return ["first"] * len(questions)

    short, long = Question("p", "a", "b"), Question("p", "a" * 3000, "b")
    assert with_room(judge, tokenizer(), 2500)([long, short, long]) == [None, "first", None]
    assert asked == [short]


def test_a_judge_that_is_a_model(tmp_path):
    """Random, and its questions have no room: every pair is dropped, and all answers are worth the same."""
    scorer = open_scorer(None, JudgeConfig(str(write_roomy(tmp_path / "judge")), 8, 64, slots=2), "float32")
    found = scorer("p", ["a", "bb", ""])
    assert found.values_G.tolist() == [0.5, 0.5, 0.0] and found.bias.unreadable == found.bias.pairs == 1


def test_nothing_to_open():
    assert open_scorer(None, None, "float32") is None


def refused(path):
    with pytest.raises(UserError) as caught:
        open_scorer(RewardModelConfig(str(path)), None, "float32")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_that_do_not_fit_are_refused_in_a_line(directory, tmp_path):
    assert "no such directory" in refused(tmp_path / "nowhere")
    plain = shutil.copytree(directory, tmp_path / "plain")
    (plain / HEAD_FILE).unlink()
    assert "is no reward model" in refused(plain)
    untold = shutil.copytree(directory, tmp_path / "untold")
    (untold / "tokenizer.json").unlink()
    assert "the checkpoint has no tokenizer" in refused(untold)
    larger = shutil.copytree(directory, tmp_path / "larger")
    own = json.loads((larger / "tokenizer.json").read_text())
    more = [{"id": 263 + n, "content": f"<|more {n}|>"} for n in range(20)]
    own["added_tokens"] += [own["added_tokens"][-1] | token for token in more]
    (larger / "tokenizer.json").write_text(json.dumps(own))
    assert "larger: the tokenizer is not the model's; expected at most" in refused(larger)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RewardModelConfig(""), "RewardModelConfig.path: no model to score with"),
        (lambda: RewardModelConfig("x", rows=0), "RewardModelConfig.rows: out of range"),
        (lambda: JudgeConfig("x", new_tokens=64, capacity=64), "JudgeConfig.capacity: out of range"),
        (lambda: RewardConfig(key="score"), "rewards: scores of one kind for rewards.key=score; found score"),
        (lambda: RewardConfig(model=RewardModelConfig("x")), "scores of one kind for rewards.key=score; found correct"),
        (
            lambda: RewardConfig(gate="soft"),
            "rewards.gate: no such gate; expected none, report, logistic; found 'soft'",
        ),
        (lambda: RewardConfig(key="score", model=RewardModelConfig("x")), "rewards.key: MaxRL takes accuracies"),
    ],
)
def test_configurations_without_sense_are_refused(build, message):
    with pytest.raises(UserError) as caught:
        build()
    assert message in str(caught.value)
