"""Metrics in other people's tools, besides metrics.jsonl: TensorBoard and Weights & Biases, both as extras.

A sink takes the records that a `MetricsWriter` takes, by `write(**record)`, and keeps their numbers; `close()` ends it.
Of a list, such as one value a layer, it keeps mean, least and greatest; texts stay in metrics.jsonl.
"""

from __future__ import annotations

import importlib.util
import math
import os
import pathlib
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.report.metrics import plain


class Sink(Protocol):
    """Where records go."""

    def write(self, **values: Any) -> None:
        """Takes a record in."""

    def close(self) -> None:
        """Ends writing, with everything written."""


def sinks(
    names: Sequence[str],
    workdir: pathlib.Path | str,
    config: Mapping[str, Any],
    resume_step: int | None = None,
) -> list[Sink]:
    """Opens sinks by name.

    Args:
        names: of "tensorboard" (event files in `workdir`/tensorboard) and "wandb" (project "zaya_jax", unless its
            own variables, WANDB_PROJECT and others, say otherwise; the run's id is kept in `workdir`/wandb_id).
        workdir: of the run.
        config: of the run, shown by wandb.
        resume_step: the step that a resumed run goes on from; TensorBoard forgets what it has of later ones.

    Raises:
        UserError: an unknown name, or its package is not installed.
    """
    check_sinks(names)
    known: dict[str, Callable[[], Sink]] = {
        "tensorboard": lambda: _TensorBoard(pathlib.Path(workdir), resume_step),
        "wandb": lambda: _Wandb(pathlib.Path(workdir), config, resume_step),
    }
    return [known[name]() for name in names]


def check_sinks(names: Sequence[str]) -> None:
    """Raises a UserError for an unknown name or a package that is not installed, before anything is written."""
    packages = {"tensorboard": ("tensorboardX", "tensorboardx"), "wandb": ("wandb", "wandb")}
    for name in names:
        if name not in packages:
            raise mistake("unknown sink", where=name, expected=" or ".join(packages))
        module, package = packages[name]
        if not _is_installed(module):
            fix = f"install it: pip install {package}, or zaya_jax with its extra `{name}`"
            raise mistake(f"metrics for {name} need a package", found=f"{package} is not installed", fix=fix)


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by `kind/name`: a list as `/mean`, `/min` and `/max`; NaN and null are left out.

    An evaluation's stand under its name, so that several held-out sets stay apart.
    """
    record = plain(dict(record))
    kind = "/".join(str(record[key]) for key in ("kind", "name") if record.get(key) is not None)
    values: dict[str, float] = {}
    for name, value in record.items():
        if name not in ("kind", "name", "step"):
            values |= {"/".join(filter(None, [kind, key])): number for key, number in _numbers(name, value)}
    return values


def _numbers(name: str, value: Any) -> list[tuple[str, float]]:
    if _is_number(value):
        return [(name, float(value))]
    if isinstance(value, list):
        numbers = [item for item in value if _is_number(item)]
        if numbers:
            return [(f"{name}/{how.__name__}", float(how(numbers))) for how in (np.mean, min, max)]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _TensorBoard:
    def __init__(self, workdir: pathlib.Path, resume_step: int | None):
        from tensorboardX import SummaryWriter

        # Files are named by the second; a resumed run must not write over the one that it goes on from.
        how = {} if resume_step is None else {"purge_step": resume_step + 1, "filename_suffix": f".{resume_step}"}
        self._writer = SummaryWriter(str(workdir / "tensorboard"), **how)

    def write(self, **values: Any) -> None:
        if values.get("step") is None:
            return  # the start: nothing of it is a curve
        for name, value in scalars(values).items():
            self._writer.add_scalar(name, value, int(values["step"]))

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], resume_step: int | None):
        import wandb

        self._run = wandb.init(
            project=None if os.environ.get("WANDB_PROJECT") else "zaya_jax",
            name=workdir.resolve().name,
            id=_run_id(workdir / "wandb_id", resume_step),
            dir=str(workdir),
            config=plain(dict(config)),
            resume="allow",
        )
        # Its own counter never goes back, as a resumed run's steps do.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, **values: Any) -> None:
        if values.get("step") is not None and (numbers := scalars(values)):
            self._run.log({"step": int(values["step"]), **numbers})

    def close(self) -> None:
        self._run.finish()


def _run_id(path: pathlib.Path, resume_step: int | None) -> str:
    """The id of the run that is resumed, else a new one."""
    try:
        if resume_step is not None and path.exists():
            return path.read_text(encoding="utf-8").strip()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name := secrets.token_hex(4), encoding="utf-8")
    except OSError as error:
        raise mistake("cannot be used", where=path, found=error.strerror or error) from error
    return name
