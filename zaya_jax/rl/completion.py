"""What happens when a group of rollouts is complete, and in which order.

    progress = start(schedule)
    progress, reason = complete(schedule, progress, group)
    if reason is None: ...  # the learner gets it

First the curriculum and the solve rates see the group, every one; only then is it asked whether the learner gets it.
The other way about, groups that are all right or all wrong, which move difficulties most, would never be seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from zaya_jax.rl import records as solve_rates
from zaya_jax.rl import scheduling
from zaya_jax.rl.checks import from_json as read
from zaya_jax.rl.records import Records
from zaya_jax.rl.scheduling import Schedule, State

ALL_RIGHT, ALL_WRONG = "all right", "all wrong"
ALL_ALIKE = "all alike"  # of equal rewards, though some answers are right and some are wrong
TOO_SHORT = "too short"
VERIFIER_FAILED = "verifier failed"
REASONS = (ALL_RIGHT, ALL_WRONG, ALL_ALIKE, TOO_SHORT, VERIFIER_FAILED)


@dataclasses.dataclass(frozen=True)
class Group:
    """The rollouts of one problem, verified.

    Attributes:
        environment: of the schedule.
        problem: its id; None for one that never comes again, of which no record is kept.
        difficulty: that it was made at, which may no longer be the current one.
        correct: of each rollout whether its answer is right; None where the verifier gave no verdict.
        rewards: what advantages are made of, where that is not accuracy (a reward model's scores); None where it is.
        hardest: where the environment's difficulties end, if its problem told (`scheduling.hardest_of`).
    """

    environment: str
    problem: str | None
    difficulty: int
    correct: tuple[bool | None, ...]
    rewards: tuple[float, ...] | None = None
    hardest: int | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """All that groups change outside of the policy."""

    schedule: State
    records: Records


def start(schedule: Schedule, span: int = 1) -> Progress:
    """Before the first group. `span`: see `records.Records`."""
    return Progress(scheduling.start(schedule), Records(span))


def complete(schedule: Schedule, progress: Progress, group: Group, group_size: int) -> tuple[Progress, str | None]:
    """Updates difficulties and solve rates, then says why the learner does not get the group; None: it does.

    A group that lacks rollouts or verdicts tells no pass rate: one of one right is not 16 of 16. It is counted under
    its reason and changes nothing else.

    Args:
        schedule: what problems are drawn from.
        progress: before the group.
        group: with as many outcomes as rollouts came back.
        group_size: G, rollouts that make a group complete.

    Raises:
        UserError: the schedule has no such environment.
    """
    scheduling.place_of(schedule, group.environment)
    reason = drop_reason(group, group_size)
    if reason not in (TOO_SHORT, VERIFIER_FAILED):
        progress = _seen(schedule, progress, group)
    if reason is not None:
        records = solve_rates.record_drop(progress.records, group.environment, reason)
        progress = dataclasses.replace(progress, records=records)
    return progress, reason


def drop_reason(group: Group, group_size: int) -> str | None:
    """Why the learner does not get a group; None: it does. By itself this changes nothing."""
    return _not_verified(group, group_size) or _no_signal(group)


def to_json(progress: Progress) -> dict[str, Any]:
    """The record that `from_json` reads."""
    return {
        "schedule": scheduling.to_json(progress.schedule),
        "records": solve_rates.to_json(progress.records),
    }


def from_json(schedule: Schedule, record: Mapping[str, Any]) -> Progress:
    """Progress from its record.

    Raises:
        UserError: it is none, or of another schedule.
    """
    stored = read(_Stored, record, "curricula")
    return Progress(scheduling.from_json(schedule, stored.schedule), solve_rates.from_json(stored.records))


@dataclasses.dataclass(frozen=True)
class _Stored:
    schedule: Any
    records: Any


def _not_verified(group: Group, group_size: int) -> str | None:
    if len(group.correct) < group_size:
        return TOO_SHORT
    return VERIFIER_FAILED if None in group.correct else None


def _seen(schedule: Schedule, progress: Progress, group: Group) -> Progress:
    passed, count = sum(map(bool, group.correct)), len(group.correct)
    counts = (passed, count)
    where = (group.environment, group.difficulty)
    state = scheduling.observe(schedule, progress.schedule, *where, *counts, hardest=group.hardest)
    return Progress(state, solve_rates.record(progress.records, group.environment, group.problem, *counts))


def _no_signal(group: Group) -> str | None:
    """Equal rewards have advantage 0 each (dynamic sampling, DAPO, arXiv 2503.14476). A bonus is no signal: it tells
    answers apart in every group, also where all are right and brevity alone would be learnt."""
    if len(set(group.correct if group.rewards is None else group.rewards)) > 1:
        return None
    if len(set(group.correct)) > 1:
        return ALL_ALIKE
    return ALL_RIGHT if all(group.correct) else ALL_WRONG
