"""A byte n-gram model: what counting alone makes of a text, as a number to hold a loss against.

Interpolated Kneser-Ney with one discount an order (Chen and Goodman, 1999, section 2.7; D = n1 / (n1 + 2 n2)):

    P_k(byte | context) = max(c - D, 0) / n + D d / n * P_(k-1)(byte | context less its first byte)

with c, n and d the byte's count, all counts and the different bytes behind the context. Below the highest order a count
is in how many different contexts, one byte longer, the bytes were seen. The lowest order is smoothed with 1/256. Before
a document stand marks that are no bytes, so its beginning is learnt and judged like the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

START = 256  # the mark before a document
_SYMBOLS = 257


@dataclasses.dataclass(frozen=True)
class _Order:
    """Counts of one order. Keys are symbols as digits of base 257, the oldest first.

    Attributes:
        grams: contexts with the byte behind them, sorted, int64.
        counts: of each.
        contexts: sorted, int64.
        totals: sum of the counts behind each context.
        kinds: different bytes behind each context.
        discount: what every count loses.
    """

    grams: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray
    discount: float


@dataclasses.dataclass(frozen=True)
class NGram:
    """A model of bytes given the `order - 1` symbols before them. Made by `fit`."""

    orders: tuple[_Order, ...]  # of no context first

    def probabilities(self, grams: np.ndarray) -> np.ndarray:
        """The probability of the last symbol of each key of the highest order, float64."""
        found = np.full(len(grams), 1 / 256)
        for length, order in enumerate(self.orders, 1):
            found = _interpolated(order, grams % _SYMBOLS**length, found)
        return found

    def bits(self, documents: Iterable[bytes]) -> float:
        """Bits a byte of documents."""
        grams = np.concatenate([_grams(document, len(self.orders)) for document in documents])
        return float(-np.log2(self.probabilities(grams)).mean())


def fit(documents: Sequence[bytes], order: int = 5) -> NGram:
    """Counts documents. 10 MB take about a second and 300 MB of memory.

    Args:
        documents: at least one byte in all.
        order: bytes in an n-gram, the predicted one included; at most 7.
    """
    if not 1 <= order <= 7:
        raise ValueError(f"order: expected 1 to 7, found {order}")
    grams = np.concatenate([_grams(document, order) for document in documents])
    grams, counts = np.unique(grams, return_counts=True)
    orders = [_counted(grams, counts)]
    for length in range(order - 1, 0, -1):
        grams, counts = np.unique(grams % _SYMBOLS**length, return_counts=True)
        orders.append(_counted(grams, counts))
    return NGram(tuple(orders[::-1]))


def ngram_bits(held_out: Sequence[bytes], train: Sequence[bytes], order: int = 5) -> float:
    """Bits a byte of the held-out documents under counts of the training documents."""
    return fit(train, order).bits(held_out)


def _grams(document: bytes, order: int) -> np.ndarray:
    """The key of each byte with the `order - 1` symbols before it, int64."""
    symbols = np.concatenate([np.full(order - 1, START), np.frombuffer(document, np.uint8)]).astype(np.int64)
    grams = np.zeros(len(document), np.int64)
    for place in range(order):
        grams = grams * _SYMBOLS + symbols[place : place + len(document)]
    return grams


def _counted(grams: np.ndarray, counts: np.ndarray) -> _Order:
    contexts, starts, kinds = np.unique(grams // _SYMBOLS, return_index=True, return_counts=True)
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    # Without n-grams seen once the formula has no discount, and what was never seen would be impossible.
    discount = once / (once + 2 * twice) if once else 0.5
    return _Order(grams, counts, contexts, np.add.reduceat(counts, starts), kinds, discount)


def _interpolated(order: _Order, grams: np.ndarray, lower: np.ndarray) -> np.ndarray:
    count, _ = _look_up(order.grams, order.counts, grams)
    total, seen = _look_up(order.contexts, order.totals, grams // _SYMBOLS)
    kinds, _ = _look_up(order.contexts, order.kinds, grams // _SYMBOLS)
    own = np.maximum(count - order.discount, 0) + order.discount * kinds * lower
    return np.where(seen, own / np.maximum(total, 1), lower)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value of each wanted key, 0 where it is not there; and whether it is."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    there = keys[place] == wanted
    return np.where(there, values[place], 0), there
