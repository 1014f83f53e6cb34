"""Whether a response goes round in circles: how well zlib packs its token ids, chunk by chunk (ZAYA1's report, 3.5).

The stream is raw deflate with a window of 1,024 bytes, of which zlib looks back over 762, level 1, flushed behind every
chunk; what a chunk repeats of the one before costs nearly nothing. A response with a chunk below the threshold gets
reward 0 before advantages are computed.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np

from zaya_jax.errors import mistake

_WINDOW_BITS = -10  # negative: without header and checksum; 2^10 bytes
_LEVEL = 1
# What Z_SYNC_FLUSH adds: an empty stored block, that is 3 bits, padding up to a byte, and the bytes 00 00 ff ff. Where
# the stream stands at a byte's beginning that is 5 bytes, elsewhere 4 or 5.
FLUSH_BYTES = 5


@dataclasses.dataclass(frozen=True)
class CompressibilityConfig:
    """The gate. Threshold, window and level are the report's; it does not tell the others.

    Attributes:
        threshold: a chunk that is packed to less than this share of its bytes is degenerate.
        chunk_tokens: token ids of a chunk. Undisclosed. On loops of random ids of 3 bytes, chunks of 128 miss no
            period up to 128 tokens; chunks of some hundreds miss many from 30 on, because level 1 forgets most of what
            lies inside of a match (258 bytes at most), and chunks of 64 may flag 64 tokens that are said twice.
        bytes_per_id: of an unsigned little-endian integer. Undisclosed; the vocabulary of 262,272 needs 3.
    """

    threshold: float = 0.05
    chunk_tokens: int = 128
    bytes_per_id: int = 3

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            where = "CompressibilityConfig.threshold"
            raise mistake("is no share", where=where, expected="0 up to 1", found=self.threshold)
        if not self.chunk_tokens >= 1:
            where = "CompressibilityConfig.chunk_tokens"
            raise mistake("is too small", where=where, expected="1 or more", found=self.chunk_tokens)
        if self.bytes_per_id not in range(1, 9):
            where = "CompressibilityConfig.bytes_per_id"
            raise mistake("out of range", where=where, expected="1 up to 8", found=self.bytes_per_id)


def chunk_ratios(config: CompressibilityConfig, tokens_T: Any) -> np.ndarray:
    """(compressed - flush overhead) / raw bytes of each chunk, float64.

    A last chunk that is short belongs to the one before it. A response shorter than a chunk has none, and is not
    judged: a dozen equal digits are packed to less than 5 % and may be the right answer.

    Args:
        config: chunk size and bytes of an id.
        tokens_T: token ids of the response.

    Raises:
        UserError: an id is negative or needs more bytes.
    """
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS)
    ratios = []
    for chunk in _chunks(config, id_bytes(config, tokens_T)):
        packed = len(stream.compress(chunk)) + len(stream.flush(zlib.Z_SYNC_FLUSH))
        ratios.append((packed - FLUSH_BYTES) / len(chunk))
    return np.array(ratios, np.float64)


def is_degenerate(config: CompressibilityConfig, tokens_T: Any) -> bool:
    """Whether any chunk is below the threshold: the task reward of such a response is 0."""
    return bool(np.any(chunk_ratios(config, tokens_T) < config.threshold))


def id_bytes(config: CompressibilityConfig, tokens_T: Any) -> bytes:
    """Token ids as unsigned little-endian integers, one behind the other."""
    tokens_T = np.asarray(tokens_T, np.int64)
    largest = 2 ** (8 * config.bytes_per_id) - 1
    wrong = tokens_T[(tokens_T < 0) | (tokens_T > largest)]
    if wrong.size:
        expected = f"0 up to {largest} ({config.bytes_per_id} bytes)"
        raise mistake("token id out of range", where="compressibility", expected=expected, found=wrong[0])
    return tokens_T.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : config.bytes_per_id].tobytes()


def _chunks(config: CompressibilityConfig, raw: bytes) -> list[bytes]:
    size = config.chunk_tokens * config.bytes_per_id
    whole = len(raw) // size
    return [raw[i * size : (i + 1) * size if i + 1 < whole else None] for i in range(whole)]
