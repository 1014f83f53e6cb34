"""Low-rank adapters: a small pair of matrices beside a weight that stays as it is (LoRA, arXiv 2106.09685).

An `Adapted` stands in a stacked tree of parameters where the weight stood, and the model runs unchanged: wherever a
weight is multiplied, its product is that of the base plus `alpha / rank` times that of the pair. The base gets no
gradient. Adapters are a tree of their own, `{"layers": {"block_0": {"attention": {"q_proj": {"a": ..., "b": ...}}}}}`,
stacked like the parameters; shapes, initial values, logical axes and names come from the table of weights.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.layout import Slot, build, initial
from zaya_jax.model.weights import Weight, weights

_LAYERS = "params/layers/"


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which weights have adapters, and how large. There is no dropout.

    Attributes:
        rank: of each pair.
        alpha: the pair's product is multiplied by alpha / rank.
        targets: rooms of a layer ("attention", "router", "experts": all their matrices) or single matrices
            ("attention/q_proj").
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ("attention", "router", "experts")

    def __post_init__(self):
        object.__setattr__(self, "targets", tuple(self.targets))
        for name, least in (("rank", 1), ("alpha", 0)):
            value = getattr(self, name)
            if not (value >= least and value > 0 and math.isfinite(value)):
                raise mistake("is too small", where=f"LoraConfig.{name}", expected="more than 0", found=value)
        if not self.targets:
            raise mistake("nothing to adapt", where="LoraConfig.targets", expected="attention, router, experts")

    @property
    def scale(self) -> float:
        """What the pair's product is multiplied by."""
        return self.alpha / self.rank


@functools.partial(jax.tree_util.register_dataclass, data_fields=("base", "a", "b"), meta_fields=("scale",))
@dataclasses.dataclass(frozen=True)
class Adapted:
    """A weight with its adapter, base + scale * b a. A tree of three arrays that is indexed like the one it replaces.

    Attributes:
        base: [..., out, in], never trained.
        a: [..., rank, in].
        b: [..., out, rank].
        scale: alpha / rank.
    """

    base: jax.Array
    a: jax.Array
    b: jax.Array
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return self.base.shape

    @property
    def ndim(self) -> int:
        """Of the weight."""
        return self.base.ndim

    @property
    def dtype(self) -> jnp.dtype:
        """Of the weight."""
        return self.base.dtype

    def __getitem__(self, index: int) -> Adapted:
        """One layer of several, or one expert."""
        return Adapted(self.base[index], self.a[index], self.b[index], self.scale)


Product = Callable[[jax.Array, jax.Array], jax.Array]  # rows [M, in] and a weight [..., out, in] to [M, out]


def product(multiply: Product, x: jax.Array, weight: jax.Array | Adapted) -> jax.Array:
    """`multiply(x, weight)`; of an adapted weight, multiply(x, base) + scale * multiply(multiply(x, a), b).

    The row between the two small matrices is rounded to the type of x, like the operand of any other product.
    """
    if not isinstance(weight, Adapted):
        return multiply(x, weight)
    low = multiply(x, weight.a).astype(x.dtype)
    return multiply(x, weight.base) + weight.scale * multiply(low, weight.b)


def merged(weight: jax.Array | Adapted) -> jax.Array:
    """The weight as one array, in float32 or the widest type of its parts; a plain one as it is."""
    if not isinstance(weight, Adapted):
        return weight
    dtype = jnp.promote_types(jnp.result_type(weight.base, weight.a, weight.b), jnp.float32)
    a, b = weight.a.astype(dtype), weight.b.astype(dtype)
    low_rank = jnp.einsum("...or,...ri->...oi", b, a, precision=lax.Precision.HIGHEST)
    return weight.base.astype(dtype) + weight.scale * low_rank


class Pair(NamedTuple):
    """The declarations of the two matrices of an adapter."""

    a: Weight
    b: Weight


def lora_slots(config: ModelConfig, lora: LoraConfig) -> dict[str, Pair]:
    """The table of adapters: the adapted weight's path -> the declarations of its a and b.

    Logical axes are the weight's, the rank's is whole. a is drawn with variance 1 / fan-in, b is zeros: a fresh
    adapter changes nothing.

    Raises:
        UserError: a target that is no room and no matrix of the model.
    """
    matrices = {path: w for path, w in weights(config).items() if path.startswith(_LAYERS) and w.update == "muon"}
    for target in lora.targets:
        if not any(_aims_at(target, path) for path in matrices):
            raise _no_target(target, matrices)
    wanted = [path for path in matrices if any(_aims_at(target, path) for target in lora.targets)]
    return {path: _pair(matrices[path], lora.rank) for path in wanted}


