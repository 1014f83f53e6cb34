"""From a record to what stands in a window: tokens, how much each counts, and what was done to make them fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from zaya_jax.data.schema import Chat, Example, Preference, Text
from zaya_jax.data.sources import SourceConfig
from zaya_jax.data.trimming import trim
from zaya_jax.data.turns import TrainedTurn, chat_turns, weights_of
from zaya_jax.errors import UserError, mistake
from zaya_jax.text.tokenizer import Tokenizer


class Encoded(NamedTuple):
    """An example in tokens, at most a window of them.

    Attributes:
        tokens: its ids, int32.
        weights: how much predicting each of them counts, float32.
        head: tokens of its first segment: all but those of the rejected conversation of a preference.
    """

    tokens: np.ndarray
    weights: np.ndarray
    head: int


class Outcome(NamedTuple):
    """What became of a record.

    Attributes:
        examples: none if it was dropped, several if it was split.
        fate: "whole", "split", "trimmed" or "dropped".
        size: UTF-8 bytes of a text; 0 of others.
    """

    examples: tuple[Encoded, ...]
    fate: str
    size: int = 0


def encode_all(
    records: Iterable[tuple[str, Example]], source: SourceConfig, tokenizer: Tokenizer, length: int
) -> Iterator[Outcome]:
    """Encodes records in their order for windows of `length` tokens.

    Raises:
        UserError: a record is too long and `too_long` is "error", or the tokenizer or its template refuses one; the
            message says where it stands.
    """
    for where, record in records:
        try:
            yield encode(record, source, tokenizer, length)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def encode(record: Example, source: SourceConfig, tokenizer: Tokenizer, length: int) -> Outcome:
    """Encodes a record. Raises as `encode_all`, without where."""
    if isinstance(record, Text):
        return _encode_text(record, source, tokenizer, length)
    if isinstance(record, Chat):
        return _encode_chat(record, source, tokenizer, length)
    return _encode_preference(record, source, tokenizer, length)


def _encode_text(record: Text, source: SourceConfig, tokenizer: Tokenizer, length: int) -> Outcome:
    """The whole text with what the tokenizer puts around it; all of it counts."""
    tokens = np.asarray(tokenizer.encode(record.text), np.int32)
    size = len(record.text.encode())
    if len(tokens) <= length:
        return Outcome((_text_piece(tokens),), "whole", size)
    if source.too_long == "split":
        return Outcome(tuple(map(_text_piece, split(tokens, length))), "split", size)
    return _too_long(source, len(tokens), length)


def split(tokens: np.ndarray, length: int) -> list[np.ndarray]:
    """Pieces of at most `length` tokens. Each begins with the last token of the one before, so that every token but
    the first is predicted exactly once."""
    starts = range(0, max(len(tokens) - 1, 1), length - 1)
    return [tokens[start : start + length] for start in starts]


def _text_piece(tokens: np.ndarray) -> Encoded:
    return Encoded(tokens, np.ones(len(tokens), np.float32), len(tokens))


def _encode_chat(record: Chat, source: SourceConfig, tokenizer: Tokenizer, length: int) -> Outcome:
    turns = chat_turns(record, tokenizer)
    total = _size(turns)
    if total <= length:
        return Outcome((_joined(turns),), "whole")
    if source.too_long != "trim":
        return _too_long(source, total, length)
    trimmed = trim([turn.turn for turn in turns], length)
    if trimmed is None:
        return Outcome((), "dropped")
    kept = [trained._replace(turn=turn) for trained, turn in zip(turns, trimmed, strict=True)]
    return Outcome((_joined(kept),), "trimmed")


def _encode_preference(record: Preference, source: SourceConfig, tokenizer: Tokenizer, length: int) -> Outcome:
    """Both conversations, one after the other: they stay together wherever they are packed."""
    pair = [chat_turns(chat, tokenizer) for chat in (record.chosen, record.rejected)]
    total = sum(map(_size, pair))
    if total > length:
        return _too_long(source, total, length)
    chosen, rejected = map(_joined, pair)
    tokens, weights = (np.concatenate(parts) for parts in zip(chosen[:2], rejected[:2]))
    return Outcome((Encoded(tokens, weights, len(chosen.tokens)),), "whole")


def _size(turns: Sequence[TrainedTurn]) -> int:
    return sum(len(turn.turn.tokens) for turn in turns)


def _joined(turns: Sequence[TrainedTurn]) -> Encoded:
    tokens = np.asarray([token for turn in turns for token in turn.turn.tokens], np.int32)
    return Encoded(tokens, np.asarray(weights_of(turns), np.float32), len(tokens))


def _too_long(source: SourceConfig, tokens: int, length: int) -> Outcome:
    if source.too_long == "drop":
        return Outcome((), "dropped")
    fix = "take longer windows, or another too_long"
    raise mistake("longer than the window", expected=f"at most {length} tokens", found=tokens, fix=fix)
