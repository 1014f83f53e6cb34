"""rollouts.jsonl: every answer of a run with all that was said of it, a line each; version 1 of the schema.

step, group, place       of the update, the assignment, and the answer in its group
environment, difficulty, problem, prompt        what was asked
response, token_ids, mu, versions   the text behind the reasoning; the tokens drawn, their log-probabilities, and the
                         versions of the weights that drew them
correct, reward, bonus, advantage, degenerate, truncated, error     what it was worth; null without a verdict
score, gated             what a reward model or a judge said, and whether the gate took it; null without a score
dropped                  why the learner did not get the group; null if it did
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from zaya_jax.environments.failures import Failure
from zaya_jax.rl.scoring import Scored

FILE = "rollouts.jsonl"
VERSION = 1


def rows(step: int, scored: Scored) -> Iterator[dict[str, Any]]:
    """The lines of a group."""
    answered = scored.answered
    asked = answered.asked
    columns = (answered.rollouts, answered.texts, answered.responses, answered.verdicts)
    for place, (one, text, response, verdict) in enumerate(zip(*columns, strict=True)):
        failed = isinstance(verdict, Failure)
        yield {
            "schema": VERSION,
            "step": step,
            "group": asked.number,
            "place": place,
            "environment": asked.environment,
            "difficulty": asked.difficulty,
            "problem": asked.problem.id,
            "prompt": asked.problem.prompt,
            "text": text,
            "response": response,
            "token_ids": one.tokens,
            "mu": [round(float(nats), 6) for nats in one.mu],
            "versions": one.versions,
            "correct": scored.correct[place],
            "reward": None if math.isnan(scored.rewards[place]) else float(scored.rewards[place]),
            "bonus": float(scored.bonus[place]),
            "advantage": float(scored.advantages[place]),
            "degenerate": scored.degenerate[place],
            "truncated": answered.truncated[place],
            "error": str(verdict) if failed else verdict.error,
            "dropped": scored.reason,
            **_scores(scored, place),
        }


def _scores(scored: Scored, place: int) -> dict[str, Any]:
    paid = scored.paid
    if paid is None or not paid.scores.known_G[place]:
        return {"score": None, "gated": None}
    return {"score": float(paid.scores.values_G[place]), "gated": bool(paid.gated_G[place])}
