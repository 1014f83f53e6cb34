"""Scores of the answers to a prompt: a reward model's, or win rates under a judge; and the rewards made of them.

    scorer = open_scorer(config.rewards.model, config.rewards.judge, "float32")
    paid = pay(scorer(prompt, responses), passed, "report")

What is scored is the text behind the reasoning, as the last message of a conversation that begins with the prompt. Some
answers have no score: blank ones, those whose reasoning never closed, those that a budget cut off or that go round in
circles (`scoring` passes these as blank), and those too long to be read. They are never rewarded above another answer
to the prompt; without a gate, a reward model's group has them one below its worst: answering pays.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from zaya_jax.checkpoint import resolve
from zaya_jax.errors import UserError, mistake
from zaya_jax.loading import load
from zaya_jax.rl.checks import check_range
from zaya_jax.rl.gating import Gate, gated_rewards, outranking
from zaya_jax.rl.judge import Bias, Choice, JudgeAll, Question, engine_judge, group_rewards, question_text
from zaya_jax.sampling.engine import Engine
from zaya_jax.text.tokenizer import Tokenizer, require_tokenizer
from zaya_jax.train.reward_files import RewardModel, conversation_tokens, load_reward_model, score_tokens

_BELOW = 1.0  # the worst score less that of no answer, in nats: odds of e to 1. Ours, as the report does not say


@dataclasses.dataclass(frozen=True)
class RewardModelConfig:
    """A reward model in the loop.

    Attributes:
        path: its directory, as `experiments.reward_model` leaves it.
        rows: conversations scored together; they are filled up, so that there is a program for each length only.
        length: tokens of the longest conversation that is scored.
    """

    path: str
    rows: int = 16
    length: int = 512

    def __post_init__(self):
        _check_path(self)
        for name in ("rows", "length"):
            check_range(self, name, 1, whole=True)


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """A judge in the loop: a model that is asked which of two answers is better, of all pairs, in both orders.

    Attributes:
        path: its directory; the policy's own `initial`, or another model.
        new_tokens: of a verdict, its reasoning included.
        capacity: tokens of a question and its verdict. A question that has no room is not asked: its pair is dropped.
        slots: questions answered together.
        chunk: tokens of a question read at a time.
    """

    path: str
    new_tokens: int = 512
    capacity: int = 4096
    slots: int = 32
    chunk: int = 256

    def __post_init__(self):
        _check_path(self)
        for name, least in {"new_tokens": 1, "capacity": self.new_tokens + 1, "slots": 2, "chunk": 4}.items():
            check_range(self, name, least, whole=True)


class GroupScores(NamedTuple):
    """Scores of the G answers to a prompt.

    Attributes:
        values_G: float64; of an answer without a score, what stands in its place.
        known_G: bool, whether there is a score.
        bias: of the judge, over the pairs of the group; None of a reward model.
    """

    values_G: np.ndarray
    known_G: np.ndarray
    bias: Bias | None = None


class Paid(NamedTuple):
    """What a gate makes of scores.

    Attributes:
        scores: as they came.
        rewards_G: float64.
        gated_G: bool, whether the gate took the score.
        outranked: pairs that the report's gate puts in the wrong order (`gating.outranking`).
    """

    scores: GroupScores
    rewards_G: np.ndarray
    gated_G: np.ndarray
    outranked: int


ScoreGroup = Callable[[str, Sequence[str]], GroupScores]  # (prompt, responses); blank ones have no score


def pay(scores: GroupScores, passed_G: np.ndarray | None, gate: Gate = "report") -> Paid:
    """Rewards of a group.

    Args:
        scores: of its answers.
        passed_G: bool, whether all instructions were kept; None without a gate.
        gate: see `gating.gated_rewards`.

    Raises:
        UserError: a score is not finite.
    """
    rewards_G = gated_rewards(scores.values_G, passed_G, gate)
    # Of a gated group 0 may be the best reward: not for an answer that is none.
    rewards_G = np.where(scores.known_G, rewards_G, rewards_G.min())
    if passed_G is None:
        return Paid(scores, rewards_G, np.zeros(len(rewards_G), bool), 0)
    turned = int(outranking(scores.values_G, passed_G)) if gate == "report" else 0
    return Paid(scores, rewards_G, ~passed_G, turned)


def model_scores(reward: RewardModel, config: RewardModelConfig, prompt: str, responses: Sequence[str]) -> GroupScores:
    """A reward model's scores, the same every time.

    Args:
        reward: the model, with its own tokenizer.
        config: how they are computed.
        prompt: what was asked.
        responses: G texts.
    """
    most = min(config.length, reward.model.config.max_position_embeddings)
    encoded = [_encoded(reward.tokenizer, prompt, response, most) for response in responses]
    known_G = np.array([bool(tokens) for tokens in encoded])
    values_G = np.zeros(len(encoded))
    if known_G.any():
        values_G[known_G] = score_tokens(reward, [tokens for tokens in encoded if tokens], config.rows)
        values_G[~known_G] = values_G[known_G].min() - _BELOW
    return GroupScores(values_G, known_G)


def judge_scores(judge: JudgeAll, prompt: str, responses: Sequence[str]) -> GroupScores:
    """Win rates against the other answers to the prompt (`judge.group_rewards`). A blank one is not shown and has 0, as
    it would lose; one alone has 1/2."""
    known_G = np.array([bool(response.strip()) for response in responses])
    values_G = np.where(known_G, 0.5, 0.0)
    if known_G.sum() < 2:
        return GroupScores(values_G, known_G)
    found = group_rewards(judge, prompt, [response.strip() for response in responses if response.strip()])
    values_G[known_G] = found.rewards_G
    return GroupScores(values_G, known_G, found.bias)


def open_scorer(model: RewardModelConfig | None, judge: JudgeConfig | None, dtype: str) -> ScoreGroup | None:
    """What a configuration has scores from; None if it has none.

    Raises:
        UserError: there is no such model, it is no reward model, or it has another tokenizer than it was made for.
    """
    if model is not None:
        reward = load_reward_model(model.path, dtype)
        _check_tokenizer(reward.tokenizer, reward.model.config.vocab_size, model.path)
        return _one_at_a_time(functools.partial(model_scores, reward, model))
    if judge is not None:
        return _one_at_a_time(functools.partial(judge_scores, _open_judge(judge, dtype)))
    return None


def _one_at_a_time(score: ScoreGroup) -> ScoreGroup:
    """For a pipeline, where looks are scored by one thread and groups by another: a judge's engine serves one."""
    lock = threading.Lock()

    def scored(*arguments: Any) -> GroupScores:
        with lock:
            return score(*arguments)

    return scored


