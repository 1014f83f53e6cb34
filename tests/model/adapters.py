"""Adapters that are not fresh."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from zaya_jax.model.lora import build_lora


def random_adapters(config, lora, dtype, seed=0):
    """Adapters that change every output: b is not zero."""
    random = np.random.default_rng(seed)

    def draw(slot):
        values = random.standard_normal(slot.shape) / np.sqrt(slot.shape[-1])
        return jnp.asarray(0.3 * values if slot.path.endswith("/b") else values, dtype)

    return build_lora(config, lora, draw)
