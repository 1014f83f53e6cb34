"""A run on a disk that gets full, in a process of its own: `python -m tests.checkpoint.little_room DIRECTORY`."""

import gc
import json
import resource
import sys
from pathlib import Path

import jax.numpy as jnp

from zaya_jax.checkpoint.train_state import Checkpoints
from zaya_jax.errors import UserError

# Bytes that a file may have: what the kernel refuses is orbax's small files, the tree of arrays, or their bytes.
ROOMS = (0, 100, 1_000, 20_000, 100_000)
ARRAYS = 40


def state(step: int) -> dict:
    """Arrays of 4 to 160 kB: many are on their way when the first is refused."""
    return {f"array{number}": jnp.full(1_000 * (number + 1), step, jnp.float32) for number in range(ARRAYS)}


def limit(room: int) -> None:
    """The kernel refuses to make files larger; CPython ignores the signal that comes with it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def run(directory: Path, room: int) -> dict:
    """Saves once as usual, once with little room, leaves as a run leaves, and tells what it was told."""
    said = []
    try:
        with Checkpoints(directory) as checkpoints:
            checkpoints.save(1, state(1), {})
            checkpoints.wait()
            limit(room)
            checkpoints.save(2, state(2), {})
            checkpoints.wait()
    except UserError as failure:
        said = [str(failure), type(failure.__cause__).__name__]
    limit(resource.RLIM_INFINITY)
    gc.collect()  # what nobody asked for is told when it is thrown away
    return {"room": room, "said": said, "left": sorted(path.name for path in directory.iterdir())}


if __name__ == "__main__":
    for room in ROOMS:
        print(json.dumps(run(Path(sys.argv[1]) / str(room), room)))
