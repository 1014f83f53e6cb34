"""Bytes of one device during a training step, item by item.

What is alive at once follows what XLA's compiler for ROCm assigns to the training step (`docs/plan.md` compares): the
state all the time, and beside it the largest of three moments: the loss, one layer's backward pass, the update. Letters
as in `model/layers.py`; P is a device's tokens of one microbatch, c and e are the bytes of a number of the compute type
and of an exact one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax

from zaya_jax.model.layout import build
from zaya_jax.train.plan_setup import Setup, Weight, names, split, trained

NEWTON_SCHULZ = 5  # arrays alive in the iteration: the matrix, its square, the square's square, the sum, the result


class Item(NamedTuple):
    """Something that takes memory: what, how many bytes, and why as many."""

    what: str
    bytes: float
    how: str


class Memory(NamedTuple):
    """A device's memory.

    Attributes:
        state: what lives from step to step, and the batch.
        moments: what else is alive at each of the moments that may be the largest.
    """

    state: tuple[Item, ...]
    moments: Mapping[str, tuple[Item, ...]]

    @property
    def largest(self) -> str:
        """The moment that takes most."""
        return max(self.moments, key=lambda moment: total(self.moments[moment]))

    @property
    def peak(self) -> float:
        """The most bytes at any time."""
        return total(self.state) + total(self.moments[self.largest])


def total(items: tuple[Item, ...]) -> float:
    """Bytes of all items together."""
    return sum(item.bytes for item in items)


def memory(setup: Setup) -> Memory:
    """The memory of one device."""
    table = tuple(trained(setup))
    always = sum_of_gradients(setup, table)
    return Memory(
        state=(parameters(setup, table), memories(setup, table), biases(setup), batch(setup)),
        moments={
            "the loss": (*always, *_loss(setup, table)),
            "a layer's backward pass": (*always, *_backward(setup, table)),
            "the update": _update(setup, table),
        },
    )


def parameters(setup: Setup, table: tuple[Weight, ...]) -> Item:
    """e bytes for each number of the device's parts, as `parallel.rules` splits them; what does not divide is whole."""
    numbers = sum(weight.part(setup.sizes) for weight in table)
    return Item("parameters", setup.exact_bytes * numbers, f"{setup.exact_bytes} B x {numbers:,}")


def memories(setup: Setup, table: tuple[Weight, ...]) -> Item:
    """e bytes times 2 for AdamW, 1 for Muon's momentum, 0 for Muon without; split as `zero.memory_spec` says."""

    def copies(weight: Weight) -> int:
        if not (setup.muon and weight.matrix):
            return 2
        return 1 if setup.optimizer.momentum > 0 else 0

    numbers = sum(copies(weight) * weight.part(setup.sizes, "memory") for weight in table)
    return Item("optimizer's memories", setup.exact_bytes * numbers, f"{setup.exact_bytes} B x {numbers:,}")


def biases(setup: Setup) -> Item:
    """The routers' biases with AdamW's two memories of them, float32, whole on every device: 3 e L (E + 1)."""
    model = setup.model
    return Item("router biases", 3 * setup.exact_bytes * model.num_layers * model.num_router_classes, "3 e L (E+1)")


def batch(setup: Setup) -> Item:
    """Tokens, targets, mask, positions, segments of all microbatches: 5 arrays of 4 bytes."""
    return Item("batch", 20 * setup.local_tokens * setup.accumulate, "20 B a token")


def gradients(setup: Setup, table: tuple[Weight, ...], layers_only: bool = False) -> Item:
    """e bytes for each number, where `Weight.gradient` says. XLA sets those of the layers up before the loss."""
    chosen = [weight for weight in table if weight.slot.layers or not layers_only]
    size = setup.exact_bytes * sum(weight.part(setup.sizes, "gradient") for weight in chosen)
    return Item("gradients of the layers" if layers_only else "gradients", size, "e a number")


def sum_of_gradients(setup: Setup, table: tuple[Weight, ...]) -> tuple[Item, ...]:
    """With accumulation, the sum so far beside the gradients of the microbatch."""
    if setup.accumulate == 1:
        return ()
    return (Item("sum over microbatches", gradients(setup, table).bytes, "as the gradients"),)


