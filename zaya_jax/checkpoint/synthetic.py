"""Random checkpoints with the exact names, shapes and dtypes of a released one, to measure and test with."""

from __future__ import annotations

import functools
import math
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np

from zaya_jax.checkpoint.config_json import SpecialTokens
from zaya_jax.checkpoint.export import EXPORT_DTYPES, write_checkpoint
from zaya_jax.checkpoint.files import new_directory
from zaya_jax.checkpoint.names import FileLayout, FileTensor
from zaya_jax.checkpoint.safetensors import dtype_code
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig

_POOL = 2**23 + 9  # odd: what is drawn from it does not repeat with any power of two
_LARGE = 2**16  # elements from which on a tensor is cut from the pool instead of being drawn


def write_random_checkpoint(
    directory: pathlib.Path | str,
    config: ModelConfig,
    *,
    file_layout: FileLayout = "native",
    seed: int = 0,
    dtype: str = "bfloat16",
    shards: int = 1,
    aligned: bool = True,
    durable: bool = False,
) -> None:
    """Writes a random checkpoint as fast as the disk takes it, a few megabytes of it in memory at a time.

    The values depend on seed, weight, layer and expert, not on the layout. Small weights have the ranges of the
    released models (temperatures 0.8 to 12.9, a skip bias of -1, at least one expert bias above 0, ...); matrices are
    normal with variance 1 / fan-in, cut from one pool of random numbers at random places.

    Args:
        directory: a new or empty directory.
        config: the architecture.
        file_layout: "native" or "legacy".
        seed: of the values.
        dtype: "bfloat16" or "float32"; router biases are float32.
        shards: number of files, of about equal size.
        aligned: False orders the tensors as the safetensors library does, as in files of the Hub.
        durable: wait until the disk has everything.

    Raises:
        UserError: the directory is not empty, or the disk refuses.
    """
    if dtype not in EXPORT_DTYPES or shards < 1:
        raise mistake("unknown choice", where="dtype, shards", expected=f"{EXPORT_DTYPES}, >= 1", found=(dtype, shards))
    code = dtype_code(np.dtype(dtype))
    with new_directory(directory) as room:
        write_checkpoint(
            room,
            config,
            file_layout,
            values=lambda tensor: _values(tensor, seed, np.dtype(dtype)),
            code=lambda tensor: "F32" if tensor.weight.exact else code,
            dtype=dtype,
            special_tokens=SpecialTokens(),
            num_shards=shards,
            aligned=aligned,
            durable=durable,
        )


def _values(tensor: FileTensor, seed: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    for expert in tensor.experts:
        shape = tensor.weight.shape if expert is None else tensor.weight.shape[1:]
        key = [seed, zlib.crc32(tensor.path.encode()), tensor.layer, expert or 0]
        rng = np.random.default_rng(key)
        if math.prod(shape) < _LARGE:
            yield small_values(tensor.path, shape, rng)
        else:
            yield from _cut(math.prod(shape), _deviation(tensor.path, shape), int(rng.integers(_POOL)), seed, dtype)


def small_values(path: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values of a small weight, in the ranges seen in the released models."""
    room, name = path.split("/")[-2:]
    if name == "biases":
        biases = rng.normal(0, 0.05, shape)
        biases[0], biases[-1] = abs(biases[0]) + 0.01, -1.0
        return biases
    if name in _UNIFORM:
        return rng.uniform(*_UNIFORM[name], shape)
    if name == "stream_scale":  # means per block of 0.52 to 2.03 behind attention, 0.05 to 1.19 behind the experts
        mean = rng.uniform(0.6, 1.4) if room == "attention" else rng.uniform(0.5, 1.1)
        return mean * rng.uniform(0.9, 1.1, shape)
    if name == "output_scale":
        return rng.uniform(0.3, 3.8 if room == "attention" else 6.0, shape)
    if name.endswith("bias"):
        return np.clip(rng.normal(0, 0.05, shape), -1.15, 1.15)
    return rng.normal(0, _deviation(path, shape), shape)


_UNIFORM = {
    "temperature": (0.8, 12.9),
    "input_scale": (0.65, 3.03),
    "final_norm": (0.04, 5.0),
    "norm": (0.5, 1.5),
    "state_scale": (0.3, 1.0),
}


def _deviation(path: str, shape: tuple[int, ...]) -> float:
    """Of a matrix or a convolution: 1 / sqrt(fan-in)."""
    return 1 / math.sqrt(math.prod(shape[1:]))


def _cut(size: int, deviation: float, start: int, seed: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    pool = _pool(deviation, seed, dtype)
    while size:
        piece = pool[start : start + size]
        yield piece
        size, start = size - piece.size, 0


@functools.lru_cache(maxsize=16)
def _pool(deviation: float, seed: int, dtype: np.dtype) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(_POOL, np.float32)
    return (values * np.float32(deviation)).astype(dtype)
