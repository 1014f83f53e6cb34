"""Configurations: frozen dataclasses in the library, nested dictionaries on a command line and in a file."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from zaya_jax.errors import mistake

T = TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """A dataclass from a mapping of its fields, which may be mappings themselves.

    Raises:
        UserError: a key that is no field (with the nearest one), or a value that the dataclass refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, 1)
            fix = f"did you mean {close[0]}?" if close else ""
            raise mistake("unknown key", where=f"{where}.{key}", expected=f"one of {', '.join(fields)}", fix=fix)
    hints = typing.get_type_hints(cls)
    given = {key: _value(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    return cls(**given)


def to_dict(config: Any) -> dict[str, Any]:
    """The mapping that `from_dict` reads; tuples stay tuples."""
    return dataclasses.asdict(config)


def to_json(config: Any) -> dict[str, Any]:
    """The same as JSON has it: tuples are lists."""
    return json.loads(json.dumps(to_dict(config)))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys (dotted) at which two configurations differ, with both values; `...` where there is none."""
    found = {}
    for key in sorted(old.keys() | new.keys()):
        a, b = _listed(old.get(key, ...)), _listed(new.get(key, ...))
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = (a, b)
    return found


def conflicts(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """The differences that are not below a key of `free`.

    What is not there and what is None are the same: a field that came later, and is not used.
    """
    below = tuple(f"{key}." for key in free)
    found = differences(old, new).items()
    return {key: pair for key, pair in found if pair != (..., None) and not f"{key}.".startswith(below)}


def _listed(value: Any) -> Any:
    """JSON has no tuples."""
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        return None if value is None else _value(inner[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if hint in (int, float, str, bool):
        return _plain(hint, value, where)
    return value


def _plain(hint: type, value: Any, where: str) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise mistake("wrong type", where=where, expected=hint.__name__, found=repr(value))
    return value
