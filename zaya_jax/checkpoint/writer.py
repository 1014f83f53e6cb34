"""Writing `.safetensors` files: one tensor at a time, data on 64-byte boundaries where the format allows it.

XLA uses mapped memory on a CPU without a copy if it starts at a multiple of 64 bytes. The format allows no holes
between tensors, so the header is padded to such a multiple, tensors of whole 64-byte lines come first, and the few
small odd ones (temperatures, balancing biases) come last.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from zaya_jax.checkpoint.files import sync_directory, write_json
from zaya_jax.checkpoint.safetensors import INDEX_FILE, SINGLE_FILE, numpy_dtype, tensor_bytes

Path = pathlib.Path

LINE = 64  # bytes: what XLA:CPU wants memory aligned to
MAX_SHARD = 5 * 10**9  # bytes: what the Hub's own tools write


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written; `dtype` is the code of the format, e.g. "BF16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return tensor_bytes(self.dtype, self.shape)


Chunks = Callable[[TensorSpec], Iterable[np.ndarray]]  # a tensor's values, in pieces, in order


def write_archive(
    directory: Path,
    specs: Sequence[TensorSpec],
    chunks: Chunks,
    *,
    max_shard_size: int = MAX_SHARD,
    num_shards: int | None = None,
    **options: bool,
) -> tuple[Path, ...]:
    """Writes tensors into a directory: one file, or shards and their index. Holds one piece of one tensor at a time.

    Args:
        directory: an existing directory; `files.new_directory` makes one that appears whole or not at all.
        specs: what will be written.
        chunks: gives the values of one of them, already in its dtype; asked once for each.
        max_shard_size: bytes of data in a file; a larger tensor gets a file of its own.
        num_shards: instead of a size: so many files of about equal size.
        options: for `write_file`.

    Returns:
        The files.
    """
    shards = split(specs, max_shard_size) if num_shards is None else deal(specs, num_shards)
    files = _shard_names(len(shards))
    for file, shard in zip(files, shards, strict=True):
        write_file(directory / file, shard, chunks, **options)
    if len(shards) > 1:
        weight_map = {spec.name: file for file, shard in zip(files, shards, strict=True) for spec in shard}
        total = sum(spec.nbytes for spec in specs)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(directory / INDEX_FILE, index)
    sync_directory(directory)
    return tuple(directory / file for file in files)


def write_file(
    path: Path, specs: Sequence[TensorSpec], chunks: Chunks, *, aligned: bool = True, durable: bool = True
) -> None:
    """Writes one file.

    Args:
        path: where; overwritten.
        specs: what will be in it.
        chunks: see `write_archive`.
        aligned: False orders and pads as the safetensors library does (8 bytes).
        durable: waits until the disk has it, so that a crash cannot leave half a file behind its final name.

    Raises:
        ValueError: `chunks` gave other than was declared.
    """
    ordered = order(specs, aligned)
    with path.open("wb") as stream:
        stream.write(header(ordered, LINE if aligned else 8))
        for spec in ordered:
            _write_tensor(stream, spec, chunks(spec))
        stream.flush()
        if durable:
            os.fsync(stream.fileno())


def split(specs: Sequence[TensorSpec], max_shard_size: int) -> list[list[TensorSpec]]:
    """Deals tensors to shards in the order given: a new shard starts where the next tensor would not fit."""
    shards: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if shards[-1] and filled + spec.nbytes > max_shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += spec.nbytes
    return shards


def deal(specs: Sequence[TensorSpec], count: int) -> list[list[TensorSpec]]:
    """Deals tensors to shards of about equal size in the order given; fewer than `count` if tensors are few."""
    shards: dict[int, list[TensorSpec]] = {}
    total, position = sum(spec.nbytes for spec in specs), 0
    for spec in specs:
        middle = position + spec.nbytes // 2
        shards.setdefault(middle * count // max(1, total), []).append(spec)
        position += spec.nbytes
    return list(shards.values())


def order(specs: Sequence[TensorSpec], aligned: bool) -> list[TensorSpec]:
    """The order of the data in a file: whole 64-byte lines first, then odd sizes, wide types before narrow ones."""

    def width(spec: TensorSpec) -> int:
        return numpy_dtype(spec.dtype).itemsize

    if not aligned:
        return sorted(specs, key=lambda spec: (-width(spec), spec.name))
    whole = [spec for spec in specs if spec.nbytes % LINE == 0]
    odd = [spec for spec in specs if spec.nbytes % LINE]
    return whole + sorted(odd, key=lambda spec: -width(spec))


def header(specs: Sequence[TensorSpec], alignment: int) -> bytes:
    """The length and the JSON of a file's header, padded with spaces so that data starts at a multiple."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for spec in specs:
        offsets = [position, position + spec.nbytes]
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
        position += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % alignment)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(stream, spec: TensorSpec, chunks: Iterable[np.ndarray]) -> None:
    written, dtype = 0, numpy_dtype(spec.dtype)
    for chunk in chunks:
        if chunk.dtype != dtype:
            raise ValueError(f"{spec.name}: expected {dtype}, found {chunk.dtype}")
        written += stream.write(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8))
    if written != spec.nbytes:
        raise ValueError(f"{spec.name}: expected {spec.nbytes} bytes for {spec.shape}, found {written}")


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
