"""The model that the trainer's tests train, and data for it."""

import numpy as np

from zaya_jax.data.batch import Batch
from zaya_jax.model import ModelConfig


def tiny(**changes) -> ModelConfig:
    """Compiles in seconds."""
    values = {
        "vocab_size": 29,
        "hidden_size": 16,
        "layer_types": ("full",) * 2,
        "num_query_heads": 2,
        "num_kv_heads": 2,
        "head_dim": 8,
        "num_experts": 3,
        "expert_hidden_size": 8,
        "router_hidden_size": 8,
        "max_position_embeddings": 512,
    }
    return ModelConfig(**values | changes)


def random_batch(config: ModelConfig, rows: int = 3, length: int = 12, seed: int = 0) -> Batch:
    """Two documents a row, some padding behind them, some weights that are neither 0 nor 1."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, config.vocab_size, (rows, length + 1)).astype(np.int32)
    index = np.arange(length)
    segments = np.where(index < 5, 1, np.where(index < length - 2, 2, 0))
    positions = np.where(index < 5, index, np.where(segments == 2, index - 5, 0))
    last = (segments != np.append(segments[1:], 0)) | (segments == 0)
    mask = np.where(last, 0, random.choice([1.0, 1.0, 0.5], (rows, length)))
    wide = (rows, length)
    return Batch(
        tokens_BT=np.where(segments == 0, 0, tokens[:, :-1]),
        targets_BT=tokens[:, 1:],
        mask_BT=mask.astype(np.float32),
        positions_BT=np.broadcast_to(positions, wide).astype(np.int32),
        segments_BT=np.broadcast_to(segments, wide).astype(np.int32),
    )
