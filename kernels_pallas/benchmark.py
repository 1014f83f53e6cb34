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

_COLUMNS = ("pallas", "xla", "ragged_dot", "dot_product_attention")
_INNER = 5  # calls a repetition waits for: starting one costs less then


def main(arguments: list[str]) -> int:
    """Exit code 0; 2 for names that do not exist."""
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
    return 0


def measure(chosen: dict[str, Case], repeats: int, gpu: bool) -> dict:
    """The device, its ceilings, and of each case and direction seconds by rival (None: not run, or out of memory)."""
    bandwidth, speed = ceilings(8192 if gpu else 512, repeats)
    rows = {}
    for name, case in chosen.items():
        for direction in ("forward", "backward")[: 1 + case.backward]:
            seconds = _rivals(case, direction == "backward", repeats, gpu)
            factor = 3 if direction == "backward" else 1
            floor = factor * max(case.flops / speed, case.bytes / bandwidth)
            rows[f"{name}/{direction}"] = {"seconds": seconds, "floor": floor}
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


def _rivals(case: Case, backward: bool, repeats: int, gpu: bool) -> dict[str, float | None]:
    arguments = case.make()
    calls, failed = {}, {}
    ours = {name: functools.partial(case.operation, implementation=name) for name in ("pallas", "xla")}
    for name, function in (ours | case.others).items():
        if name == "pallas" and not gpu:
            failed[name] = None
            continue
        run = jax.jit(_both(function, case.floating) if backward else function)
        try:
            jax.block_until_ready(run(*arguments))
        except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
            print(f"not run: {name}: {str(error).splitlines()[0]}", file=sys.stderr)
            failed[name] = None
            continue
        calls[name] = lambda run=run: run(*arguments)
    return timed(calls, repeats) | failed


def _both(function: Callable, floating: int) -> Callable:
    def run(*arguments):
        rest = arguments[floating:]
        out, pull = jax.vjp(lambda *first: function(*first, *rest), *arguments[:floating])
        return pull(out)

    return run


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
        seconds = row["seconds"]
        cells = [f"{seconds[rival] * 1e3:.3f}" if seconds.get(rival) else "" for rival in _COLUMNS]
        reached = f"{row['floor'] / seconds['pallas']:.0%}" if seconds.get("pallas") else "not run"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {row['floor'] * 1e3:.3f} | {reached} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
