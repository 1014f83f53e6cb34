"""Packing whole examples into windows: best fit decreasing, as ZAYA1's SFT does (report, IV-A; arXiv 2404.10830).

No example is cut. A plan is made once, over all examples, before anything is sharded; a window of it is then a pure
function of the seed and the window's number, so that a run's place in its data is one integer.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
from collections.abc import Sequence

import numpy as np

from zaya_jax.errors import mistake


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices whose lengths sum to at most `capacity`: the longest first, each into the fullest bin it fits.

    Ties go to the lower index and to the bin opened first, so the result depends on the lengths alone. The time is
    O(n * capacity / 64): which amounts of space are left anywhere is one integer, a bit each.

    Raises:
        UserError: a length is not positive or larger than `capacity`.
    """
    lengths = np.asarray(lengths, np.int64)
    bad = np.flatnonzero((lengths < 1) | (lengths > capacity))
    if bad.size:
        where = f"example {bad[0]}"
        raise mistake("an example does not fit", where=where, expected=f"1 to {capacity} tokens", found=lengths[bad[0]])
    bins: list[list[int]] = []
    with_space: dict[int, list[int]] = {}  # tokens left -> heap of bins
    spaces = 0
    for example in np.argsort(-lengths, kind="stable"):
        length = int(lengths[example])
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            index = heapq.heappop(with_space[space])
            if not with_space[space]:
                spaces ^= 1 << space
        else:
            space, index = capacity, len(bins)
            bins.append([])
        bins[index].append(int(example))
        left = space - length
        if left:
            heapq.heappush(with_space.setdefault(left, []), index)
            spaces |= 1 << left
    return bins


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which examples each window holds, epoch after epoch.

    Attributes:
        bins: from `best_fit_decreasing`.
        seed: of the order of the bins; every epoch has its own.
    """

    bins: tuple[tuple[int, ...], ...]
    seed: int

    def window(self, number: int) -> tuple[int, ...]:
        """The examples of a window, numbered from 0 over all epochs."""
        epoch, place = divmod(number, len(self.bins))
        return self.bins[_order(self.seed, epoch, len(self.bins))[place]]


@functools.lru_cache(maxsize=64)  # windows are read one after the other, those of several sources in turns
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)
