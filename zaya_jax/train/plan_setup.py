"""What a plan is made for: a model, how it is trained, on which devices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.layout import Slot, build
from zaya_jax.parallel import AXES, BATCH_AXES
from zaya_jax.parallel.rules import partition_spec
from zaya_jax.train.chips import Chip, chip
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.zero import memory_spec

TOKENS = 16384  # of a device and microbatch, where rows are not given: the pretraining's 4 x 4,096


class Sizes(NamedTuple):
    """Devices along each axis of the mesh; the last axis holds neighbours."""

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    context: int = 1


ONE = Sizes()
MUON = OptimizerConfig(name="muon")


@dataclasses.dataclass(frozen=True)
class Setup:
    """One run on one set of devices.

    Attributes:
        model: the architecture.
        sizes: of the mesh; their product is `nodes * devices_per_node`, and a node holds neighbours.
        rows: of the global batch of a step, over all devices and microbatches.
        length: tokens of a row.
        accumulate: microbatches of a step, one after the other.
        optimizer: its name, momentum, type of Newton-Schulz and `zero1` matter here.
        dtype: the precision policy, as in `Execution`.
        remat: as in `Execution`.
        loss_chunk: tokens whose logits exist at a time; 0 is all of a microbatch.
        dispatch: how tokens meet experts on the mesh axis `expert`: "gather" brings the experts to the tokens, "dense"
            sends tokens in buffers of the worst case, "ragged" sends as many as there are into buffers as large.
        chip: a name of `chips.CHIPS`.
        nodes, devices_per_node: the topology.

    Raises:
        UserError: the mesh does not fit the devices, or something does not divide evenly.
    """

    model: ModelConfig
    rows: int
    length: int
    sizes: Sizes = ONE
    accumulate: int = 1
    optimizer: OptimizerConfig = MUON
    dtype: Literal["float64", "float32", "bfloat16"] = "bfloat16"
    remat: Literal["none", "block", "dots"] = "block"
    loss_chunk: int = 1024
    dispatch: Literal["gather", "dense", "ragged"] = "gather"
    chip: str = "mi300x"
    nodes: int = 1
    devices_per_node: int = 1

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise mistake("unknown choice", where=name, expected=choices, found=repr(getattr(self, name)))
        for name in ("rows", "length", "accumulate", "nodes", "devices_per_node"):
            if getattr(self, name) < 1:
                raise mistake("out of range", where=name, expected="1 or more", found=getattr(self, name))
        if math.prod(self.sizes) != self.devices:
            found = f"{mesh_text(self.sizes)}, {math.prod(self.sizes)} devices"
            expected = f"{self.devices} devices ({self.nodes}x{self.devices_per_node})"
            raise mistake("the mesh does not fit the topology", expected=expected, found=found)
        _divides("rows", self.rows, self.shards * self.accumulate, "devices that share the rows x accumulate")
        _divides("length", self.length, self.sizes.context, "devices along context")
        if self.dispatch != "gather":
            _divides("num_experts", self.model.num_experts, self.sizes.expert, "devices along expert")
        if self.loss_chunk < 0:
            raise mistake("out of range", where="loss_chunk", expected="0 or more", found=self.loss_chunk)
        chip(self.chip)

    @property
    def device(self) -> Chip:
        """The chip."""
        return chip(self.chip)

    @property
    def devices(self) -> int:
        """All of them."""
        return self.nodes * self.devices_per_node

    @property
    def shards(self) -> int:
        """Devices that share the rows of a batch."""
        return math.prod(getattr(self.sizes, axis) for axis in BATCH_AXES)

    @property
    def local_rows(self) -> int:
        """Rows of a device and microbatch; with context it has a part of each."""
        return self.rows // (self.shards * self.accumulate)

    @property
    def local_tokens(self) -> int:
        """Tokens of a device and microbatch."""
        return self.local_rows * self.length // self.sizes.context

    @property
    def tokens(self) -> int:
        """Of a step, over all devices."""
        return self.rows * self.length

    @property
    def compute_bytes(self) -> int:
        """Of a number in matrix products."""
        return jnp.dtype(self.dtype).itemsize

    @property
    def exact_bytes(self) -> int:
        """Of a number that must not be rounded: parameters, gradients, memories, the residual stream."""
        return 8 if self.dtype == "float64" else 4

    @property
    def muon(self) -> bool:
        """Whether matrices are trained with Muon."""
        return self.optimizer.name == "muon"

    @property
    def mesh(self) -> AbstractMesh:
        """The mesh without its devices."""
        return AbstractMesh(tuple(self.sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


class Weight(NamedTuple):
    """An array of the stacked layout and how it lies.

    Attributes:
        slot: its declaration.
        home: mesh axes that split it, of each of its own axes.
        memory: the same of its optimizer memories.
        update: the same of its update while it is computed: Muon shares matrices out even without ZeRO-1.
    """

    slot: Slot
    home: tuple[tuple[str, ...], ...]
    memory: tuple[tuple[str, ...], ...]
    update: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> int:
        """Numbers, on all devices together."""
        return math.prod(self.slot.shape)

    @property
    def gradient(self) -> tuple[tuple[str, ...], ...]:
        """Where its gradient lies: as its memories' layers, and else as the weight: layers come one after the other."""
        return (self.memory[0], *self.home[1:]) if self.slot.layers else self.memory

    @property
    def matrix(self) -> bool:
        """Whether the table gives it to Muon."""
        return self.slot.weight.update == "muon"

    def part(self, sizes: Sizes, where: Literal["home", "memory", "update", "gradient"] = "home") -> int:
        """Numbers on one device."""
        return self.size // split(sizes, names(getattr(self, where)))