def residuals(setup: Setup) -> float:
    """Bytes a token that the backward pass of one layer needs, counted from the residuals of `jax.vjp`.

    Exact type: 8 arrays [P, D] (the stream, two norms, what the two joins multiply), 12 [P, R] and one [P, E + 1] of
    the router, the angles' cos and sin. Compute type: the two normed inputs, queries and keys before (twice) and
    after the mix, values and their delayed half, attention's result, and of the experts input and hidden layer; and the
    log-sum-exp of each head.
    """
    m = setup.model
    D, R, U, F, H = m.hidden_size, m.router_hidden_size, m.conv_channels, m.expert_hidden_size, m.head_dim
    queries, values = m.num_query_heads * H, m.num_kv_heads * H
    exact = 8 * D + 12 * R + m.num_router_classes + H * m.full_rope.fraction + m.num_query_heads
    compute = 2 * D + 2 * U + (U + values + m.delayed_size) + queries
    return setup.exact_bytes * exact + setup.compute_bytes * (compute + rows_a_token(setup) * (D + F))


def rows_a_token(setup: Setup) -> int:
    """Rows of the experts' buffers for each token of a device: 1, or as many as expert ranks when tokens are sent.

    Dropless: all tokens of all ranks may choose the experts of one.
    """
    return 1 if setup.dispatch == "gather" else setup.sizes.expert


def kept(setup: Setup) -> Item:
    """What the forward pass leaves for the backward pass: L P (D + R) e, the layers' inputs; without remat residuals.

    "dots" also keeps the dense products, in the exact type.
    """
    m = setup.model
    each = setup.exact_bytes * (m.hidden_size + m.router_hidden_size)
    what, how = "layers' inputs", "L P (D + R) e"
    if setup.remat == "none":
        each, what, how = residuals(setup), "kept of every layer", f"L P x {residuals(setup):,.0f} B"
    elif setup.remat == "dots":
        each += setup.exact_bytes * product_widths(setup)
        what, how = "layers' inputs, dense products", f"L P (D + R + {product_widths(setup):,}) e"
    return Item(what, m.num_layers * setup.local_tokens * each, how)


def product_widths(setup: Setup) -> int:
    """Numbers that the dense products of a layer give for a token: those of attention and router."""
    slots = jax.tree.leaves(build(setup.model, "stacked", lambda slot: slot)["params"]["layers"])
    dense = [slot for slot in slots if slot.weight.update == "muon" and "experts" not in slot.axes]
    return sum(len(slot.layers) * slot.weight.shape[0] for slot in dense) // setup.model.num_layers


def copies(setup: Setup, table: tuple[Weight, ...]) -> tuple[Item, ...]:
    """FSDP: XLA keeps the device's parts of the layers once more, their split axis first, to gather them from there."""
    if setup.sizes.fsdp == 1:
        return ()
    numbers = sum(w.part(setup.sizes) for w in table if w.slot.layers and "fsdp" in names(w.home))
    return (Item("FSDP: parts with their split axis first", setup.exact_bytes * numbers, "e a number of the layers"),)


def _loss(setup: Setup, table: tuple[Weight, ...]) -> tuple[Item, ...]:
    """The head. In chunks, the copies of FSDP stay alive across it; with whole logits XLA makes them a second time."""
    again = copies(setup, table) if setup.loss_chunk else ()
    return (gradients(setup, table, layers_only=True), kept(setup), *again, *head(setup), *lookup(setup))


def head(setup: Setup) -> tuple[Item, ...]:
    """The table of the head, whole, in the compute type, and in chunks its gradient beside it: V D (c + e).

    Logits in the exact type and their gradient in the compute type: Q V (e + c); Q tokens of a chunk, or all P.
    The final hidden states and their gradient: P D (e + 2 c).
    """
    m, c, e, P = setup.model, setup.compute_bytes, setup.exact_bytes, setup.local_tokens
    table = m.vocab_size * m.hidden_size
    chunk = min(setup.loss_chunk, P) or P
    return (
        Item("head's table, its gradient", table * (c + e if setup.loss_chunk else c), "V D (c + e)"),
        Item("logits, their gradient", chunk * m.vocab_size * (e + c), f"{chunk:,} V (e + c)"),
        Item("hidden states, their gradient", P * m.hidden_size * (e + 2 * c), "P D (e + 2 c)"),
    )


def lookup(setup: Setup) -> tuple[Item, ...]:
    """The look-up's gradient, V D e: whole where FSDP and another axis share the rows, else XLA splits its width."""
    if setup.sizes.fsdp in (1, setup.shards):
        return ()
    size = setup.model.vocab_size * setup.model.hidden_size * setup.exact_bytes
    return (Item("look-up's gradient, whole", size, "V D e"),)


def _backward(setup: Setup, table: tuple[Weight, ...]) -> tuple[Item, ...]:
    items = [gradients(setup, table), kept(setup), *copies(setup, table), layer_weights(setup)]
    items += [activations(setup), *dispatch(setup), *gathered_keys(setup)]
    return tuple(items)


