"""Answers in the form of OpenAI's responses, whole (`whole`) or piece by piece (`begin`, `gain`, `usage_chunk`)."""

from __future__ import annotations

import abc
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from zaya_jax.sampling.request import Completion, Delta
from zaya_jax.serving.asked import Asked
from zaya_jax.serving.reply import Gained, Reply
from zaya_jax.serving.tool_calls import ToolCall
from zaya_jax.text.tokenizer import Tokenizer, token_bytes

Json = dict[str, Any]
TokenLogprobs = Sequence[tuple[int, float]]


class Answer(abc.ABC):
    """What both endpoints share: which choice gains what, and what all of it costs.

    Attributes:
        kind: what OpenAI calls the response.
        asked: what the client wants.
        completions: those of the choices that have ended, by their place.
    """

    kind: str

    def __init__(self, asked: Asked, model: str, tokenizer: Tokenizer):
        self.asked, self.completions = asked, dict[int, Completion]()
        self._tokenizer, self._model, self._created = tokenizer, model, int(time.time())
        self._places = {request.id: index for index, request in enumerate(asked.requests)}

    @abc.abstractmethod
    def _choice(self, index: int, delta: Delta) -> Json | None:
        """What a choice has gained, as a chunk has it; None for nothing."""

    @abc.abstractmethod
    def _whole_choice(self, index: int) -> Json:
        """A choice that has ended."""

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return len(self.completions) == len(self.asked.requests)

    def begin(self) -> list[Json]:
        """Chunks sent before anything is drawn."""
        return []

    def gain(self, delta: Delta) -> list[Json]:
        """Takes what a choice has gained; returns its chunk, if there is something to say."""
        index = self._places[delta.id]
        choice = self._choice(index, delta)
        if delta.completion is not None:
            self.completions[index] = delta.completion
        return [self._frame([choice], chunk=True)] if choice is not None else []

    def usage_chunk(self) -> Json:
        """The last chunk, if the cost is wanted."""
        return self._frame([], chunk=True) | {"usage": self.usage()}

    def usage(self) -> Json:
        """What has been read and drawn. A prompt that several choices share counts once."""
        completions = self.completions.values()
        firsts = range(0, len(self.asked.requests), self.asked.n)
        known = sum(self.completions[index].known_tokens for index in firsts)
        read = sum(len(self.asked.requests[index].tokens) for index in firsts)
        details = {"prompt_tokens_details": {"cached_tokens": known}}
        return usage(read, sum(len(completion.tokens) for completion in completions)) | details

    def whole(self) -> Json:
        """The response, once `done`."""
        choices = [self._whole_choice(index) for index in range(len(self.asked.requests))]
        return self._frame(choices) | {"usage": self.usage()}

    def _frame(self, choices: list[Json], chunk: bool = False) -> Json:
        frame = {
            "id": self.asked.id,
            "object": self.kind + (".chunk" if chunk and self.kind == "chat.completion" else ""),
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        return frame | ({"usage": None} if chunk and self.asked.include_usage else {})

    def _tokens(self, index: int, tokens) -> Json:
        """The ids, if they are wanted."""
        return {"token_ids": tokens.tolist()} if self.asked.token_ids else {}


class CompletionAnswer(Answer):
    """The answer of /v1/completions."""

    kind = "text_completion"

    def __init__(self, asked: Asked, model: str, tokenizer: Tokenizer):
        super().__init__(asked, model, tokenizer)
        self._lengths = [0] * len(asked.requests)  # of the texts, for the places of logprobs

    def _choice(self, index: int, delta: Delta) -> Json | None:
        end = delta.completion
        if not delta.text and end is None and not (self.asked.logprobs or self.asked.token_ids):
            return None
        pairs = list(zip(delta.tokens.tolist(), delta.logprobs_model.tolist()))
        return {
            "index": index,
            "text": delta.text,
            "logprobs": self._logprobs(index, pairs),
            "finish_reason": None if end is None else end.finish_reason,
            **self._tokens(index, delta.tokens),
        }

    def _whole_choice(self, index: int) -> Json:
        completion = self.completions[index]
        self._lengths[index] = 0
        pairs = list(zip(completion.tokens.tolist(), completion.logprobs_model.tolist()))
        return {
            "index": index,
            "text": completion.text,
            "logprobs": self._logprobs(index, pairs),
            "finish_reason": completion.finish_reason,
            **self._tokens(index, completion.tokens),
        }

    def _logprobs(self, index: int, pairs: TokenLogprobs) -> Json | None:
        if not self.asked.logprobs:
            return None
        texts = [self._tokenizer.decode([token], skip_special=False) for token, _ in pairs]
        offsets = []
        for text in texts:
            offsets.append(self._lengths[index])
            self._lengths[index] += len(text)
        logprobs = [logprob for _, logprob in pairs]
        return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": None, "text_offset": offsets}


class ChatAnswer(Answer):
    """The answer of /v1/chat/completions."""

    kind = "chat.completion"

    def __init__(self, asked: Asked, model: str, tokenizer: Tokenizer):
        super().__init__(asked, model, tokenizer)
        self._replies = [Reply(request, tokenizer, asked.tools) for request in asked.requests]
        self._gained = [Gained() for _ in asked.requests]
        self._calls: list[list[Json]] = [[] for _ in asked.requests]

    def begin(self) -> list[Json]:
        """The role of every choice."""
        return [
            self._frame([_delta(i, {"role": "assistant", "content": ""})], chunk=True) for i in self._places.values()
        ]

    def usage(self) -> Json:
        """Also how much was thought."""
        details = {"reasoning_tokens": sum(len(gained.reasoning_tokens) for gained in self._gained)}
        return super().usage() | {"completion_tokens_details": details}

    def _choice(self, index: int, delta: Delta) -> Json | None:
        gained, end = self._replies[index].push(delta), delta.completion
        self._gained[index].add(gained)
        calls = [_call(place, call) for place, call in gained.calls]
        self._calls[index] += calls
        texts = {"reasoning_content": gained.reasoning, "content": gained.content, "tool_calls": calls}
        news = {name: value for name, value in texts.items() if value}
        if not news and end is None and not (self.asked.logprobs or self.asked.token_ids):
            return None
        reason = None if end is None else self._reason(index, end)
        return _delta(index, news, reason) | self._logprobs(gained) | self._tokens(index, delta.tokens)

    def _whole_choice(self, index: int) -> Json:
        gained, completion = self._gained[index], self.completions[index]
        calls = [{name: value for name, value in call.items() if name != "index"} for call in self._calls[index]]
        message = {"role": "assistant", "content": gained.content if gained.content or not calls else None}
        message |= {"reasoning_content": gained.reasoning} if gained.reasoning else {}
        message |= {"tool_calls": calls} if calls else {}
        choice = {"index": index, "message": message, "finish_reason": self._reason(index, completion)}
        return choice | self._logprobs(gained) | self._tokens(index, completion.tokens)

    def _reason(self, index: int, completion: Completion) -> str:
        called = self._calls[index] and completion.finish_reason == "stop"
        return "tool_calls" if called else completion.finish_reason

    def _logprobs(self, gained: Gained) -> Json:
        if not self.asked.logprobs:
            return {"logprobs": None}
        content, reasoning = (
            [self._token(token, logprob) for token, logprob in pairs]
            for pairs in (gained.content_tokens, gained.reasoning_tokens)
        )
        return {"logprobs": {"content": content, "refusal": None, "reasoning_content": reasoning}}

    def _token(self, token: int, logprob: float) -> Json:
        spelled = token_bytes(self._tokenizer, token)
        return {
            "token": spelled.decode("utf-8", "replace"),
            "logprob": logprob,
            "bytes": list(spelled),
            "top_logprobs": [],
        }


def usage(prompt: int, completion: int) -> Json:
    """OpenAI's count of tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _delta(index: int, delta: Json, reason: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _call(place: int, call: ToolCall) -> Json:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"index": place, "id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
