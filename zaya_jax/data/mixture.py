"""Which source each window comes from: exact shares in every block of windows, mixed inside the block.

With weights 0.7, 0.2 and 0.1 every ten windows from a multiple of ten on hold seven, two and one of the sources, in an
order that depends on the seed and the block alone. What stands at window n is found without counting from 0.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from zaya_jax.errors import mistake

DECIMALS = 4
_UNIT = 10**DECIMALS


class Place(NamedTuple):
    """A window of a source: the source's name, and the number of the window among all that come from it."""

    source: str
    window: int


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Shares of windows.

    Attributes:
        names: the sources.
        shares: windows of each in a block.
        seed: of the order inside the blocks.
    """

    names: tuple[str, ...]
    shares: tuple[int, ...]
    seed: int

    @property
    def block(self) -> int:
        """Windows in a block."""
        return sum(self.shares)

    def place(self, number: int) -> Place:
        """What stands at a window of the mixture, numbered from 0."""
        block, place = divmod(number, self.block)
        sources, ranks = _order(self.seed, block, self.shares)
        source = int(sources[place])
        return Place(self.names[source], block * self.shares[source] + int(ranks[place]))


def make_mixture(weights: Mapping[str, float], seed: int) -> Mixture:
    """A mixture of sources by name.

    Raises:
        UserError: a weight is not a share with at most four decimals, or they do not add up to 1.
    """
    counts = {name: _count(name, weight) for name, weight in weights.items()}
    if sum(counts.values()) != _UNIT:
        found = f"{sum(counts.values()) / _UNIT:g} ({' + '.join(f'{name} {weights[name]:g}' for name in weights)})"
        raise mistake("mixture weights do not add up", where="sources", expected="a sum of 1", found=found)
    common = math.gcd(*counts.values())
    return Mixture(tuple(counts), tuple(count // common for count in counts.values()), seed)


def _count(name: str, weight: float) -> int:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    count = round(weight * _UNIT) if number and 0 < weight <= 1 else 0
    if not count or abs(weight * _UNIT - count) > 1e-6:
        expected = f"a share above 0 and up to 1, with at most {DECIMALS} decimals"
        raise mistake("not a weight", where=f"source {name!r}", expected=expected, found=repr(weight)[:40])
    return count


@functools.lru_cache(maxsize=64)  # a step's rows mostly lie in one block
def _order(seed: int, block: int, shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The source at each place of a block, and how many of the same source stand before it."""
    sources = np.random.Generator(np.random.PCG64([seed, block])).permutation(np.repeat(np.arange(len(shares)), shares))
    ranks = np.empty(len(sources), np.int64)
    for source, share in enumerate(shares):
        ranks[sources == source] = np.arange(share)
    return sources, ranks
