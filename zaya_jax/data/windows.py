"""Windows cut out of one stream of documents: the data of small runs that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from zaya_jax.data.batch import Batch
from zaya_jax.errors import mistake


class Stream(NamedTuple):
    """Documents one after the other.

    Attributes:
        tokens: token ids, int32.
        documents: the number (from 1) of the document that each token belongs to, int32.
    """

    tokens: np.ndarray
    documents: np.ndarray


def join_documents(documents: Sequence[Sequence[int]]) -> Stream:
    """Lays documents of token ids end to end."""
    tokens = np.concatenate([np.asarray(document, np.int32) for document in documents])
    numbers = np.arange(1, len(documents) + 1, dtype=np.int32)
    return Stream(tokens, np.repeat(numbers, [len(document) for document in documents]))


def random_windows(stream: Stream, rows: int, length: int, seed: int, step: int) -> Batch:
    """The batch of one training step: windows that begin anywhere. Depends on nothing but the arguments.

    Raises:
        UserError: the stream is shorter than one window and its last target.
    """
    choices = len(stream.tokens) - length
    if choices < 1:
        fix = "give more text or shorter windows"
        raise mistake("too little text", expected=f"over {length} tokens", found=len(stream.tokens), fix=fix)
    starts = np.random.default_rng((seed, step)).integers(0, choices, rows)
    return cut_windows(stream, starts, length)


def covering_windows(stream: Stream, rows: int, length: int, context: int = 0) -> Iterator[Batch]:
    """Batches in which every token but the first of each document is a target that counts exactly once.

    Args:
        stream: what to cover.
        rows: B; the last batch is filled up with padding.
        length: T.
        context: tokens at a window's start that only serve as context, below T: what counts then sees at least
            that many of its document's earlier tokens, where it has them.
    """
    targets = len(stream.tokens) - 1
    starts = np.arange(0, max(targets - context, min(targets, 1)), length - context)
    for first in range(0, len(starts), rows):
        some = starts[first : first + rows]
        batch = cut_windows(stream, np.pad(some, (0, rows - len(some)), constant_values=len(stream.tokens)), length)
        counted_before = (np.arange(length) < context) & (np.arange(first, first + rows) > 0)[:, None]
        yield batch._replace(mask_BT=np.where(counted_before, np.float32(0), batch.mask_BT))


def whole_rows(stream: Stream, length: int) -> np.ndarray:
    """Token ids in rows of `length` that each lie in one document, int32 [N, length]; shorter rests are left out."""
    ends = np.flatnonzero(np.diff(stream.documents)) + 1
    documents = np.split(stream.tokens, ends)
    rows = [document[: len(document) // length * length].reshape(-1, length) for document in documents]
    return np.concatenate(rows)


def cut_windows(stream: Stream, starts: np.ndarray, length: int) -> Batch:
    """One row a start; behind the stream's end is padding. No target lies in another document than its token."""
    index = starts[:, None] + np.arange(length + 1)
    tokens = _read(stream.tokens, index)
    documents = _read(stream.documents, index)
    real = documents[:, :-1] != 0
    segments = np.where(real, documents[:, :-1] - documents[:, :1] + 1, 0)
    return Batch(
        tokens_BT=tokens[:, :-1],
        targets_BT=tokens[:, 1:],
        mask_BT=(real & (documents[:, 1:] == documents[:, :-1])).astype(np.float32),
        positions_BT=_positions(documents[:, :-1]),
        segments_BT=segments.astype(np.int32),
    )


def _read(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Zeros behind the end."""
    return np.where(index < len(values), values[np.minimum(index, len(values) - 1)], 0)


def _positions(documents_BT: np.ndarray) -> np.ndarray:
    """How far each token is from the start of its document, or from the window's where that comes later."""
    index = np.arange(documents_BT.shape[1], dtype=np.int32)
    begins = np.diff(documents_BT, axis=1, prepend=documents_BT[:, :1]) != 0
    return np.where(documents_BT != 0, index - np.maximum.accumulate(np.where(begins, index, 0), axis=1), 0)
