"""Groups between those who sample and who learns: bounded, and never too old."""

from __future__ import annotations

import collections
import threading

from zaya_jax.errors import mistake
from zaya_jax.rl.scoring import Scored


def oldest_version(scored: Scored) -> int:
    """Of the weights that drew a token of a group."""
    return min(one.oldest for one in scored.answered.rollouts)


class Buffer:
    """First in, first out. When it is full the oldest group leaves; who takes gets none that is too stale.

    Staleness counts the updates between the weights that drew a group's oldest token and those that learn from it.

    Args:
        capacity: groups it holds.
        staleness: the most that a group may have when it is taken.
    """

    def __init__(self, capacity: int, staleness: int):
        for name, value, least in (("capacity", capacity, 1), ("staleness", staleness, 0)):
            if value < least:
                raise mistake("out of range", where=f"buffer {name}", expected=f"{least} or more", found=value)
        self._capacity, self._staleness = capacity, staleness
        self._groups: collections.deque[Scored] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._gone: collections.deque[tuple[int, str]] = collections.deque()

    def __len__(self) -> int:
        return len(self._groups)

    def groups(self) -> list[Scored]:
        """What it holds, the oldest first."""
        with self._changed:
            return list(self._groups)

    def put(self, scored: Scored) -> None:
        """Adds a group; the oldest leaves for it where there is no room."""
        with self._changed:
            self._groups.append(scored)
            if len(self._groups) > self._capacity:
                self._gone.append((self._groups.popleft().answered.asked.number, "evicted"))
            self._changed.notify_all()

    def take(
        self, count: int, version: int, timeout: float | None = None, waited_for: int | None = None
    ) -> list[Scored] | None:
        """The oldest `count` groups that are fresh enough for the weights `version`.

        Args:
            timeout: seconds to wait; None for any.
            waited_for: fresh groups that have to be there; None for `count`.

        Returns:
            None if the buffer was closed, or the time was over, before there were enough.
        """
        least = count if waited_for is None else waited_for
        with self._changed:
            enough = self._changed.wait_for(lambda: self._fresh(version) >= least or self._closed, timeout)
            if not enough or len(self._groups) < least:
                return None
            return [self._groups.popleft() for _ in range(count)]

    def take_gone(self) -> list[tuple[int, str]]:
        """Numbers of the groups that were evicted or stale since the last call, each with "evicted" or "stale"."""
        with self._changed:
            found = list(self._gone)
            self._gone.clear()
            return found

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fresh(self, version: int) -> int:
        """Drops what is too old, and counts what is left."""
        kept: collections.deque[Scored] = collections.deque()
        for one in self._groups:
            if version - oldest_version(one) <= self._staleness:
                kept.append(one)
            else:
                self._gone.append((one.answered.asked.number, "stale"))
        self._groups = kept
        return len(kept)
