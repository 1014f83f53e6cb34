"""What a program instance of the CCA kernels computes."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Sizes, powers of two.

    Attributes:
        rows: tokens of a tile, each with the channels of one head. From 16 on.
        depth: channels that the grouped convolution sums over at a time. From 16 on.
        num_warps: waves (64 lanes on MI300X, 32 on NVIDIA) that share a tile.
        chunks: parts of a batch's tokens over which the gradient of the grouped convolution is summed side by side.
    """

    rows: int = 64
    depth: int = 32
    num_warps: int = 8
    chunks: int = 32


def tiles_for(rows: int, dtype: jnp.dtype) -> Tiles:
    """16 rows, the least that a product takes, where there are no more, as in a decoding step.

    Of the sizes tried, 16 to 128 rows with 1 to 8 waves, 64 with 8 is the largest that neither gfx942 (195 registers of
    512: two waves a SIMD) nor sm_90 (236 of 255) spills: a tile reads 64 KB of taps from L2 whatever its rows.
    """
    if rows <= 16:
        return Tiles(rows=16, num_warps=2)
    return Tiles() if jnp.dtype(dtype).itemsize <= 2 else Tiles(rows=32)
