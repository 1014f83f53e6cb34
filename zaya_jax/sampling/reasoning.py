"""Which tokens of an answer are reasoning: those drawn while the last mark, the prompt's included, is `<think>`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zaya_jax.sampling.request import Completion, Request


def open_before(tokens: Sequence[int] | np.ndarray, think_ids: tuple[int, int], opened: bool) -> np.ndarray:
    """Whether reasoning was open when each token was drawn, boolean [N].

    Args:
        tokens: an answer's.
        think_ids: the ids of `<think>` and `</think>`.
        opened: whether the prompt ends inside of reasoning.
    """
    tokens = np.asarray(tokens, np.int64)
    index = np.arange(len(tokens))
    starts, closes = (np.maximum.accumulate(np.where(tokens == mark, index, -1)) for mark in think_ids)
    behind = np.where(starts == closes, opened, starts > closes)  # equal where there was neither
    return np.concatenate([[opened], behind])[: len(tokens)].astype(bool)


def reasoning(request: Request, completion: Completion) -> np.ndarray:
    """The tokens of a completion that are reasoning, without marks and without what ended it; all for a model that
    has no marks. int32 [N]."""
    return reasoning_tokens(request, completion.tokens)


def reasoning_tokens(request: Request, tokens: np.ndarray) -> np.ndarray:
    """The same of the tokens that were drawn, int32 [N]."""
    wanted = ~np.isin(tokens, request.stop_ids)
    if request.think_ids is not None:
        wanted &= open_before(tokens, request.think_ids, request.in_thinking) & ~np.isin(tokens, request.think_ids)
    return tokens[wanted]


def thinking_end(request: Request, tokens: Sequence[int]) -> tuple[int, bool]:
    """Where the last block of reasoning was closed, -1 if none was, and whether the budget did it."""
    if request.think_ids is None:
        return -1, False
    tokens = np.asarray(tokens, np.int64)
    inside = open_before(tokens, request.think_ids, request.in_thinking)
    ends = np.flatnonzero(inside & (tokens == request.think_ids[1]))
    if not ends.size:
        return -1, False
    end = int(ends[-1])
    spent = int((inside & ~np.isin(tokens, request.think_ids))[:end].sum())
    return end, request.force_end and spent == request.thinking_budget
