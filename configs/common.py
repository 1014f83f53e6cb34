"""What configurations share: arguments behind the colon, and a dataclass as a ConfigDict."""

from __future__ import annotations

import difflib
from typing import Any

import ml_collections

from zaya_jax.errors import mistake
from zaya_jax.train.config import RunConfig
from zaya_jax.train.settings import to_dict


def parse(argument: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """The arguments of `--config=FILE:scale=nano,runlocal`; a name alone is a switch.

    Raises:
        UserError: an argument that the configuration does not have.
    """
    found = dict(defaults)
    for part in (argument or "").split(","):
        name, _, value = part.strip().partition("=")
        if not name:
            continue
        if name not in defaults:
            close = difflib.get_close_matches(name, defaults, 1)
            fix = f"did you mean {close[0]}?" if close else ""
            raise mistake("unknown argument", where=f"--config=...:{name}", expected=", ".join(defaults), fix=fix)
        found[name] = _like(defaults[name], value, name)
    return ml_collections.ConfigDict(found)


def as_config(run: RunConfig) -> ml_collections.ConfigDict:
    """A run whose every value can be changed on the command line, as --config.optimizer.learning_rate=1e-3."""
    return ml_collections.ConfigDict(_open(to_dict(run)), convert_dict=True)


def _open(value: Any) -> Any:
    """None may become a number."""
    if isinstance(value, dict):
        return {key: _open(item) for key, item in value.items()}
    return ml_collections.config_dict.placeholder(int) if value is None else value


_SWITCH = {"": True, "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _like(default: Any, value: str, name: str) -> Any:
    try:
        return _SWITCH[value.lower()] if isinstance(default, bool) else type(default)(value)
    except (KeyError, ValueError):
        expected = type(default).__name__
        raise mistake("wrong type", where=f"--config=...:{name}", expected=expected, found=repr(value)) from None
