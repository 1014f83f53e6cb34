"""What the learner reads: rollouts packed into rows of one length, with all that was recorded of every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zaya_jax.data.packing import best_fit_decreasing
from zaya_jax.errors import mistake
from zaya_jax.rl.rollout import LIVE, Rollout


class LearnerBatch(NamedTuple):
    """Rows of whole rollouts; numpy or jax arrays, [B, T] but for the routes.

    A position reads a token and predicts the next one; what is said of a prediction stands where it is made.

    Attributes:
        tokens_BT, targets_BT: token ids and those behind them, int32.
        positions_BT: of each token in its rollout, int32.
        segments_BT: which rollout of its row a token belongs to, from 1; 0 is padding; int32.
        mask_BT: float32, 1 where the target was drawn by the policy.
        mu_BT: of the engine's exact type, the log-probability that the target was drawn with.
        advantages_BT: of that type too, the rollout's.
        versions_BT: int32, of the weights that drew the target; -1 where none was drawn.
        routes_LBT: int8, the experts that the engine took for each token; -1 for its own router to decide.
        kept_BTK: int32, the ids that the target was drawn from, -1 behind them; None if nothing was filtered.
    """

    tokens_BT: np.ndarray
    targets_BT: np.ndarray
    positions_BT: np.ndarray
    segments_BT: np.ndarray
    mask_BT: np.ndarray
    mu_BT: np.ndarray
    advantages_BT: np.ndarray
    versions_BT: np.ndarray
    routes_LBT: np.ndarray
    kept_BTK: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.tokens_BT.shape[0]


def learner_batches(
    rollouts: Sequence[Rollout],
    advantages: Sequence[float],
    rows: int,
    length: int,
    *,
    replay: bool = True,
    most: int | None = None,
) -> list[LearnerBatch]:
    """Rollouts in batches of `rows` rows of `length` tokens; the last batch has rows of padding.

    Packing depends on the lengths alone (`data.packing`), so that the same rollouts make the same batches.

    Args:
        rollouts, advantages: one advantage each.
        replay: whether the engine's routes are pinned (router replay); if not, all are -1.
        most: batches that are made, the first ones; None makes all.

    Raises:
        UserError: there is none, the numbers differ, or a rollout is longer than a row.
    """
    if not rollouts or len(rollouts) != len(advantages):
        raise mistake("one advantage for each rollout", expected=len(rollouts) or "a rollout", found=len(advantages))
    for index, one in enumerate(rollouts):
        if one.length - 1 > length:
            fix = "make the learner's rows longer, or the answers shorter"
            raise mistake("longer than a row", where=f"rollout {index}", expected=length, found=one.length - 1, fix=fix)
    bins = best_fit_decreasing([one.length - 1 for one in rollouts], length)
    starts = range(0, len(bins), rows)[:most]
    return [_batch(bins[start : start + rows], rollouts, advantages, rows, length, replay) for start in starts]


def _batch(bins, rollouts, advantages, rows: int, length: int, replay: bool) -> LearnerBatch:
    layers, dtype = rollouts[0].routes_LT.shape[0], rollouts[0].routes_LT.dtype
    batch = _blank(rows, length, layers, dtype, rollouts[0].mu.dtype)
    if rollouts[0].kept is not None:
        batch = batch._replace(kept_BTK=np.full((rows, length, rollouts[0].kept.most), -1, np.int32))
    for row, indices in enumerate(bins):
        start = 0
        for segment, index in enumerate(indices, 1):
            one = rollouts[index]
            here = slice(start, start + one.length - 1)
            _write(batch, row, here, segment, one, advantages[index])
            if replay:
                batch.routes_LBT[:, row, here] = one.routes_LT
            start = here.stop
    return batch


def _blank(rows: int, length: int, layers: int, dtype: np.dtype, exact: np.dtype) -> LearnerBatch:
    def zeros(kind):
        return np.zeros((rows, length), kind)

    return LearnerBatch(
        *(zeros(np.int32) for _ in range(4)),
        zeros(np.float32),
        zeros(exact),
        zeros(exact),
        np.full((rows, length), -1, np.int32),
        np.full((layers, rows, length), LIVE, dtype),
    )


def _write(batch: LearnerBatch, row: int, here: slice, segment: int, one: Rollout, advantage: float) -> None:
    """A rollout of P + N tokens: P + N - 1 positions, of which the last N predict what was drawn."""
    tokens = np.concatenate([one.prompt, one.tokens])
    answer = slice(here.stop - len(one.tokens), here.stop)
    batch.tokens_BT[row, here], batch.targets_BT[row, here] = tokens[:-1], tokens[1:]
    batch.positions_BT[row, here] = np.arange(len(tokens) - 1)
    batch.segments_BT[row, here] = segment
    batch.mask_BT[row, answer] = one.drawn
    batch.mu_BT[row, answer] = one.mu
    batch.advantages_BT[row, answer] = advantage
    batch.versions_BT[row, answer] = one.versions
    if batch.kept_BTK is not None:
        batch.kept_BTK[row, answer] = one.kept.padded()
