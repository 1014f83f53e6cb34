"""What a conversation has read, kept from one answer to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.model import Cache, ModelConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Mark:
    """A place in what has been read, to which a cache can be taken back.

    Keys and values behind it are simply overwritten, but of the convolutions and the delayed value a cache holds the
    last state only: the mark has that of its place.
    """

    length: int
    states: tuple[tuple[jax.Array, jax.Array], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """What the model has read of one conversation.

    Attributes:
        tokens: their ids.
        cache: the memory of them, of one row. Whoever continues from it uses it up.
        capacity: how many tokens the cache has room for.
        routes_LT: int8, their routes.
        mark: the end of the last prompt.
    """

    tokens: tuple[int, ...]
    cache: Cache
    capacity: int
    routes_LT: np.ndarray
    mark: Mark


def set_mark(cache: Cache, length: int) -> Mark:
    """Marks the end of a cache that holds `length` tokens a row."""
    return Mark(length, _copy(tuple((layer.conv_B2U, layer.delayed_BX) for layer in cache.layers)))


def recall(memory: Memory | None, prompt: Sequence[int], config: ModelConfig) -> Memory | None:
    """As much of a memory as a new prompt begins with: all of it, up to its mark, or None."""
    if memory is None:
        return None
    if _begins(prompt, memory.tokens):
        return memory
    mark = memory.mark
    if _begins(prompt, memory.tokens[: mark.length]) and _holds_all(config, len(memory.tokens)):
        return _back_to(memory, mark)
    return None


def _begins(prompt: Sequence[int], tokens: Sequence[int]) -> bool:
    """Whether the prompt is these tokens and more: at least one must be left to read."""
    return len(prompt) > len(tokens) and tuple(prompt[: len(tokens)]) == tuple(tokens)


def _holds_all(config: ModelConfig, length: int) -> bool:
    """Whether no sliding layer has overwritten what it held at the mark."""
    return "sliding" not in config.layer_types or length <= config.sliding_window


def _back_to(memory: Memory, mark: Mark) -> Memory:
    states = _copy(mark.states)  # the cache will be used up, the mark may be needed again
    pairs = zip(memory.cache.layers, states, strict=True)
    layers = tuple(layer.replace(conv_B2U=conv, delayed_BX=delayed) for layer, (conv, delayed) in pairs)
    cache = memory.cache.replace(layers=layers, length_B=jnp.full((1,), mark.length, jnp.int32))
    tokens, routes_LT = memory.tokens[: mark.length], memory.routes_LT[:, : mark.length]
    return dataclasses.replace(memory, tokens=tokens, cache=cache, routes_LT=routes_LT)


@jax.jit
def _copy(states):
    return jax.tree.map(jnp.copy, states)
