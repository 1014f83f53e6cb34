"""What has been read of prompts, kept so that another prompt that begins alike need not be read again.

A prompt is cut into pieces at places that depend on nothing but itself (`cuts`). A piece is known by its tokens and by
the piece before it, so that what is found is exactly what reading it would give, to the last bit.
"""

from __future__ import annotations

import collections
import dataclasses

import jax
import numpy as np

from zaya_jax.sampling.slots import Piece, nbytes

ROOT = 0  # the node before any token

Key = tuple[int, bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A piece of a prompt that has been read.

    Attributes:
        id: names it to the pieces that follow it.
        piece: what it left in the cache, of one row.
        logits_1V: the logits behind its last token; None if nothing was to be drawn there.
        routes_LT: the routes of its tokens, padding behind them.
    """

    id: int
    piece: Piece
    logits_1V: jax.Array | None
    routes_LT: jax.Array


class Prefixes:
    """Pieces by what they hold. The least recently used is forgotten first, but never before what follows it.

    Attributes:
        held: bytes of what is remembered.

    Args of the constructor:
        limit: bytes to hold at most.
    """

    def __init__(self, limit: int):
        self.held, self._limit, self._last = 0, limit, ROOT
        self._nodes: collections.OrderedDict[Key, Node] = collections.OrderedDict()
        self._keys: dict[int, Key] = {}

    def find(self, parent: int, tokens: np.ndarray, last: bool) -> Node | None:
        """The piece of these tokens that follows `parent`, if it is known; with logits if it is a prompt's `last`."""
        key = _key(parent, tokens)
        self._touch(key)
        node = self._nodes.get(key)
        return None if node is None or (last and node.logits_1V is None) else node

    def add(self, parent: int, tokens: np.ndarray, piece: Piece, logits_1V, routes_LT: jax.Array) -> Node:
        """Keeps a piece, in the place of one without logits. Its node is good to be a parent even when it is forgotten:
        nothing else gets its id."""
        key = _key(parent, tokens)
        old = self._nodes.pop(key, None)
        if old is None:
            self._last += 1
        else:
            self._forget(old)
        node = Node(self._last if old is None else old.id, piece, logits_1V, routes_LT)
        if _nbytes(node) <= self._limit:
            self._nodes[key], self._keys[node.id] = node, key
            self.held += _nbytes(node)
            self._touch(key)
            while self.held > self._limit:
                self._forget(self._nodes.popitem(last=False)[1])
        return node

    def clear(self) -> None:
        """Forgets everything, as new weights ask for."""
        self._nodes.clear()
        self._keys.clear()
        self.held = 0

    def _forget(self, node: Node) -> None:
        del self._keys[node.id]
        self.held -= _nbytes(node)

    def _touch(self, key: Key | None) -> None:
        """Marks a piece as just used, and what comes before it as used after it."""
        while key in self._nodes:
            self._nodes.move_to_end(key)
            key = self._keys.get(key[0])


def _nbytes(node: Node) -> int:
    return nbytes((node.piece, node.logits_1V, node.routes_LT))


def cuts(length: int, prefix: int, chunk: int) -> list[tuple[int, int]]:
    """The pieces of a prompt, [start, stop) each: at `prefix`, and every `chunk` tokens before and behind it."""
    ends = [*range(chunk, prefix, chunk), prefix, *range(prefix + chunk, length, chunk), length]
    ends = [end for end in ends if end > 0]
    return [(start, end) for start, end in zip([0, *ends], ends) if end > start]


def _key(parent: int, tokens: np.ndarray) -> Key:
    return parent, tokens.tobytes()
