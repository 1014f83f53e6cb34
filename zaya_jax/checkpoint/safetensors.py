"""Reading `.safetensors` files: headers first, then tensors as views of the mapped file.

A file is 8 bytes (the header's length, little-endian), the header (JSON: name -> dtype, shape, data_offsets) and the
data without holes. Nothing in a header is believed before it has been checked against the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import mmap
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from zaya_jax.checkpoint.files import read_json
from zaya_jax.errors import UserError, mistake

Path = pathlib.Path

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MAX_HEADER = 100_000_000  # the limit of the safetensors library
_DAMAGED = "the file is damaged: download or export it again"
_MIXED = "the index and the shards are not of one export: download them again"

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: `file[start:stop]`, in bytes from the start of the file.

    Attributes:
        dtype: the code of the format, e.g. "BF16".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.stop - self.start

    @property
    def numpy_dtype(self) -> np.dtype:
        """The type of its elements.

        Raises:
            UserError: numpy has none (8-bit floats and below).
        """
        if self.dtype not in _NUMPY:
            where = f"{self.file}, tensor {self.name}"
            raise mistake("cannot be read", where=where, expected=", ".join(_NUMPY), found=self.dtype)
        return np.dtype(_NUMPY[self.dtype])


@dataclasses.dataclass(frozen=True, eq=False)
class Archive:
    """The tensors of a directory, over one file or many. Opening reads headers only.

    Attributes:
        tensors: name -> where it lies, in the order of the files.
        files: the files, each with at least one tensor of the archive.
    """

    directory: Path
    tensors: Mapping[str, TensorInfo]
    files: tuple[Path, ...]
    _maps: dict[Path, mmap.mmap] = dataclasses.field(default_factory=dict, repr=False)

    def read(self, name: str) -> np.ndarray:
        """A tensor as a read-only view of the mapped file: a slice of it touches nothing but its own pages.

        The view keeps the mapping alive. Whoever shortens the file in place while it is mapped kills this process
        (SIGBUS); files that are replaced by renaming, as everything here is written, stay intact.
        """
        info = self.tensors[name]
        return np.ndarray(info.shape, info.numpy_dtype, self._map(info.file), info.start)

    def prefetch(self) -> None:
        """Asks the kernel to read the files ahead, and returns at once. A hint: without effect where unsupported."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for file in self.files:
            self._map(file).madvise(mmap.MADV_WILLNEED)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            with file.open("rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps.setdefault(file, mapped)  # another thread may have been first: all views share one mapping
        return self._maps[file]


def numpy_dtype(code: str) -> np.dtype:
    """The numpy type of a code of the format, e.g. "BF16"."""
    return np.dtype(_NUMPY[code])


def dtype_code(dtype: Any) -> str:
    """The code of a numpy or jax type, e.g. "BF16" of bfloat16."""
    return next(code for code, ours in _NUMPY.items() if np.dtype(ours) == np.dtype(dtype))


def tensor_bytes(code: str, shape: Iterable[int]) -> int | None:
    """Bytes of a tensor; None if the dtype is unknown or its elements do not fill whole bytes."""
    bits = _BITS.get(code, 0) * math.prod(shape)
    return bits // 8 if code in _BITS and bits % 8 == 0 else None


def open_directory(directory: Path | str) -> Archive:
    """Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names.

    Raises:
        UserError: neither or both exist, the index is wrong, or a file is damaged.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise mistake("no such directory", where=directory, expected="a directory that holds a checkpoint")
    index, single = directory / INDEX_FILE, directory / SINGLE_FILE
    if index.exists() and single.exists():
        fix = f"remove the one that does not belong to {directory}"
        raise mistake(f"{SINGLE_FILE} and {INDEX_FILE} are both there", where=directory, expected="one", fix=fix)
    if index.exists():
        return _open_index(index)
    if single.exists():
        _check_link(single, directory)
        tensors = read_header(single)
        return Archive(directory, tensors, (single,))
    raise mistake("no weights", where=directory, expected=f"{SINGLE_FILE} or {INDEX_FILE}", found=_listing(directory))


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Reads and checks the header of one file; the order is that of the data.

    Raises:
        UserError: the file is truncated or its header is not right.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            text = _header_text(file, stream, size)
    except OSError as error:
        raise mistake("cannot be read", where=file, found=error.strerror) from None
    start = 8 + len(text)
    entries = _parse(file, text)
    entries.pop("__metadata__", None)
    tensors = [_tensor(file, name, entry, start) for name, entry in entries.items()]
    tensors.sort(key=lambda info: (info.start, info.stop))
    _check_coverage(file, tensors, start, size)
    return {info.name: info for info in tensors}


def _header_text(file: Path, stream, size: int) -> bytes:
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length < 2 or length > MAX_HEADER:
        found = f"{length} bytes in a file of {size}"
        raise mistake("header of absurd length", where=file, expected=f"2 to {MAX_HEADER}", found=found, fix=_DAMAGED)
    if size < 8 + length:
        raise _truncated(file, 8 + length, size)
    return stream.read(length)


def _parse(file: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs):
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise mistake("stands twice in the header", where=f"{file}, key {_short(twice)}", fix=_DAMAGED)
        return dict(pairs)

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise mistake("header is not JSON", where=file, fix=_DAMAGED) from None
    if not isinstance(entries, dict):
        raise mistake("header is not a JSON object", where=file, found=type(entries).__name__, fix=_DAMAGED)
    return entries


def _tensor(file: Path, name: str, entry: Any, data: int) -> TensorInfo:
    where = f"{file}, tensor {_short(name)}"
    keys = ("dtype", "shape", "data_offsets")
    if not isinstance(entry, dict) or set(entry) != set(keys):
        raise mistake("malformed header entry", where=where, expected=keys, found=_short(entry), fix=_DAMAGED)
    dtype, shape, offsets = (entry[key] for key in keys)
    if not _counts(shape) or len(shape) > 32:
        raise mistake("malformed shape", where=where, expected="up to 32 sizes", found=_short(shape), fix=_DAMAGED)
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        expected, found = "[start, stop]", _short(offsets)
        raise mistake("malformed data_offsets", where=where, expected=expected, found=found, fix=_DAMAGED)
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise mistake("unknown dtype", where=where, expected=", ".join(_BITS), found=_short(dtype))
    start, stop = offsets
    if stop - start != tensor_bytes(dtype, shape):
        what, expected = (
            "data_offsets do not fit dtype and shape",
            f"{tensor_bytes(dtype, shape)} bytes for {dtype} {shape}",
        )
        raise mistake(what, where=where, expected=expected, found=stop - start, fix=_DAMAGED)
    return TensorInfo(name, dtype, tuple(shape), file, data + start, data + stop)


def _check_coverage(file: Path, tensors: list[TensorInfo], start: int, size: int) -> None:
    position = start
    for info in tensors:
        if info.start != position:
            what = "overlaps the tensor before it" if info.start < position else "leaves a hole before it"
            where = f"{file}, tensor {_short(info.name)}"
            raise mistake(what, where=where, expected=f"byte {position}", found=info.start, fix=_DAMAGED)
        position = info.stop
    if position > size:
        raise _truncated(file, position, size)
    if position < size:
        expected = f"{position} bytes"
        raise mistake("data behind the last tensor", where=file, expected=expected, found=size, fix=_DAMAGED)


def _open_index(index: Path) -> Archive:
    directory = index.parent
    shards = _weight_map(index)
    headers = {shard: read_header(_shard_path(index, shard)) for shard in dict.fromkeys(shards.values())}
    for name, shard in shards.items():
        if name not in headers[shard]:
            expected = f"{_short(name)} in {shard}"
            raise mistake("tensor is not in its shard", where=index, expected=expected, fix=_MIXED)
    tensors: dict[str, TensorInfo] = {}
    for shard, header in headers.items():
        for name, info in header.items():
            where = f"{index}, tensor {_short(name)}"
            if name in tensors:
                found = f"{tensors[name].file.name} and {shard}"
                raise mistake("tensor is in two shards", where=where, found=found, fix=_MIXED)
            if name not in shards:
                raise mistake("tensor is not in the index", where=where, found=shard, fix=_MIXED)
            tensors[name] = info
    return Archive(directory, tensors, tuple(directory / shard for shard in headers))


def _weight_map(index: Path) -> dict[str, str]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(s, str) for s in shards.values()):
        raise mistake("malformed index", where=f"{index}, key weight_map", expected="tensor name -> file name")
    return shards


def _shard_path(index: Path, shard: str) -> Path:
    where = f"{index}, key weight_map"
    if not shard or shard in (".", "..") or set(shard) & set("/\\\0"):
        what, expected = "index points outside of its directory", f"the name of a file in {index.parent}"
        raise mistake(what, where=where, expected=expected, found=_short(shard), fix="do not use this checkpoint")
    path = index.parent / shard
    _check_link(path, index.parent)
    if not path.is_file():
        fix = "download the missing shard"
        raise mistake("index names an absent file", where=where, expected=path, found="no such file", fix=fix)
    return path


def _check_link(path: Path, directory: Path) -> None:
    """Follows a link only within the directory, or to the blobs of the Hub's cache, whose snapshots are all links."""
    rooms = [directory.resolve()]
    if directory.resolve().parent.name == "snapshots":
        rooms.append(directory.resolve().parent.parent / "blobs")
    real = path.resolve()
    if not any(real.is_relative_to(room) for room in rooms):
        fix = "copy the file into the directory"
        raise mistake("links outside of its directory", where=path, expected=rooms[0], found=real, fix=fix)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _truncated(file: Path, expected: int, found: int) -> UserError:
    return mistake("file is truncated", where=file, expected=f"{expected} bytes", found=found, fix=_DAMAGED)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _listing(directory: Path) -> str:
    names = sorted(entry.name for entry in directory.iterdir())
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "") if names else "an empty directory"
