"""What is there instead of a problem or a verdict when an environment's own code does not give one, and how much of it
a run puts up with."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from zaya_jax.errors import mistake

KINDS = {
    "timeout": "it took longer than a call may",
    "raised": "it raised an exception",
    "memory": "it took more memory than a worker may",
    "output": "it printed more than a call may",
    "died": "its process ended: a signal, or an exit of its own",
    "garbage": "something other than a reply came out of its process, or one that is too large",
    "type": "no problem or verdict came back, or one with a field of another type or with what JSON cannot hold",
    "reward": "the reward is NaN, infinite or no number",
}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A call that gave nothing: says something of the environment, and nothing of the response.

    Attributes:
        environment: its specification.
        kind: of `KINDS`.
        detail: one line: the exception, the signal, the limit.
    """

    environment: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.environment}: {self.kind}: {self.detail}"


@dataclasses.dataclass(frozen=True)
class FailureLimit:
    """The most that is put up with.

    Attributes:
        share: of an environment's last `calls` calls that may fail, 0 to 1; more end the run.
        calls: how many are looked at; before there were so many, nothing is said.
    """

    share: float = 0.1
    calls: int = 100

    def __post_init__(self):
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 <= self.share <= 1:
            raise mistake("not a share", where="FailureLimit.share", expected="0 to 1", found=repr(self.share))
        if isinstance(self.calls, bool) or not isinstance(self.calls, int) or self.calls < 1:
            raise mistake("not a count", where="FailureLimit.calls", expected="1 or more", found=repr(self.calls))


class Failures:
    """Counts calls and failures of each environment, and stops a run whose environment is broken.

    Args:
        limit: what is put up with.
        state: of `to_json`, to go on with; None begins at nothing.
    """

    def __init__(self, limit: FailureLimit | None = None, state: Mapping[str, Any] | None = None):
        self.limit = limit or FailureLimit()
        self.counts: dict[str, collections.Counter] = {}  # environment -> {"calls": n, kind: n, ...}
        self._last: dict[str, collections.deque[bool]] = {}
        for name, record in (state or {}).items():
            self.counts[name] = collections.Counter(record["counts"])
            self._last[name] = collections.deque(map(bool, record["last"]), self.limit.calls)

    def add(self, environment: str, result: Any) -> None:
        """Counts what a call gave: a `Failure`, or anything else for one that went well.

        Raises:
            UserError: too many of the environment's last calls failed; it names it and the last failure.
        """
        failed = isinstance(result, Failure)
        counts = self.counts.setdefault(environment, collections.Counter())
        counts.update(["calls", result.kind] if failed else ["calls"])
        last = self._last.setdefault(environment, collections.deque(maxlen=self.limit.calls))
        last.append(failed)
        if failed and len(last) == self.limit.calls and sum(last) > self.limit.share * len(last):
            raise mistake(
                "fails too often",
                where=f"environment {environment}",
                expected=f"at most {self.limit.share:.1%} of calls",
                found=f"{sum(last)} of the last {len(last)}; the last: {result.kind}: {result.detail}",
                fix=f"try python -m experiments.environments --validate={environment}",
            )

    def to_json(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        return {
            name: {"counts": dict(counts), "last": [int(failed) for failed in self._last[name]]}
            for name, counts in self.counts.items()
        }
