"""Where every weight of a model lies on a mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
from jax.sharding import NamedSharding

from zaya_jax.model.layout import Slot
from zaya_jax.parallel.rules import RULES, partition_spec


def slot_sharding(mesh: jax.sharding.Mesh, rules: Mapping[str, str] = RULES) -> Callable[[Slot], NamedSharding]:
    """Gives each array of a layout its sharding, from the logical axes of the weight table.

    `layout.build(config, layout, slot_sharding(mesh))` is the tree of all of them.
    """

    def sharding(slot: Slot) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(slot.axes, slot.shape, mesh, rules))

    return sharding
