"""rollouts.jsonl: every answer of a run with all that was said of it, a line each.

schema                   1
step, group, place       of the update, the assignment, and the answer in its group
environment, difficulty, problem, prompt        what was asked
prompt_ids               the tokens that the answer was drawn behind
text, response, token_ids, mu, versions     all that was drawn; the text behind the reasoning; the tokens, their
                         log-probabilities to 1e-6, and the versions of the weights that drew them
correct, format, verified, error    the verdict: whether it is right, and has the form; what the verifier pays; why it
                         is wrong, or which failure there was. null without a verdict
reward, bonus, advantage, degenerate, truncated     what came of it; a reward is null without a verdict
score, gated             what a reward model or a judge said, and whether the gate took it; null without a score
dropped                  why the learner did not get the group; null if it did, or if it still waits in a pipeline

A pipelined run finds out later: a line with step, group and dropped alone ("evicted", "stale", "asked again", "left
over") says it of all lines of that group before it. `rollout_view.read` puts both together.
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
            "prompt_ids": one.prompt,
            "token_ids": one.tokens,
            "mu": [round(float(nats), 6) for nats in one.mu],
            "versions": one.versions,
            "correct": scored.correct[place],
            "format": None if failed else verdict.format,
            "verified": None if failed else verdict.reward,
            "reward": None if math.isnan(scored.rewards[place]) else float(scored.rewards[place]),
            "bonus": float(scored.bonus[place]),
            "advantage": float(scored.advantages[place]),
            "degenerate": scored.degenerate[place],
            "truncated": answered.truncated[place],
            "error": str(verdict) if failed else verdict.error,
            "dropped": scored.reason,
            **_scores(scored, place),
        }


def dropped_later(step: int, group: int, reason: str) -> dict[str, Any]:
    """The line that says so of the group's earlier lines."""
    return {"schema": VERSION, "step": step, "group": group, "dropped": reason}


def _scores(scored: Scored, place: int) -> dict[str, Any]:
    paid = scored.paid
    if paid is None or not paid.scores.known_G[place]:
        return {"score": None, "gated": None}
    return {"score": float(paid.scores.values_G[place]), "gated": bool(paid.gated_G[place])}
