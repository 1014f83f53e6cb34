"""What the configurations and states of this room share: ranges that are checked, and JSON that is read back."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from zaya_jax.errors import mistake
from zaya_jax.train.settings import from_dict

T = TypeVar("T")


def check_range(
    config: Any, name: str, least: float, most: float = math.inf, *, above: bool = False, whole: bool = False
) -> None:
    """Checks a number of a configuration.

    Args:
        config: the dataclass; its type is named in the error.
        name: of the field.
        least, most: both allowed, but that `least` itself is not with `above`.
        whole: it has to be an integer.

    Raises:
        UserError: it is no number, not finite, or out of range.
    """
    value = getattr(config, name)
    kinds = int if whole else (int, float)
    right = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if right and least <= value <= most and not (above and value == least):
        return
    low, high = f"{'above' if above else 'from'} {least:g}", "" if most == math.inf else f" to {most:g}"
    expected = f"a {'whole ' if whole else ''}number {low} up{high}"
    raise mistake("out of range", where=f"{type(config).__name__}.{name}", expected=expected, found=repr(value)[:40])


def to_json(state: Any) -> dict[str, Any]:
    """The record of a state, a frozen dataclass, that `from_json` reads."""
    return dataclasses.asdict(state)


def from_json(cls: type[T], record: Any, where: str) -> T:
    """A state from the record that `to_json` made of it: every field has to be there, and no other.

    Raises:
        UserError: the record is of something else.
    """
    _check_fields(cls, record, where)
    return from_dict(cls, record, where)


def _check_fields(cls: type, record: Any, where: str) -> None:
    """`from_dict` fills what is missing with defaults, which is right for a configuration and wrong for a state."""
    if not isinstance(record, Mapping):
        raise mistake("not a state", where=where, expected="a JSON object", found=type(record).__name__)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name not in record:
            raise mistake("missing key", where=f"{where}.{field.name}", fix="was it written by another version?")
        value, hint = record[field.name], hints[field.name]
        if dataclasses.is_dataclass(hint):
            _check_fields(hint, value, f"{where}.{field.name}")
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        if inner is not None and not isinstance(value, list | tuple):
            raise mistake("not a list", where=f"{where}.{field.name}", found=repr(value)[:40])
        if dataclasses.is_dataclass(inner):
            for i, item in enumerate(value):
                _check_fields(inner, item, f"{where}.{field.name}[{i}]")
