"""Muon: the momentum of every matrix, orthogonalised by Newton-Schulz iterations, at the size of AdamW's updates.

Sources: Jordan et al., "Muon" (2024), for the iteration; Liu et al., "Muon is Scalable for LLM Training" (arXiv
2502.16982), for the size. The momentum is that of `optax.contrib.muon`: an average, corrected for its start.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import NamedSharding

COEFFICIENTS, STEPS = (3.4445, -4.775, 2.0315), 5
RMS = 0.2  # of AdamW's updates, by experience (arXiv 2502.16982, section 2.2)


@dataclasses.dataclass(frozen=True)
class Matrices:
    """How an array [..., out, in] is taken for matrices.

    Attributes:
        parts: matrices of equal size that lie below each other along `out`, like gate and up.
        place: how the array lies on the devices while it is orthogonalised; None is one device. Split leading axes
            (layers, experts) give each device matrices of its own. Parts of matrices are exchanged for whole ones.
    """

    parts: int = 1
    place: NamedSharding | None = None


class MuonState(NamedTuple):
    """Updates so far, and the average of the gradients. Without momentum there is neither: `optax.EmptyState`."""

    count: jax.Array
    momentum: Any


def newton_schulz(x: jax.Array, dtype: jnp.dtype | None = None, epsilon: float = 1e-8) -> jax.Array:
    """Brings the singular values of every matrix of x [..., out, in] near 1, between about 0.7 and 1.2.

    Five times s -> 3.4445 s - 4.775 s^3 + 2.0315 s^5, after a division by the Frobenius norm. A singular value far
    below that norm, less than a hundredth of it, is only raised a few hundred times.

    Args:
        x: its norm is taken in float32, or in float64 if it is of that type.
        dtype: of the iteration; None is the norm's. bfloat16 is what GPUs are fast at, and exact enough (Jordan).
        epsilon: added to the norm: zeros stay zeros.
    """
    a, b, c = COEFFICIENTS
    exact, tall = jnp.promote_types(x.dtype, jnp.float32), x.shape[-2] > x.shape[-1]
    y = (x.mT if tall else x).astype(exact)  # the products are squares of the smaller side
    norm = jnp.sqrt(jnp.sum(y * y, axis=(-2, -1), keepdims=True))
    y = (y / (norm + epsilon)).astype(dtype or exact)

    def step(_, y):
        square = y @ y.mT
        return a * y + (b * square + c * (square @ square)) @ y

    y = lax.fori_loop(0, STEPS, step, y).astype(x.dtype)
    return y.mT if tall else y


def orthogonalize(
    x: jax.Array, matrices: Matrices = Matrices(), dtype: jnp.dtype | None = None, epsilon: float = 1e-8
) -> jax.Array:
    """Each matrix of x [..., out, in] by `newton_schulz`, times 0.2 sqrt(max(out, in)): then its RMS is about 0.2."""

    def one(x):
        parts = x.reshape(*x.shape[:-2], matrices.parts, -1, x.shape[-1])
        scale = RMS * math.sqrt(max(parts.shape[-2:]))
        return (scale * newton_schulz(parts, dtype, epsilon)).reshape(x.shape)

    def local(x):
        # Experts layer by layer: the iteration needs a few times the memory of what it works on.
        return lax.map(one, x) if x.ndim > 3 else one(x)

    return local(x) if matrices.place is None else _each_device(local, matrices.place, x)


def _each_device(function: Callable[[jax.Array], jax.Array], place: NamedSharding, x: jax.Array) -> jax.Array:
    """`function` of whole matrices, by each device of some of them."""

    def local(x):
        back = []
        for axis in (x.ndim - 2, x.ndim - 1):
            if name := place.spec[axis]:
                x, undo = _whole(x, axis, name, place.mesh.shape[name])
                back.append(undo)
        x = function(x)
        for undo in reversed(back):
            x = undo(x)
        return x

    return jax.shard_map(local, mesh=place.mesh, in_specs=place.spec, out_specs=place.spec, check_vma=False)(x)


def _whole(x: jax.Array, axis: int, name: str, size: int) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Makes an axis whole that devices have parts of, and says how to undo it.

    Where the layers or experts here divide, each device gives its part of some for the other parts of the rest: as many
    numbers as before. Otherwise each gets all of them, and the group does the same work.
    """
    leading = next((i for i in range(x.ndim - 2) if x.shape[i] % size == 0), None)
    if leading is not None:
        exchange = functools.partial(lax.all_to_all, axis_name=name, tiled=True)
        return exchange(x, split_axis=leading, concat_axis=axis), lambda y: exchange(
            y, split_axis=axis, concat_axis=leading
        )
    part = x.shape[axis]

    def own(y):
        return lax.dynamic_slice_in_dim(y, lax.axis_index(name) * part, part, axis)

    return lax.all_gather(x, name, axis=axis, tiled=True), own


def scale_by_muon(
    matrices: Any, momentum: float = 0.95, dtype: jnp.dtype | None = None, epsilon: float = 1e-8
) -> optax.GradientTransformation:
    """The orthogonalised Nesterov momentum of arrays [..., out, in].

    Args:
        matrices: a tree of `Matrices` with at least the leaves that are updated.
        momentum: decay of the average, 0 <= momentum < 1; with 0 nothing is remembered: the state has no array.
        dtype: of the iteration, see `newton_schulz`.
        epsilon: added to norms.
    """
    table = dict(jax.tree_util.tree_leaves_with_path(matrices))

    def orthogonal(tree):
        return jax.tree_util.tree_map_with_path(lambda path, x: orthogonalize(x, table[path], dtype, epsilon), tree)

    def init(params):
        return MuonState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients, state, params=None):
        count = optax.safe_increment(state.count)
        average = optax.tree.update_moment(gradients, state.momentum, momentum, 1)
        # What the average of the next step would be if its gradient were this one's, both corrected for the start.
        next_average = optax.tree.bias_correction(average, momentum, optax.safe_increment(count))
        now = optax.tree.bias_correction(gradients, momentum, count)
        ahead = jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g, next_average, now)
        return orthogonal(ahead), MuonState(count, average)

    if momentum == 0:
        return optax.stateless(lambda gradients, params: orthogonal(gradients))
    return optax.GradientTransformation(init, update)