def _open_judge(config: JudgeConfig, dtype: str) -> JudgeAll:
    model, variables, _ = load(config.path, dtype)
    tokenizer = require_tokenizer(resolve(config.path))
    _check_tokenizer(tokenizer, model.config.vocab_size, config.path)
    engine = Engine(model, variables, slots=config.slots, capacity=config.capacity, chunk=config.chunk)
    asked = engine_judge(engine, tokenizer, max_new_tokens=config.new_tokens)
    return with_room(asked, tokenizer, config.capacity - config.new_tokens)


def with_room(judge: JudgeAll, tokenizer: Tokenizer, most: int) -> JudgeAll:
    """A judge that is only asked questions of at most so many tokens; others have no verdict."""

    def answers(questions: Sequence[Question]) -> list[Choice | None]:
        chats = [[{"role": "user", "content": question_text(question)}] for question in questions]
        fits = [len(tokenizer.encode_chat(chat)) <= most for chat in chats]
        told = iter(judge([question for question, fit in zip(questions, fits) if fit]))
        return [next(told) if fit else None for fit in fits]

    return answers


def _encoded(tokenizer: Tokenizer, prompt: str, response: str, most: int) -> list[int]:
    """The conversation in tokens; none where there is nothing to score."""
    if not response.strip():
        return []
    answer = {"role": "assistant", "content": response.strip()}
    try:
        tokens = conversation_tokens([{"role": "user", "content": prompt}, answer], tokenizer)
    except UserError:  # a template that refuses what a policy wrote must not end the run
        return []
    return tokens if len(tokens) <= most else []


def _check_path(config: RewardModelConfig | JudgeConfig) -> None:
    if not config.path:
        where = f"{type(config).__name__}.path"
        raise mistake("no model to score with", where=where, expected="a directory", fix="give reward=DIR or judge=DIR")


def _check_tokenizer(tokenizer: Tokenizer, vocabulary: int, path: str) -> None:
    """Refuses ids without an embedding, and a template that renders no conversation, before anything is drawn."""
    if tokenizer.vocab_size > vocabulary:
        fix = "put the tokenizer that it was trained with beside the weights"
        expected, found = f"at most {vocabulary} ids, as the embedding has", tokenizer.vocab_size
        raise mistake("the tokenizer is not the model's", where=path, expected=expected, found=found, fix=fix)
    conversation_tokens([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], tokenizer)
