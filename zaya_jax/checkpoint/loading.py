"""Weights from a checkpoint to their final place: mapped where possible, else copied one tensor at a time."""

from __future__ import annotations

import itertools
import os
import pathlib
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from zaya_jax.checkpoint.huggingface import Checkpoint, check_tied_head, open_checkpoint, reachable_skip_layers
from zaya_jax.checkpoint.writer import LINE
from zaya_jax.errors import mistake
from zaya_jax.model import layout as layouts
from zaya_jax.model.execution import Layout
from zaya_jax.model.layout import Slot

Shardings = Callable[[Slot], jax.sharding.Sharding]
Spans = tuple[tuple[int, int], ...]  # start and stop on every axis

SMALL = 2**20  # bytes: tensors up to here are always checked for NaN
SMALL_CHECKPOINT = 2**32  # bytes: checkpoints up to here are checked whole


def load_variables(
    checkpoint: Checkpoint | pathlib.Path | str,
    layout: Layout,
    dtype: str,
    *,
    shardings: Shardings | None = None,
    check_finite: bool | None = None,
) -> dict[str, Any]:
    """Loads the variables of a checkpoint in a layout of the model.

    On a CPU, an array that lies in the file as it is wanted (same dtype, 64-byte aligned, unstacked) shares the mapped
    memory: nothing is read until it is used, and pages are given back under pressure. Anything else is copied or
    converted straight into its final memory; beyond that, memory is needed for one array a thread on an accelerator
    (for one stacked array in the stacked layout). Router biases become float32. Layer 0's phantom is zeros.

    Args:
        checkpoint: opened, or its directory.
        layout: "stacked" or "unstacked".
        dtype: of the parameters: "bfloat16", "float32" or "float64".
        shardings: gives the sharding of each array; only the slices of this process's devices are then read.
        check_finite: refuse NaN and infinity in every weight (True), in none (False); by default in whatever is
            copied, in tensors up to 1 MiB, and in all of a checkpoint up to 4 GiB. What remains are the mapped
            matrices of a large checkpoint: checking them reads the whole file (17.7 GB of ZAYA1-8B: 2 s from memory,
            as long as the disk takes otherwise) where a token needs a seventh of it.

    Warns:
        UserWarning: a router could choose the skip class, on whose output implementations disagree.

    Raises:
        UserError: the checkpoint is not right, or holds NaN or infinity.
    """
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    _check_precision(dtype)
    check_tied_head(opened)
    variables = _load(_Loader(opened, dtype, shardings, check_finite), layout)
    _warn_of_skips(opened)
    return variables


