"""Which groups teach anything: those whose answers are not all judged alike (DAPO, arXiv 2503.14476, 3.2).

Groups are judged by accuracy, or by a reward model's score where there is no accuracy, after the gates on the reward
and never with a bonus: a length bonus tells answers apart in every group, also where all are right and MaxRL and GRPO
would learn brevity alone.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from zaya_jax.errors import mistake


def has_signal(kind: Literal["grpo", "dr_grpo", "max_rl"], scores_G: Any) -> np.ndarray:
    """Which groups have an advantage that is not 0, boolean [...].

    Args:
        kind: of the advantage. For MaxRL scores are accuracies; for GRPO and Dr. GRPO they may be any.
        scores_G: what answers are judged by, [..., G], without bonuses.

    Raises:
        UserError: an accuracy for MaxRL is not 0 or 1; a score is not finite.
    """
    scores_G = _checked(kind, scores_G)
    return scores_G.max(axis=-1) > scores_G.min(axis=-1)


def drop_reason(kind: Literal["grpo", "dr_grpo", "max_rl"], scores_G: Any) -> str | None:
    """Why a group [G] is dropped: "all wrong", "all right" or "all alike"; None if it is kept."""
    if has_signal(kind, scores_G):
        return None
    return {0.0: "all wrong", 1.0: "all right"}.get(float(np.asarray(scores_G)[0]), "all alike")


def _checked(kind: str, scores_G: Any) -> np.ndarray:
    scores_G = np.asarray(scores_G, np.float64)
    if not scores_G.ndim or not scores_G.shape[-1]:
        raise mistake("no group", where="scores", expected="an array [..., G]", found=f"shape {scores_G.shape}")
    right = np.isin(scores_G, (0, 1)) if kind == "max_rl" else np.isfinite(scores_G)
    if not right.all():
        expected = "accuracies of 0 or 1, without bonus" if kind == "max_rl" else "finite scores"
        raise mistake("not what groups are judged by", where=kind, expected=expected, found=scores_G[~right][0])
    return scores_G
