"""Times every kernel on the GPU that is there, next to XLA and to what the GPU could do.

    python -m kernels_pallas.benchmark
    python -m kernels_pallas.benchmark --only attention --repeats 20 --output kernels.json

Forward and forward with backward, against the XLA path, `lax.ragged_dot` and `jax.nn.dot_product_attention`; medians,
the rivals taking turns. The roofline is the greater of bytes over the bandwidth of a copy and operations over the speed
of a large product, both measured in the same run. Without a GPU it runs small shapes without the kernels, to show that
it runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels_pallas.benchmark_cases import Case, cases
from kernels_pallas.production import with_gradients

_COLUMNS = ("pallas", "xla", "ragged_dot", "dot_product_attention")
_INNER = 5  # calls a repetition waits for: starting one costs less then


def main(arguments: list[str]) -> int:
    """Exit code 0; 1 if a kernel does not run on the GPU that is there; 2 for names that do not exist."""
    parser = argparse.ArgumentParser(prog="python -m kernels_pallas.benchmark", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--repeats", type=int, default=10, help="counted repetitions of each, after two that warm up")
    parser.add_argument("--output", type=pathlib.Path, help="where the figures go, as JSON")
    options = parser.parse_args(arguments)
    gpu = jax.default_backend() == "gpu"
    chosen = {name: case for name, case in cases(small=not gpu).items() if options.only in name}
    if not chosen:
        parser.error(f"--only: no case contains {options.only!r}; there are {', '.join(cases(small=not gpu))}")
    found = measure(chosen, options.repeats, gpu)
    print(table(found))
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if failed_kernels(found) else 0


def failed_kernels(found: dict) -> list[str]:
    """Cases whose kernel does not run on the GPU that is there."""
    return [name for name, row in found["cases"].items() if "pallas" in row["failed"]]


def measure(chosen: dict[str, Case], repeats: int, gpu: bool) -> dict:
    """The device, its ceilings, and of each case and direction seconds by rival, and which failed and why."""
    bandwidth, speed = ceilings(8192 if gpu else 512, repeats)
    rows = {}
    for name, case in chosen.items():
        for direction in ("forward", "backward")[: 1 + case.backward]:
            seconds, failed = _rivals(case, direction == "backward", repeats, gpu)
            factor = 3 if direction == "backward" else 1
            floor = factor * max(case.flops / speed, case.bytes / bandwidth)
            rows[f"{name}/{direction}"] = {"seconds": seconds, "failed": failed, "floor": floor}
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "bytes_per_second": bandwidth,
        "flops_per_second": speed,
        "cases": rows,
    }


def ceilings(size: int, repeats: int) -> tuple[float, float]:
    """Bytes a second of reading and writing a large array, operations a second of a square bfloat16 product."""
    x = jnp.ones((size * size,), jnp.float32)
    add = jax.jit(lambda x: x + 1)
    a = jnp.ones((size, size), jnp.bfloat16)
    product = jax.jit(lambda a: jax.lax.dot(a, a, preferred_element_type=jnp.float32).astype(a.dtype))
    seconds = timed({"copy": lambda: add(x), "product": lambda: product(a)}, repeats)
    return 2 * x.nbytes / seconds["copy"], 2 * size**3 / seconds["product"]


def _rivals(case: Case, backward: bool, repeats: int, gpu: bool) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds by rival, and why others have none: out of memory, for instance."""
    arguments = case.make()
    calls, failed = {}, {}
    ours = {name: functools.partial(case.operation, implementation=name) for name in ("pallas", "xla")[not gpu :]}
    for name, function in (ours | case.others).items():
        run = jax.jit(with_gradients(function, case.floating) if backward else function)
        try:
            jax.block_until_ready(run(*arguments))
        except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
            failed[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        calls[name] = lambda run=run: run(*arguments)
    return timed(calls, repeats), failed


def timed(calls: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Median seconds of a call of each; they take turns, so that a change of the machine's speed meets all."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            results = [call() for _ in range(_INNER)]
            jax.block_until_ready(results)
            if repeat >= 2:
                seconds[name].append((time.perf_counter() - start) / _INNER)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(found: dict) -> str:
    """As Markdown; the last column says how much of what the GPU could do the kernel reaches."""
    lines = [
        f"{found['device']} ({found['platform']}), jax {found['jax']}: a copy {found['bytes_per_second'] / 1e9:,.0f} "
        f"GB/s, bfloat16 product {found['flops_per_second'] / 1e12:,.1f} TFLOP/s",
        "",
        "| ms | " + " | ".join(_COLUMNS) + " | roofline | reached |",
        "|---" * (len(_COLUMNS) + 3) + "|",
    ]
    for name, row in found["cases"].items():
        seconds, failed = row["seconds"], row["failed"]
        cells = [f"{seconds[r] * 1e3:.3f}" if r in seconds else "failed" if r in failed else "" for r in _COLUMNS]
        reached = f"{row['floor'] / seconds['pallas']:.0%}" if "pallas" in seconds else "not run"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {row['floor'] * 1e3:.3f} | {reached} |")
    reasons = [f"{name}: {r} failed: {why}" for name, row in found["cases"].items() for r, why in row["failed"].items()]
    return "\n".join(lines + [""] * bool(reasons) + reasons)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
