"""Which implementation of an operation runs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping

import jax

IMPLEMENTATIONS = ("auto", "xla", "pallas", "interpret", "reference")
_LOG = logging.getLogger("kernels_pallas")


class Unavailable(ValueError):
    """An implementation that cannot compute what it is asked for."""


def choose(
    operation: str, implementation: str, available: Mapping[str, Callable], unmet: str | None = None
) -> Callable:
    """The function behind a name. "auto": the kernels on a GPU, unless `unmet`; else the XLA path. Why is logged, once.

    Args:
        unmet: what these arguments have that the kernels cannot compute; None if nothing.

    Raises:
        ValueError: the name is unknown.
        Unavailable: the kernels are asked for by name and cannot compute it.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"{operation}: unknown implementation {implementation!r}; expected one of {IMPLEMENTATIONS}")
    if implementation == "auto":
        implementation, why = _automatic(jax.default_backend(), unmet)
        _say(operation, implementation, why)
    elif implementation == "pallas" and unmet:
        raise Unavailable(f"{operation}: implementation 'pallas' cannot be met: {unmet}; 'xla' or 'auto' can")
    return available[implementation]


def _automatic(platform: str, unmet: str | None) -> tuple[str, str]:
    if platform not in ("gpu", "rocm", "cuda"):
        return "xla", f"the kernels are for GPUs, this is a {platform}"
    if unmet:
        return "xla", unmet
    return "pallas", "this is a GPU"


@functools.cache
def _say(operation: str, implementation: str, why: str) -> None:
    _LOG.info("%s: implementation %r: %s", operation, implementation, why)
