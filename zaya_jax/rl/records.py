"""What has been solved how often: by source (an environment or a set of problems) and by problem; for checkpoints.

The best solve rate of a source, p*, is what the gate of the length reward, p > p* - T_acc, holds a group's solve rate p
against (report, arXiv 2605.05365, eqs 8-10). Whether the group itself is recorded before its reward is computed makes
no difference while T_acc > 0: a group that sets p* passes the gate either way, and any other leaves p* as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.rl import checks


@dataclasses.dataclass(frozen=True)
class Rate:
    """Solve rates of a source or of a problem.

    Attributes:
        groups: complete ones.
        passed, count: right and all of their rollouts.
        latest: pass rate of the last group.
        recent: mean pass rate over about the last `span` groups: rate += (latest - rate) / min(groups, span).
        best: p*, the greatest `recent` so far; 0 until there have been `span` groups.
    """

    groups: int = 0
    passed: int = 0
    count: int = 0
    latest: float = 0.0
    recent: float = 0.0
    best: float = 0.0


@dataclasses.dataclass(frozen=True)
class Records:
    """All rates. The mappings are replaced, never changed.

    Attributes:
        span: groups that `Rate.recent` looks back on. The report calls p* the running maximum of the solve rate without
            saying over how many rollouts; 1 takes it group by group, as p is.
        sources: rates by environment.
        problems: rates by environment and problem.
        dropped: groups that the learner did not get, by environment and reason.

    Raises:
        UserError: the span is out of range.
    """

    span: int = 1
    sources: Mapping[str, Rate] = dataclasses.field(default_factory=dict)
    problems: Mapping[str, Mapping[str, Rate]] = dataclasses.field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        checks.check_range(self, "span", 1, whole=True)


def record(records: Records, source: str, problem: str | None, passed: int, count: int) -> Records:
    """The records after a complete group; without a problem's id that of the source alone.

    Raises:
        ValueError: the counts are not those of a group.
    """
    if not 0 <= passed <= count or count < 1:
        raise ValueError(f"{passed} of {count} rollouts")
    sources = {**records.sources, source: _after(records.sources.get(source, Rate()), passed, count, records.span)}
    records = dataclasses.replace(records, sources=sources)
    if problem is None:
        return records
    own = records.problems.get(source, {})
    own = {**own, problem: _after(own.get(problem, Rate()), passed, count, records.span)}
    return dataclasses.replace(records, problems={**records.problems, source: own})


def record_drop(records: Records, source: str, reason: str) -> Records:
    """The records after a group that the learner does not get."""
    own = records.dropped.get(source, {})
    counts = {**own, reason: own.get(reason, 0) + 1}
    return dataclasses.replace(records, dropped={**records.dropped, source: counts})


def best_solve_rate(records: Records, source: str) -> float:
    """p* of a source; 0 for one that has no record yet, which lets every group through the length reward's gate."""
    return records.sources.get(source, Rate()).best


def to_json(records: Records) -> dict[str, Any]:
    """The record that `from_json` reads."""
    return checks.to_json(records)


def from_json(stored: Any) -> Records:
    """Records from their JSON.

    Raises:
        UserError: it is of something else.
    """
    where = "solve rates"
    plain = checks.from_json(Records, stored, where)
    for key in ("sources", "problems", "dropped"):
        if not isinstance(stored[key], Mapping):
            raise mistake("not an object", where=f"{where}.{key}", found=repr(stored[key])[:40])
    sources = _rates(plain.sources, f"{where}.sources")
    problems = {name: _rates(own, f"{where}.problems.{name}") for name, own in plain.problems.items()}
    return Records(plain.span, sources, problems, {name: dict(own) for name, own in plain.dropped.items()})


def _rates(stored: Mapping[str, Any], where: str) -> dict[str, Rate]:
    return {name: checks.from_json(Rate, one, f"{where}.{name}") for name, one in stored.items()}


def _after(rate: Rate, passed: int, count: int, span: int) -> Rate:
    groups, latest = rate.groups + 1, passed / count
    recent = rate.recent + (latest - rate.recent) / min(groups, span)
    best = max(rate.best, recent) if groups >= span else 0.0
    return Rate(groups, rate.passed + passed, rate.count + count, latest, recent, best)
