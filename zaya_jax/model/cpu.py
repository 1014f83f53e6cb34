"""What this machine's CPU can do, as far as the forms of products depend on it."""

from __future__ import annotations

import functools
import pathlib

import jax

from zaya_jax.model.execution import Execution

_FACTS = pathlib.Path("/proc/cpuinfo")


def multiplies_tiles(execution: Execution) -> bool:
    """Whether products of this precision run on AMX tiles: they want the weight on the left, and never one row."""
    return execution.dtype == "bfloat16" and jax.default_backend() == "cpu" and _has_tiles()


@functools.cache
def _has_tiles() -> bool:
    """Linux tells; elsewhere no such CPU runs XLA."""
    return _FACTS.exists() and " amx_bf16" in _FACTS.read_text(encoding="utf-8", errors="replace")