def build_lora(config: ModelConfig, lora: LoraConfig, make: Callable[[Slot], Any]) -> dict[str, Any]:
    """The stacked tree of adapters, leaf by leaf: `make(slot)` gives each array, as in `layout.build`.

    Raises:
        UserError: as `lora_slots`.
    """
    table = lora_slots(config, lora)

    def pair(slot: Slot) -> dict[str, Any] | None:
        if slot.path not in table:
            return None
        parts = table[slot.path]._asdict()
        return {
            name: make(dataclasses.replace(slot, path=f"{slot.path}/{name}", weight=w)) for name, w in parts.items()
        }

    return _pruned(build(config, "stacked", pair)["params"])


def init_lora(config: ModelConfig, lora: LoraConfig, key: jax.Array, dtype: str = "float32") -> dict[str, Any]:
    """Fresh adapters. Keys are folded from path, layer and expert, like those of the weights."""
    return build_lora(config, lora, lambda slot: initial(slot, key).astype(slot.dtype(dtype)))


def abstract_lora(config: ModelConfig, lora: LoraConfig, dtype: str = "float32") -> dict[str, Any]:
    """The tree of adapters with shapes and types instead of arrays."""
    return build_lora(config, lora, lambda slot: jax.ShapeDtypeStruct(slot.shape, slot.dtype(dtype)))


def count_lora(config: ModelConfig, lora: LoraConfig) -> int:
    """Numbers that adapters train."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_lora(config, lora)))


def adapt(params: Any, adapters: Any, lora: LoraConfig) -> Any:
    """The stacked parameters with an `Adapted` in the place of every weight that has an adapter.

    No gradient passes into `params`, adapted or not. (It ends here and not in the layers: a stop within the scan would
    make a new array of every layer's weight, to be kept for the backward pass.)

    Args:
        params: as the model takes them; plain arrays.
        adapters: a tree of `build_lora`.
        lora: what they were built from.
    """
    return _over(lax.stop_gradient(params), adapters, lambda base, a, b: Adapted(base, a, b, lora.scale))


def merge(config: ModelConfig, params: Any, adapters: Any, lora: LoraConfig) -> Any:
    """Plain stacked parameters that compute what `adapt` does: added in float32 (or wider), in the type of the base.

    Raises:
        ValueError: `adapters` are not those of this config and `lora`.
    """
    expected, found = (
        [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
        for tree in (abstract_lora(config, lora), adapters)
    )
    if expected != found:
        odd = next(iter(set(expected).symmetric_difference(found)))
        raise ValueError(f"adapters: not those of this model and LoraConfig: {odd[0]} {list(odd[1])}")
    return _over(params, adapters, lambda base, a, b: merged(Adapted(base, a, b, lora.scale)).astype(base.dtype))


def _over(tree: Any, adapters: Any, make: Callable[[jax.Array, jax.Array, jax.Array], Any]) -> Any:
    """The tree with `make(base, a, b)` in the place of each adapted weight."""
    if set(adapters) == {"a", "b"}:
        return make(tree, **adapters)
    return dict(tree) | {key: _over(tree[key], below, make) for key, below in adapters.items()}


def _pruned(tree: Any) -> Any:
    """Without what is None, and without branches that hold nothing else."""
    if not isinstance(tree, dict):
        return tree
    below = {key: _pruned(branch) for key, branch in tree.items()}
    return {key: kept for key, kept in below.items() if jax.tree.leaves(kept)}


def _aims_at(target: str, path: str) -> bool:
    return f"{path}/".startswith(f"{_LAYERS}{target}/")


def _no_target(target: str, matrices: Iterable[str]):
    names = [path.removeprefix(_LAYERS) for path in matrices]
    rooms = list(dict.fromkeys(name.split("/")[0] for name in names))
    known = rooms + names
    fields = {name.split("/")[-1]: name for name in names}
    close = difflib.get_close_matches(target, known, 1) or [
        fields[field] for field in difflib.get_close_matches(target.split("/")[-1], fields, 1)
    ]
    fix = f"did you mean {close[0]}?" if close else f"such as {names[0]}"
    expected = f"{', '.join(rooms)}, or one of their matrices"
    return mistake("no matrix to adapt", where="LoraConfig.targets", expected=expected, found=repr(target), fix=fix)


def _pair(weight: Weight, rank: int) -> Pair:
    *experts, out_size, in_size = weight.shape
    *lead, out_axis, in_axis = weight.axes

    def part(letter: str, shape, axes, init) -> Weight:
        names = (f"{name.removesuffix('.weight')}.lora_{letter}.weight" for name in (weight.native, weight.legacy))
        native, legacy = (f"base_model.model.{name}" for name in names)
        return Weight((*experts, *shape), (*lead, *axes), init, "adamw", native, legacy)

    return Pair(
        a=part("A", (rank, in_size), ("rank", in_axis), _fan_in),
        b=part("B", (out_size, rank), (out_axis, "rank"), _zeros),
    )


def _fan_in(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(key, shape, jnp.float32) / math.sqrt(shape[-1])


def _zeros(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    del key
    return jnp.zeros(shape, jnp.float32)
