"""The programs of ZAYA1-8B that are compiled for MI300X: shapes, types and shardings of what they read, no numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.rocm.topology import mi300x
from zaya_jax.data.batch import Batch
from zaya_jax.model import PRESETS, Execution, Zaya, init_cache
from zaya_jax.model.experts import apply_experts
from zaya_jax.model.layout import build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.parallel import make_mesh, rows_spec
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.sharding import abstract_state, programs
from zaya_jax.train.trainer import Trainer

CONFIG = PRESETS["zaya1_8b"]()
KERNELS = {"attention": "pallas", "cca": "pallas", "experts": "pallas"}


@dataclasses.dataclass(frozen=True)
class Program:
    """What one program does.

    Attributes:
        task: "prefill" reads rows and gives the last token's logits and a cache; "decode" reads one token a row against
            a cache, which it writes in place; "train" is `train.step.train_step`; "experts" the forward and backward
            pass of one layer's experts.
        rows: of the batch, on all devices together.
        tokens: of a row that are read.
        cache: slots of a row; decoding only.
        devices: MI300Xs of one node; weights are sharded over all of them (FSDP), and so are rows.
        params: type of the weights.
    """

    task: Literal["prefill", "decode", "train", "experts"]
    rows: int
    tokens: int = 1
    cache: int = 0
    devices: int = 1
    params: Literal["bfloat16", "float32"] = "bfloat16"

    @property
    def name(self) -> str:
        """Unique, and speaks for itself."""
        size = f"{self.rows}_cache_{self.cache}" if self.task == "decode" else f"{self.rows}x{self.tokens}"
        size += f"_{self.params}" if self.task == "experts" else ""
        return f"{self.task}_{size}" + (f"_on_{self.devices}" if self.devices > 1 else "")

    @property
    def local_rows(self) -> int:
        """Rows of a device."""
        return self.rows // self.devices


ALL = (
    Program("prefill", 1, 4096),
    Program("prefill", 1, 32768),
    Program("decode", 1, cache=8192),
    Program("decode", 64, cache=8192),
    Program("decode", 1, cache=131072),
    Program("train", 1, 4096, params="float32"),
    Program("prefill", 8, 4096, devices=8),
    Program("prefill", 8, 32768, devices=8),
    Program("decode", 64, cache=8192, devices=8),
    Program("train", 8, 4096, devices=8, params="float32"),
    Program("experts", 1, 32768, params="float32"),
    Program("experts", 1, 32768, params="bfloat16"),
)
PROGRAMS = {program.name: program for program in ALL}


def lower(program: Program) -> jax.stages.Lowered:
    """The program as XLA gets it."""
    mesh = make_mesh(mi300x(program.devices), fsdp=program.devices)
    lowering = {"prefill": _prefill, "decode": _decode, "train": _train, "experts": _experts}
    return lowering[program.task](program, mesh)


def _execution(mesh: Mesh, **more) -> Execution:
    return Execution("bfloat16", mesh=mesh if mesh.size > 1 else None, **KERNELS, **more)


def _variables(program: Program, mesh: Mesh) -> dict[str, Any]:
    place = slot_sharding(mesh)
    return build(CONFIG, "stacked", lambda s: _array(s.shape, s.dtype(program.params), place(s)))


def _prefill(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    model = Zaya(CONFIG, _execution(mesh))

    def prefill(variables, tokens, positions, segments):
        cache = init_cache(CONFIG, model.execution, program.rows, 0)
        out = model.apply(variables, tokens, positions, segments, cache=cache, logits="last")
        return out.logits, out.cache, out.routes_LBT

    ids = _rows(mesh, program, jnp.int32)
    return jax.jit(prefill).lower(_variables(program, mesh), ids, ids, ids)


def _decode(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    model = Zaya(CONFIG, _execution(mesh))

    def decode(variables, cache, tokens, positions, segments):
        out = model.apply(variables, tokens, positions, segments, cache=cache, logits="last")
        return out.logits, out.cache, out.routes_LBT

    def place(x):  # behind the layers' axis, where there is one
        spec = PartitionSpec(None, *rows_spec()) if x.ndim > 1 else rows_spec()
        return _array(x.shape, x.dtype, NamedSharding(mesh, spec))

    empty = jax.eval_shape(lambda: init_cache(CONFIG, model.execution, program.rows, program.cache))
    ids = _rows(mesh, program, jnp.int32)
    variables, cache = _variables(program, mesh), jax.tree.map(place, empty)
    return jax.jit(decode, donate_argnames="cache").lower(variables, cache, ids, ids, ids)


def _train(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    trainer = Trainer(CONFIG, _execution(mesh, remat="block"), OptimizerConfig(name="adamw"))
    ids = _rows(mesh, program, jnp.int32)
    batch = Batch(ids, ids, _rows(mesh, program, jnp.float32), ids, ids)
    rate = _array((), jnp.float32, NamedSharding(mesh, PartitionSpec()))
    return programs(trainer, mesh).step.lower(abstract_state(trainer, mesh), batch, rate)


def _experts(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    execution, whole = _execution(mesh), NamedSharding(mesh, PartitionSpec())
    E, D, F = CONFIG.num_experts, CONFIG.hidden_size, CONFIG.expert_hidden_size

    def both(w, x, gate, routes, g):
        y, pull = jax.vjp(lambda w, x, gate: apply_experts(CONFIG, execution, w, x, routes, gate), w, x, gate)
        return y, pull(g)

    def wide(dtype):
        return _array((program.rows, program.tokens, D), dtype, whole)

    matrices = {"gate_up": (E, 2 * F, D), "down": (E, D, F)}
    w = {name: _array(shape, program.params, whole) for name, shape in matrices.items()}
    gate, routes = _rows(mesh, program, jnp.float32), _rows(mesh, program, jnp.int32)
    return jax.jit(both).lower(w, wide(jnp.bfloat16), gate, routes, wide(jnp.float32))


def _rows(mesh: Mesh, program: Program, dtype) -> jax.ShapeDtypeStruct:
    return _array((program.rows, program.tokens), dtype, NamedSharding(mesh, rows_spec()))


def _array(shape: tuple[int, ...], dtype, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
