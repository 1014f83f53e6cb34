"""What a step of reinforcement learning measured, as its line in metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zaya_jax.rl import warnings
from zaya_jax.rl.canary import rare_token_shares
from zaya_jax.rl.completion import ALL_ALIKE, ALL_RIGHT, ALL_WRONG, Progress
from zaya_jax.rl.learner import UpdateMetrics
from zaya_jax.rl.rollout import Rollout
from zaya_jax.rl.scoring import Scored


def of_groups(found: Sequence[Scored], vocabulary: int) -> dict[str, Any]:
    """Of all groups, those that were dropped included."""
    answers = [one for scored in found for one in scored.answered.rollouts]
    rewards = np.concatenate([scored.rewards for scored in found])
    drawn = np.concatenate([one.mu[one.drawn] for one in answers])
    dropped = [scored.reason for scored in found if scored.reason is not None]
    tokens = np.concatenate([one.tokens for one in answers])
    return {
        "reward": float(np.nanmean(rewards)) if not np.isnan(rewards).all() else None,
        "groups": len(found),
        "taught": len(found) - len(dropped),
        "dropped": {reason: dropped.count(reason) for reason in sorted(set(dropped))},
        "truncated": float(np.mean([cut for scored in found for cut in scored.answered.truncated])),
        "degenerate": float(np.mean([bad for scored in found for bad in scored.degenerate])),
        "length": float(np.mean([len(one.tokens) for one in answers])),
        # Of tokens drawn at temperature 1, -log mu is an estimate of the entropy without bias.
        "entropy": float(-drawn.mean()),
        "rare_tokens": {str(percent): share for percent, share in rare_token_shares(tokens, vocabulary).items()},
        **_kept(answers),
    }


def _kept(answers: Sequence[Rollout]) -> dict[str, float]:
    """Under min-p: ids that a token was drawn from, and how often these were as many as may be."""
    if answers[0].kept is None:
        return {}
    counts = np.concatenate([one.kept.counts[one.drawn] for one in answers])
    return {"kept_ids": float(counts.mean()), "kept_full": float(np.mean(counts == answers[0].kept.most))}


def of_environments(found: Sequence[Scored], progress: Progress) -> dict[str, dict[str, Any]]:
    """Pass rate of the step's groups, and the difficulty behind them, by environment."""
    rates: dict[str, list[float]] = {}
    for scored in found:
        known = [right for right in scored.correct if right is not None]
        if known:
            rates.setdefault(scored.answered.asked.environment, []).append(float(np.mean(known)))
    return {
        track.environment: {
            "difficulty": track.level.difficulty,
            "pass_rate": float(np.mean(rates[track.environment])) if track.environment in rates else None,
            "groups": len(rates.get(track.environment, ())),
        }
        for track in progress.schedule.tracks
    }


def of_update(told: UpdateMetrics) -> dict[str, Any]:
    """Of the learner's step."""
    tokens = max(float(told.told.tokens), 1.0)
    return {
        "loss": float(told.loss),
        "gradient_norm": float(told.gradient_norm),
        "applied": bool(told.applied),
        "learnt_tokens": int(told.told.tokens),
        "kept": float(told.told.kept) / tokens,
        "clipped": float(told.told.clipped) / tokens,
        "ratio": float(told.told.ratio) / tokens,
        "kl": float(told.told.kl) / tokens,
    }


def for_warnings(groups: dict[str, Any], held_out: float | None) -> warnings.Step:
    """What the warnings look at."""
    alike = sum(groups["dropped"].get(reason, 0) for reason in (ALL_RIGHT, ALL_WRONG, ALL_ALIKE))
    complete = groups["taught"] + alike
    return warnings.Step(
        truncated=groups["truncated"],
        no_signal=alike / complete if complete else float("nan"),
        entropy=groups["entropy"],
        reward=float("nan") if groups["reward"] is None else groups["reward"],
        held_out=held_out,
    )
