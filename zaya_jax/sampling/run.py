"""One batch on its way, seen from the host: which program runs next, and what has come of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zaya_jax.model import Zaya
from zaya_jax.model.layout import Variables
from zaya_jax.model.programs import one_per_layer
from zaya_jax.sampling import decode, decode_by_layer
from zaya_jax.sampling.decode import RUNNING, STOP, State, Tape, bucket
from zaya_jax.sampling.memory import Mark, Memory, set_mark
from zaya_jax.sampling.request import Completion, Delta, FinishReason, Request
from zaya_jax.sampling.stopping import AnswerText
from zaya_jax.text.tokenizer import Tokenizer

FIRST_CAPACITY = 4096  # tokens a row; see `next_capacity`
_LONG_CHUNK = 512
_NOBODY = Request("", (), max_new_tokens=1)


class Run:
    """A batch: the state on the device, and the answers as far as they have been fetched.

    Args of the constructor:
        requests: checked against the model; a row each.
        tokenizer: decodes the answers.
        slots: rows that are computed; those beyond the requests stay empty.
        room: tokens a row may come to hold: at least what the requests can need, more if others that follow them are
            to share their programs.
        remember: whether `memory` will be asked for; a batch of one row only.
        known: what has been read before of a single request's prompt; its cache is used up.
    """

    def __init__(
        self,
        model: Zaya,
        variables: Variables,
        requests: Sequence[Request],
        *,
        tokenizer: Tokenizer | None = None,
        slots: int | None = None,
        room: int = 0,
        remember: bool = False,
        known: Memory | None = None,
    ):
        self._model, self._variables, self._known = model, variables, known
        self._whole_model = not one_per_layer(model.config, model.execution)
        self._device = decode if self._whole_model else decode_by_layer
        self._answers = [Answer(index, request, tokenizer) for index, request in enumerate(requests)]
        self._rows = [*requests, *[_NOBODY] * ((slots or len(requests)) - len(requests))]
        self._batch = decode.make_batch(self._rows)
        self._room = bucket(max(room, *(len(request.tokens) + request.max_new_tokens for request in requests)))
        self._remember = remember
        self._capacity = known.capacity if known else 0
        self._state: State | None = None
        self._mark: Mark | None = None

    def drive(self, chunk: int | None) -> Iterator[list[Delta]]:
        """Yields the new parts of the unfinished answers, chunk by chunk; all at once if `chunk` is None.

        (Not quite at once if the cache is a long one, which grows between chunks, or the host calls every layer.)
        """
        if chunk is None and self._known is None and self._room <= FIRST_CAPACITY and self._whole_model:
            yield self._whole()
            return
        yield self._begin()
        while self._unfinished():
            yield self._advance(chunk or _LONG_CHUNK)

    def memory(self) -> Memory | None:
        """What a batch of one row has read; None if that is not known because a step was interrupted."""
        if self._state is None or self._mark is None:
            return None
        (answer,) = self._answers
        tokens = (*answer.request.tokens, *answer.drawn[:-1])
        return Memory(tokens, self._state.cache, self._capacity, answer.routes(len(tokens)), self._mark)

    def _whole(self) -> list[Delta]:
        tokens_BT, count_B = decode.pad_right([request.tokens for request in self._rows])
        steps = max(request.max_new_tokens for request in self._rows) - 1
        state, first, tape, routes_LBT = decode.run_whole(
            self._model,
            self._variables,
            self._batch,
            tokens_BT,
            count_B,
            steps,
            capacity=self._room,
            columns=bucket(max(steps, 1)),
        )
        self._take_prompts(routes_LBT)
        return self._take([np.concatenate(both, axis=-1) for both in zip(_fetch(first), _fetch(tape))], state)

    def _begin(self) -> list[Delta]:
        """Reads the prompts, or what is new of them, and draws the first tokens."""
        known, longest = self._known, max(len(request.tokens) for request in self._rows)
        tokens_BT, count_B = decode.pad_right([request.tokens[_length(known) :] for request in self._rows])
        cache = known.cache if known else None
        if longest > self._capacity:
            self._capacity = next_capacity(longest, self._capacity, self._room)
            cache = cache and decode.run_grow(self._model, cache, capacity=self._capacity)
        state, first, routes_LBT = self._device.run_prefill(
            self._model, self._variables, self._batch, tokens_BT, count_B, cache, capacity=self._capacity
        )
        self._mark = set_mark(state.cache, longest) if self._remember else None
        self._take_prompts(routes_LBT)
        deltas = self._take(_fetch(first), state)
        self._state = state
        return deltas

    def _advance(self, chunk: int) -> list[Delta]:
        """Takes up to `chunk` steps, as many as the cache has room for."""
        state, self._state = self._state, None  # about to be used up: an interrupt from here on leaves none
        stored = max(len(answer.request.tokens) + len(answer.drawn) - 1 for answer in self._unfinished())
        if stored == self._capacity:
            self._capacity = next_capacity(stored + 1, self._capacity, self._room)
            state = state.replace(cache=decode.run_grow(self._model, state.cache, capacity=self._capacity))
        stopped_B = np.zeros(len(self._rows), bool)
        stopped_B[: len(self._answers)] = [answer.completion is not None for answer in self._answers]
        steps = min(chunk, self._capacity - stored)
        state, tape = self._device.run_decode(
            self._model, self._variables, self._batch, state, stopped_B, steps, columns=bucket(chunk)
        )
        deltas = self._take(_fetch(tape), state)
        self._state = state
        return deltas

    def _unfinished(self) -> list[Answer]:
        return [answer for answer in self._answers if answer.completion is None]

    def _take_prompts(self, routes_LBT) -> None:
        routes_LBT = np.asarray(routes_LBT)
        before = [self._known.routes_LT] if self._known else []
        for row, answer in enumerate(self._answers):
            new = len(answer.request.tokens) - _length(self._known)
            answer.take_prompt([*before, routes_LBT[:, row, :new]])

    def _take(self, columns: list[np.ndarray], state: State) -> list[Delta]:
        """Hands every unfinished answer its part of a tape."""
        step_B, finish_B = np.asarray(state.step_B), np.asarray(state.finish_B)
        return [
            answer.take(*(part[..., row, :] for part in columns), step=int(step_B[row]), finish=int(finish_B[row]))
            for row, answer in enumerate(self._answers)
            if answer.completion is None
        ]


def next_capacity(needed: int, capacity: int, room: int) -> int:
    """Tokens a row's cache is to hold from now on: all of `room` if that is not much, else twice as many as before.

    Most answers end before their limit, and every step reads the whole cache.
    """
    return min(room, max(bucket(needed), FIRST_CAPACITY, 2 * capacity))


def _length(known: Memory | None) -> int:
    return len(known.tokens) if known else 0


def _fetch(tape: Tape) -> list[np.ndarray]:
    fields = (tape.token_BN, tape.logprob_model_BN, tape.logprob_sampling_BN, tape.routes_LBN)
    return [np.asarray(field) for field in fields]


class Answer:
    """A request's answer as it grows.

    Attributes:
        index: the request's place in its batch.
        drawn: every token that the device has drawn, those behind a stop string included.
        completion: the answer once it has ended.
    """

    def __init__(self, index: int, request: Request, tokenizer: Tokenizer | None):
        self.index, self.request = index, request
        self.drawn: list[int] = []
        self.completion: Completion | None = None
        self._text = AnswerText(tokenizer, request.stop_strings) if tokenizer else None
        self._routes: list[np.ndarray] = []
        self._logprobs: tuple[list[float], list[float]] = ([], [])

    def take_prompt(self, routes: list[np.ndarray]) -> None:
        """Takes the prompt's routes, [L, t] each, one behind the other."""
        self._routes = routes

    def take(self, token_N, logprob_model_N, logprob_sampling_N, routes_LN, *, step: int, finish: int) -> Delta:
        """Takes a row of a tape, which begins behind the tokens drawn before and ends at the `step`-th."""
        start = len(self.drawn)
        new = slice(0, step - start)
        # A column has the routes of the token before its own; that of the very first column is in the prompt.
        self._routes.append(routes_LN[:, new] if start else routes_LN[:, 1 : new.stop])
        self.drawn += token_N[new].tolist()
        self._logprobs[0].extend(logprob_model_N[new].tolist())
        self._logprobs[1].extend(logprob_sampling_N[new].tolist())
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
        model, sampling = (np.array(values[:end], np.float32) for values in self._logprobs)
        return Completion(
            id=self.request.id,
            tokens=np.array(self.drawn[:end], np.int32),
            logprobs_model=model,
            logprobs_sampling=sampling,
            routes_LT=self.routes(len(self.request.tokens) + end - 1),
            finish_reason=reason,
            text=self._text.text if self._text else None,
        )

    def _delta(self, start: int) -> Delta:
        end = len(self.completion.tokens) if self.completion else len(self.drawn)
        model, sampling = (np.array(values[start:end], np.float32) for values in self._logprobs)
        return Delta(
            id=self.request.id,
            index=self.index,
            tokens=np.array(self.drawn[start:end], np.int32),
            logprobs_model=model,
            logprobs_sampling=sampling,
            text=self._text.release(final=self.completion is not None) if self._text else "",
            completion=self.completion,
        )
