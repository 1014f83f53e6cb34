"""The bonus for right answers that are short (ZAYA1's report, equations 8 to 10).

It is added to the numerator of the advantage alone (`advantages.max_rl`), never to the accuracy, and only in groups
that are solved about as often as ever: brevity is not bought with right answers. Off in the behavioural stage.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zaya_jax.errors import mistake


@dataclasses.dataclass(frozen=True)
class LengthRewardConfig:
    """Constants of the length reward. Only `last_weight` is in the report; the others are our choice.

    Attributes:
        max_length: l_max, the length in tokens whose answers get the full malus. Undisclosed.
        free_tokens: T_l: answers up to so many tokens above the shortest right one count as short. Undisclosed.
        rate_groups: groups that a source's solve rate is a running mean of, whose maximum p* the gate asks for.
            Undisclosed; with 1, the first group that is all right makes p* 1 for good.
        rate_margin: T_acc: how far below the best solve rate of its source a group may be. Undisclosed.
        first_weight: c at the first step. Undisclosed ("small").
        last_weight: c when the ramp is over.
        ramp_steps: over which c grows, linearly. Undisclosed; in the report c is 1 by the mathematics and code stage,
            which 232 steps of warmup and 400 of RLVE-Gym precede.
    """

    max_length: int = 81_920
    free_tokens: int = 256
    rate_groups: int = 1
    rate_margin: float = 0.1
    first_weight: float = 0.1
    last_weight: float = 1.0
    ramp_steps: int = 632

    def __post_init__(self):
        least_of = {"max_length": 1, "rate_groups": 1} | dict.fromkeys(
            ("free_tokens", "rate_margin", "first_weight", "last_weight", "ramp_steps"), 0
        )
        for name, least in least_of.items():
            value = getattr(self, name)
            if not value >= least:
                where = f"LengthRewardConfig.{name}"
                raise mistake("is too small", where=where, expected=f"{least} or more", found=value)


def ramped_weight(config: LengthRewardConfig, step: int) -> float:
    """c at a step, counted from 0: linear from `first_weight` to `last_weight` at `ramp_steps`, constant from there."""
    done = min(step / config.ramp_steps, 1.0) if config.ramp_steps else 1.0
    return config.first_weight + done * (config.last_weight - config.first_weight)


def length_scores(config: LengthRewardConfig, correct_G: Any, lengths_G: Any) -> np.ndarray:
    """lambda~ of each answer, from 1/2 for the shortest right one to -1/2 for the longest, [..., G] float64.

    lambda_i = 1/2 - clamp((l_i - l_min) / (l_max - l_min), 0, 1), and 1/2 where l_i <= l_min + T_l. Where the shortest
    right answer is l_max or longer, the span is one token. Without a right answer all are 1/2, and none is rewarded.

    Args:
        config: l_max and T_l.
        correct_G: which answers are right, [..., G].
        lengths_G: their lengths in tokens, [..., G].
    """
    correct_G, lengths_G = _checked(correct_G, lengths_G)
    shortest = np.where(correct_G, lengths_G, np.inf).min(axis=-1, keepdims=True)
    span = np.maximum(config.max_length - shortest, 1)
    score_G = 0.5 - np.clip((lengths_G - shortest) / span, 0, 1)
    return np.where(lengths_G <= shortest + config.free_tokens, 0.5, score_G)


def length_bonus(
    config: LengthRewardConfig, correct_G: Any, lengths_G: Any, best_rate: Any, weight: float
) -> np.ndarray:
    """dr_i = c * p * m_i * lambda~_i, [..., G] float64, between -c/2 and c/2.

    p is the group's solve rate. The gate m_i is 1 for right answers of groups with p > p* - T_acc and p > 1/G, else 0.

    Args:
        config: the constants.
        correct_G: which answers are right, after every gate on the reward, [..., G].
        lengths_G: their lengths in tokens, [..., G].
        best_rate: p*, the highest solve rate so far of the group's source or environment, [...].
        weight: c, see `ramped_weight`.

    Raises:
        UserError: shapes differ, there is no group axis, or a length is negative.
    """
    correct_G, lengths_G = _checked(correct_G, lengths_G)
    solved = correct_G.sum(axis=-1, keepdims=True)
    rate = solved / correct_G.shape[-1]
    best = np.asarray(best_rate, np.float64)[..., None]
    open_group = (rate > best - config.rate_margin) & (solved > 1)  # p > 1/G, free of rounding
    scores_G = length_scores(config, correct_G, lengths_G)
    return np.where(open_group & correct_G, weight * rate * scores_G, 0)


def _checked(correct_G: Any, lengths_G: Any) -> tuple[np.ndarray, np.ndarray]:
    correct_G, lengths_G = np.asarray(correct_G, bool), np.asarray(lengths_G, np.float64)
    if correct_G.shape != lengths_G.shape or not correct_G.ndim or not correct_G.shape[-1]:
        found = f"shapes {correct_G.shape} and {lengths_G.shape}"
        raise mistake("verdicts and lengths do not match", expected="two arrays [..., G]", found=found)
    if not np.all(lengths_G >= 0):
        raise mistake("a length is negative", where="length reward", expected="tokens", found=lengths_G.min())
    return correct_G, lengths_G
