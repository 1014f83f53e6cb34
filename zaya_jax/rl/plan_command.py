"""What `python -m experiments.rl --dry_run` prints."""

from __future__ import annotations

import sys
from typing import TextIO

import jax

from zaya_jax.checkpoint import open_checkpoint, resolve
from zaya_jax.errors import mistake
from zaya_jax.model import PRESETS
from zaya_jax.model.config import ModelConfig
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.plan import Plan, plan
from zaya_jax.train.chips import chip_of
from zaya_jax.train.plan import MARGIN
from zaya_jax.train.plan_memory import Item, Memory, total
from zaya_jax.train.plan_setup import mesh_text, parse_topology


def show(config: RlConfig, topology: str = "", chip: str = "", sink: TextIO | None = None) -> None:
    """Prints what a run takes of each device's memory.

    Args:
        config: of the run; `initial` may also be the name of a preset, whose weights need not be there.
        topology: "1xDEVICES"; "" is this machine.
        chip: a name of `train.chips`; "" is this machine's.
        sink: where to; stdout by default.

    Raises:
        UserError: it does not fit, as the last thing that is done; or it does not divide evenly.
    """
    nodes, devices = parse_topology(topology) if topology else (1, jax.device_count())
    if nodes > 1:
        fix = "plan for one machine"
        raise mistake("reinforcement learning has one process", where="topology", expected="1xDEVICES", fix=fix)
    known = chip_of(jax.devices()[0].device_kind)
    found = plan(config, _model(config.initial), devices, chip or ("cpu" if known is None else known.name))
    for line in _lines(config, found):
        print(line, file=sink or sys.stdout)
    limit = MARGIN * found.learner.device.memory
    for name, one in found.memories.items():
        if one.peak > limit:
            fix = "fewer decoding.slots, smaller budgets, or more devices for the mesh"
            expected, peak = f"at most {limit / 1e9:,.1f} GB of a device", f"{one.peak / 1e9:,.1f} GB"
            raise mistake("does not fit", where=name, expected=expected, found=peak, fix=fix)


def _model(initial: str) -> ModelConfig:
    return PRESETS[initial]() if initial in PRESETS else open_checkpoint(resolve(initial)).config


def _lines(config: RlConfig, found: Plan) -> list[str]:
    s = found.learner
    where = "devices of its own" if len(found.memories) > 1 else "the same devices"
    return [
        f"{config.name}: batches of {config.rows:,} x {config.length:,} tokens on {s.devices} x {s.chip}, "
        f"{mesh_text(s.sizes)}; {config.decoding.slots:,} slots on {where}, {found.engine}.",
        *(line for name, one in found.memories.items() for line in _table(name, one)),
        f"{MARGIN:.0%} of a device are {MARGIN * s.device.memory / 1e9:,.1f} GB.",
    ]


def _table(name: str, found: Memory) -> list[str]:
    others = [(moment, total(items)) for moment, items in found.moments.items() if moment != found.largest]
    return [
        f"memory of a device, GB: {name}",
        *(_row(item) for item in found.state),
        f"  at the largest moment, {found.largest}:",
        *(_row(item, "    ") for item in found.moments[found.largest]),
        *(f"  ({moment} would take {size / 1e9:,.2f})" for moment, size in others),
        f"  {'peak':42}{found.peak / 1e9:10,.2f}",
    ]


def _row(item: Item, indent: str = "  ") -> str:
    return f"{indent + item.what:44}{item.bytes / 1e9:10,.2f}  {item.how}".rstrip()
