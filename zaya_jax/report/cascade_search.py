"""What a stage of Markovian RSA found, in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.report.candidates_run import Problem, arrange, mean, read_run
from zaya_jax.report.rl_facts import figure
from zaya_jax.report.training_facts import NONE

HEAD = ("", "problems", "candidates", "mean, round 0", "mean, last round", "majority", "tokens a problem")


def search_rows(stage: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line for each search in the stage's directory, whole or under way.

    Raises:
        UserError: its files are not right.
    """
    found = sorted(stage["workdir"].glob("*/settings.json"))
    return [_row(f"{stage['title']}: {path.parent.name}", arrange(*read_run(path.parent))) for path in found]


def _row(title: str, problems: Sequence[Problem]) -> tuple[str, ...]:
    last = len(problems[0].rounds) - 1 if problems else 0
    every = [candidate for problem in problems for number in range(last + 1) for candidate in problem.there(number)]
    tokens = sum(candidate.get("tokens") or 0 for candidate in every)
    majority = mean([(problem.record.get("majority") or {}).get("correct") for problem in problems])
    each = f"{tokens / len(problems):,.0f}" if problems else NONE
    right = (_correct(problems, 0), _correct(problems, last) if last else math.nan)
    return (title, f"{len(problems):,}", f"{len(every):,}", *map(figure, right), figure(majority), each)


def _correct(problems: Sequence[Problem], number: int) -> float:
    """Of all candidates of a round that are judged."""
    return mean([candidate.get("correct") for problem in problems for candidate in problem.there(number)])
