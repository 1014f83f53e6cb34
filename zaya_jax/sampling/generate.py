"""Continuing prompts: as a batch, as a stream, or one answer after another in a conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from zaya_jax.errors import mistake
from zaya_jax.model import Zaya
from zaya_jax.model.layout import Variables
from zaya_jax.sampling.memory import Memory, recall
from zaya_jax.sampling.request import Completion, Delta, Request, check_request, check_text
from zaya_jax.sampling.run import FIRST_CAPACITY, Run
from zaya_jax.text.tokenizer import Tokenizer


def generate(
    model: Zaya,
    variables: Variables,
    requests: Sequence[Request],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int = 8,
    chunk: int | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> list[Completion]:
    """Answers every request; the completions are in the order of the requests.

    More requests than `batch_size` are taken in batches of prompts of like length, the longest first. What is compiled
    depends on the rows of a batch, its longest prompt and the largest room that any request needs, both rounded up
    (`decode.bucket`). Within one program, in float32, batch mates change no bit of an answer.

    Args:
        tokenizer: decodes the answers; needed for stop strings.
        batch_size: rows decoded together.
        chunk: tokens between two looks at the answers, for stop strings and progress. By default 16 if anybody looks;
            else a batch is one program from its prompts to its last token. Chunks up to 16 share one program.
        progress: is told after every chunk how many requests are finished, how many there are, and how many tokens
            have been sampled.

    Raises:
        UserError: a request cannot be answered by this model (`check_request`), or has stop strings and there is no
            tokenizer.
    """
    _check(model, requests, tokenizer)
    if batch_size < 1:
        raise mistake("out of range", where="batch_size", expected="a positive integer", found=batch_size)
    if chunk is None and (progress or any(request.stop_strings for request in requests)):
        chunk = 16
    slots = min(batch_size, len(requests))
    room = max(len(request.tokens) + request.max_new_tokens for request in requests)
    completions: dict[int, Completion] = {}
    tokens = 0
    for rows in _batches(requests, slots):
        run = Run(model, variables, [requests[row] for row in rows], tokenizer=tokenizer, slots=slots, room=room)
        for deltas in run.drive(chunk):
            tokens += sum(len(delta.tokens) for delta in deltas)
            completions |= {rows[delta.index]: delta.completion for delta in deltas if delta.completion}
            if progress:
                progress(len(completions), len(requests), tokens)
    return [completions[row] for row in range(len(requests))]


def stream(
    model: Zaya,
    variables: Variables,
    requests: Sequence[Request],
    *,
    tokenizer: Tokenizer | None = None,
    chunk: int = 8,
) -> Iterator[list[Delta]]:
    """Answers requests as one batch and yields what is new after every `chunk` tokens.

    The first deltas hold one token each and come as soon as the prompts are read. Finished requests have no more
    deltas. Raises as `generate`.
    """
    _check(model, requests, tokenizer)
    return Run(model, variables, requests, tokenizer=tokenizer).drive(max(chunk, 1))


class Session:
    """A conversation with the model: a prompt that begins as the last one did is read from where it departs.

    Attributes:
        memory: what has been read so far; None before the first answer and after `reset`.
    """

    def __init__(self, model: Zaya, variables: Variables, *, tokenizer: Tokenizer | None = None, chunk: int = 4):
        self.memory: Memory | None = None
        self._model, self._variables, self._tokenizer, self._chunk = model, variables, tokenizer, chunk

    def reset(self) -> None:
        """Forgets everything."""
        self.memory = None

    def reply(self, request: Request) -> Iterator[Delta]:
        """Answers a request whose `tokens` are the whole conversation; yields as `stream`, and raises as it does.

        An answer may be left unfinished by closing the iterator.
        """
        _check(self._model, [request], self._tokenizer)
        known = recall(self.memory, request.tokens, self._model.config)
        self.memory = None  # its cache is about to be used up
        run = Run(
            self._model,
            self._variables,
            [request],
            tokenizer=self._tokenizer,
            room=min(self._model.config.max_position_embeddings, FIRST_CAPACITY),  # the next turns will need it
            remember=True,
            known=known,
        )
        try:
            for (delta,) in run.drive(self._chunk):
                yield delta
        finally:
            self.memory = run.memory()


def _check(model: Zaya, requests: Sequence[Request], tokenizer: Tokenizer | None) -> None:
    if not requests:
        raise mistake("no requests", expected="at least one")
    for request in requests:
        check_request(request, model.config)
        check_text(request, tokenizer)


def _batches(requests: Sequence[Request], size: int) -> list[list[int]]:
    """Indices of the requests, longest first, in batches."""
    order = sorted(range(len(requests)), key=lambda row: -len(requests[row].tokens))
    return [order[start : start + size] for start in range(0, len(order), size)]
