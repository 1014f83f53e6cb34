"""`shortest_path`: through a weighted graph. "path ad ab=3 bc=1 cd=2 ad=9 ac=5" -> "abcd".

Any of the shortest paths counts, as its nodes in their order. The target is a node that is farthest from the source.

Difficulty d: 4 + d // 2 nodes, a random spanning tree and 2 + d more edges where there is room, weights 1 to 9.
"""

from __future__ import annotations

import heapq
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.families.family import Slip, environment, symbol

_NODE = "[a-z][0-9]{0,6}"
_NODES = re.compile(_NODE)
Edge = tuple[str, str, int]


def make(chance: random.Random, difficulty: int) -> tuple[str, dict[str, Any]]:
    """Draws a graph."""
    names = [symbol(number) for number in range(4 + difficulty // 2)]
    order = chance.sample(names, len(names))
    pairs = [(order[chance.randrange(place)], order[place]) for place in range(1, len(order))]
    rest = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :] if {(a, b), (b, a)}.isdisjoint(pairs)]
    pairs += chance.sample(rest, min(len(rest), 2 + difficulty))
    chance.shuffle(pairs)
    edges = [(*(pair if chance.random() < 0.5 else pair[::-1]), chance.randint(1, 9)) for pair in pairs]
    source = chance.choice(names)
    length, path = _settled(edges, source)[-1]
    hidden = {"source": source, "target": path[-1], "edges": [list(edge) for edge in edges], "length": length}
    return f"path {source}{path[-1]} " + " ".join(f"{a}{b}={weight}" for a, b, weight in edges), hidden


def judge(hidden: Mapping[str, Any], answer: str) -> str | None:
    """Walks along the answer."""
    nodes = _NODES.findall(answer)
    if (nodes[0], nodes[-1]) != (hidden["source"], hidden["target"]):
        return "not from source to target"
    weights = _weights(hidden["edges"])
    steps = list(itertools.pairwise(nodes))
    if any(step not in weights for step in steps):
        return "not along edges"
    return None if sum(weights[step] for step in steps) == hidden["length"] else "not the shortest"


def work(hidden: Mapping[str, Any], slip: Slip) -> tuple[list[str], str]:
    """Dijkstra's algorithm, a line a node, nearest first: "2:abc=4" has a shortest path and its length."""
    settled = _settled(hidden["edges"], hidden["source"], slip)
    place = next(place for place, (_, path) in enumerate(settled) if path[-1] == hidden["target"])
    lines = [f"{number}:{''.join(path)}={length}" for number, (length, path) in enumerate(settled[: place + 1])]
    return lines[1:], "".join(settled[place][1])


def _settled(edges: Sequence[Edge], source: str, slip: Slip | None = None) -> list[tuple[int, tuple[str, ...]]]:
    """Shortest paths with their lengths, nearest first; a slip takes a longer way to a node."""
    weights = _weights(edges)
    around: dict[str, list[str]] = {}
    for a, b in weights:
        around.setdefault(a, []).append(b)
    settled: dict[str, tuple[int, tuple[str, ...]]] = {}
    queue = [(0, (source,))]
    while queue:
        length, path = heapq.heappop(queue)
        if path[-1] in settled:
            continue
        if slip is not None:
            longer = [each for each in sorted(queue) if each[1][-1] == path[-1] and each[0] > length]
            length, path = slip((length, path), longer)
        settled[path[-1]] = length, path
        for node in around[path[-1]]:
            if node not in settled:
                heapq.heappush(queue, (length + weights[path[-1], node], (*path, node)))
    return list(settled.values())


def _weights(edges: Sequence[Edge]) -> dict[tuple[str, str], int]:
    """Both directions of every edge."""
    return {pair: weight for a, b, weight in edges for pair in ((a, b), (b, a))}


SHORTEST_PATH = environment("shortest_path", make, f"(?:{_NODE})+", judge, work)
