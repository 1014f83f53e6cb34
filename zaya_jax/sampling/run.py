"""One batch on its way, seen from the host: which program runs next, and what has come of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zaya_jax.model import Zaya
from zaya_jax.model.layout import Variables
from zaya_jax.model.programs import one_per_layer
from zaya_jax.sampling import decode, decode_by_layer
from zaya_jax.sampling.answers import Answer
from zaya_jax.sampling.decode import NOBODY, State, bucket
from zaya_jax.sampling.memory import Mark, Memory, set_mark
from zaya_jax.sampling.request import Delta, Request
from zaya_jax.text.tokenizer import Tokenizer

FIRST_CAPACITY = 4096  # tokens a row; see `next_capacity`
_LONG_CHUNK = 512


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
        self._rows = [*requests, *[NOBODY] * ((slots or len(requests)) - len(requests))]
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
        columns = [np.concatenate(both, axis=-1) for both in zip(decode.fetch(first), decode.fetch(tape))]
        return self._take(columns, state)

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
        deltas = self._take(decode.fetch(first), state)
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
        deltas = self._take(decode.fetch(tape), state)
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
