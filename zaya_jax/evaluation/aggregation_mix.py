"""Which attempts go into which aggregation prompt: draws without replacement, in wanted shares by how many are right.

A model that has only ever seen attempts of which one is right learns to pick, not to repair. So prompts of attempts
that are all wrong, and all right, are wanted too; of each as many as there are, up to its share.
"""

from __future__ import annotations

import collections
import difflib
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from zaya_jax.errors import mistake

ALL_WRONG, MIXED, ALL_RIGHT = KINDS = ("all_wrong", "mixed", "all_right")
_RAREST_FIRST = (ALL_WRONG, ALL_RIGHT, MIXED)  # what is filled first keeps its place

Mix = Mapping[str, float]
Draw = tuple[int, ...]


def parse_mix(text: str) -> dict[str, float]:
    """Shares from "all_wrong=0.2,mixed=0.6,all_right=0.2"; a kind that is not named has none.

    Raises:
        UserError: a kind is unknown or there twice, a share is no number from 0 to 1, or they do not sum to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in KINDS or name in shares:
            close = difflib.get_close_matches(name, KINDS, 1)
            fix = f"did you mean {close[0]}?" if close and name not in shares else ""
            raise mistake("unknown or repeated kind", where="mix", expected=", ".join(KINDS), found=repr(name), fix=fix)
        shares[name] = _share(name, value)
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise mistake("shares do not sum to 1", where="mix", expected="1", found=f"{sum(shares.values()):g}")
    return shares


def kind_of(right: int, c: int) -> str:
    """The kind of a prompt of `c` attempts of which so many are right."""
    return ALL_WRONG if right == 0 else ALL_RIGHT if right == c else MIXED


def plan(right: Mapping[str, int], n: int, c: int, m: int, mix: Mix | None, seed: int) -> dict[str, list[str | None]]:
    """The kinds of each problem's draws, at most `m` a problem.

    Args:
        right: how many of the n attempts at each problem are right.
        mix: shares of all draws, m a problem; None takes m of any kind. Each kind is given as many as its share, or
            as many as the problems have different draws for. What one lacks is not made up for by another.
    """
    if mix is None:
        return {name: [None] * m for name in right}
    groups = collections.defaultdict(list)  # problems that are alike
    for name in sorted(right, key=lambda name: _words(f"plan {seed} {name}")):
        groups[right[name]].append(name)
    edges = {(kind, r): len(names) * min(m, _choices(kind, r, n, c)) for kind in KINDS for r, names in groups.items()}
    placed = _fill(quotas(mix, m * len(right)), edges, {r: m * len(names) for r, names in groups.items()})
    out: dict[str, list[str | None]] = {name: [] for name in right}
    for r, names in groups.items():
        kinds = [kind for kind in KINDS for _ in range(placed[kind, r])]
        for place, kind in enumerate(kinds):  # in turn: nobody gets more than their share of a kind, or of all
            out[names[place % len(names)]].append(kind)
    return out


def quotas(mix: Mix, total: int) -> dict[str, int]:
    """Whole numbers in these shares that add up to `total`; what is left over goes to the largest remainders."""
    exact = {kind: mix.get(kind, 0) * total for kind in _RAREST_FIRST}
    counts = {kind: math.floor(value + 1e-9) for kind, value in exact.items()}
    by_rest = sorted(exact, key=lambda kind: counts[kind] - exact[kind])
    for kind in by_rest[: total - sum(counts.values())]:
        counts[kind] += 1
    return counts


def draw_attempts(
    problem: str, kinds: Sequence[str | None], right: Collection[int], n: int, c: int, seed: int
) -> list[Draw]:
    """The attempts of each draw from the n at a problem, no two draws of the same ones; None is a draw of any kind.

    A draw depends on the seed, the problem, its number, and the draws before it.
    """
    drawn: list[Draw] = []
    taken: set[frozenset[int]] = set()
    for number, kind in enumerate(kinds):
        rng = np.random.default_rng(np.random.SeedSequence([seed, number, *_words(problem)]))
        draw = _draw(rng, kind, right, n, c)
        while frozenset(draw) in taken:
            draw = _draw(rng, kind, right, n, c)
        taken.add(frozenset(draw))
        drawn.append(draw)
    return drawn


def _draw(rng: np.random.Generator, kind: str | None, right: Collection[int], n: int, c: int) -> Draw:
    if kind is None:
        return tuple(rng.choice(n, c, replace=False).tolist())
    rights, wrongs = sorted(right), [index for index in range(n) if index not in right]
    count = {ALL_WRONG: 0, ALL_RIGHT: c}.get(kind)
    if count is None:  # every mixed choice alike
        ways = np.array([math.comb(len(rights), k) * math.comb(len(wrongs), c - k) for k in range(1, c)], float)
        count = 1 + int(rng.choice(c - 1, p=ways / ways.sum()))
    chosen = [*rng.permutation(rights)[:count], *rng.permutation(wrongs)[: c - count]]
    return tuple(int(index) for index in rng.permutation(chosen))


def _choices(kind: str, right: int, n: int, c: int) -> int:
    """How many different draws of a kind there are."""
    wrong, rights = math.comb(n - right, c), math.comb(right, c)
    return {ALL_WRONG: wrong, ALL_RIGHT: rights, MIXED: math.comb(n, c) - wrong - rights}[kind]


def _fill(wanted: Mapping[str, int], edges: Mapping, rooms: Mapping[int, int]) -> collections.Counter:
    """As many of each kind as is wanted and possible, by group: a maximum flow, found path by path.

    Args:
        wanted: by kind, the first ones preferred.
        edges: the most of a kind in a group.
        rooms: the most in a group.
    """
    placed: collections.Counter = collections.Counter()
    for kind, left in wanted.items():
        while left and (path := _path(kind, placed, edges, rooms)):
            last = path[-1][1]
            spare = rooms[last] - sum(placed[other, last] for other in wanted)
            limits = [edges[k, g] - placed[k, g] if sign > 0 else placed[k, g] for k, g, sign in path]
            amount = min(left, spare, *limits)
            for k, g, sign in path:
                placed[k, g] += sign * amount
            left -= amount
    return placed


def _path(start: str, placed, edges: Mapping, rooms: Mapping[int, int]) -> list[tuple[str, int, int]] | None:
    """Where one more of a kind can go, and what has to move on for it: kind, group, and one more or one less."""
    queue, kinds, groups = collections.deque([(start, [])]), {start}, set()
    while queue:
        kind, steps = queue.popleft()
        for group in rooms:
            if group in groups or placed[kind, group] >= edges[kind, group]:
                continue
            groups.add(group)
            here = [*steps, (kind, group, 1)]
            if sum(placed[other, group] for other in KINDS) < rooms[group]:
                return here
            for other in KINDS:
                if other not in kinds and placed[other, group]:
                    kinds.add(other)
                    queue.append((other, [*here, (other, group, -1)]))
    return None


def _share(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise mistake("not a share", where=f"mix, {name}", expected="a number from 0 to 1", found=repr(value))
    return share


def _words(text: str) -> list[int]:
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], np.uint32).tolist()
