"""Accuracies of k attempts out of n: pass@k and maj@k, both exact over all subsets of k."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

import numpy as np


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k samples, drawn without replacement from n of which c are right, is right.

    Unbiased (Chen et al. 2021, arXiv 2107.03374): 1 - C(n-c, k) / C(n, k), as a product that does not overflow.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / j for j in range(n - c + 1, n + 1))


def maj_at_k(clusters: Sequence[int | None], correct: Sequence[bool], k: int) -> float:
    """The chance that the plurality of k samples, drawn without replacement from n, is right.

    Exact, not sampled: the expectation over all subsets of k and over ties, which are broken evenly. Where nobody has
    a vote the answer is wrong. Where the members of a class disagree on being right (equivalence of formulas is not
    always transitive), the class is right to the share of its members.

    Args:
        clusters: [n] classes of equivalent answers; None has no vote.
        correct: [n].
        k: from 1 to n.
    """
    n = len(clusters)
    if len(correct) != n or not 1 <= k <= n:
        raise ValueError(f"1 <= k <= n and as many verdicts, not n={n}, k={k}, {len(correct)} verdicts")
    sizes = collections.Counter(cluster for cluster in clusters if cluster is not None)
    right = collections.Counter(cluster for cluster, good in zip(clusters, correct) if good and cluster is not None)
    # Classes of one size win equally often.
    shares = collections.Counter()
    for cluster, size in sizes.items():
        shares[size] += right[cluster] / size
    chances = {size: _wins(size, sizes, n, k) for size, share in shares.items() if share}
    return float(sum(shares[size] * chance for size, chance in chances.items()))


def _wins(size: int, sizes: collections.Counter, n: int, k: int) -> float:
    """The chance that one given class of this size has the plurality, ties shared.

    How many of a subset of k fall into each class is multivariate hypergeometric: independent binomials with any one
    chance, conditioned on their sum. With k / n nothing over- or underflows, however large n is.
    """
    counts = collections.Counter(sizes.values())
    counts[size] -= 1
    silent = n - sum(sizes.values())
    own, total = _binomial(size, k / n, k), _binomial(n, k / n, k)[k]
    chance = 0.0
    for votes in range(1, min(size, k) + 1):
        ways = _others(counts, silent, votes, k - votes, k / n)
        chance += own[votes] * float(ways @ (1.0 / np.arange(1, len(ways) + 1)))
    return chance / total


def _others(counts: collections.Counter, silent: int, votes: int, rest: int, p: float) -> np.ndarray:
    """Chances that the other classes and the silent take `rest` samples, none more than `votes`: by number of ties."""
    ties = rest // votes + 1
    ways = np.zeros((ties, rest + 1))  # [ties, samples taken]
    # Classes that cannot reach so many are as good as silent.
    ways[0] = _binomial(silent + sum(size * count for size, count in counts.items() if size < votes), p, rest)
    for size, count in counts.items():
        if size < votes:
            continue
        pmf = _binomial(size, p, rest)
        below, tied = pmf[:votes], pmf[votes] if votes <= rest else 0.0
        for _ in range(count):
            new = np.zeros_like(ways)
            for taken, chance in enumerate(below):
                new[:, taken:] += chance * ways[:, : rest + 1 - taken]
            if tied:
                new[1:, votes:] += tied * ways[:-1, : rest + 1 - votes]
            ways = new
    return ways[:, rest]


def _binomial(n: int, p: float, most: int) -> np.ndarray:
    """Chances of 0 to `most` successes of n, [most + 1]."""
    if p == 1.0:
        return (np.arange(most + 1) == n).astype(float)
    made = np.zeros(most + 1)
    for s in range(min(n, most) + 1):
        logs = math.lgamma(n + 1) - math.lgamma(s + 1) - math.lgamma(n - s + 1)
        made[s] = math.exp(logs + s * math.log(p) + (n - s) * math.log1p(-p))
    return made
