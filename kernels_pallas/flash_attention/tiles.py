"""What a program instance of the attention kernels computes, and which blocks of keys it has to meet."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Sizes, powers of two.

    Attributes:
        rows: queries of a tile: a few tokens, each with all heads of its group. From 16 on.
        keys: of a block. From 16 on.
        num_warps: waves (64 lanes on MI300X, 32 on NVIDIA) that share a tile.
    """

    rows: int = 64
    keys: int = 32
    num_warps: int = 4

    def tokens(self, group: int) -> int:
        """Of a tile, for groups of that many query heads."""
        return max(self.rows // group, 1)


_COMPUTE_UNITS = 304  # of an MI300X; an H100 has 132


def tiles_for(platform: str, dtype: jnp.dtype, rows: int) -> Tiles:
    """The largest of those tried that the platform does not spill, for heads of 128; float32 spills on sm_90.

    Args:
        rows: a key head's queries. One tile of 16, the least that a product takes, holds those of a decoding step; it
            is small (156 registers on gfx942, three waves a SIMD) for many to have their keys under way at once.
    """
    if rows <= 16:
        return Tiles(rows=16, keys=32, num_warps=2)
    if jnp.dtype(dtype).itemsize > 2:
        return Tiles(rows=32)
    return Tiles() if platform == "rocm" else Tiles(rows=128, keys=64, num_warps=8)


def parts(programs: int, blocks: int) -> int:
    """Into how many a cache of that many blocks of keys is split: twice as many programs as compute units, or 8 blocks.

    1 where there are enough programs already, as in training, and for short caches.
    """
    if programs >= _COMPUTE_UNITS:
        return 1
    return max(1, min(-(-2 * _COMPUTE_UNITS // programs), blocks // 8))


def spans(
    q_index_BT: jax.Array,
    k_index_BS: jax.Array,
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    window: int | None,
    tokens: int,
    keys: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Which blocks may see each other: the first and one past the last block of keys of each tile of queries, and the
    first and one past the last tile of queries of each block of keys, int32 [B, blocks].

    Told from the blocks' least and greatest indices and segments: never too few, seldom too many. Causality, windows,
    packed documents, empty slots all come out of it.
    """
    q_low, q_high, q_first, q_last = _ranges(q_index_BT, q_segments_BT, q_segments_BT != 0, tokens)
    k_low, k_high, k_first, k_last = _ranges(k_index_BS, k_segments_BS, (k_index_BS >= 0) & (k_segments_BS != 0), keys)
    meet = (q_high[:, :, None] >= k_low[:, None]) & (q_first[:, :, None] <= k_last[:, None])
    meet &= k_first[:, None] <= q_last[:, :, None]
    if window is not None:
        meet &= q_low[:, :, None] - k_high[:, None] < window
    return *_first_and_stop(meet), *_first_and_stop(jnp.swapaxes(meet, 1, 2))


_FAR = 2**29


def _ranges(index, segments, real, block: int):
    """Least and greatest index and segment of each block's real tokens, [B, blocks] each; crossed over without any."""

    def blocks(x, reduce, other):
        x = jnp.where(real, x, other)
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block)), constant_values=other)
        return reduce(x.reshape(x.shape[0], -1, block), axis=2)

    # A quarter of the range: differences do not overflow.
    return (
        blocks(index, jnp.min, _FAR),
        blocks(index, jnp.max, -_FAR),
        blocks(segments, jnp.min, _FAR),
        blocks(segments, jnp.max, -_FAR),
    )


def _first_and_stop(meet_BXY):
    """First and one past the last True of the last axis; 0 and 0 if there is none."""
    any_BX = meet_BXY.any(-1)
    first = jnp.argmax(meet_BXY, -1)
    stop = meet_BXY.shape[-1] - jnp.argmax(meet_BXY[..., ::-1], -1)
    return jnp.where(any_BX, first, 0).astype(jnp.int32), jnp.where(any_BX, stop, 0).astype(jnp.int32)
