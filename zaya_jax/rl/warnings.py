"""Warnings about a run that goes wrong quietly: what is seen, the likely cause, and what to change.

    watch, texts = look(limits, watch, Step(truncated=0.6, no_signal=0.3, entropy=0.8, reward=0.4))

Each kind is given once, and again only after it has ceased. All of them look at means over the last steps, so that one
bad batch says nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.rl import checks
from zaya_jax.rl.checks import check_range


@dataclasses.dataclass(frozen=True)
class Limits:
    """Where warnings begin. The values are ours; the report has no such list.

    Attributes:
        steps: that a mean is over; there is no warning before as many have passed.
        truncated: share of responses that a budget cut off.
        no_signal: share of complete groups that are all right or all wrong.
        entropy: share of its start, the mean of the first `steps`, that the entropy falls below.
        held_out: looks at held-out problems that a trend is over.
        rise: of the mean training reward from the first of these looks to the last.
        fall: of the held-out accuracy meanwhile. A look has its own error, 0.02 for 400 problems or so: keep above it.

    Raises:
        UserError: a value is out of range.
    """

    steps: int = 8
    truncated: float = 0.5
    no_signal: float = 0.8
    entropy: float = 0.3
    held_out: int = 3
    rise: float = 0.02
    fall: float = 0.03

    def __post_init__(self):
        check_range(self, "steps", 1, whole=True)
        check_range(self, "held_out", 2, whole=True)
        for name in ("truncated", "no_signal", "entropy", "rise", "fall"):
            check_range(self, name, 0, 1)


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step of the learner measured.

    Attributes:
        truncated: share of its responses that a budget cut off.
        no_signal: share of the complete groups behind it that were all right or all wrong; None if there were none.
        entropy: mean of the policy's next-token distributions over response tokens, in nats.
        reward: mean over all complete groups, those that were dropped included: else it hardly moves; None without any.
        held_out: accuracy on held-out problems, at steps that looked at them.
    """

    truncated: float
    no_signal: float | None
    entropy: float
    reward: float | None
    held_out: float | None = None


@dataclasses.dataclass(frozen=True)
class Look:
    """A look at held-out problems: their accuracy, and the mean training reward of the steps since the look before;
    None if none of these has one."""

    held_out: float
    reward: float | None


@dataclasses.dataclass(frozen=True)
class Watch:
    """What the warnings remember; `checks.to_json` and `checks.from_json` store it.

    Attributes:
        recent: the last steps.
        count: of all steps.
        start_entropy: mean entropy of the first steps; None until they have passed.
        looks: the last looks at held-out problems.
        rewards: of the steps since the last look.
        given: kinds of warnings that were given and have not ceased.
    """

    recent: tuple[Step, ...] = ()
    count: int = 0
    start_entropy: float | None = None
    looks: tuple[Look, ...] = ()
    rewards: tuple[float | None, ...] = ()
    given: tuple[str, ...] = ()


def look(limits: Limits, watch: Watch, step: Step) -> tuple[Watch, tuple[str, ...]]:
    """What is remembered after a step, and the warnings that begin with it, a line each."""
    watch = _after(limits, watch, step)
    found = {name: check(limits, watch) for name, check in CHECKS.items()}
    now = tuple(name for name, text in found.items() if text is not None)
    texts = tuple(text for name, text in found.items() if text is not None and name not in watch.given)
    return dataclasses.replace(watch, given=now), texts


def truncation(limits: Limits, watch: Watch) -> str | None:
    """More than `limits.truncated` of the responses are cut off."""
    mean = _recent(limits, watch, "truncated")
    if mean is None or not mean > limits.truncated:
        return None
    return (
        f"{mean:.0%} of responses were cut off in the last {limits.steps} steps (limit {limits.truncated:.0%}): the "
        "response budget is too short for these problems, or the policy repeats itself; raise the budget, ask easier "
        "problems, turn the length reward on, or read some with `python -m experiments.rollouts`"
    )


def no_signal(limits: Limits, watch: Watch) -> str | None:
    """More than `limits.no_signal` of the groups teach nothing."""
    mean = _recent(limits, watch, "no_signal")
    if mean is None or not mean > limits.no_signal:
        return None
    reward = _mean([step.reward for step in watch.recent]) or 0.0  # there is one: groups were complete
    if reward < 0.5:
        cause = "problems are too hard, or no answer is found in the responses; lower the start difficulties, or train"
        cause += " longer on worked examples before"
    else:
        cause = "problems are too easy; filter them by pass rate (`python -m experiments.filter_problems`), or raise"
        cause += " the start difficulties"
    return (
        f"{mean:.0%} of groups were all right or all wrong in the last {limits.steps} steps (limit "
        f"{limits.no_signal:.0%}) at a mean reward of {reward:.2f}: {cause}"
    )


def entropy_collapse(limits: Limits, watch: Watch) -> str | None:
    """The entropy is below `limits.entropy` of its start: rollouts of a group become alike, and signal ends."""
    mean = _recent(limits, watch, "entropy")
    if mean is None or watch.start_entropy is None or not mean < limits.entropy * watch.start_entropy:
        return None
    return (
        f"entropy fell to {mean:.3g} nats a token from {watch.start_entropy:.3g} at the start (limit "
        f"{limits.entropy:.0%}): the policy sharpens faster than it learns; lower the learning rate, widen the upper "
        "clip or use the DPPO loss, take harder or more varied problems"
    )


def overfitting(limits: Limits, watch: Watch) -> str | None:
    """The training reward rises while held-out accuracy falls, over the last `limits.held_out` looks."""
    if len(watch.looks) < limits.held_out:
        return None
    first, last = watch.looks[0], watch.looks[-1]
    if first.reward is None or last.reward is None:
        return None
    rise, fall = last.reward - first.reward, first.held_out - last.held_out
    if rise <= limits.rise or fall <= limits.fall:
        return None
    return (
        f"reward rose by {rise:.3f} while held-out accuracy fell by {fall:.3f} over the last {limits.held_out} looks: "
        "the verifier is being exploited, or problems are learnt by heart; read the best-paid responses, check the "
        "verifier on them, add problems, and go back to an earlier checkpoint"
    )


CHECKS = {
    "truncation": truncation,
    "no signal": no_signal,
    "entropy collapse": entropy_collapse,
    "overfitting": overfitting,
}


def to_json(watch: Watch) -> dict[str, Any]:
    """The record that `from_json` reads."""
    return checks.to_json(watch)


def from_json(record: Mapping[str, Any]) -> Watch:
    """A watch from its record.

    Raises:
        UserError: it is none.
    """
    return checks.from_json(Watch, record, "warnings")


def _after(limits: Limits, watch: Watch, step: Step) -> Watch:
    recent, count = (*watch.recent, step)[-limits.steps :], watch.count + 1
    begun = _mean([one.entropy for one in recent]) if count == limits.steps else watch.start_entropy
    looks, rewards = watch.looks, (*watch.rewards, step.reward)
    if step.held_out is not None:
        looks, rewards = (*looks, Look(step.held_out, _mean(rewards)))[-limits.held_out :], ()
    return Watch(recent, count, begun, looks, rewards, watch.given)


def _recent(limits: Limits, watch: Watch, name: str) -> float | None:
    """A mean over the last steps that have this figure; None before there are enough, and where none has it."""
    if len(watch.recent) < limits.steps:
        return None
    return _mean([getattr(step, name) for step in watch.recent])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
