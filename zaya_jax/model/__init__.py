"""ZAYA1 as pure functions: one configuration, one table of weights, one Flax module."""

from zaya_jax.model.cache import Cache, grow_cache, init_cache
from zaya_jax.model.config import PRESETS, ModelConfig, Rope
from zaya_jax.model.execution import Execution
from zaya_jax.model.zaya import Outputs, Zaya

__all__ = ["PRESETS", "Cache", "Execution", "ModelConfig", "Outputs", "Rope", "Zaya", "grow_cache", "init_cache"]
