"""Advantages of a group: how much better each answer to a prompt is than the others to the same prompt.

Host-side numpy in float64. Groups lie along the last axis, `[..., G]`; leading axes are prompts.

    GRPO       (r - mean) / (std + eps)    Shao et al., arXiv 2402.03300
    Dr. GRPO   r - mean                    Liu et al., arXiv 2503.20783
    MaxRL      (r - mean) / mean           arXiv 2602.02710; 0 where nothing is right
    rejection  r / mean                    rejection sampling, e.g. RAFT, Dong et al., arXiv 2304.06767
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from zaya_jax.errors import mistake

KINDS = ("grpo", "dr_grpo", "max_rl", "rejection")
BASELINES = ("shaped", "task")


@dataclasses.dataclass(frozen=True)
class AdvantageConfig:
    """Which advantage.

    Attributes:
        kind: MaxRL in ZAYA1's reasoning stages, GRPO in its behavioural one (report, IV-B). "rejection" learns from
            right answers alone and is no part of the recipe: a control for comparisons.
        eps: of GRPO, added to the standard deviation.
        baseline: what MaxRL's numerator subtracts. "shaped": the mean of reward and bonus, so that a group sums to 0;
            "task": the mean of the reward alone. The report leaves it open.
    """

    kind: Literal["grpo", "dr_grpo", "max_rl", "rejection"] = "max_rl"
    eps: float = 1e-6
    baseline: Literal["shaped", "task"] = "shaped"

    def __post_init__(self):
        for name, known in (("kind", KINDS), ("baseline", BASELINES)):
            value = getattr(self, name)
            if value not in known:
                where = f"AdvantageConfig.{name}"
                raise mistake("no such choice", where=where, expected=" or ".join(known), found=repr(value))
        if not self.eps >= 0:
            raise mistake("is too small", where="AdvantageConfig.eps", expected="0 or more", found=self.eps)


def advantages(config: AdvantageConfig, rewards_G: Any, bonus_G: Any = None) -> np.ndarray:
    """The advantage that a config names, [..., G].

    Args:
        config: which.
        rewards_G: task rewards, [..., G]; for MaxRL accuracies.
        bonus_G: what is added to the numerator, of the same shape (`length_reward`); none by default.

    Raises:
        UserError: as the function of that kind does; a bonus for another kind than MaxRL.
    """
    if config.kind == "max_rl":
        return max_rl(rewards_G, bonus_G, config.baseline)
    if bonus_G is not None:
        fix = "leave the length reward out, or take kind=max_rl"
        raise mistake("a bonus without a numerator of its own", where=f"advantage {config.kind}", fix=fix)
    if config.kind == "grpo":
        return grpo(rewards_G, config.eps)
    return dr_grpo(rewards_G) if config.kind == "dr_grpo" else rejection(rewards_G)


def grpo(rewards_G: Any, eps: float = 1e-6) -> np.ndarray:
    """(r - mean) / (std + eps), [..., G]; 0 where all rewards are the same.

    The standard deviation is the population's (divided by G), as in the paper. Some frameworks divide by G - 1: their
    advantages are smaller by sqrt((G - 1) / G).

    Raises:
        UserError: a reward is not finite, or there is no group axis.
    """
    rewards_G = _finite(rewards_G)
    std = np.where(_same(rewards_G), 1, rewards_G.std(axis=-1, keepdims=True))  # 0 / 0 with an eps of 0
    return _centred(rewards_G) / (std + eps)


def dr_grpo(rewards_G: Any) -> np.ndarray:
    """r - mean, [..., G].

    Raises:
        UserError: a reward is not finite, or there is no group axis.
    """
    return _centred(_finite(rewards_G))


def max_rl(rewards_G: Any, bonus_G: Any = None, baseline: Literal["shaped", "task"] = "shaped") -> np.ndarray:
    """(r + bonus - baseline) / mean(r), [..., G]; 0 where mean(r) is 0, bonus or not.

    Without a bonus, sum_i A_i * grad log pi(y_i) / G is the mean score function of the right answers less that of all
    answers. Its expectation is the gradient of a truncated log-likelihood, sum_{k=1..K} -(1 - p)^k / k with p the
    chance of a right answer: K = G in the paper, which keeps the second mean in groups without a right answer too, and
    K = G - 1 with the 0 there that implementations (and dynamic sampling) have. That holds for accuracies, and only
    they are taken: a bonus mixed into them would change the denominator too, which it must not (report, 3.3).

    Args:
        rewards_G: accuracies, each 0 or 1.
        bonus_G: added in the numerator only, e.g. the length reward; 0 by default.
        baseline: "shaped" subtracts mean(r + bonus), "task" mean(r).

    Raises:
        UserError: a reward is not 0 or 1, a bonus is not finite or of another shape.
    """
    rewards_G = _accuracies(rewards_G, "MaxRL")
    shaped_G = rewards_G if bonus_G is None else rewards_G + _matching(bonus_G, rewards_G)
    mean = rewards_G.mean(axis=-1, keepdims=True)
    subtracted = shaped_G.mean(axis=-1, keepdims=True) if baseline == "shaped" else mean
    return np.where(mean > 0, (shaped_G - subtracted) / np.where(mean > 0, mean, 1), 0)


def rejection(rewards_G: Any) -> np.ndarray:
    """r / mean(r), [..., G]; 0 where mean(r) is 0: MaxRL without its baseline.

    With -A log pi as the loss of a token and all G answers in the mean, a group's gradient is that of supervised
    finetuning on its right answers, whatever their number.

    Raises:
        UserError: a reward is not 0 or 1.
    """
    rewards_G = _accuracies(rewards_G, "rejection sampling")
    mean = rewards_G.mean(axis=-1, keepdims=True)
    return np.where(mean > 0, rewards_G / np.where(mean > 0, mean, 1), 0)


def _accuracies(rewards_G: Any, where: str) -> np.ndarray:
    rewards_G = _finite(rewards_G)
    wrong = rewards_G[(rewards_G != 0) & (rewards_G != 1)]
    if wrong.size:
        fix = "use accuracies, or another kind of advantage"
        raise mistake("not an accuracy", where=where, expected="rewards of 0 or 1", found=wrong[0], fix=fix)
    return rewards_G


def _centred(rewards_G: np.ndarray) -> np.ndarray:
    """Exactly 0 for equal rewards, whose mean may be off by the last bit."""
    return np.where(_same(rewards_G), 0, rewards_G - rewards_G.mean(axis=-1, keepdims=True))


def _same(rewards_G: np.ndarray) -> np.ndarray:
    return rewards_G.max(axis=-1, keepdims=True) == rewards_G.min(axis=-1, keepdims=True)


def _finite(values: Any, what: str = "reward") -> np.ndarray:
    array = np.asarray(values, np.float64)
    if not array.ndim or not array.shape[-1]:
        raise mistake("no group", where=f"{what}s", expected="an array [..., G]", found=f"shape {array.shape}")
    bad = array[~np.isfinite(array)]
    if bad.size:
        raise mistake(f"a {what} is not finite", found=bad[0], fix="have the verifier return a finite number")
    return array


def _matching(bonus_G: Any, rewards_G: np.ndarray) -> np.ndarray:
    bonus_G = _finite(bonus_G, "bonus")
    if bonus_G.shape != rewards_G.shape:
        raise mistake("bonus of another shape", expected=rewards_G.shape, found=bonus_G.shape)
    return bonus_G
