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

    Attributes:
        evicted: groups that left because it was full.
        stale: groups that had become too old.
    """

    def __init__(self, capacity: int, staleness: int):
        for name, value, least in (("capacity", capacity, 1), ("staleness", staleness, 0)):
            if value < least:
                raise mistake("out of range", where=f"buffer {name}", expected=f"{least} or more", found=value)
        self._capacity, self._staleness = capacity, staleness
        self._groups: collections.deque[Scored] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self.evicted, self.stale = 0, 0

    def __len__(self) -> int:
        return len(self._groups)

    def groups(self) -> list[Scored]:
        """What it holds, the oldest first."""
        with self._changed:
            return list(self._groups)

    def put(self, scored: Scored) -> Scored | None:
        """Adds a group; returns the one that had to leave for it, if any."""
        with self._changed:
            self._groups.append(scored)
            gone = self._groups.popleft() if len(self._groups) > self._capacity else None
            self.evicted += gone is not None
            self._changed.notify_all()
            return gone

    def take(self, count: int, version: int, timeout: float | None = None) -> list[Scored] | None:
        """The oldest `count` groups that are fresh enough for the weights `version`; waits until there are so many.

        Args:
            timeout: seconds to wait; None for any.

        Returns:
            None if the buffer was closed, or the time was over, before there were enough.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._fresh(version) >= count, timeout):
                return None
            if len(self._groups) < count:
                return None
            return [self._groups.popleft() for _ in range(count)]

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fresh(self, version: int) -> int:
        """Drops what is too old, and counts what is left."""
        kept = [one for one in self._groups if version - oldest_version(one) <= self._staleness]
        self.stale += len(self._groups) - len(kept)
        self._groups = collections.deque(kept)
        return len(kept)
