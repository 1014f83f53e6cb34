"""What a step of reinforcement learning measured, as its line in metrics.jsonl."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from zaya_jax.environments.environment import Verdict
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
        **of_scores(found),
        **_kept(answers),
    }


def of_scores(found: Sequence[Scored]) -> dict[str, Any]:
    """Of a reward model or a judge, where there is one: mean and standard deviation over the answers that have a score,
    the share that has none, the share that the gate took, the pairs that it turned round; of a judge also what it said
    of pairs."""
    paid = [scored.paid for scored in found if scored.paid is not None]
    if not paid:
        return {}
    known = np.concatenate([one.scores.known_G for one in paid])
    values = np.concatenate([one.scores.values_G for one in paid])[known]
    told = {
        "mean": float(values.mean()) if len(values) else None,
        "std": float(values.std()) if len(values) else None,
        "none": float(1 - known.mean()),
        "gated": float(np.concatenate([one.gated_G for one in paid]).mean()),
        "outranked": sum(one.outranked for one in paid),
    }
    biases = [dataclasses.asdict(one.scores.bias) for one in paid if one.scores.bias is not None]
    pairs = {"judge": {name: sum(one[name] for one in biases) for name in biases[0]}} if biases else {}
    return {"scores": told | pairs}


def _kept(answers: Sequence[Rollout]) -> dict[str, float]:
    """Under min-p: ids that a token was drawn from, and how often these were as many as may be."""
    if answers[0].kept is None:
        return {}
    counts = np.concatenate([one.kept.counts[one.drawn] for one in answers])
    return {"kept_ids": float(counts.mean()), "kept_full": float(np.mean(counts == answers[0].kept.most))}


def of_environments(found: Sequence[Scored], progress: Progress) -> dict[str, dict[str, Any]]:
    """Pass rate of the step's groups, what the verifier would pay for them, and the difficulty behind them, by
    environment."""
    rates: dict[str, list[float]] = {}
    verified: dict[str, list[float]] = {}
    for scored in found:
        known = [right for right in scored.correct if right is not None]
        if known:
            rates.setdefault(scored.answered.asked.environment, []).append(float(np.mean(known)))
            worth = [one.reward for one in scored.answered.verdicts if isinstance(one, Verdict)]
            verified.setdefault(scored.answered.asked.environment, []).append(float(np.mean(worth)))
    return {
        track.environment: {
            "difficulty": track.level.difficulty,
            "pass_rate": float(np.mean(rates[track.environment])) if track.environment in rates else None,
            "verified": float(np.mean(verified[track.environment])) if track.environment in rates else None,
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
        no_signal=alike / complete if complete else None,
        entropy=groups["entropy"],
        reward=groups["reward"],
        held_out=held_out,
    )
