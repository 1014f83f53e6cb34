"""The plan of a configured run: what `--dry_run` prints."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

import jax

from zaya_jax.model.lora import count_lora
from zaya_jax.parallel import mesh_shape
from zaya_jax.train.chips import chip_of
from zaya_jax.train.config import RunConfig
from zaya_jax.train.plan import plan
from zaya_jax.train.plan_command import write
from zaya_jax.train.plan_setup import Setup, Sizes, parse_topology
from zaya_jax.train.plan_text import assumptions, table, to_json


def show(config: RunConfig, topologies: str | Sequence[str], chip: str = "", output: str | None = None) -> None:
    """Prints the plan of a run on one or several topologies, and writes them as JSON where asked to.

    Args:
        config: of the run.
        topologies: "NODESxDEVICES"; "" is this machine.
        chip: a name of `chips.CHIPS`; "" is this machine's.
        output: of the JSON.

    Raises:
        UserError: the mesh or the rows do not fit a topology, or the chip is not known.
    """
    topologies = [topologies] if isinstance(topologies, str) else topologies
    found = [plan(setup_of(config, topology, chip)) for topology in topologies]
    out = sys.stdout
    print(f"{config.name}: {config.steps:,} steps of {config.tokens_per_step:,} tokens,", end=" ", file=out)
    print(f"{config.steps * config.tokens_per_step:,} in all.", file=out)
    print(table(found, config.steps), end="", file=out)
    for line in _notes(config):
        print(line, file=out)
    print("\n" + assumptions(), end="", file=out)
    if output:
        write(output, json.dumps([to_json(p) for p in found], indent=1) + "\n")


def setup_of(config: RunConfig, topology: str = "", chip: str = "") -> Setup:
    """What a plan is made for. Raises as `show`."""
    nodes, devices = parse_topology(topology) if topology else (1, jax.device_count())
    execution = config.execution
    return Setup(
        config.model,
        config.rows * config.accumulate,
        config.data.length,
        Sizes(*mesh_shape(dataclasses.asdict(config.mesh), nodes * devices)),
        accumulate=config.accumulate,
        optimizer=config.optimizer,
        dtype=execution.dtype,
        remat=execution.remat,
        loss_chunk=config.loss_chunk,
        dispatch="ragged" if execution.dispatch == "auto" else execution.dispatch,
        chip=chip or _this_chip(),
        nodes=nodes,
        devices_per_node=devices,
    )


def _this_chip() -> str:
    found = chip_of(jax.devices()[0].device_kind)
    return "cpu" if found is None else found.name


def _notes(config: RunConfig) -> list[str]:
    """What the arithmetic of `plan` leaves out."""
    notes = []
    if config.lora is not None:
        trained = count_lora(config.model, config.lora)
        notes.append(f"Adapters train {trained:,} numbers; the plan is that of all parameters, more than they need.")
    if config.dpo is not None:
        notes.append(
            "Preferences also need the model that they are measured against, and its forward pass: not planned."
        )
    return notes