def layer_weights(setup: Setup) -> Item:
    """A layer's experts E' 3 F D e, sliced out of the stack or gathered; E' are those of a device.

    Gathered, four times: as they come and as the kernel reads them, and both again for their gradients.
    """
    m, sent = setup.model, setup.dispatch != "gather"
    experts = m.num_experts // (setup.sizes.expert if sent else 1)
    gathered = setup.sizes.fsdp > 1 or (setup.sizes.expert > 1 and not sent)
    each = experts * 3 * m.expert_hidden_size * m.hidden_size * setup.exact_bytes
    return Item("a layer's experts", (4 if gathered else 1) * each, "4 E' 3 F D e" if gathered else "E' 3 F D e")


def activations(setup: Setup) -> Item:
    """One layer's residuals, recomputed; without remat they are there already, and 3 P D e of gradients come."""
    P, D = setup.local_tokens, setup.model.hidden_size
    if setup.remat == "none":
        return Item("a layer's gradients", 3 * P * D * setup.exact_bytes, "3 P D e")
    return Item("a layer's activations", P * residuals(setup), f"P x {residuals(setup):,.0f} B")


def dispatch(setup: Setup) -> tuple[Item, ...]:
    """Expert parallelism: X P rows (X expert ranks) of what stays no longer than a layer: X P (D (2 e + c) + 3 F c).

    Results and their gradients in the exact type, the gradients of input (D) and of gate, up and hidden layer (3 F).
    """
    if setup.dispatch == "gather":
        return ()
    m, c, e = setup.model, setup.compute_bytes, setup.exact_bytes
    rows = setup.local_tokens * setup.sizes.expert
    each = m.hidden_size * (2 * e + c) + 3 * m.expert_hidden_size * c
    return (Item("dispatch buffers, worst case", rows * each, "X P (D (2 e + c) + 3 F c)"),)


def gathered_keys(setup: Setup) -> tuple[Item, ...]:
    """Context parallelism: a layer's keys and values of the whole rows, and their gradients: 2 B T K H (c + e)."""
    if setup.sizes.context == 1:
        return ()
    m, tokens = setup.model, setup.local_tokens * setup.sizes.context
    size = 2 * tokens * m.num_kv_heads * m.head_dim * (setup.compute_bytes + setup.exact_bytes)
    return (Item("keys and values of whole rows", size, "2 B T K H (c + e)"),)


def _update(setup: Setup, table: tuple[Weight, ...]) -> tuple[Item, ...]:
    """The gradients become the updates in place; beside them the larger of Muon's work and the updates' gathering."""
    return (gradients(setup, table), max(_muon(setup, table), _gathered(setup, table), key=lambda item: item.bytes))


def _muon(setup: Setup, table: tuple[Weight, ...]) -> Item:
    """Results of all matrices, once more the largest array, and the iteration of one of its layers."""
    if not setup.muon:
        return Item("AdamW, in place", 0, "")
    matrices = [weight for weight in table if weight.matrix]
    largest = max(matrices, key=lambda weight: weight.part(setup.sizes, "update"))
    held = sum(w.part(setup.sizes, "update") for w in matrices) + largest.part(setup.sizes, "update")
    layer = NEWTON_SCHULZ * math.prod(whole_matrices(setup, largest)[1:])
    return Item("Muon: results and iteration", setup.exact_bytes * (held + layer), "e (all + largest + 5 a layer)")


def _gathered(setup: Setup, table: tuple[Weight, ...]) -> Item:
    """ZeRO-1: updates are gathered to where the weights lie, array by array: the largest one that is."""
    moved = [w.part(setup.sizes) for w in table if w.part(setup.sizes) != w.part(setup.sizes, "update")]
    return Item("ZeRO-1: the largest gathered update", setup.exact_bytes * max(moved, default=0), "e a number")


def whole_matrices(setup: Setup, weight: Weight) -> list[int]:
    """The shape of a device's matrices in Newton-Schulz.

    As `muon.orthogonalize`: parts of matrices are exchanged for whole ones of fewer layers or experts; where those do
    not divide, every device of the group gets all.
    """
    place = weight.update
    shape = [size // split(setup.sizes, axes) for size, axes in zip(weight.slot.shape, place)]
    for axis in (len(shape) - 2, len(shape) - 1):
        parts = split(setup.sizes, place[axis])
        if parts == 1:
            continue
        shape[axis] *= parts
        leading = next((i for i in range(len(shape) - 2) if shape[i] % parts == 0), None)
        if leading is not None:
            shape[leading] //= parts
    return shape
