"""A request's answer as it grows, on the host."""

from __future__ import annotations

import numpy as np

from zaya_jax.sampling.decode import RUNNING, STOP
from zaya_jax.sampling.reasoning import thinking_end
from zaya_jax.sampling.request import Completion, Delta, FinishReason, Request
from zaya_jax.sampling.stopping import AnswerText
from zaya_jax.text.tokenizer import Tokenizer


class Answer:
    """A request's answer as it grows.

    Attributes:
        index: the request's place in its batch.
        drawn: every token that the device has drawn, those behind a stop string included.
        completion: the answer once it has ended.
        known_tokens: of the prompt, what did not have to be read.
    """

    def __init__(self, index: int, request: Request, tokenizer: Tokenizer | None):
        self.index, self.request = index, request
        self.drawn: list[int] = []
        self.completion: Completion | None = None
        self.known_tokens = 0
        self._text = AnswerText(tokenizer, request.stop_strings) if tokenizer else None
        self._routes: list[np.ndarray] = []
        self._logprobs: tuple[list[float], list[float]] = ([], [])
        self._exact = np.dtype(np.float32)  # their type
        self._versions: list[int] = []
        self._kept: list[np.ndarray] = []

    def take_prompt(self, routes: list[np.ndarray]) -> None:
        """Takes the prompt's routes, [L, t] each, one behind the other."""
        self._routes = routes

    def take(
        self, token_N, logprob_model_N, logprob_sampling_N, routes_LN, kept_KN=None, *, step: int, finish: int,
        version: int = 0,
    ) -> Delta:  # fmt: skip
        """Takes a row of a tape, which begins behind the tokens drawn before and ends at the `step`-th."""
        start = len(self.drawn)
        self._versions += [version] * (step - start)
        new = slice(0, step - start)
        # A column has the routes of the token before its own; that of the very first column is in the prompt.
        first = 0 if start else 1
        if new.stop > first:
            self._routes.append(routes_LN[:, first : new.stop])
        self.drawn += token_N[new].tolist()
        self._exact = logprob_model_N.dtype
        self._logprobs[0].extend(logprob_model_N[new].tolist())
        self._logprobs[1].extend(logprob_sampling_N[new].tolist())
        if kept_KN is not None:
            self._kept.append(kept_KN[:, new])
        cut = self._read(start, finish)
        if cut is not None:
            self.completion = self._complete(cut, "stop")
        elif finish != RUNNING:
            self.completion = self._complete(step, "stop" if finish == STOP else "length")
        return self._delta(start)

    def routes(self, length: int) -> np.ndarray:
        """The routes of the first `length` tokens that the model has read, [L, length]."""
        return np.concatenate(self._routes, axis=1)[:, :length]

    def _read(self, start: int, finish: int) -> int | None:
        """Decodes the new tokens; if a stop string ends the answer, returns how many tokens it has."""
        if self._text is None:
            return None
        for index, token in enumerate(self.drawn[start:], start):
            if token not in self.request.stop_ids and self._text.push(token):
                return index + 1
        return len(self.drawn) if finish != RUNNING and self._text.flush() else None

    def _complete(self, end: int, reason: FinishReason) -> Completion:
        model, sampling = (np.array(values[:end], self._exact) for values in self._logprobs)
        think_end, think_forced = thinking_end(self.request, self.drawn[:end])
        return Completion(
            id=self.request.id,
            tokens=np.array(self.drawn[:end], np.int32),
            logprobs_model=model,
            logprobs_sampling=sampling,
            routes_LT=self.routes(len(self.request.tokens) + end - 1),
            finish_reason=reason,
            versions_T=np.array(self._versions[:end], np.int32),
            think_end=think_end,
            think_forced=think_forced,
            known_tokens=self.known_tokens,
            text=self._text.text if self._text else None,
            kept_KN=np.concatenate(self._kept, axis=1)[:, :end] if self._kept else None,
        )

    def _delta(self, start: int) -> Delta:
        end = len(self.completion.tokens) if self.completion else len(self.drawn)
        model, sampling = (np.array(values[start:end], self._exact) for values in self._logprobs)
        return Delta(
            id=self.request.id,
            index=self.index,
            tokens=np.array(self.drawn[start:end], np.int32),
            logprobs_model=model,
            logprobs_sampling=sampling,
            text=self._text.release(final=self.completion is not None) if self._text else "",
            completion=self.completion,
        )
