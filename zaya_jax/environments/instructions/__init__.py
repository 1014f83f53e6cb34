"""Prompts with instructions that can be checked, without end: for the behavioural stage, and for data to begin with."""

from zaya_jax.environments.instructions.environment import ENVIRONMENTS

__all__ = ["ENVIRONMENTS"]
