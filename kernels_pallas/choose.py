"""Which implementation of an operation runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Unavailable(ValueError):
    """An implementation that an operation does not have."""


IMPLEMENTATIONS = ("auto", "xla", "pallas", "interpret", "reference")


def choose(operation: str, implementation: str, available: Mapping[str, Callable]) -> Callable:
    """The function behind a name. "auto" is the XLA path, which runs everywhere.

    Raises:
        ValueError: the name is unknown.
        Unavailable: that implementation does not exist for this operation.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"{operation}: unknown implementation {implementation!r}; expected one of {IMPLEMENTATIONS}")
    name = "xla" if implementation == "auto" else implementation
    if name not in available:
        known = f"{sorted(available)} or 'auto'"
        raise Unavailable(f"{operation}: implementation {implementation!r} does not exist yet; available: {known}")
    return available[name]
