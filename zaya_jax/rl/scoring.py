"""From answers to what the learner is told of them: gates, accuracies, the length reward, advantages.

In this order (report, IV-B): a degenerate text loses its reward; curricula and solve rates see the group; a group
without signal is dropped; the length reward enters the numerator of what is left. Where a reward model or a judge pays,
curricula and solve rates see what the verifier says all the same.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from zaya_jax.environments.failures import Failure
from zaya_jax.errors import mistake
from zaya_jax.rl import completion
from zaya_jax.rl.advantages import AdvantageConfig, advantages
from zaya_jax.rl.completion import Group, Progress
from zaya_jax.rl.compressibility import CompressibilityConfig, is_degenerate
from zaya_jax.rl.gating import GATES
from zaya_jax.rl.generation import Answered, Asked
from zaya_jax.rl.length_reward import LengthRewardConfig, length_bonus, ramped_weight
from zaya_jax.rl.records import best_solve_rate
from zaya_jax.rl.reward_scores import JudgeConfig, Paid, RewardModelConfig, ScoreGroup, pay
from zaya_jax.rl.scheduling import Schedule, hardest_of, place_of

_NAMES = {"max_rl": "MaxRL", "rejection": "rejection sampling"}


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """What an answer is worth.

    Attributes:
        advantage: from rewards to advantages.
        key: "correct", whether the answer is right (accuracy in {0, 1}); or "reward", which a verifier may give in
            parts; or "score", what `model` or `judge` says behind the gate. MaxRL takes accuracies alone.
        length: the bonus for short right answers; None for none.
        compressibility: takes the reward of texts that go round in circles; None takes none.
        model: the reward model of key "score".
        judge: the same for a judge, which compares the answers of a group.
        gate: of scores, by whether the answer is right: "report", "logistic" (`rl.gating`), or "none" for plain chat.
    """

    advantage: AdvantageConfig = dataclasses.field(default_factory=AdvantageConfig)
    key: Literal["correct", "reward", "score"] = "correct"
    length: LengthRewardConfig | None = None
    compressibility: CompressibilityConfig | None = dataclasses.field(default_factory=CompressibilityConfig)
    model: RewardModelConfig | None = None
    judge: JudgeConfig | None = None
    gate: Literal["none", "report", "logistic"] = "none"

    def __post_init__(self):
        for name, known in {"key": ("correct", "reward", "score"), "gate": ("none", *GATES)}.items():
            if getattr(self, name) not in known:
                where, found = f"rewards.{name}", repr(getattr(self, name))
                raise mistake(f"no such {name}", where=where, expected=", ".join(known), found=found)
        if (self.model is not None) + (self.judge is not None) != (self.key == "score"):
            fix = "give a reward model or a judge with rewards.key=score, and neither with another key"
            raise mistake("scores of one kind for rewards.key=score", where="rewards", found=self.key, fix=fix)
        if self.advantage.kind in _NAMES and self.key != "correct":
            fix = "take rewards.key=correct, or another advantage"
            raise mistake(
                f"{_NAMES[self.advantage.kind]} takes accuracies", where="rewards.key", found=self.key, fix=fix
            )
        if self.advantage.kind != "max_rl" and self.length is not None:
            fix = "leave rewards.length out, or take rewards.advantage.kind=max_rl"
            raise mistake("the length reward needs MaxRL", where="rewards.length", fix=fix)


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A group, judged.

    Attributes:
        answered: its answers.
        correct: whether each is right, behind the gates; None without a verdict.
        degenerate: whether each text went round in circles.
        rewards: float64 [G], what advantages are made of; NaN without a verdict.
        bonus: float64 [G], the length reward.
        advantages: float64 [G]; zeros for a group that is dropped.
        reason: why the learner does not get it; None if it does.
        paid: scores and what the gate made of them; None where the verifier alone pays, or it failed.
    """

    answered: Answered
    correct: tuple[bool | None, ...]
    degenerate: tuple[bool, ...]
    rewards: np.ndarray
    bonus: np.ndarray
    advantages: np.ndarray
    reason: str | None
    paid: Paid | None = None


