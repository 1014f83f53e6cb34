"""ZeRO-1: where what an optimizer remembers lies on a mesh, split further than the weights themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

from zaya_jax.model.layout import Slot
from zaya_jax.parallel.rules import RULES, partition_spec

# Context first: whoever has a long context has few rows, and nothing else is split over that axis.
_ORDER = ("context", "fsdp", "data", "expert")
_LEADING = ("layers", "experts")


def memory_spec(slot: Slot, mesh: jax.sharding.Mesh, muon: bool, rules: Mapping[str, str] = RULES) -> PartitionSpec:
    """How the memories of one array lie.

    They lie as the weight does, and each mesh axis that is still free splits the first axis of the array that it
    divides evenly; one that divides none leaves copies.

    Args:
        slot: the array.
        mesh: the devices.
        muon: whether matrices are trained with it. Free mesh axes then split their layers and experts only: devices
            that share a matrix have to exchange it.
        rules: how weights lie.
    """
    matrices = muon and slot.weight.update == "muon"
    splits = [not matrices or axis in _LEADING for axis in slot.axes]
    spec = [[name] if name else [] for name in partition_spec(slot.axes, slot.shape, mesh, rules)]
    for name in _ORDER:
        taken = any(name in names for names in spec)
        if mesh.shape[name] == 1 or taken:
            continue
        for names, allowed, size in zip(spec, splits, slot.shape, strict=True):
            if allowed and size % (mesh.shape[name] * math.prod(mesh.shape[n] for n in names)) == 0:
                names.append(name)
                break
    return PartitionSpec(*[tuple(names) if len(names) > 1 else names[0] if names else None for names in spec])


def memory_sharding(mesh: jax.sharding.Mesh, muon: bool) -> Callable[[Slot], NamedSharding]:
    """Gives each array of a layout the sharding of its memories, see `memory_spec`."""

    def sharding(slot: Slot) -> NamedSharding:
        return NamedSharding(mesh, memory_spec(slot, mesh, muon))

    return sharding


def find_place(place: Any, everywhere: Any = None) -> Callable[[tuple], Any]:
    """Finds the place of a memory by its path, which ends with its weight's; `everywhere` for anything else.

    Optimizers keep trees like those they are given. (`optax.tree.map_params` would tell the same, but not of Muon.)
    """
    homes = dict(jax.tree_util.tree_leaves_with_path(place))

    def find(path: tuple) -> Any:
        return next((homes[path[i:]] for i in range(len(path)) if path[i:] in homes), everywhere)

    return find


def split_memories(inner: optax.GradientTransformation, memory: Any, home: Any) -> optax.GradientTransformation:
    """`inner`, computed where its memories lie; its updates come back to where the weights are.

    Args:
        inner: must not need the weights.
        memory: a tree of shardings like the weights': of the memories.
        home: of the weights.
    """

    def move(tree, place):
        find = find_place(place)

        def one(path, x):
            sharding = find(path)
            return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)

        return jax.tree_util.tree_map_with_path(one, tree)

    def update(updates, state, params=None):
        updates, state = inner.update(move(updates, memory), state)
        return move(updates, home), move(state, memory)

    return optax.GradientTransformation(lambda params: move(inner.init(params), memory), update)
