"""A tiny model to sample from, and what is known about it without a sampler."""

import functools
import tempfile

import jax
import numpy as np

from zaya_jax.model import Execution, ModelConfig, Zaya
from zaya_jax.model.layout import initialize, unstack
from zaya_jax.sampling.logits import controls, sample
from zaya_jax.text.byte_level import BYTE_VOCAB_SIZE, write_tokenizer
from zaya_jax.text.tokenizer import load_tokenizer

CONFIG = ModelConfig(
    vocab_size=BYTE_VOCAB_SIZE,
    hidden_size=32,
    layer_types=("full", "sliding"),
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
def tiny(layout: str = "stacked"):
    """A model and its variables; every weight is stirred. Both layouts hold the same numbers."""
    model = Zaya(CONFIG, Execution(layout=layout))
    stacked = _stirred()
    return model, stacked if layout == "stacked" else unstack(CONFIG, stacked)


@functools.cache
def _stirred():
    rng = np.random.default_rng(3)

    def stir(x, scale):
        return x + scale * rng.normal(size=x.shape).astype(np.float32)

    drawn = jax.jit(initialize, static_argnums=(0, 1, 3))(CONFIG, "stacked", jax.random.key(3), "float32")
    params = jax.tree.map(lambda x: stir(x, 0.1), drawn["params"])
    params["input_scale"] *= 0.2  # or, the head being tied, every token would be followed by itself
    # Sharp enough that no two tokens are nearly tied, not so sharp that there is little to draw.
    params["final_norm"] *= 3
    # Twice the drawn bias of the skip class keeps it out of reach.
    return {"params": params, "balance": jax.tree.map(lambda x: stir(2 * x, 0.03), drawn["balance"])}


@functools.cache
def tokenizer():
    """Byte-level: id 7 + b is byte b."""
    with tempfile.TemporaryDirectory() as directory:
        return load_tokenizer(write_tokenizer(directory))


def forward(model, variables, tokens):
    """Logits [T, V] and routes [L, T] of a whole text, computed without a cache."""
    length = CONFIG.max_position_embeddings
    padded = np.zeros((1, length), np.int32)
    padded[0, : len(tokens)] = tokens
    column = np.arange(length)[None]
    segments = (column < len(tokens)).astype(np.int32)
    logits, routes = _forward(model, variables, padded, column * segments, segments)
    return np.asarray(logits)[0, : len(tokens)], np.asarray(routes)[:, 0, : len(tokens)]


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, variables, tokens, positions, segments):
    out = model.apply(variables, tokens, positions, segments)
    return out.logits, out.routes_LBT


def replay(request, answer):
    """Checks an answer against the full forward pass over it, and the same noise."""
    count = len(answer.tokens)
    logits, routes = forward(*tiny(), [*request.tokens, *answer.tokens[:-1]])
    logits = np.pad(logits[len(request.tokens) - 1 :], ((0, CONFIG.max_position_embeddings - count), (0, 0)))
    one = controls([request])
    every = jax.tree.map(lambda x: np.repeat(x, len(logits)), one)
    drawn = _sample(logits, every, np.arange(len(logits), dtype=np.int32))
    np.testing.assert_array_equal(answer.tokens, drawn.token_B[:count])
    np.testing.assert_array_equal(answer.routes_LT, routes)
    np.testing.assert_allclose(answer.logprobs_model, drawn.logprob_model_B[:count], atol=2e-5)
    np.testing.assert_allclose(answer.logprobs_sampling, drawn.logprob_sampling_B[:count], atol=2e-5)


_sample = jax.jit(sample)


def log_softmax(x):
    """In float64, over the last axis."""
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """Random bytes."""
    return tuple(np.random.default_rng([seed, length]).integers(7, 263, length).tolist())