def trained(setup: Setup) -> Iterator[Weight]:
    """Every trained array of the stacked layout, as `parallel.rules` and `train.zero` place it."""
    mesh = setup.mesh
    for slot in jax.tree.leaves(build(setup.model, "stacked", lambda slot: slot)["params"]):
        home = _axes(partition_spec(slot.axes, slot.shape, mesh))
        further, zero1 = _axes(memory_spec(slot, mesh, setup.muon)), setup.optimizer.zero1
        shared = zero1 or (setup.muon and slot.weight.update == "muon")
        yield Weight(slot, home, further if zero1 else home, further if shared else home)


def names(axes: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """All mesh axes that split an array."""
    return tuple(name for each in axes for name in each)


def split(sizes: Sizes, axes: tuple[str, ...]) -> int:
    """Into how many parts these mesh axes split."""
    return math.prod(getattr(sizes, axis) for axis in axes)


def automatic_sizes(nodes: int, devices_per_node: int, length: int) -> Sizes:
    """Context as the report has it (1 at 4K, 2 at 32K, 8 at 131K), FSDP over the rest of a node, data across nodes."""
    context = max(size for size in (1, 2, 4, 8) if size <= max(length // TOKENS, 1) and devices_per_node % size == 0)
    return Sizes(data=nodes, fsdp=devices_per_node // context, context=context)


def automatic_rows(sizes: Sizes, length: int, accumulate: int = 1) -> int:
    """About 16,384 tokens of a device and microbatch, at least a row for each group of devices."""
    return sizes.data * sizes.fsdp * sizes.expert * accumulate * max(TOKENS * sizes.context // length, 1)


def mesh_text(sizes: Sizes) -> str:
    """A mesh as its flag has it."""
    return ",".join(f"{axis}={size}" for axis, size in sizes._asdict().items() if size > 1) or "data=1"


def parse_mesh(text: str) -> Sizes:
    """A mesh from its flag, "data=16,fsdp=8"; an axis that is not named has size 1.

    Raises:
        UserError: an unknown axis, or something that is no positive number.
    """
    found = dict(part.partition("=")[::2] for part in text.split(",") if part)
    for axis, size in found.items():
        if axis not in AXES:
            raise mistake("unknown mesh axis", where="mesh", expected=", ".join(AXES), found=repr(axis))
        if not size.isdecimal() or int(size) < 1:
            raise mistake("no size of a mesh axis", where=f"mesh, {axis}", expected="1 or more", found=repr(size))
    return Sizes(**{axis: int(size) for axis, size in found.items()})


def parse_topology(text: str) -> tuple[int, int]:
    """Nodes and devices of a node from "128x8".

    Raises:
        UserError: anything else.
    """
    nodes, _, devices = text.partition("x")
    if not (nodes.isdecimal() and devices.isdecimal() and int(nodes) and int(devices)):
        raise mistake("no topology", where="topology", expected="NODESxDEVICES, as 128x8", found=repr(text))
    return int(nodes), int(devices)


def make_setup(
    model: ModelConfig, topology: str, length: int, *, mesh: str = "", rows: int = 0, accumulate: int = 1, **more
) -> Setup:
    """A setup with what is left out chosen: the mesh by `automatic_sizes`, the rows by `automatic_rows`.

    Args:
        model: the architecture.
        topology: "NODESxDEVICES".
        length: tokens of a row.
        mesh: as `parse_mesh` reads it; empty is automatic.
        rows: of a step; 0 is automatic.
        accumulate: microbatches of a step.
        more: other fields of `Setup`.

    Raises:
        UserError: as `Setup`, `parse_mesh` and `parse_topology`.
    """
    nodes, devices = parse_topology(topology)
    if length < 1:
        raise mistake("out of range", where="length", expected="1 or more", found=length)
    sizes = parse_mesh(mesh) if mesh else automatic_sizes(nodes, devices, length)
    rows = rows or automatic_rows(sizes, length, max(accumulate, 1))
    return Setup(model, rows, length, sizes, accumulate=accumulate, nodes=nodes, devices_per_node=devices, **more)


def _axes(spec) -> tuple[tuple[str, ...], ...]:
    return tuple(() if entry is None else (entry,) if isinstance(entry, str) else tuple(entry) for entry in spec)


def _divides(name: str, size: int, parts: int, what: str) -> None:
    if size % parts:
        raise mistake(f"{name} does not divide evenly", expected=f"a multiple of {parts} ({what})", found=size)


_CHOICES = {
    "dtype": ("float64", "float32", "bfloat16"),
    "remat": ("none", "block", "dots"),
    "dispatch": ("gather", "dense", "ragged"),
}
