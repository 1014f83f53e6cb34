"""A tiny model to sample from, and what is known about it without a sampler."""

import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.model import Execution, ModelConfig, Zaya
from zaya_jax.text.byte_level import BYTE_VOCAB_SIZE, write_tokenizer
from zaya_jax.text.tokenizer import load_tokenizer

CONFIG = ModelConfig(
    vocab_size=BYTE_VOCAB_SIZE,
    hidden_size=32,
    layer_types=("full", "sliding", "full", "sliding"),
    num_query_heads=4,
    num_kv_heads=2,
    head_dim=8,
    num_experts=4,
    expert_hidden_size=16,
    router_hidden_size=8,
    max_position_embeddings=128,
    sliding_window=9,
)


@functools.cache
def tiny(layout: str = "unstacked"):
    """A model and its variables, sharp enough that its tokens vary. Both layouts hold the same numbers."""
    model = Zaya(CONFIG, Execution(layout=layout))
    ones = jnp.ones((1, 1), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(3), ones, 0 * ones, ones)
    scaled = {**variables["params"], "embedding": variables["params"]["embedding"] * 6}
    return model, {**variables, "params": scaled}


@functools.cache
def tokenizer():
    """Byte-level: id 7 + b is byte b."""
    with tempfile.TemporaryDirectory() as directory:
        return load_tokenizer(write_tokenizer(directory))


def forward(model, variables, tokens):
    """Logits [T, V] and routes [L, T] of a whole text of up to 64 tokens, computed without a cache."""
    padded = np.zeros((1, 64), np.int32)
    padded[0, : len(tokens)] = tokens
    segments = (np.arange(64)[None] < len(tokens)).astype(np.int32)
    logits, routes = _forward(model, variables, padded, np.arange(64)[None] * segments, segments)
    return np.asarray(logits)[0, : len(tokens)], np.asarray(routes)[:, 0, : len(tokens)]


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, variables, tokens, positions, segments):
    out = model.apply(variables, tokens, positions, segments)
    return out.logits, out.routes_LBT


def log_softmax(x):
    """In float64, over the last axis."""
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """Random bytes."""
    return tuple(np.random.default_rng([seed, length]).integers(7, 263, length).tolist())
