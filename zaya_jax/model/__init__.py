"""ZAYA1 as pure functions: one configuration, one table of weights, one Flax module."""

from zaya_jax.model.config import ModelConfig, Rope
from zaya_jax.model.execution import Execution
#from zaya_jax.model.zaya import Outputs, Zaya

__all__ = ["Execution", "ModelConfig", "Rope"]