def score(
    config: RewardConfig,
    schedule: Schedule,
    progress: Progress,
    answered: Answered,
    step: int,
    scorer: ScoreGroup | None = None,
    *,
    seen: bool = False,
) -> tuple[Progress, Scored]:
    """Judges a group; curricula and solve rates have seen it then.

    Args:
        step: of the length reward's ramp.
        scorer: of `config.model` or `config.judge`.
        seen: they had seen it before: it was asked once more, as its answers were lost.
    """
    size = len(answered.rollouts)
    degenerate = tuple(_is_degenerate(config, one.tokens) for one in answered.rollouts)
    correct = tuple(
        None if isinstance(verdict, Failure) else verdict.correct and not bad
        for verdict, bad in zip(answered.verdicts, degenerate, strict=True)
    )
    paid = _paid(config, scorer, answered, correct, degenerate)
    rewards = _verified(config, answered, correct, degenerate) if paid is None else paid.rewards_G
    asked, nothing = answered.asked, np.zeros(size)
    given = None if config.key == "correct" else tuple(rewards.tolist())
    hardest = hardest_of(asked.problem, asked.difficulty)
    group = Group(asked.environment, _recurring(schedule, asked), asked.difficulty, correct, given, hardest)
    best = best_solve_rate(progress.records, asked.environment)
    if seen:
        reason = completion.drop_reason(group, size)
    else:
        progress, reason = completion.complete(schedule, progress, group, size)
    if reason is not None:
        return progress, Scored(answered, correct, degenerate, rewards, nothing, nothing, reason, paid)
    bonus = _bonus(config, answered, correct, best, step)
    found = advantages(config.advantage, rewards, bonus if config.length is not None else None)
    return progress, Scored(answered, correct, degenerate, rewards, bonus, found, None, paid)


def _recurring(schedule: Schedule, asked: Asked) -> str | None:
    """The id of a problem that comes again, one of a given set; a generated one is not remembered by itself."""
    source = schedule.sources[place_of(schedule, asked.environment)]
    return asked.problem.id if source.cap == 0 else None


def _is_degenerate(config: RewardConfig, tokens: np.ndarray) -> bool:
    return config.compressibility is not None and is_degenerate(config.compressibility, tokens)


def _verified(config: RewardConfig, answered: Answered, correct: tuple, degenerate: tuple) -> np.ndarray:
    """What the verifier pays; NaN where it failed, and where scores would pay."""
    return np.array(
        [
            np.nan
            if isinstance(verdict, Failure) or config.key == "score"
            else _reward(config, verdict, right) * (not bad)
            for verdict, right, bad in zip(answered.verdicts, correct, degenerate, strict=True)
        ],
        np.float64,
    )


def _reward(config: RewardConfig, verdict, right: bool) -> float:
    return verdict.reward if config.key == "reward" else float(right)


def _paid(
    config: RewardConfig, scorer: ScoreGroup | None, answered: Answered, correct: tuple, degenerate: tuple
) -> Paid | None:
    """What a reward model or a judge pays. An answer that did not end, or goes round in circles, is shown as blank."""
    if scorer is None or None in correct:
        return None
    shown = [
        response if ended and not bad else ""
        for response, ended, bad in zip(answered.responses, answered.ended, degenerate, strict=True)
    ]
    scores = scorer(answered.asked.problem.prompt, shown)
    return pay(scores, None) if config.gate == "none" else pay(scores, np.array(correct, bool), config.gate)


def _bonus(config: RewardConfig, answered: Answered, correct: tuple, best: float, step: int) -> np.ndarray:
    if config.length is None:
        return np.zeros(len(correct))
    lengths = [len(one.tokens) for one in answered.rollouts]
    return length_bonus(config.length, correct, lengths, best, ramped_weight(config.length, step))
