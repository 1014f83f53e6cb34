"""Stored answers that a reward model scores: the same scores as in the loop, for the text behind the reasoning."""

import dataclasses
import json

import numpy as np
import pytest

from tests.rl.scripted import write_reward_model
from zaya_jax.errors import UserError
from zaya_jax.evaluation.samples import Sample
from zaya_jax.rl.reward_scores import RewardModelConfig, model_scores
from zaya_jax.rl.sample_scores import read_scores, score_answers
from zaya_jax.train.reward_files import load_reward_model

pytestmark = pytest.mark.usefixtures("quick_programs")
PROMPTS = {"requests/0/1": "Tell me of the wet owl.", "requests/0/2": "Tell me of the old sea, in one line."}
# What was said, how it ended, and what of it counts.
SAID = (
    ("<think>\nhm\n</think>\n\nThe owl.", "stop", "The owl."),
    ("The owl. It is wet.", "stop", "The owl. It is wet."),
    ("<think>\nhm", "stop", ""),
    ("<think>\n</think>THE OWL", "length", ""),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_reward_model(tmp_path_factory.mktemp("reward") / "model")


def test_scores_are_those_of_the_loop(directory, tmp_path):
    answers = tmp_path / "requests-0"
    answers.mkdir()
    samples = [
        Sample("requests-0", problem, index, "single", 0, said, finish, 5, 5)
        for problem in PROMPTS
        for index, (said, finish, _) in enumerate(SAID)
    ]
    write(answers / "samples.jsonl", map(dataclasses.asdict, samples))
    write(answers / "problems.jsonl", ({"problem": name, "prompt": prompt} for name, prompt in PROMPTS.items()))
    config = RewardModelConfig(str(directory))
    said = score_answers(tmp_path, config)
    assert said.startswith("requests-0: mean score ") and said.endswith("50.0% have one")
    rows = [json.loads(line) for line in (answers / "scores.jsonl").read_text().splitlines()]
    reward, expected = load_reward_model(directory, "float32"), {}
    for problem, prompt in PROMPTS.items():
        found = model_scores(reward, config, prompt, [shown for *_, shown in SAID])
        own = [row for row in rows if row["problem"] == problem]
        np.testing.assert_allclose([row["score"] for row in own], found.values_G)
        assert [row["known"] for row in own] == [True, True, False, False]
        expected[problem] = pytest.approx(found.values_G.mean())
    assert read_scores(answers / "scores.jsonl") == expected


def test_no_answers_and_no_scores_are_one_line_each(directory, tmp_path):
    with pytest.raises(UserError, match="no samples; expected an output of evaluate"):
        score_answers(tmp_path, RewardModelConfig(str(directory)))
    write(tmp_path / "scores.jsonl", [{"problem": "p", "index": 0, "score": None, "known": False}])
    with pytest.raises(UserError, match="line 1: no score; expected a number; found None"):
        read_scores(tmp_path / "scores.jsonl")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
