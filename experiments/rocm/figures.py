"""The figures of a compiled program, and how they are compared with committed ones."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax

from experiments.rocm import hlo

DRIFT = 0.05


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of one device.

    Attributes:
        seconds: to compile, on the machine that did.
        argument, output, temporary: bytes, as XLA's buffer assignment has them.
        aliased: bytes of outputs that take the place of donated arguments.
        peak: the most bytes at any time.
        kernels: Pallas kernels by name; a loop's body counts once.
        library_calls: other custom calls by target.
        products: matrix products that XLA's own Triton emitter compiles.
        collectives: by kind.
    """

    seconds: float
    argument: int
    output: int
    temporary: int
    aliased: int
    peak: int
    kernels: Mapping[str, int]
    library_calls: Mapping[str, int]
    products: int
    collectives: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """All that is the same on every machine."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "seconds"}


def measure(lowered: jax.stages.Lowered) -> tuple[Figures, str]:
    """Compiles; the figures and the compiled program's text."""
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    figures = Figures(
        seconds=seconds,
        argument=memory.argument_size_in_bytes,
        output=memory.output_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        kernels=dict(sorted(Counter(kernel.name for kernel in hlo.kernels(text)).items())),
        library_calls=dict(sorted(hlo.library_calls(text).items())),
        products=hlo.products(text),
        collectives=dict(sorted(hlo.collectives(text).items())),
    )
    return figures, text


def drift(found: Mapping[str, Any], committed: Mapping[str, Any] | None) -> list[str]:
    """Figures (as JSON) that are more than 5 % from the committed ones, in words."""
    if committed is None:
        return ["no committed figures: run with --update"]
    now, before = _flat(found), _flat(committed)
    return [
        f"{key} {now.get(key, 0):,}, was {before.get(key, 0):,}"
        for key in sorted(now.keys() | before.keys())
        if abs(now.get(key, 0) - before.get(key, 0)) > DRIFT * before.get(key, 0)
    ]


def _flat(figures: Mapping[str, Any]) -> dict[str, int]:
    flat = {}
    for key, value in figures.items():
        flat |= {f"{key} {name}": n for name, n in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat
