"""What a training step computes and moves: FLOPs, bytes of a device's memory, bytes on the wire.

Letters as in `plan_memory`. Bytes on the wire are those that one device sends in one step, all layers and microbatches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from zaya_jax.model.config import LayerType, ModelConfig
from zaya_jax.model.weights import count_active_parameters
from zaya_jax.parallel import AXES
from zaya_jax.train.muon import STEPS
from zaya_jax.train.plan_memory import residuals, whole_matrices
from zaya_jax.train.plan_setup import Setup, Weight, names, split, trained


class Work(NamedTuple):
    """FLOPs of one device in one step, by how fast they go.

    Attributes:
        model: what the formula of the MFU counts, see `model_flops_per_token`.
        dense: products with matrices that all tokens share, the head among them; recomputation included.
        grouped: products with the experts.
        attention: of the device with the latest columns of a row, which sees most keys.
        newton_schulz: Muon's iteration.
    """

    model: float
    dense: float
    grouped: float
    attention: float
    newton_schulz: float


class Collective(NamedTuple):
    """One kind of exchange.

    Attributes:
        kind: "all-gather", "reduce-scatter", "all-reduce", "all-to-all" or "shift".
        axes: the mesh axes whose devices exchange.
        what: of what.
        sent: bytes that a device sends in a step.
    """

    kind: str
    axes: tuple[str, ...]
    what: str
    sent: float


def seen_keys(model: ModelConfig, layer_type: LayerType, length: int) -> float:
    """Keys that a query sees on average, itself included, if the row is one document: (T + 1) / 2 without a window."""
    window = min(model.window(layer_type) or length, length)
    return (window * (window + 1) / 2 + (length - window) * window) / length


def attention_flops(model: ModelConfig, length: int) -> float:
    """Of one token's queries with the keys they see, forward: 4 N H for each, two products."""
    keys = sum(seen_keys(model, layer_type, length) for layer_type in model.layer_types)
    return 4 * model.num_query_heads * model.head_dim * keys


def model_flops_per_token(model: ModelConfig, length: int) -> float:
    """FLOPs of a training step for one token, the M of MFU: 6 (active + V D) + 3 x attention, nothing recomputed.

    Active parameters are those of `count_active_parameters`, one expert of each layer; V D is the head. Attention is
    that of rows with one document; packed rows need less.
    """
    products = 6 * (count_active_parameters(model) + model.vocab_size * model.hidden_size)
    return products + 3 * attention_flops(model, length)


def work(setup: Setup) -> Work:
    """One device's FLOPs in one step.

    Forward, backward (twice that) and with remat the layers' forward once more ("dots": but for the dense products).
    The kernels themselves recompute: the experts' gate and up in their backward pass, and in attention's, which is two
    kernels, 7 products where the forward pass has 2. With context, the last device of a row sees 2 - 1 / context times
    the average.
    """
    m, tokens = setup.model, setup.tokens / setup.devices
    again = 0 if setup.remat == "none" else 2
    dense_again = again if setup.remat == "block" else 0
    expert = 3 * m.expert_hidden_size * m.hidden_size * m.num_layers
    shared = count_active_parameters(m) - expert
    gate_up = 2 * expert / 3
    attention = attention_flops(m, setup.length) * (2 - 1 / setup.sizes.context)
    return Work(
        model=tokens * model_flops_per_token(m, setup.length),
        dense=tokens * ((6 + dense_again) * shared + 6 * m.vocab_size * m.hidden_size),
        grouped=tokens * ((6 + again) * expert + 2 * gate_up),
        attention=tokens * attention * ((2 + 7) / 2 + again / 2),
        newton_schulz=newton_schulz(setup),
    )


