"""Checkpoints in the Hugging Face format: read as they are, written so that others read them."""

from zaya_jax.checkpoint.config_json import SpecialTokens
from zaya_jax.checkpoint.export import convert, save
from zaya_jax.checkpoint.huggingface import (
    Checkpoint,
    CheckpointInfo,
    describe,
    open_checkpoint,
    reachable_skip_layers,
    resolve,
)
from zaya_jax.checkpoint.loading import load_variables
from zaya_jax.checkpoint.synthetic import write_random_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "SpecialTokens",
    "convert",
    "describe",
    "load_variables",
    "open_checkpoint",
    "reachable_skip_layers",
    "resolve",
    "save",
    "write_random_checkpoint",
]
