"""Training steps compiled for MI300X to see what plans are worth (`zaya_jax.train.plan`): only their bytes count."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from experiments.rocm.figures import measure
from experiments.rocm.programs import KERNELS
from experiments.rocm.topology import mi300x
from zaya_jax.data.batch import Batch
from zaya_jax.model import Execution
from zaya_jax.parallel import make_mesh, rows_spec
from zaya_jax.train.plan_command import write
from zaya_jax.train.plan_page import compiled_setup
from zaya_jax.train.plan_setup import Setup
from zaya_jax.train.sharding import abstract_state, programs
from zaya_jax.train.trainer import Trainer

CASES: tuple[dict[str, Any], ...] = (
    {"rows": 1, "length": 4096},
    {"rows": 1, "length": 4096, "remat": "none", "loss_chunk": 0},
    {"rows": 4, "length": 4096},
    {"rows": 4, "length": 4096, "remat": "dots"},
    {"rows": 1, "length": 32768},
    {"rows": 2, "length": 4096, "accumulate": 2},
    {"rows": 16, "length": 4096, "mesh": "fsdp=8", "loss_chunk": 0, "accumulate": 2},
    {"rows": 1, "length": 4096, "optimizer": "muon"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8", "remat": "none"},
    {"rows": 64, "length": 4096, "mesh": "fsdp=8"},
    {"rows": 64, "length": 4096, "mesh": "fsdp=8", "remat": "dots"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8", "optimizer": "muon"},
    {"rows": 32, "length": 4096, "mesh": "fsdp=8", "optimizer": "muon"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8", "optimizer": "muon", "momentum": 0.0},
    {"rows": 8, "length": 4096, "mesh": "data=8"},
    {"rows": 8, "length": 4096, "mesh": "data=8", "zero1": False},
    {"rows": 8, "length": 4096, "mesh": "data=8", "optimizer": "muon"},
    {"rows": 8, "length": 4096, "mesh": "data=2,fsdp=4"},
    {"rows": 8, "length": 4096, "mesh": "expert=8"},
    {"rows": 8, "length": 4096, "mesh": "expert=8", "dispatch": "dense"},
    {"rows": 8, "length": 4096, "mesh": "expert=8", "dispatch": "ragged"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=4,expert=2"},
    {"rows": 4, "length": 32768, "mesh": "fsdp=4,context=2", "optimizer": "muon"},
    {"rows": 1, "length": 131072, "mesh": "context=8", "optimizer": "muon"},
    {"rows": 64, "length": 4096, "mesh": "data=2,fsdp=8", "nodes": 2, "optimizer": "muon"},
    {"rows": 4096, "length": 4096, "mesh": "data=128,fsdp=8", "nodes": 128},
    {"rows": 4096, "length": 4096, "mesh": "data=128,fsdp=8", "nodes": 128, "optimizer": "muon"},
    {"rows": 4096, "length": 4096, "mesh": "data=1024", "nodes": 128, "optimizer": "muon"},
)


def run(output: str) -> None:
    """Compiles all cases, prints a line each and writes their bytes as JSON."""
    found = []
    for case in CASES:
        figures, _ = measure(lower(compiled_setup(case)))
        found.append({"case": case, **{name: getattr(figures, name) for name in ("argument", "temporary", "peak")}})
        print(f"{figures.seconds:5.1f} s  peak {figures.peak / 1e9:7.2f} GB ", json.dumps(case), flush=True)
    write(output, json.dumps(found, indent=1) + "\n")


def lower(setup: Setup) -> jax.stages.Lowered:
    """The step of a plan as XLA gets it: shapes, types and shardings, no numbers."""
    mesh = make_mesh(mi300x(setup.devices_per_node, setup.nodes), **setup.sizes._asdict())
    mesh_or_none = mesh if mesh.size > 1 else None
    execution = Execution("bfloat16", mesh=mesh_or_none, remat=setup.remat, dispatch=setup.dispatch, **KERNELS)
    trainer = Trainer(setup.model, execution, setup.optimizer, loss_chunk=setup.loss_chunk)
    ids, floats = (_array(setup, mesh, dtype) for dtype in (jnp.int32, jnp.float32))
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    batch = Batch(ids, ids, floats, ids, ids)
    return programs(trainer, mesh).step.lower(abstract_state(trainer, mesh), batch, rate)


def _array(setup: Setup, mesh, dtype) -> jax.ShapeDtypeStruct:
    shape, spec = (setup.rows // setup.accumulate, setup.length), rows_spec(columns=True)
    if setup.accumulate > 1:
        shape, spec = (setup.accumulate, *shape), PartitionSpec(None, *spec)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
