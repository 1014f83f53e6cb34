"""A chat's reply while it arrives: reasoning, answer and tool calls told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.sampling.request import Delta, Request
from zaya_jax.sampling.stopping import AnswerText
from zaya_jax.serving.tool_calls import CLOSE, OPEN, ToolCall, ToolStream
from zaya_jax.text.tokenizer import Tokenizer

Tools = Sequence[Mapping[str, Any]]


def with_visible_tags(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the tags of tool calls in its texts, even if they are special tokens, whose text is hidden."""
    tags = {tokenizer.backend.token_to_id(tag) for tag in (OPEN, CLOSE)}
    return dataclasses.replace(tokenizer, hidden_ids=tokenizer.hidden_ids - tags)


@dataclasses.dataclass
class Gained:
    """What a reply has gained. Joined, the texts are the message's.

    Attributes:
        reasoning, content: texts.
        calls: those that became whole, with their places among the reply's.
        reasoning_tokens, content_tokens: token ids and log-probabilities, without marks and what ended the reply.
    """

    reasoning: str = ""
    content: str = ""
    calls: list[tuple[int, ToolCall]] = dataclasses.field(default_factory=list)
    reasoning_tokens: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    content_tokens: list[tuple[int, float]] = dataclasses.field(default_factory=list)

    def add(self, other: Gained) -> None:
        """Takes what was gained later."""
        self.reasoning, self.content = self.reasoning + other.reasoning, self.content + other.content
        self.calls += other.calls
        self.reasoning_tokens += other.reasoning_tokens
        self.content_tokens += other.content_tokens


class Reply:
    """Reads the tokens of a reply.

    Line breaks at the ends of a block of reasoning, and those that an answer begins with behind one, are layout: the
    template writes them, and they are in neither text.

    Args of the constructor:
        request: what was asked; its prompt may end inside of a block of reasoning.
        tokenizer: of `with_visible_tags`.
        tools: if calls of them are to be found.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, tools: Tools | None = None):
        self._request, self._tokenizer = request, tokenizer
        self._start, self._end = request.think_ids or (None, None)
        self._thinking, self._reasoned = request.in_thinking, request.in_thinking
        self._calls = None if tools is None else ToolStream(tools)
        self._called = 0
        self._begin_part()

    def push(self, delta: Delta) -> Gained:
        """Takes what was drawn and returns what is now certain."""
        gained = Gained()
        for token, logprob in zip(delta.tokens.tolist(), delta.logprobs_model.tolist()):
            if token in (self._start, self._end):
                self._end_part(gained)
                self._thinking = token == self._start
                self._reasoned = True
                self._begin_part()
            elif token not in self._request.stop_ids:
                (gained.reasoning_tokens if self._thinking else gained.content_tokens).append((token, logprob))
                self._text.push(token)
        self._take(self._text.release(), gained)
        if delta.completion is not None:
            self._end_part(gained, last=True)
        return gained

    def _begin_part(self) -> None:
        self._text = AnswerText(self._tokenizer, self._request.stop_strings)
        self._breaks, self._at_start = "", True

    def _end_part(self, gained: Gained, last: bool = False) -> None:
        self._text.flush()
        self._take(self._text.release(final=True), gained)
        if last and not self._thinking:
            self._give(self._breaks, gained)
        if last and self._calls is not None:
            self._sort(self._calls.flush(), gained)

    def _take(self, text: str, gained: Gained) -> None:
        """Takes text of the present part. Line breaks wait for what follows: a mark would make them layout."""
        if not self._thinking and not self._at_start:
            self._give(text, gained)
            return
        text = self._breaks + text
        rest = text.lstrip("\n") if self._at_start and (self._thinking or self._reasoned) else text
        kept = rest.rstrip("\n") if self._thinking or not rest.strip("\n") else rest
        self._breaks = rest[len(kept) :]
        self._at_start = self._at_start and not kept
        self._give(kept, gained)

    def _give(self, text: str, gained: Gained) -> None:
        if self._thinking:
            gained.reasoning += text
        elif self._calls is None:
            gained.content += text
        else:
            self._sort(self._calls.push(text), gained)

    def _sort(self, parts: list[str | ToolCall], gained: Gained) -> None:
        for part in parts:
            if isinstance(part, ToolCall):
                gained.calls.append((self._called, part))
                self._called += 1
            else:
                gained.content += part
