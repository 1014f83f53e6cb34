"""States to be saved whose every value follows from the step, and processes to save them in."""

import multiprocessing
import pathlib
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.checkpoint.train_state import Checkpoints

Path = pathlib.Path

_CONTEXT = multiprocessing.get_context("forkserver")
# The server has imported all this and started nothing, so a new process is there at once.
_CONTEXT.set_forkserver_preload(["jax", "orbax.checkpoint", "tests.checkpoint.train_states"])


def numpy_state(step: int, rows: int = 64) -> dict:
    """Matrices of several types, a scalar, empty nodes and an array without elements."""
    rng = np.random.default_rng(step)
    return {
        "params": {
            "embedding": rng.standard_normal((rows, 16), np.float32),
            "experts": rng.standard_normal((4, rows, 16), np.float32),
            "twin": rng.standard_normal((rows, 16), np.float32),  # of the embedding: equal in shape
            "norm": rng.standard_normal(16, np.float32).astype(jnp.bfloat16),
        },
        "optimizer": (None, {"count": np.int32(step), "mask": rng.random((rows,)) < 0.5}, {}),
        "memory": {"none": np.zeros((0, 16), np.float32), "small": rng.integers(-9, 9, (8, 8)).astype(np.int8)},
    }


def device_state(step: int, rows: int = 64) -> dict:
    """The same on the first device."""
    return jax.tree.map(jnp.asarray, numpy_state(step, rows))


def assert_same(found, step: int, rows: int = 64) -> None:
    """Bit for bit, types included."""
    expected = numpy_state(step, rows)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(np.asarray(ours), theirs)


def write(directory: Path, *steps: int, **options) -> None:
    """Checkpoints of some steps."""
    with Checkpoints(directory, **{"keep_last": 9, **options}) as checkpoints:
        for step in steps:
            checkpoints.save(step, device_state(step), {"data": step * 10})


def start(function, *arguments) -> multiprocessing.Process:
    """A process of its own."""
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def answers(function, *arguments, processes: int = 1, timeout: float = 100) -> list:
    """What `function(send, number, *arguments)` sends from processes of their own, in the order of their numbers."""
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(processes)]
    started = [start(function, send.send, number, *arguments) for number, (_, send) in enumerate(pipes)]
    deadline = time.monotonic() + timeout
    try:
        for _, send in pipes:
            send.close()
        arrived = [receive.poll(max(0, deadline - time.monotonic())) for receive, _ in pipes]
        assert all(arrived), "a process did not answer"
        return [receive.recv() for receive, _ in pipes]
    finally:
        for process in started:
            process.join(max(0.1, deadline - time.monotonic()))
            process.kill()


def left_behind(before: set[threading.Thread]) -> list[str]:
    """Names of the threads that have begun since and do not end. (Others may end meanwhile: a count would not do.)"""
    begun = set(threading.enumerate()) - before
    for thread in begun:
        thread.join(timeout=10)
    return [thread.name for thread in begun if thread.is_alive()]
