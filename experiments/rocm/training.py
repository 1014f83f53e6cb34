"""Training steps compiled for MI300X to see what plans are worth (`zaya_jax.train.plan`): only their bytes count.

The step is `train.step.train_step`. Where rows are shared it knows no loss in chunks yet: there it is `_chunked_step`,
which leaves the router biases alone.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from experiments.rocm.figures import measure
from experiments.rocm.programs import KERNELS
from experiments.rocm.topology import mi300x
from zaya_jax.data.batch import Batch
from zaya_jax.model import Execution, Zaya
from zaya_jax.parallel import each_device, make_mesh, rows_spec
from zaya_jax.train.loss import chunked_cross_entropy
from zaya_jax.train.optimizer import optimizer
from zaya_jax.train.plan_command import write
from zaya_jax.train.plan_page import compiled_setup
from zaya_jax.train.plan_setup import Setup
from zaya_jax.train.sharding import abstract_state
from zaya_jax.train.step import Trainer, train_step

CASES: tuple[dict[str, Any], ...] = (
    {"rows": 1, "length": 4096},
    {"rows": 1, "length": 4096, "remat": "none", "loss_chunk": 0},
    {"rows": 4, "length": 4096},
    {"rows": 1, "length": 32768},
    {"rows": 2, "length": 4096, "accumulate": 2},
    {"rows": 16, "length": 4096, "mesh": "fsdp=8", "loss_chunk": 0, "accumulate": 2},
    {"rows": 1, "length": 4096, "optimizer": "muon"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8", "remat": "none"},
    {"rows": 64, "length": 4096, "mesh": "fsdp=8"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8", "optimizer": "muon"},
    {"rows": 32, "length": 4096, "mesh": "fsdp=8", "optimizer": "muon"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=8", "optimizer": "muon", "momentum": 0.0},
    {"rows": 8, "length": 4096, "mesh": "data=8"},
    {"rows": 8, "length": 4096, "mesh": "data=8", "zero1": False},
    {"rows": 8, "length": 4096, "mesh": "data=8", "optimizer": "muon"},
    {"rows": 8, "length": 4096, "mesh": "data=2,fsdp=4"},
    {"rows": 8, "length": 4096, "mesh": "expert=8"},
    {"rows": 8, "length": 4096, "mesh": "fsdp=4,expert=2"},
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
    execution = Execution("bfloat16", mesh=mesh if mesh.size > 1 else None, remat=setup.remat, **KERNELS)
    trainer = Trainer(setup.model, execution, setup.optimizer, loss_chunk=setup.loss_chunk)
    ids, floats = (_array(setup, mesh, dtype) for dtype in (jnp.int32, jnp.float32))
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    arguments = (abstract_state(trainer, mesh), Batch(ids, ids, floats, ids, ids), rate)
    if not setup.loss_chunk or setup.shards == 1:
        return train_step.lower(trainer, *arguments)
    step = functools.partial(_chunked_step, trainer, setup.loss_chunk)
    return jax.jit(step, donate_argnums=0).lower(*arguments)


def _chunked_step(trainer: Trainer, chunk: int, state, batch: Batch, rate: jax.Array):
    update = optimizer(trainer.optimizer, trainer.model, "stacked", trainer.execution.mesh)
    (loss, counts), gradients = jax.value_and_grad(_mean_loss, argnums=2, has_aux=True)(
        trainer, chunk, state.params, state.balance, batch
    )
    updates, memory = update.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, jax.tree.map(lambda u: u * rate, updates))
    return state.replace(params=params, optimizer=memory), loss, counts


def _mean_loss(trainer: Trainer, chunk: int, params, balance, batch: Batch):
    variables, execution = {"params": params, "balance": balance}, trainer.execution
    ids = (batch.tokens_BT, batch.positions_BT, batch.segments_BT)
    outputs = Zaya(trainer.model, execution).apply(variables, *ids, logits="none")

    def local(rows, table_VD):
        hidden, targets, mask = (x.reshape(-1, *x.shape[2:]) for x in rows)
        return jax.tree.map(jnp.atleast_1d, chunked_cross_entropy(execution, hidden, table_VD, targets, mask, chunk))

    rows = (outputs.hidden_BTD, batch.targets_BT, batch.mask_BT)
    total, count = each_device(execution.mesh, local, rows, params["embedding"])
    return total.sum() / count.sum(), outputs.router_counts_LC


def _array(setup: Setup, mesh, dtype) -> jax.ShapeDtypeStruct:
    shape, spec = (setup.rows // setup.accumulate, setup.length), rows_spec()
    if setup.accumulate > 1:
        shape, spec = (setup.accumulate, *shape), PartitionSpec(None, *spec)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
