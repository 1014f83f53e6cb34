"""Greedy decoding as a caller would write it: one call over the prompts, then one token at a time."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tests.model.helpers import Batch, quick_jit
from zaya_jax.model import Execution, ModelConfig, Zaya, grow_cache, init_cache


def greedy(config: ModelConfig, execution: Execution, variables, prompts: Batch, new_tokens: int) -> np.ndarray:
    """The most likely continuation of each row, [B, new_tokens]."""
    model = Zaya(config, execution)

    @quick_jit
    def prefill(variables, tokens, positions, segments):
        cache = init_cache(config, execution, len(prompts.tokens), 0)
        out = model.apply(variables, tokens, positions, segments, cache=cache, logits="last")
        return grow_cache(config, execution.layout, out.cache, tokens.shape[1] + new_tokens), out.logits.argmax(-1)

    @quick_jit
    def decode(variables, cache, token_B):
        tokens = token_B[:, None].astype(jnp.int32)
        out = model.apply(variables, tokens, cache.length_B[:, None], jnp.ones_like(tokens), cache=cache, logits="last")
        return out.cache, out.logits.argmax(-1)

    cache, token_B = prefill(variables, *prompts)
    generated = [token_B]
    for _ in range(new_tokens - 1):
        cache, token_B = decode(variables, cache, token_B)
        generated.append(token_B)
    return np.stack(generated, axis=1)


def assert_same_choices(found: np.ndarray, expected: np.ndarray, margins: np.ndarray, noise: float) -> None:
    """Equal up to each row's first difference, and that only where the two best logits were within the noise.

    What follows a near-tie cannot be compared: it continues another text.
    """
    for row, (ours, theirs, margin) in enumerate(zip(found, expected, margins, strict=True)):
        different = np.flatnonzero(ours != theirs)
        if different.size:
            first = different[0]
            assert margin[first] <= noise, (
                f"row {row}: token {first} is {ours[first]} instead of {theirs[first]}; "
                f"that choice had a margin of {margin[first]:.1e}, with a noise of {noise:.1e}"
            )
