"""Reasoning and answer: a reply is `<think>` reasoning `</think>` answer, whole or while it is being sampled."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Generic, TypeVar

from zaya_jax.text.tokenizer import StreamDecoder, Tokenizer

THINK_START = "<think>"
THINK_END = "</think>"

Part = TypeVar("Part", str, list[int])


@dataclasses.dataclass(frozen=True)
class Split(Generic[Part]):
    """A reply taken apart; joined in order, without the marks, its parts are the reply.

    Attributes:
        thinking: the reasoning, of all blocks.
        answer: the rest.
        closed: False if the reply ended inside a block, as one cut off by its budget does.
    """

    thinking: Part
    answer: Part
    closed: bool


def split_thinking(text: str, *, in_thinking: bool = False) -> Split[str]:
    """Splits a reply's text at its think marks.

    A reply whose first mark is `</think>` began inside a block, whether or not `in_thinking` says so: templates may
    open the block in the prompt. White space stays as it is.

    Args:
        text: the reply, decoded with its think marks visible.
        in_thinking: the prompt ended inside a block (`opens_thinking`).
    """
    pieces = re.split(f"({re.escape(THINK_START)}|{re.escape(THINK_END)})", text)
    parts, closed = _split(pieces, THINK_START, THINK_END, in_thinking)
    return Split("".join(parts[True]), "".join(parts[False]), closed)


def split_thinking_tokens(
    tokens: Sequence[int], tokenizer: Tokenizer, *, in_thinking: bool = False
) -> Split[list[int]]:
    """As `split_thinking`, for token ids. Without think tokens in the vocabulary all is of one part."""
    ids = [int(token) for token in tokens]
    parts, closed = _split(ids, tokenizer.think_start_id, tokenizer.think_end_id, in_thinking)
    return Split(parts[True], parts[False], closed)


def _split(items, start, end, in_thinking: bool):
    first = next((item for item in items if item in (start, end)), None)
    thinking = in_thinking or (first is not None and first == end)
    parts = {True: [], False: []}
    for item in items:
        if item in (start, end):
            thinking = item == start
        else:
            parts[thinking].append(item)
    return parts, not thinking


def opens_thinking(prompt: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt ends inside a think block, so that the reply begins with reasoning."""
    marks = [int(token) for token in prompt if int(token) in (tokenizer.think_start_id, tokenizer.think_end_id)]
    return bool(marks) and marks[-1] == tokenizer.think_start_id


@dataclasses.dataclass(frozen=True)
class Piece:
    """Text that is certain, and whether it is reasoning. The text may be empty."""

    text: str
    thinking: bool


class ThinkingStream:
    """Decodes a reply while it is being sampled and tells reasoning from answer.

    Its texts joined, block by block, are `tokenizer.decode` of the block's tokens. Unlike `split_thinking`, a lone
    `</think>` cannot turn back what was already shown as an answer: give `in_thinking=opens_thinking(prompt, ...)`.
    """

    def __init__(self, tokenizer: Tokenizer, *, in_thinking: bool = False, skip_special: bool = True):
        self._start, self._end = tokenizer.think_start_id, tokenizer.think_end_id
        self._decoder = StreamDecoder(tokenizer, skip_special=skip_special)
        self.thinking = in_thinking

    def push(self, token: int) -> Piece:
        """Takes one token. A think mark yields the held rest of the part that it ends and is not itself text."""
        if int(token) not in (self._start, self._end):
            return Piece(self._decoder.push(token), self.thinking)
        piece = self.flush()
        self.thinking = int(token) == self._start
        return piece

    def flush(self) -> Piece:
        """Returns what is still held at the end of the reply."""
        return Piece(self._decoder.flush(), self.thinking)
