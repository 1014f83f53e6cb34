"""What a ZAYA1 model *is*: architecture and nothing else.

How it is computed (dtypes, kernels, sharding) lives in `execution.py`.
Source: ZAYA1-8B Technical Report (arXiv 2605.05365), Table I and section II.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from zaya_jax.errors import mistake

LayerType = Literal["full", "sliding"]


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary embedding of one kind of layer: `theta` is the base, `fraction` the share of each head that rotates."""

    theta: float
    fraction: float = 0.5


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture of a ZAYA1 model. The letters are those of every array name (see `layers.py`).

    Raises:
        UserError: a value is impossible; the message names the field, what was expected and what was found.
    """

    vocab_size: int  # V
    hidden_size: int  # D
    layer_types: tuple[LayerType, ...]  # one entry a layer; its length is L
    num_query_heads: int  # N
    num_kv_heads: int  # K
    head_dim: int  # H
    num_experts: int  # E, the skip class not counted
    expert_hidden_size: int  # F
    router_hidden_size: int  # R
    max_position_embeddings: int
    full_rope: Rope = Rope(5e6)
    sliding_rope: Rope = Rope(1e4)
    sliding_window: int | None = None  # keys that a query of a sliding layer sees, itself included
    norm_epsilon: float = 1e-5
    skip_output: Literal["zero", "identity"] = "zero"  # transformers: zero; the original training: probability x input

    def __post_init__(self):
        _check_sizes(self)
        _check_attention(self)
        if not 0 < self.norm_epsilon < 1:
            raise _wrong("norm_epsilon", "a number between 0 and 1", self.norm_epsilon)
        if self.skip_output not in ("zero", "identity"):
            raise _wrong("skip_output", "'zero' or 'identity'", self.skip_output)

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layer_types)

    @property
    def num_router_classes(self) -> int:
        """E + 1: the experts and the skip class, which is always the last."""
        return self.num_experts + 1

    @property
    def conv_channels(self) -> int:
        """U = (N + K) * H: the channels that the causal convolutions of CCA mix."""
        return (self.num_query_heads + self.num_kv_heads) * self.head_dim

    @property
    def delayed_size(self) -> int:
        """Width of the delayed value, K * H / 2."""
        return self.num_kv_heads * self.head_dim // 2

    @property
    def period(self) -> int:
        """The shortest repeating run of layer types: 1 for ZAYA1-8B, 2 for ZAYA1-74B."""
        types, count = self.layer_types, self.num_layers
        divisors = (p for p in range(1, count + 1) if count % p == 0)
        return next(p for p in divisors if types == types[:p] * (count // p))

    def rope(self, layer_type: LayerType) -> Rope:
        """The rotary embedding of a kind of layer."""
        return self.sliding_rope if layer_type == "sliding" else self.full_rope

    def window(self, layer_type: LayerType) -> int | None:
        """How many keys a query of this kind of layer sees; None is all."""
        return self.sliding_window if layer_type == "sliding" else None


def zaya1_8b() -> ModelConfig:
    """ZAYA1-8B: 8.84B parameters, 0.75B active a token without the embedding (report, Table I)."""
    return ModelConfig(
        vocab_size=262272,
        hidden_size=2048,
        layer_types=("full",) * 40,
        num_query_heads=8,
        num_kv_heads=2,
        head_dim=128,
        num_experts=16,
        expert_hidden_size=2048,
        router_hidden_size=256,
        max_position_embeddings=131072,
    )


def zaya1_74b() -> ModelConfig:
    """ZAYA1-74B-preview: 74.8B parameters; sliding and full layers alternate, sliding first."""
    return ModelConfig(
        vocab_size=262272,
        hidden_size=4096,
        layer_types=("sliding", "full") * 30,
        num_query_heads=16,
        num_kv_heads=2,
        head_dim=128,
        num_experts=24,
        expert_hidden_size=4096,
        router_hidden_size=256,
        max_position_embeddings=262144,
        full_rope=Rope(1e7),
        sliding_window=4097,
    )


def nano(vocab_size: int = 272) -> ModelConfig:
    """A ZAYA of about 1.9M parameters that trains on a laptop CPU; every mechanism of the 8B is in it."""
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        layer_types=("full",) * 4,
        num_query_heads=4,
        num_kv_heads=2,
        head_dim=32,
        num_experts=8,
        expert_hidden_size=128,
        router_hidden_size=32,
        max_position_embeddings=4096,
        full_rope=Rope(1e4),
    )


def small() -> ModelConfig:
    """A ZAYA of 0.67B parameters, 44M of them active without the embedding: for studies on a GPU or a node."""
    return ModelConfig(
        vocab_size=262272,
        hidden_size=768,
        layer_types=("full",) * 16,
        num_query_heads=6,
        num_kv_heads=2,
        head_dim=64,
        num_experts=16,
        expert_hidden_size=768,
        router_hidden_size=128,
        max_position_embeddings=4096,
        full_rope=Rope(1e4),
    )


PRESETS = {"zaya1_8b": zaya1_8b, "zaya1_74b": zaya1_74b, "small": small, "nano": nano}


def _wrong(field: str, expected: str, found: object):
    return mistake("impossible model configuration", where=field, expected=expected, found=repr(found))


_LIMITS = {  # generous: they catch a corrupt file, not an ambitious one
    "vocab_size": 2**24,
    "hidden_size": 2**17,
    "num_query_heads": 2**12,
    "num_kv_heads": 2**12,
    "head_dim": 2**12,
    "num_experts": 2**12,
    "expert_hidden_size": 2**18,
    "router_hidden_size": 2**16,
    "max_position_embeddings": 2**28,
}


def _check_sizes(config: ModelConfig) -> None:
    for field, limit in _LIMITS.items():
        value = getattr(config, field)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
            raise _wrong(field, f"an integer from 1 to {limit}", value)
    if not 1 <= len(config.layer_types) <= 4096:
        raise _wrong("layer_types", "1 to 4096 layers", len(config.layer_types))
    unknown = set(config.layer_types) - {"full", "sliding"}
    if unknown:
        raise _wrong("layer_types", "'full' or 'sliding'", sorted(map(str, unknown))[0])


def _check_attention(config: ModelConfig) -> None:
    if config.num_query_heads % config.num_kv_heads:
        raise _wrong("num_query_heads", f"a multiple of num_kv_heads = {config.num_kv_heads}", config.num_query_heads)
    if config.head_dim % 2:
        raise _wrong("head_dim", "an even number", config.head_dim)
    window = config.sliding_window
    if "sliding" in config.layer_types and (not isinstance(window, int) or isinstance(window, bool) or window < 1):
        raise _wrong("sliding_window", "a positive integer, since layer_types has 'sliding'", window)
    for name in ("full_rope", "sliding_rope"):
        rope = getattr(config, name)
        if not rope.theta > 1:
            raise _wrong(f"{name}.theta", "a number above 1", rope.theta)
        rotated = rope.fraction * config.head_dim
        if not 0 < rope.fraction <= 1 or int(rotated) != rotated or int(rotated) % 2:
            raise _wrong(f"{name}.fraction", f"an even share of head_dim = {config.head_dim}", rope.fraction)