def newton_schulz(setup: Setup) -> float:
    """Five iterations of 4 m^2 n + 2 m^3 FLOPs for each matrix m x n that the device has (gate and up are two)."""

    def one(weight: Weight) -> float:
        *leading, out, width = whole_matrices(setup, weight)
        parts = weight.slot.weight.matrices
        m, n = sorted((out // parts, width))
        return math.prod(leading) * parts * STEPS * (4 * m**2 * n + 2 * m**3)

    return sum(one(weight) for weight in trained(setup) if weight.matrix) if setup.muon else 0


def memory_traffic(setup: Setup) -> float:
    """Bytes that a device's memory moves in one step beside what its products read and write.

    Activations: each residual written once, read once, and as much of gradients; written once more with remat. Layers'
    experts: 8 times through memory a microbatch (sliced or gathered, read, their gradient made and stored), 10 with
    remat. Head: 3 (e + c) Q V a chunk, and the table's gradient read and written with each. Update: parameters,
    gradients and memories read and written.
    """
    m, e, c, again = setup.model, setup.exact_bytes, setup.compute_bytes, 0 if setup.remat == "none" else 1
    P, micro, table = setup.local_tokens, setup.accumulate, setup.model.vocab_size * setup.model.hidden_size
    activations = (4 + again) * m.num_layers * P * residuals(setup)
    here = m.num_experts // (setup.sizes.expert if setup.dispatch != "gather" else 1)
    weights = (8 + 2 * again) * m.num_layers * here * 3 * m.expert_hidden_size * m.hidden_size * e
    chunks = math.ceil(P / setup.loss_chunk) if setup.loss_chunk else 1
    head = 3 * P * m.vocab_size * (e + c) + chunks * table * (2 * e + c)
    parts = list(trained(setup))
    update = 2 * e * sum(2 * w.part(setup.sizes) + 2 * w.part(setup.sizes, "memory") for w in parts)
    return micro * (activations + weights + head) + update


def collectives(setup: Setup) -> tuple[Collective, ...]:
    """Everything that devices exchange in one step, but for scalars and the routers' counts."""
    table = tuple(trained(setup))
    each_weight = (_gathers, _gradients, _zero, _exchanges)
    found = [c for w in table for make in each_weight for c in make(setup, w)]
    sums: dict[tuple, float] = {}
    for kind, axes, what, sent in [*found, *_lookup(setup), *_experts(setup), *_context(setup)]:
        key = (kind, tuple(axis for axis in axes if getattr(setup.sizes, axis) > 1), what)
        sums[key] = sums.get(key, 0) + sent
    return tuple(Collective(*key, sent) for key, sent in sums.items() if sent > 0 and key[1])


def neighbours(setup: Setup, axes: tuple[str, ...]) -> tuple[int, int]:
    """Devices of one group along these axes, and how many of them share a node. A node holds consecutive devices."""
    order = np.arange(setup.devices).reshape(setup.sizes)
    group = order[tuple(slice(None) if axis in axes else 0 for axis in AXES)].ravel()
    return len(group), int((group < setup.devices_per_node).sum())


def _gathers(setup: Setup, weight: Weight) -> Iterator[Collective]:
    """FSDP: layers forward and once more backward, experts as they are stored and the rest in the compute type.

    The head's table once; twice without chunks.
    """
    axes = _gathered_over(setup, weight)
    if weight.slot.path == "params/embedding":
        times, size = (1 if setup.loss_chunk else 2), setup.compute_bytes
    else:
        times, size = 2, setup.exact_bytes if weight.slot.weight.per_expert else setup.compute_bytes
    sent = setup.accumulate * times * size * _ring(setup, weight.part(setup.sizes), axes)
    yield Collective("all-gather", axes, "weights", sent)


def _gradients(setup: Setup, weight: Weight) -> Iterator[Collective]:
    """In the exact type, each microbatch: scattered over the axes that split the weight, summed over all others.

    ZeRO-1 keeps a part of the sum, but as compiled all of it is sent (all-reduce). So is the gradient of the chunked
    head, over all devices.
    """
    each = setup.accumulate * setup.exact_bytes
    if weight.slot.path == "params/embedding" and setup.loss_chunk:
        scattered, summed, part = (), AXES, weight.size
    else:
        scattered = _gathered_over(setup, weight)
        summed = tuple(axis for axis in AXES if axis not in names(weight.home))
        part = weight.part(setup.sizes)
    devices = split(setup.sizes, summed)
    yield Collective("reduce-scatter", scattered, "gradients", each * _ring(setup, part, scattered))
    yield Collective("all-reduce", summed, "gradients", each * 2 * part * (devices - 1) / devices)


def _zero(setup: Setup, weight: Weight) -> Iterator[Collective]:
    """ZeRO-1: updates, in the exact type, from where the memories lie to where the weights do; once a step."""
    axes = tuple(axis for axis in AXES if axis in set(names(weight.update)) - set(names(weight.home)))
    sent = setup.exact_bytes * _ring(setup, weight.part(setup.sizes, "update"), axes)
    yield Collective("all-gather", axes, "updates", sent)


def _exchanges(setup: Setup, weight: Weight) -> Iterator[Collective]:
    """Muon: parts of matrices for whole ones, and back, in the exact type; once a step."""
    if not (setup.muon and weight.matrix):
        return
    part = weight.part(setup.sizes, "update")
    for axes in weight.update[-2:]:
        devices = split(setup.sizes, axes)
        yield Collective("all-to-all", axes, "Muon's matrices", 2 * setup.exact_bytes * part * (devices - 1) / devices)


def _lookup(setup: Setup) -> Iterator[Collective]:
    """FSDP splits the embedding's width: its rows are exchanged after the look-up, their gradients before: 2 P D e.

    Over other axes the look-up's gradient is summed, V D e, apart from the chunked head's: whole where FSDP shares the
    rows with another axis, scattered to ZeRO-1's parts without FSDP.
    """
    m, e, fsdp = setup.model, setup.exact_bytes, setup.sizes.fsdp
    size = 2 * setup.accumulate * setup.local_tokens * m.hidden_size * e
    yield Collective("all-to-all", ("fsdp",), "embedded tokens", size * (fsdp - 1) / fsdp)
    if setup.loss_chunk and fsdp < setup.devices:
        scattered = fsdp == 1 and setup.optimizer.zero1
        size = (1 if scattered else 2) * setup.accumulate * m.vocab_size * m.hidden_size * e
        kind = "reduce-scatter" if scattered else "all-reduce"
        yield Collective(kind, AXES, "look-up's gradient", size * (setup.devices - 1) / setup.devices)


def _experts(setup: Setup) -> Iterator[Collective]:
    """Tokens to their experts and back, forward and backward, with remat once more forward: 4 or 6 times D c a token.

    "dense" sends buffers of the worst case, P rows to each other rank; "ragged" P / X on average.
    """
    if setup.dispatch == "gather":
        return
    m, ranks = setup.model, setup.sizes.expert
    rows = setup.local_tokens * (ranks - 1) / (1 if setup.dispatch == "dense" else ranks)
    times = (4 if setup.remat == "none" else 6) * m.num_layers * setup.accumulate
    yield Collective("all-to-all", ("expert",), "tokens", times * rows * m.hidden_size * setup.compute_bytes)


def _context(setup: Setup) -> Iterator[Collective]:
    """Keys and values forward, with remat once more, their gradients back; and the halo: 2 tokens of U, one delayed."""
    m, c, e = setup.model, setup.compute_bytes, setup.exact_bytes
    forward, layers = 1 if setup.remat == "none" else 2, m.num_layers * setup.accumulate
    keys = 2 * setup.local_tokens * m.num_kv_heads * m.head_dim * (setup.sizes.context - 1)
    halo = setup.local_rows * (2 * m.conv_channels + m.delayed_size)
    yield Collective("all-gather", ("context",), "keys and values", layers * forward * keys * c)
    yield Collective("reduce-scatter", ("context",), "their gradients", layers * keys * e)
    yield Collective("shift", ("context",), "halo", layers * (forward + 1) * halo * e)


def _gathered_over(setup: Setup, weight: Weight) -> tuple[str, ...]:
    """The mesh axes that a weight is gathered over before it is used: those that split it, unless experts stay."""
    stays = {"expert"} if weight.slot.weight.per_expert and setup.dispatch != "gather" else set()
    return tuple(axis for axis in AXES if axis in set(names(weight.home)) - stays)


def _ring(setup: Setup, part: float, axes: tuple[str, ...]) -> float:
    """Numbers that a device sends to bring parts of a group together, or to scatter their sum: all parts but one."""
    return part * (split(setup.sizes, axes) - 1)
