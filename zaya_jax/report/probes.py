"""What `doctor` measures on this machine: small computations whose result is known, and figures of the host."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from kernels_pallas.cca.api import CCAWeights, cca_mix
from kernels_pallas.choose import IMPLEMENTATIONS, Unavailable
from kernels_pallas.flash_attention.api import attention
from kernels_pallas.grouped_matmul.api import grouped_matmul, grouped_swiglu


def backend() -> tuple[str, str, list[tuple[str, int | None]]]:
    """Platform, its version in one line, and of each local device its kind and the bytes that jax may use.

    Raises:
        RuntimeError: jax does not start.
    """
    devices = jax.local_devices()
    sizes = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    version = " ".join(devices[0].client.platform_version.split())
    return jax.default_backend(), version, [(d.device_kind, size) for d, size in zip(devices, sizes)]


def product(dtype: str) -> tuple[float, float]:
    """Relative error of a matrix product with a float32 result, and operations a second of a larger one."""
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    a, b = _normal(dtype, 512)
    exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    error = np.abs(np.asarray(multiply(a, b)) - exact).max() / np.abs(exact).max()
    size = 1024 if jax.default_backend() == "cpu" else 8192
    a, b = _normal(dtype, size)
    return float(error), 2 * size**3 / _seconds(lambda: multiply(a, b).block_until_ready())


def loop() -> tuple[float, float]:
    """The result of a jitted while loop, and what it has to be."""
    steps, size = 100, 64

    @jax.jit
    def run(x):
        return jax.lax.while_loop(lambda s: s[0] < steps, lambda s: (s[0] + 1, jnp.roll(s[1], 1) + 1), (0, x))[1].sum()

    return float(run(jnp.zeros(size))), float(steps * size)


def sum_over_devices() -> tuple[list[float], float]:
    """What each local device has after a sum of their numbers, and what it has to be."""
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("all",), axis_types=(AxisType.Auto,), devices=devices)
    everywhere, one_each = PartitionSpec(), PartitionSpec("all")
    add = jax.shard_map(lambda x: jax.lax.psum(x, "all"), mesh=mesh, in_specs=one_each, out_specs=everywhere)
    result = jax.jit(add)(jnp.arange(1.0, len(devices) + 1))
    return [float(shard.data[0]) for shard in result.addressable_shards], len(devices) * (len(devices) + 1) / 2


def kernel_differences(operation: str) -> dict[str, float | None]:
    """Greatest difference of each implementation from the reference on a small case; None where there is none here."""
    results = {name: _run(operation, name) for name in IMPLEMENTATIONS if name != "auto"}
    exact = results["reference"]
    return {
        name: None if found is None else max(float(np.abs(a - b).max()) for a, b in zip(found, exact, strict=True))
        for name, found in results.items()
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> tuple[int, int]:
    """Bytes of memory, and of it what is available; no more than a container's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _number(pathlib.Path("/sys/fs/cgroup/memory.max"), "") or total
    available = (_number(pathlib.Path("/proc/meminfo"), "MemAvailable:") or total // 1024) * 1024
    return min(total, limit), min(available, limit)


def copy_bandwidth(size: int = 2**28) -> float:
    """Bytes a second, read and written, of a copy of `size` bytes by all cores."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = list(zip(np.array_split(source, cores()), np.array_split(target, cores())))
    with ThreadPoolExecutor(cores()) as pool:
        return 2 * size / _seconds(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))


def _normal(dtype: str, size: int) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0))
    return tuple(jax.random.normal(key, (size, size), jnp.float32).astype(dtype) for key in keys)


def _seconds(function: Callable[[], object]) -> float:
    """The shortest of three runs, behind one that warms up."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _number(file: pathlib.Path, label: str) -> int | None:
    """The number behind a label in a file of the system; None if there is no such file, or "max"."""
    try:
        words = file.read_text(encoding="utf-8").partition(label)[2].split() if label else file.read_text().split()
    except OSError:
        return None
    return int(words[0]) if words and words[0].isdigit() else None


def _run(operation: str, implementation: str) -> list[np.ndarray] | None:
    function, arguments = OPERATIONS[operation]
    if implementation == "pallas" and jax.default_backend() == "cpu":
        return None
    try:
        call = jax.jit(lambda *x: function(*x, implementation=implementation))
        return [np.asarray(leaf) for leaf in jax.tree.leaves(call(*arguments()))]
    except Unavailable:
        return None


def _values(*shape: int) -> jax.Array:
    return jnp.sin(jnp.arange(np.prod(shape), dtype=jnp.float32)).reshape(shape)


def _attention_case():
    index, segments = jnp.tile(jnp.arange(16), (2, 1)), jnp.ones((2, 16), jnp.int32)
    return _values(2, 16, 4, 16), _values(2, 16, 2, 16), _values(2, 16, 2, 16), index, index, segments, segments


def _cca_case():
    channels = 6 * 64  # four query heads and two key heads
    weights = CCAWeights(
        _values(channels, 1, 2), _values(channels), _values(channels, 64, 2), _values(channels), jnp.ones(2)
    )
    angles, state = _values(2, 16, 16), jnp.zeros((2, 2, channels))
    follows = jnp.tile(jnp.arange(16) % 9 > 0, (2, 1))  # two documents a row
    return _values(2, 16, channels), state, follows, jnp.cos(angles), jnp.sin(angles), weights


def _grouped_case():
    return _values(12, 8), _values(3, 16, 8), jnp.array([5, 0, 7], jnp.int32)


OPERATIONS = {
    "attention": (attention, _attention_case),
    "cca_mix": (cca_mix, _cca_case),
    "grouped_matmul": (grouped_matmul, _grouped_case),
    "grouped_swiglu": (grouped_swiglu, _grouped_case),
}
