"""What a program instance of the grouped kernels computes, and which rows it finds where."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Sizes, each a power of two from 16 on.

    Attributes:
        rows: of the operands sorted by expert; in the gradient of the matrices, columns of the result.
        columns: of the result; there, its rows.
        depth: numbers summed a step.
        num_warps: waves (64 lanes on MI300X, 32 on NVIDIA) that share a tile.
        num_stages: steps whose operands are in flight at once.
    """

    rows: int = 128
    columns: int = 128
    depth: int = 64
    num_warps: int = 8
    num_stages: int = 2


def tiles_for(platform: str, rows: int, experts: int, dtype: jnp.dtype = jnp.bfloat16) -> Tiles:
    """The largest tile whose rows an even share of tokens still fills; for decoding, the smallest that multiplies.

    float32 operands take twice the LDS and registers: half the depth. gfx942 has 64 KB of LDS and 512 registers a lane
    for waves of 64 lanes; sm_90 227 KB and 255 for warps of 32, so it takes more stages.
    """
    share, narrow = rows / experts, jnp.dtype(dtype).itemsize <= 2
    stages = 2 if platform == "rocm" or not narrow else 3
    if share >= 128:
        return Tiles(depth=64 if narrow else 32, num_stages=stages)
    if share >= 32:
        return Tiles(rows=64, columns=128, depth=64 if narrow else 32, num_warps=4, num_stages=stages)
    return Tiles(rows=16, columns=64, depth=128 if narrow else 64, num_warps=4, num_stages=stages)


class Schedule(NamedTuple):
    """Row tiles in row order; a tile never spans two experts.

    Attributes:
        expert_X: each tile's expert; E for rows behind the last group, which are written as zeros.
        start_X: its first row.
        stop_X: the end of its group; a tile that starts there has no rows.
    """

    expert_X: jax.Array
    start_X: jax.Array
    stop_X: jax.Array


def schedule(group_sizes_E: jax.Array, rows: int, tile: int) -> Schedule:
    """Enough tiles for any sizes that sum to no more than `rows`: as many as full ones, and one more a group."""
    rest = rows - group_sizes_E.sum(keepdims=True)
    sizes = jnp.concatenate([group_sizes_E, rest]).astype(jnp.int32)
    stops, tiles = jnp.cumsum(sizes), -(-sizes // tile)
    last = jnp.cumsum(tiles)
    index = jnp.arange(min(rows // tile + len(sizes), rows), dtype=jnp.int32)
    group = jnp.minimum(jnp.searchsorted(last, index, side="right"), len(sizes) - 1).astype(jnp.int32)
    start = stops[group] - sizes[group] + (index - (last - tiles)[group]) * tile
    return Schedule(group, jnp.minimum(start, stops[group]), stops[group])
