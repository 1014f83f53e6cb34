"""What a training step reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Rows of tokens and what each position shall predict; numpy or jax arrays, all [B, T].

    Attributes:
        tokens_BT: token ids, int32.
        targets_BT: the token after each, int32.
        mask_BT: how much each prediction counts, float32; 0 leaves it out of the loss.
        positions_BT: each token's position in its document, int32.
        segments_BT: each token's document in its row, from 1; 0 is padding; int32.
    """

    tokens_BT: np.ndarray
    targets_BT: np.ndarray
    mask_BT: np.ndarray
    positions_BT: np.ndarray
    segments_BT: np.ndarray