def _load(loader: _Loader, layout: Layout) -> dict[str, Any]:
    config = loader.checkpoint.config
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            if layout == "stacked" or not loader.maps:  # one array at a time, its layers in parallel
                return layouts.build(config, layout, lambda slot: loader.place(slot, pool.map))
            hosts = layouts.build(config, layout, lambda slot: pool.submit(loader.assemble, slot))
            return jax.tree.map(lambda host: jax.device_put(host.result()), hosts)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class _Loader:
    """Makes the array of a slot. Arrays are placed by the caller's thread only: jax's settings are a thread's own."""

    def __init__(self, checkpoint: Checkpoint, dtype: str, shardings: Shardings | None, check_finite: bool | None):
        size = sum(info.nbytes for info in checkpoint.tensors.values())
        self.checkpoint = checkpoint
        self.dtype = dtype
        self.shardings = shardings
        self.never = check_finite is False
        self.always = check_finite or size <= SMALL_CHECKPOINT
        self.maps = shardings is None and jax.default_backend() == "cpu"

    def place(self, slot: Slot, run: Callable) -> jax.Array:
        """The array of a slot, in its place. `run` maps a function over pieces: `map`, or a thread pool's."""
        if self.shardings is None:
            return jax.device_put(self.assemble(slot, run=run))
        parts: dict[Spans, np.ndarray] = {}  # replicas ask for the same part several times

        def part(index: tuple[slice, ...]) -> np.ndarray:
            spans = tuple(s.indices(n)[:2] for s, n in zip(index, slot.shape, strict=True))
            if spans not in parts:
                parts[spans] = self.assemble(slot, spans, run)
            return parts[spans]

        sharding, dtype = self.shardings(slot), slot.dtype(self.dtype)
        return jax.make_array_from_callback(slot.shape, sharding, part, dtype=dtype)

    def assemble(self, slot: Slot, spans: Spans | None = None, run: Callable = map) -> np.ndarray:
        """The values of a slot, or of a part of it: a view of the file if that will do, else memory of its own."""
        spans = tuple((0, size) for size in slot.shape) if spans is None else spans
        layers, experts, inner = _places(slot, spans)
        dtype = slot.dtype(self.dtype)
        if layers is None and experts is None:
            layer = slot.layers[0] if slot.layers else 0
            return self._own(self._piece(slot, layer, slot.expert, inner), dtype)
        result = aligned_empty(tuple(stop - start for start, stop in spans), dtype)

        def fill(place: tuple[int, ...]) -> None:
            layer = slot.layers[layers[place[0]]] if layers is not None else (slot.layers or (0,))[0]
            expert = experts[place[-1]] if experts is not None else slot.expert
            if slot.has(layer):
                np.copyto(result[place], self._piece(slot, layer, expert, inner, copied=True), casting="unsafe")
            else:
                result[place] = 0

        list(run(fill, itertools.product(*(range(len(axis)) for axis in (layers, experts) if axis is not None))))
        return result

    def _piece(self, slot: Slot, layer: int, expert: int | None, inner: tuple, copied: bool = False) -> np.ndarray:
        info, _ = self.checkpoint.locate(slot.path, layer, expert)
        view = self.checkpoint.read(slot.path, layer, expert)[inner]
        copied = copied or not (self.maps and _mappable(view, slot.dtype(self.dtype)))
        if not self.never and (self.always or copied or info.nbytes <= SMALL):
            check_values(view, f"{info.file}, tensor {info.name}")
        return view

    def _own(self, view: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The view itself where its memory or its bytes can be used as they are, else a converted, aligned copy."""
        if _mappable(view, dtype) or (not self.maps and view.dtype == dtype):
            return view
        result = aligned_empty(view.shape, dtype)
        np.copyto(result, view, casting="unsafe")
        return result


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory at a multiple of 64 bytes, which XLA:CPU takes over without a copy."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def check_values(values: np.ndarray, where: object) -> None:
    """Refuses NaN and infinity in values of bfloat16, float16 or float32; about 10 GB/s.

    Raises:
        UserError: there are some; the message has their number and the first one's place.
    """
    word, infinity = {2: (np.uint16, 0x7F80), 4: (np.uint32, 0x7F800000)}[values.dtype.itemsize]
    infinity = 0x7C00 if values.dtype == np.float16 else infinity
    rows = values.reshape(-1) if values.flags.c_contiguous else values.ravel()
    for start in range(0, rows.size, _STEP):
        block = rows[start : start + _STEP]
        if (block.view(word) & word(np.iinfo(word).max // 2)).max() >= infinity:
            place = start + int(np.argmin(np.isfinite(block)))
            raise _not_finite(values, place, where)


_STEP = 2**18  # elements that stay in a core's cache


def _not_finite(values: np.ndarray, place: int, where: object) -> Exception:
    bad = int(values.size - np.count_nonzero(np.isfinite(values)))
    index = [int(i) for i in np.unravel_index(place, values.shape)]
    found = f"{bad} NaN or infinite of {values.size}, the first at {index}"
    fix = "the checkpoint is of a run that diverged, or damaged: use another"
    return mistake("weights are not finite", where=where, expected="numbers", found=found, fix=fix)


def _places(slot: Slot, spans: Spans) -> tuple[range | None, range | None, tuple[slice, ...]]:
    """Takes a part of a slot apart: which of its layers, which experts, and where in each of those matrices."""
    rest = list(spans)
    layers = range(*rest.pop(0)) if slot.stacked else None
    experts = range(*rest.pop(0)) if slot.weight.per_expert and slot.expert is None else None
    return layers, experts, tuple(slice(*span) for span in rest)


def _mappable(view: np.ndarray, dtype: np.dtype) -> bool:
    return view.dtype == dtype and view.flags.c_contiguous and view.ctypes.data % LINE == 0


def _check_precision(dtype: str) -> None:
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise mistake("64-bit types are switched off", where="dtype", found=dtype, fix="set JAX_ENABLE_X64=1")


def _warn_of_skips(checkpoint: Checkpoint) -> None:
    layers = reachable_skip_layers(checkpoint.balancing_biases())
    if layers:
        listed = ", ".join(map(str, layers[:8])) + (", ..." if len(layers) > 8 else "")
        warnings.warn(
            f"{checkpoint.directory}: the routers of {len(layers)} layers ({listed}) can choose the skip class, whose "
            f"output is {checkpoint.config.skip_output!r} here (skip_output): 'zero' is what transformers computes, "
            "'identity' (probability times input) what the original training code does; take what it was trained with",
            stacklevel=3,
        )
