"""The two layouts of one model, and the pure functions between them.

- *stacked*: `layers` is a dict of the blocks of one period (`block_0`, ...), each array with the layer axis first:
  `[L / period, ...]`. One compiled block serves every layer: training and accelerators.
- *unstacked*: `layers` is a tuple with one entry a layer, and the experts' matrices are tuples with one array an
  expert. On a CPU a matrix is then used where it lies, instead of being sliced out of a larger array first.

Layer 0 has no `state_scale`. The stacked array carries a phantom row of zeros in its place, which meets the zero state
that enters layer 0: it is never counted, decayed or exported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Layout
from zaya_jax.model.weights import Weight, is_layered, weight_key, weights

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One array of a layout.

    Attributes:
        path: the weight's path in the table.
        weight: its declaration.
        layers: the layers it holds, in order; empty for a weight of the model itself.
        stacked: whether its first axis counts those layers.
        expert: the one expert it holds, or None for all of them (or where there are none).
    """

    path: str
    weight: Weight
    layers: tuple[int, ...] = ()
    stacked: bool = False
    expert: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        inner = self.weight.shape if self.expert is None else self.weight.shape[1:]
        return (len(self.layers), *inner) if self.stacked else inner

    @property
    def axes(self) -> tuple[str, ...]:
        """The logical name of each axis."""
        inner = self.weight.axes if self.expert is None else self.weight.axes[1:]
        return ("layers", *inner) if self.stacked else inner

    def dtype(self, params_dtype: str | jnp.dtype) -> jnp.dtype:
        """The array's type when parameters are kept in `params_dtype`: exact weights are never below float32."""
        dtype = jnp.dtype(params_dtype)
        return jnp.promote_types(dtype, jnp.float32) if self.weight.exact else dtype

    def has(self, layer: int) -> bool:
        """Whether that layer really has this weight (False for the phantom of layer 0)."""
        return layer > 0 or self.weight.first_layer


def build(config: ModelConfig, layout: Layout, make: Callable[[Slot], Any]) -> dict[str, Any]:
    """Builds a tree of variables of a layout, leaf by leaf: `make(slot)` gives each array (or spec, or sharding)."""
    table = weights(config)
    variables: dict[str, Any] = {"params": {}, "balance": {}}
    for path, weight in table.items():
        if not is_layered(path):
            _insert(variables, path.split("/"), make(Slot(path, weight)))
    blocks = _stacked_blocks if layout == "stacked" else _unstacked_blocks
    for collection in variables:
        variables[collection]["layers"] = blocks(config, table, collection, make)
    return variables


def abstract(config: ModelConfig, layout: Layout, dtype: str) -> dict[str, Any]:
    """The tree with shapes and types instead of arrays."""
    return build(config, layout, lambda slot: jax.ShapeDtypeStruct(slot.shape, slot.dtype(dtype)))


def initialize(config: ModelConfig, layout: Layout, key: jax.Array, dtype: str) -> dict[str, Any]:
    """Draws fresh variables. Each weight's key is folded from its path, layer and expert: every layout is alike."""

    def make(slot: Slot) -> jax.Array:
        return initial(slot, key).astype(slot.dtype(dtype))

    return build(config, layout, make)


def unstack(config: ModelConfig, stacked: Variables) -> dict[str, Any]:
    """Takes a stacked tree apart. The phantom of layer 0 is left out."""
    period = config.period

    def make(slot: Slot) -> jax.Array:
        if not slot.layers:
            return _get(stacked, slot.path.split("/"))
        (layer,) = slot.layers
        value = _get(stacked, _block_path(slot.path, layer % period))[layer // period]
        return value if slot.expert is None else value[slot.expert]

    return build(config, "unstacked", make)


def stack(config: ModelConfig, unstacked: Variables) -> dict[str, Any]:
    """Joins an unstacked tree. Layer 0 gets its phantom of zeros."""

    def one(slot: Slot, layer: int) -> jax.Array:
        if not slot.has(layer):
            like = _get(unstacked, _layer_path(slot.path, 1)) if config.num_layers > 1 else None
            return jnp.zeros(slot.weight.shape, jnp.float32 if like is None else like.dtype)
        value = _get(unstacked, _layer_path(slot.path, layer))
        return jnp.stack(value) if slot.weight.per_expert else value

    def make(slot: Slot) -> jax.Array:
        if not slot.layers:
            return _get(unstacked, slot.path.split("/"))
        return jnp.stack([one(slot, layer) for layer in slot.layers])

    return build(config, "stacked", make)


def _stacked_blocks(config: ModelConfig, table, collection: str, make) -> dict[str, Any]:
    blocks: dict[str, Any] = {}
    for first in range(config.period):
        layers = tuple(range(first, config.num_layers, config.period))
        block: dict[str, Any] = {}
        for path, weight in _layered(table, collection):
            _insert(block, path.split("/")[2:], make(Slot(path, weight, layers, stacked=True)))
        blocks[f"block_{first}"] = block
    return blocks


def _unstacked_blocks(config: ModelConfig, table, collection: str, make) -> tuple[dict[str, Any], ...]:
    def leaf(path: str, weight: Weight, layer: int):
        if not weight.per_expert:
            return make(Slot(path, weight, (layer,)))
        return tuple(make(Slot(path, weight, (layer,), expert=e)) for e in range(weight.shape[0]))

    blocks = []
    for layer in range(config.num_layers):
        block: dict[str, Any] = {}
        for path, weight in _layered(table, collection):
            if layer > 0 or weight.first_layer:
                _insert(block, path.split("/")[2:], leaf(path, weight, layer))
        blocks.append(block)
    return tuple(blocks)


def _layered(table: Mapping[str, Weight], collection: str):
    return [(path, w) for path, w in table.items() if path.startswith(f"{collection}/layers/")]


def initial(slot: Slot, key: jax.Array) -> jax.Array:
    """The initial float32 values of a slot's array.

    All layers and experts are one draw: one of each would make a program of thousands of draws.
    """
    weight = slot.weight
    every_expert = weight.per_expert and slot.expert is None
    layers = jnp.asarray(slot.layers or (0,))
    experts = jnp.arange(weight.shape[0]) if every_expert else jnp.asarray([slot.expert or 0])
    shape = weight.shape[1:] if weight.per_expert else weight.shape

    def draw(layer, expert):
        return weight.init(weight_key(key, slot.path, layer, expert), shape)

    value = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(layers, experts)
    value = value if every_expert else value[:, 0]
    if slot.layers and not slot.has(slot.layers[0]):
        value = value.at[0].set(0)
    return value if slot.stacked else value[0]


def _block_path(path: str, block: int) -> list:
    collection, layers, *rest = path.split("/")
    return [collection, layers, f"block_{block}", *rest]


def _layer_path(path: str, layer: int) -> list:
    collection, layers, *rest = path.split("/")
    return [collection, layers, layer, *rest]


def _get(tree, keys: list):
    for key in keys:
        tree = tree[key]
    return tree


def _insert(tree: dict, keys: list, value) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value
