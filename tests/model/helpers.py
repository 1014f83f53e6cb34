"""Small random models in which no parameter is trivial, the rows they read, and the calls that tests make."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.model import Execution, ModelConfig, Rope, Zaya
from zaya_jax.model.layout import Slot, build

FULL, SLIDING = "full", "sliding"
ALTERNATING = (SLIDING, FULL, SLIDING, FULL)
EXACT = Execution(dtype="float64")
LAYOUTS = ("stacked", "unstacked")

# What is compared in float64 is the program, not what LLVM makes of it: a third of the time to compile is saved.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def small(layer_types=ALTERNATING, **changes) -> ModelConfig:
    """A model that compiles in a second or two. The rotary bases are low, so that they matter over a few tokens."""
    values = {
        "vocab_size": 61,
        "hidden_size": 32,
        "layer_types": tuple(layer_types),
        "num_query_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "expert_hidden_size": 24,
        "router_hidden_size": 16,
        "max_position_embeddings": 512,
        "full_rope": Rope(1e3),
        "sliding_rope": Rope(1e2),
        "sliding_window": 5,
    }
    return ModelConfig(**values | changes)


def tensor_shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a checkpoint, as the hub's files have them."""
    D, H, R, E, F = c.hidden_size, c.head_dim, c.router_hidden_size, c.num_experts, c.expert_hidden_size
    q, kv = c.num_query_heads * H, c.num_kv_heads * H
    layer = {
        "input_layernorm.weight": (D,),
        "self_attn.qkv_proj.q_proj.weight": (q, D),
        "self_attn.qkv_proj.k_proj.weight": (kv, D),
        "self_attn.qkv_proj.v_proj_current.weight": (kv // 2, D),
        "self_attn.qkv_proj.v_proj_delayed.weight": (kv // 2, D),
        "self_attn.qkv_proj.conv_qk_depthwise.weight": (q + kv, 1, 2),
        "self_attn.qkv_proj.conv_qk_depthwise.bias": (q + kv,),
        "self_attn.qkv_proj.conv_qk_grouped.weight": (q + kv, H, 2),
        "self_attn.qkv_proj.conv_qk_grouped.bias": (q + kv,),
        "self_attn.qk_norm.temp": (c.num_kv_heads,),
        "self_attn.o_proj.weight": (D, q),
        "post_attention_layernorm.weight": (D,),
        "mlp.gate.down_proj.weight": (R, D),
        "mlp.gate.down_proj.bias": (R,),
        "mlp.gate.router_states_scale": (R,),
        "mlp.gate.router_mlp.norm.weight": (R,),
        "mlp.gate.router_mlp.fc1.weight": (R, R),
        "mlp.gate.router_mlp.fc1.bias": (R,),
        "mlp.gate.router_mlp.fc2.weight": (R, R),
        "mlp.gate.router_mlp.fc2.bias": (R,),
        "mlp.gate.router_mlp.out_proj.weight": (E + 1, R),
        "mlp.gate.balancing_biases": (E + 1,),
        "mlp.experts.gate_up_proj": (E, 2 * F, D),
        "mlp.experts.down_proj": (E, D, F),
    }
    for place in ("post_attention_residual_scale", "post_mlp_residual_scale"):
        for field in ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias"):
            layer[f"{place}.{field}"] = (D,)
    shapes = {
        "model.embed_tokens.weight": (c.vocab_size, D),
        "model.input_hidden_states_scale": (D,),
        "model.input_hidden_states_bias": (D,),
        "model.norm.weight": (D,),
    }
    for k in range(c.num_layers):
        own = {name: shape for name, shape in layer.items() if k > 0 or name != "mlp.gate.router_states_scale"}
        shapes |= {f"model.layers.{k}.{name}": shape for name, shape in own.items()}
    return shapes


@functools.lru_cache(maxsize=32)
def random_tensors(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """A checkpoint's tensors in float32: every scale away from one, every bias away from zero, skip class in reach.

    `RandomState` is numpy's frozen generator: the goldens rely on getting these very values for ever.
    """
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
        tensors[name] = _draw(name, shape, random).astype(np.float32)
    return tensors


def _draw(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
    normal = random.standard_normal(shape)
    if name.endswith("qk_norm.temp"):
        return random.uniform(0.8, 3.0, shape)
    if name.endswith("balancing_biases"):
        return 0.1 * normal
    if name.endswith("embed_tokens.weight"):
        return 0.5 * normal
    if len(shape) == 1:
        return 0.2 * normal + (0 if name.endswith("bias") else 1)
    gain = 2 if name.endswith("out_proj.weight") else 1  # a router that has opinions
    return gain * normal / math.sqrt(math.prod(shape[1:]) if "conv" in name else shape[-1])


def to_variables(config: ModelConfig, layout: str, tensors: dict[str, np.ndarray], dtype="float32"):
    """A checkpoint's tensors as a tree of arrays."""

    def make(slot: Slot) -> jax.Array:
        parts = [
            tensors[slot.weight.native.format(layer=layer)] if slot.has(layer) else np.zeros(slot.weight.shape)
            for layer in slot.layers or (1,)
        ]
        value = np.stack(parts) if slot.stacked else parts[0]
        return jnp.asarray(value if slot.expert is None else value[slot.expert], slot.dtype(dtype))

    return build(config, layout, make)


@functools.lru_cache(maxsize=32)
def random_variables(config: ModelConfig, execution: Execution = EXACT, seed: int = 0):
    """`random_tensors` in the layout and the type of an execution (bfloat16 keeps its parameters in float32)."""
    dtype = "float64" if execution.dtype == "float64" else "float32"
    return to_variables(config, execution.layout, random_tensors(config, seed), dtype)


@functools.lru_cache(maxsize=64)
def compiled(config: ModelConfig, execution: Execution = EXACT, logits: str = "all", quick: bool = False):
    """The jitted `apply(variables, tokens, positions, segments, cache, routes)` of a model; quick in float64 always."""
    model = Zaya(config, execution)

    def call(variables, tokens, positions, segments, cache=None, routes=None):
        return model.apply(variables, tokens, positions, segments, cache=cache, routes=routes, logits=logits)

    return (quick_jit if quick or execution.dtype == "float64" else jax.jit)(call)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of a call."""

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray

    def __iter__(self):
        return iter((self.tokens, self.positions, self.segments))

    @property
    def real(self) -> np.ndarray:
        """Where a token is no padding."""
        return self.segments != 0

    def documents(self) -> list[tuple[int, slice]]:
        """Row and columns of every document, in order."""
        found = []
        for row, segments in enumerate(self.segments):
            edges = np.flatnonzero(np.diff(segments, prepend=0, append=0))
            found += [(row, slice(a, b)) for a, b in itertools.pairwise(edges) if segments[a] != 0]
        return found


def lay_out(config: ModelConfig, rows, seed: int = 0) -> Batch:
    """Random tokens in rows like `[-2, 5, 3]`: two pads, a document of 5 tokens, another one of 3.

    Pads hold random tokens and positions as well: nothing may depend on them.
    """
    width = max(sum(map(abs, row)) for row in rows)
    random = np.random.RandomState(seed)
    shape = (len(rows), width)
    tokens = random.randint(0, config.vocab_size, shape).astype(np.int32)
    positions, segments = random.randint(0, 99, shape).astype(np.int32), np.zeros(shape, np.int32)
    for b, row in enumerate(rows):
        column = 0
        for number, length in enumerate(row, start=1):
            if length > 0:
                segments[b, column : column + length] = number
                positions[b, column : column + length] = np.arange(length)
            column += abs(length)
    return Batch(tokens, positions, segments)


def assert_close(found, expected, tolerance: float = 1e-10, what: str = "") -> None:
    """Every array of two equal trees differs by at most `tolerance` times the largest magnitude expected in it."""
    left, right = jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected)
    assert jax.tree.structure(found) == jax.tree.structure(expected), what
    for (path, a), b in zip(left, right, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        name = what + jax.tree_util.keystr(path)
        assert a.shape == b.shape, f"{name}: shape {a.shape}, expected {b.shape}"
        if a.size:
            worst = np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)
            assert worst <= tolerance, f"{name}: off by {worst:.1e} of the largest value, allowed {tolerance:.0e}"


def first_flips(flipped_LT: np.ndarray) -> np.ndarray:
    """The flipped routes that no other one caused: none lies in a lower layer at the same or an earlier token."""
    below = np.cumsum(np.cumsum(flipped_LT, axis=0), axis=1)
    return flipped_LT & (np.pad(below[:-1], ((1, 0), (0, 0))) == 0)
