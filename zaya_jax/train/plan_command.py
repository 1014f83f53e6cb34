"""What `python -m experiments.plan` does."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.model import PRESETS
from zaya_jax.sampling.files import replacement
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.plan import Plan, plan
from zaya_jax.train.plan_setup import make_setup
from zaya_jax.train.plan_text import assumptions, table, to_json


def run(
    model: str,
    topologies: Sequence[str],
    optimizer: Mapping[str, Any],
    options: Mapping[str, Any],
    steps: int = 0,
    output: str | None = None,
) -> None:
    """Prints the plans of one run on several topologies, and writes them as JSON where asked to.

    Args:
        model: a preset.
        topologies: of `make_setup`.
        optimizer: fields of `OptimizerConfig`.
        options: of `make_setup`.
        steps: also the days that they take.
        output: of the JSON, a list of plans.

    Raises:
        UserError: an unknown preset, or as `make_setup`.
    """
    found = plans(model, topologies, optimizer, options)
    print(table(found, steps), end="")
    print("\n" + assumptions(), end="")
    if output:
        write(output, json.dumps([to_json(p) for p in found], indent=1) + "\n")


def plans(
    model: str, topologies: Sequence[str], optimizer: Mapping[str, Any], options: Mapping[str, Any]
) -> list[Plan]:
    """The plans of one run on several topologies; see `run`."""
    if model not in PRESETS:
        raise mistake("unknown model", where="model", expected=", ".join(PRESETS), found=repr(model))
    config, choice = PRESETS[model](), OptimizerConfig(**optimizer)
    return [plan(make_setup(config, topology, optimizer=choice, **options)) for topology in topologies]


def write(path: str, text: str) -> None:
    """Writes a file beside, then renames it."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacement(target) as beside:
        beside.write_text(text, encoding="utf-8")


def write_page(path: str) -> None:
    """Writes docs/plan.md; the compiled figures that it compares with lie beside it."""
    from zaya_jax.train.plan_page import page

    write(path, page(pathlib.Path(path).parent))
