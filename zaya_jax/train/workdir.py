"""The directory of a training run: the names of its files, and its configuration: no other run goes on in it."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.train.config import RunConfig, conflicts
from zaya_jax.train.settings import from_dict, to_json

CONFIG, METRICS, EXAMPLES = "config.json", "metrics.jsonl", "examples.jsonl"
CHECKPOINTS, MODEL, PROFILE = "checkpoints", "model", "profile"

Differing = Callable[[dict[str, Any], dict[str, Any]], dict[str, tuple[Any, Any]]]


def claim(workdir: pathlib.Path, config: Any, differing: Differing = conflicts) -> None:
    """Makes the directory of a run, or finds that it is of this run. Its configuration is in config.json.

    Args:
        workdir: the directory.
        config: the run's, a dataclass.
        differing: (old, new) -> what makes one another run's; what changes nothing that is computed may differ.

    Raises:
        UserError: it belongs to a run of another configuration (every difference is shown), or cannot be used.
    """
    path = workdir / CONFIG
    new = to_json(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check(workdir, differing(json.loads(path.read_text(encoding="utf-8")), new))
        elif any(not file.name.startswith(".") for file in workdir.iterdir()):
            expected = "a new directory, or one of this run"
            raise mistake("holds other files", where=workdir, expected=expected, fix="choose another --workdir")
        beside = path.with_name(f".{CONFIG}.tmp")
        beside.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise mistake("cannot be used", where=workdir, found=error.strerror or error) from error
    except json.JSONDecodeError as error:
        raise mistake("is not JSON", where=path, found=error.msg, fix="choose another --workdir") from None


def read_config(workdir: pathlib.Path) -> RunConfig:
    """The configuration of a run. Raises a UserError if there is none."""
    path = workdir / CONFIG
    try:
        return from_dict(RunConfig, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise mistake("is not a run's directory", where=workdir, found=f"{CONFIG}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise mistake("is not JSON", where=path, found=error.msg) from None


def _check(workdir: pathlib.Path, found: dict[str, tuple[Any, Any]]) -> None:
    if found:
        shown = ", ".join(f"{key}: {_short(a)} -> {_short(b)}" for key, (a, b) in found.items())
        fix = "choose another --workdir, or the configuration that it was made with"
        raise mistake("the directory of another run", where=workdir, found=shown, fix=fix)


def _short(value: object) -> str:
    text = "nothing" if value is ... else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
