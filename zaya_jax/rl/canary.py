"""How many of a response's tokens are rare ones: the share at the top of the token-id range (ZAYA1's report, 3.5).

Byte-pair vocabularies number their merges in the order of their frequency, so that high ids are rare. A monitor only:
nothing is rewarded or dropped by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zaya_jax.errors import mistake

PERCENTS = (10, 5, 2, 1)


def rare_token_shares(tokens_T: Any, vocabulary: int) -> dict[int, float]:
    """The share of the tokens with an id among the top 10, 5, 2 and 1 % of the ids, by percentage; 0 of none.

    The top p % are the floor(vocabulary * p / 100) highest ids.

    Raises:
        UserError: an id is outside of the vocabulary.
    """
    tokens_T = np.asarray(tokens_T, np.int64)
    wrong = tokens_T[(tokens_T < 0) | (tokens_T >= vocabulary)]
    if wrong.size:
        raise mistake("token id out of range", where="canary", expected=f"0 up to {vocabulary - 1}", found=wrong[0])
    counts = {percent: np.sum(tokens_T >= vocabulary - vocabulary * percent // 100) for percent in PERCENTS}
    return {percent: float(number) / max(tokens_T.size, 1) for percent, number in counts.items()}
