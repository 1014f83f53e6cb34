"""What a text costs without a neural model, in bits per byte: numbers to hold a loss against."""

from __future__ import annotations

import lzma
import zlib

import numpy as np


def unigram_bits(text: bytes, given: bytes) -> float:
    """Cross-entropy of the text under the byte frequencies of `given` (plus one each)."""
    counts = np.bincount(np.frombuffer(given, np.uint8), minlength=256) + 1.0
    return float(-np.log2(counts / counts.sum())[np.frombuffer(text, np.uint8)].mean())


def zlib_bits(text: bytes) -> float:
    """Size of the text under `zlib` at its best level."""
    return 8 * len(zlib.compress(text, 9)) / len(text)


def lzma_bits(text: bytes, given: bytes = b"") -> float:
    """Size under `lzma` at its best level: what the text adds to a file that holds `given` already.

    With the training text given, the compressor may copy from all that a model has trained on.
    """
    return 8 * (_lzma_size(given + text) - (_lzma_size(given) if given else 0)) / len(text)


def _lzma_size(data: bytes) -> int:
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
