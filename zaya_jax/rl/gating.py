"""Rewards of the behavioural stage: what a reward model says, and whether the instructions were kept.

Plain chat is rewarded by the score itself. Where a prompt has instructions that can be checked, a response that breaks
one gets 0 and any other its score (ZAYA1-8B report, section IV-B: binary checkers gate the score). The stage has three
phases: chat, simple instructions, hard ones; the last two are gated.

A score of a Bradley-Terry model has no zero of its own, so that it may be negative, and then 0 is the better reward: a
policy would learn to break instructions wherever it expects a bad score. `gate="logistic"` takes sigmoid(score)
instead, which lies above 0 whatever the score; it is the chance that the response is preferred to one of score 0.
`outranking` counts what the report's rule turns round.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from zaya_jax.errors import mistake

Gate = Literal["report", "logistic"]
GATES = ("report", "logistic")


def gated_rewards(scores: np.ndarray, passed: np.ndarray | None = None, gate: Gate = "report") -> np.ndarray:
    """Rewards of responses, float64 in the shape of `scores`.

    Args:
        scores: of the reward model, any shape.
        passed: whether all instructions were kept, booleans of the same shape; None where there were none (chat): the
            reward is the score.
        gate: "report": the score, or 0 for a response that failed. "logistic": sigmoid(score), or 0: a response that
            failed is never above one that passed.

    Raises:
        UserError: another gate, shapes that differ, or a score that is not finite.
    """
    if gate not in GATES:
        raise mistake("unknown choice", where="gate", expected=" or ".join(GATES), found=repr(gate))
    scores = np.asarray(scores, np.float64)
    if not np.isfinite(scores).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(scores))[0]]
        fix = "drop the group, or look at the reward model"
        raise mistake("not finite", where=f"scores{place}", expected="a number", found=scores[tuple(place)], fix=fix)
    if passed is None:
        return scores.copy()
    passed = _checked(scores, passed)
    value = scores if gate == "report" else _sigmoid(scores)
    return np.where(passed, value, 0.0)


def outranking(scores: np.ndarray, passed: np.ndarray) -> np.ndarray:
    """How many pairs of a response that failed and one that passed the report's gate puts in the wrong order.

    Args:
        scores, passed: of groups, [..., G].

    Returns:
        Integers [...]: of each group, failures times passes with a negative score. Above 0 often: use "logistic".
    """
    scores = np.asarray(scores, np.float64)
    passed = _checked(scores, passed)
    return (~passed).sum(-1) * (passed & (scores < 0)).sum(-1)


def _checked(scores: np.ndarray, passed: np.ndarray) -> np.ndarray:
    passed = np.asarray(passed)
    if passed.dtype != bool or passed.shape != scores.shape:
        found = f"{passed.dtype}{list(passed.shape)}"
        raise mistake("does not fit the scores", where="passed", expected=f"bool{list(scores.shape)}", found=found)
    return passed


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """Without overflow, and above 0 down to scores of -700."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))
