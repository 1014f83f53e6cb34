"""How hard the problems of one environment are: two rules that move a difficulty by what groups of rollouts achieve.

    level = start(rule)
    difficulty = draw(rule, level, rng)                            # of the next group
    level = observe(rule, level, difficulty, passed=13, count=16)  # once it is complete

`Window` is RLVE's own rule (arXiv 2511.07317): problems from a window of difficulties below an upper one, which rises
when the policy has mastered it and never falls. `Adaptive` is ZAYA1's (technical report, arXiv 2605.05365, IV-B4, eqs
11-14): one difficulty that each group may raise or lower.
"""

from __future__ import annotations

import dataclasses
import random

from zaya_jax.rl.checks import check_range


@dataclasses.dataclass(frozen=True)
class Window:
    """RLVE's rule. The constants are those of its code.

    Attributes:
        width: W; difficulties max(0, h - W + 1) to h are asked, each as often, where h is the upper difficulty.
        groups: so many groups' worth of rollouts at h are looked at together.
        group_size: G, rollouts of a group.
        accuracy: h rises by 1 if their mean accuracy is at least this; they are forgotten either way.

    Raises:
        UserError: a value is out of range.
    """

    width: int = 4
    groups: int = 8
    group_size: int = 16
    accuracy: float = 0.9

    def __post_init__(self):
        for name in ("width", "groups", "group_size"):
            check_range(self, name, 1, whole=True)
        check_range(self, "accuracy", 0, 1, above=True)


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """ZAYA1's rule.

    Attributes:
        raise_above: the difficulty rises by 1 after a group with a greater pass rate, if the group was made at the
            difficulty as it still is: groups in flight when it rose do not raise it again.
        lower_at: it falls by 1, not below 0, after a group with this pass rate or a lower one.
        lower_needs_current: whether that too takes a group at the current difficulty. The report's equation asks for
            it when it rises alone, so that stale failures lower the difficulty.

    Raises:
        UserError: a value is out of range.
    """

    raise_above: float = 0.7
    lower_at: float = 0.0
    lower_needs_current: bool = False

    def __post_init__(self):
        check_range(self, "lower_at", 0, 1)
        check_range(self, "raise_above", self.lower_at, 1)


Rule = Window | Adaptive


@dataclasses.dataclass(frozen=True)
class Level:
    """Where an environment stands; `checks.to_json` and `checks.from_json` store it.

    Attributes:
        difficulty: the current one; the upper one of a window.
        passed, count: right and all rollouts at it since they were last looked at; `Window` alone counts them.
    """

    difficulty: int = 0
    passed: int = 0
    count: int = 0


def draw(rule: Rule, level: Level, rng: random.Random) -> int:
    """The difficulty of the next group: uniform over the window, or the current one."""
    if isinstance(rule, Adaptive):
        return level.difficulty
    lowest = max(0, level.difficulty - rule.width + 1)
    return lowest + int(rng.random() * (level.difficulty - lowest + 1))


def observe(rule: Rule, level: Level, difficulty: int, passed: int, count: int) -> Level:
    """The level after a completed group.

    Args:
        rule: the rule.
        level: the level now, which may have moved since the group was drawn.
        difficulty: the group was made at.
        passed, count: its right rollouts, and all of them.

    Raises:
        ValueError: the counts are not those of a group.
    """
    if not 0 <= passed <= count or count < 1:
        raise ValueError(f"{passed} of {count} rollouts")
    current = difficulty == level.difficulty
    if isinstance(rule, Window):
        return _counted(rule, level, passed, count) if current else level
    rate = passed / count
    if rate > rule.raise_above:
        return Level(level.difficulty + 1) if current else level
    if rate <= rule.lower_at and (current or not rule.lower_needs_current):
        return Level(max(0, level.difficulty - 1))
    return level


def _counted(rule: Window, level: Level, passed: int, count: int) -> Level:
    passed, count = level.passed + passed, level.count + count
    if count < rule.groups * rule.group_size:
        return Level(level.difficulty, passed, count)
    return Level(level.difficulty + (passed / count >= rule.accuracy))
