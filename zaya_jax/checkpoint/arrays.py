"""Sharded arrays to disk and back, through orbax; the only place that imports it.

Arrays go as one flat dict, path -> array: neither the classes of a tree nor its empty nodes reach the disk. They are
written uncompressed: weights shrink by a tenth at best, and the training step needs the processor more.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import os
import re
from collections.abc import Coroutine, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from zaya_jax.checkpoint.manifest import ArrayEntry, Manifest
from zaya_jax.errors import mistake

Flat = dict[str, Any]

_PATIENCE = 60.0  # seconds that a failed save gives the writes that it has begun


def flatten(tree: Any) -> Flat:
    """{path, with slashes: leaf}; the same for a dataclass and a dict with its names.

    Raises:
        ValueError: two leaves have one path.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two arrays have the same path: a key of the tree holds a slash")
    return flat


def describe(flat: Flat) -> dict[str, ArrayEntry]:
    """Shapes and types of arrays, for a manifest.

    Raises:
        ValueError: a leaf is not an array that orbax can write: no `jax.Array`, a typed random key, or, with several
            processes, an array that only one of them knows of.
    """
    for path, leaf in flat.items():
        if not isinstance(leaf, jax.Array) or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise ValueError(f"{path}: only plain jax.Arrays can be saved, found {type(leaf).__name__}")
        if jax.process_count() > 1 and leaf.is_fully_addressable:
            raise ValueError(f"{path}: only arrays that all processes share can be saved")
    return {path: entry(leaf) for path, leaf in flat.items()}


def entry(leaf: Any) -> ArrayEntry:
    """Shape and type of an array or of a `jax.ShapeDtypeStruct`."""
    return ArrayEntry(tuple(leaf.shape), jnp.dtype(leaf.dtype).name)


def check(manifest: Manifest, abstract: Flat, where: object, partial: bool) -> None:
    """Holds what a run expects against what a checkpoint has. Orbax itself may pad, cut, cast, or fail obscurely.

    Args:
        abstract: path -> array or `jax.ShapeDtypeStruct`.
        where: the checkpoint, for messages.
        partial: whether the checkpoint may have more.

    Raises:
        UserError: names the first array that is missing, left over, or of another shape or type.
    """
    wanted = {path: entry(leaf) for path, leaf in abstract.items()}
    paths = [*wanted, *(path for path in manifest.arrays if path not in wanted and not partial)]
    wrong = [path for path in paths if wanted.get(path) != manifest.arrays.get(path)]
    if wrong:
        path, more = wrong[0], f" (and {len(wrong) - 1} more arrays differ)" if wrong[1:] else ""
        raise mistake(
            f"array {path} is not what this run needs",
            where=where,
            expected=wanted.get(path, "no such array"),
            found=f"{manifest.arrays.get(path, 'no such array')}{more}",
            fix="continue with the configuration that wrote the checkpoint",
        )


class Writer:
    """Writes trees of arrays, one at a time, in the background."""

    def __init__(self):
        _silence()
        # Directories at once: if one cannot be made, threads that wait for it would outlive the save by five minutes.
        options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        self._orbax = ocp.AsyncCheckpointer(_handler(), async_options=options)

    def save(self, directory: Any, flat: Flat) -> None:
        """Returns when the arrays are copied from the devices. Arrays without elements stay with the manifest."""
        solid = {path: array for path, array in flat.items() if array.size}
        try:
            with jax.transfer_guard("allow"):  # a training loop may forbid copies nobody asked for; this one is wanted
                self._orbax.save(directory, args=ocp.args.PyTreeSave(solid))
        except Exception as error:
            self._forget()
            _raise_plainly(error)

    def wait(self) -> None:
        """Until every process has written.

        Raises:
            OSError: the disk refused; its cause is orbax's own error.
            Exception: whatever else went wrong.
        """
        try:
            self._orbax.wait_until_finished()
        except Exception as error:
            self._forget()
            _raise_plainly(error)

    def close(self) -> None:
        """Ends its threads. What went wrong was told by `wait`."""
        self._forget()
        self._orbax.close()

    def _forget(self) -> None:
        """A save that failed in several places tells one error a call: the others are not the next save's."""
        for _ in range(100):
            try:
                return self._orbax.wait_until_finished()
            except Exception:
                continue


def read(directory: Any, manifest: Manifest, abstract_state: Any) -> Any:
    """Reads the arrays of a checkpoint that was verified and checked.

    Args:
        directory: the absolute path that `Writer.save` got.
        abstract_state: tree of arrays or `jax.ShapeDtypeStruct`; each goes to its own sharding, or to this process's
            first device if it has none.
    """
    _silence()
    flat = {path: _placed(leaf) for path, leaf in flatten(abstract_state).items()}
    solid = {path: leaf for path, leaf in flat.items() if leaf.size}
    empty = {path: _empty(leaf) for path, leaf in flat.items() if not leaf.size}
    values = {**empty, **(_read_solid(directory, solid, partial=len(flat) < len(manifest.arrays)) if solid else {})}
    return jax.tree.unflatten(jax.tree.structure(abstract_state), [values[path] for path in flat])


def _read_solid(directory: Any, flat: Mapping[str, jax.ShapeDtypeStruct], partial: bool) -> Flat:
    how = {path: ocp.ArrayRestoreArgs(sharding=leaf.sharding, dtype=leaf.dtype) for path, leaf in flat.items()}
    with ocp.Checkpointer(_handler()) as orbax, jax.transfer_guard("allow"):
        return orbax.restore(directory, args=ocp.args.PyTreeRestore(flat, restore_args=how, partial_restore=partial))


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _empty(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.jit(lambda: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)()


def _handler() -> ocp.PyTreeCheckpointHandler:
    return ocp.PyTreeCheckpointHandler(use_compression=False)


def _from_elsewhere(record: logging.LogRecord) -> bool:
    return "/orbax/" not in record.pathname.replace("\\", "/")


def _silence() -> None:
    """Keeps orbax from speaking: what goes wrong comes to the caller as an exception. Twice is the same as once."""
    logging.getLogger("absl").addFilter(_from_elsewhere)
    _finish_what_was_begun()


def _raise_plainly(error: Exception) -> NoReturn:
    """Raises the operating system's error within one of tensorstore's, which tells its number at the end of a page."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number is None:
        raise error
    raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


@functools.cache
def _finish_what_was_begun() -> None:
    """Makes orbax end what failed when all reads or writes of it have ended, not at the first that fails.

    It closes its event loop at the first error. The others then go on, in a directory that was given up, and end in
    threads of tensorstore, which find the loop closed and can only print a traceback.
    """
    try:
        room = importlib.import_module("orbax.checkpoint._src.asyncio_utils")
        run = room.run_sync
    except (ImportError, AttributeError):  # another orbax, whose errors may be printed once more; the test would tell
        return
    room.run_sync = functools.wraps(run)(lambda coroutine: run(_to_the_end(coroutine)))


async def _to_the_end(coroutine: Coroutine) -> Any:
    try:
        return await coroutine
    except Exception:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        ended = (await asyncio.wait(others, timeout=_PATIENCE))[0] if others else ()
        for task in ended:
            task.cancelled() or task.exception()  # asyncio logs what nobody asked for
        raise
