"""What has been read of prompts, kept so that another prompt that begins alike need not be read again.

A prompt is cut into pieces at places that depend on nothing but itself (`cuts`). A piece is known by its tokens and by
the piece before it, so that what is found is exactly what reading it would give, to the last bit.
"""

from __future__ import annotations

import collections
import dataclasses

import jax
import numpy as np

from zaya_jax.sampling.slots import Piece

ROOT = 0  # the node before any token

Key = tuple[int, bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A piece of a prompt that has been read.

    Attributes:
        id: names it to the pieces that follow it.
        piece: what it left in the cache, of one row.
        logits_1V: the logits behind its last token.
        routes_LT: the routes of its tokens.
    """

    id: int
    piece: Piece
    logits_1V: jax.Array
    routes_LT: np.ndarray


class Prefixes:
    """Pieces by what they hold. The least recently used is forgotten first, but never before what follows it.

    Args:
        limit: tokens to keep at most.
    """

    def __init__(self, limit: int):
        self._limit, self._held, self._last = limit, 0, ROOT
        self._nodes: collections.OrderedDict[Key, Node] = collections.OrderedDict()
        self._keys: dict[int, Key] = {}

    def find(self, parent: int, tokens: np.ndarray) -> Node | None:
        """The piece of these tokens that follows `parent`, if it is known."""
        key = _key(parent, tokens)
        self._touch(key)
        return self._nodes.get(key)

    def add(self, parent: int, tokens: np.ndarray, piece: Piece, logits_1V, routes_LT: np.ndarray) -> Node:
        """Keeps a piece. Its node is good to be a parent even when it is forgotten: nothing else gets its id."""
        self._last += 1
        key, node = _key(parent, tokens), Node(self._last, piece, logits_1V, routes_LT)
        if len(tokens) <= self._limit:
            self._nodes[key], self._keys[node.id] = node, key
            self._held += len(tokens)
            self._touch(key)
            while self._held > self._limit:
                (_, held), forgotten = self._nodes.popitem(last=False)
                del self._keys[forgotten.id]
                self._held -= len(held) // tokens.itemsize
        return node

    def clear(self) -> None:
        """Forgets everything, as new weights ask for."""
        self._nodes.clear()
        self._keys.clear()
        self._held = 0

    def _touch(self, key: Key | None) -> None:
        """Marks a piece as just used, and what comes before it as used after it."""
        while key in self._nodes:
            self._nodes.move_to_end(key)
            key = self._keys.get(key[0])


def cuts(length: int, prefix: int, chunk: int) -> list[tuple[int, int]]:
    """The pieces of a prompt, [start, stop) each: at `prefix`, and every `chunk` tokens before and behind it."""
    ends = [*range(chunk, prefix, chunk), prefix, *range(prefix + chunk, length, chunk), length]
    ends = [end for end in ends if end > 0]
    return [(start, end) for start, end in zip([0, *ends], ends) if end > start]


def _key(parent: int, tokens: np.ndarray) -> Key:
    return parent, tokens.tobytes()
