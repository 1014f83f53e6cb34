"""Delethink (arXiv 2510.06557): one line of reasoning in chunks, each seeing the problem and the last one's end.

Chunk 0 has up to `chunk` tokens. Chunk k is prompted with the problem's prompt, the first `head` tokens of chunk 0 and
the last `carry` tokens before it (all of chunk k - 1 where carry is half a chunk, as in the paper), and has up to
`chunk - carry` more: no prompt and chunk is longer than the problem, the head and `chunk`. A text that ends stays
ended; after `chunks` of them it is cut off.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.sampling.markovian_rsa import Candidate, Known, Question, candidate_seed
from zaya_jax.sampling.request import Completion, Request, Sampling


@dataclasses.dataclass(frozen=True)
class Delethink:
    """What a chain does. The defaults are the paper's.

    Attributes:
        n: independent chains a problem.
        chunk, chunks: tokens of the first chunk, and how many chunks there may be.
        carry: tokens that go over into the next chunk.
        head: tokens of the first chunk that all later ones begin with.
        sampling: how tokens are drawn.
        seed: another one gives other chains.

    Raises:
        UserError: a value is out of its range.
    """

    n: int = 16
    chunk: int = 8192
    chunks: int = 5
    carry: int = 4096
    head: int = 100
    sampling: Sampling = dataclasses.field(default_factory=lambda: Sampling(temperature=0.6))
    seed: int = 0

    def __post_init__(self):
        for name, least in (("n", 1), ("chunk", 2), ("chunks", 1), ("carry", 1), ("head", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise mistake("out of range", where=name, expected=f"an integer of at least {least}", found=repr(value))
        if self.head + self.carry > self.chunk:
            expected, fix = f"head + carry at most chunk = {self.chunk}", "or tokens would be there twice"
            found = self.head + self.carry
            raise mistake("head and tail overlap", where="head", expected=expected, found=found, fix=fix)
        if self.carry >= self.chunk:
            expected, fix = f"less than chunk = {self.chunk}", "a chunk needs room for new tokens"
            raise mistake("nothing new fits into a chunk", where="carry", expected=expected, found=self.carry, fix=fix)

    @property
    def most_tokens(self) -> int:
        """The most tokens that a chain draws."""
        return self.chunk + (self.chunks - 1) * (self.chunk - self.carry)


class Chains:
    """The chains of one problem, with the interface of `markovian_rsa.Search`: a round is a chunk.

    Args of the constructor:
        context: the most tokens a prompt and what is drawn may have together.

    Raises:
        UserError: a chunk would not fit into the context.
    """

    def __init__(self, question: Question, settings: Delethink, context: int):
        self.question, self.settings = question, settings
        self.candidates: dict[tuple[int, int], Candidate] = {}
        self._open: dict[str, tuple[int, int, Request]] = {}
        needed = len(question.pieces.direct) + settings.chunk + (settings.head if settings.chunks > 1 else 0)
        if needed > context:
            where, expected = f"problem {question.id}", f"at most {context} tokens"
            found, fix = f"{needed} of prompt, head and chunk", "lower chunk, or shorten the problem"
            raise mistake("longer than the context", where=where, expected=expected, found=found, fix=fix)

    @property
    def rounds(self) -> int:
        """How many chunks there may be."""
        return self.settings.chunks

    @property
    def done(self) -> bool:
        """Whether every chain has ended."""
        return len(self.population(0)) == self.settings.n and not self._open

    def population(self, round: int) -> list[Candidate]:
        """The known chunks of a round, in the order of their chains; those that ended before have none."""
        return [candidate for (r, _), candidate in sorted(self.candidates.items()) if r == round]

    def begin(self, known: Known | None = None) -> list[Request]:
        """The first requests, or those that what is known leaves to ask."""
        self.candidates, self._open = {}, {}
        waiting, requests = [self._ask(0, index) for index in range(self.settings.n)], []
        while waiting:
            request = waiting.pop(0)
            completion, _ = (known or {}).get(self._open[request.id][:2], (None, None))
            if completion is None:
                requests.append(request)
            else:
                waiting += self._settle(request.id, completion)[1]
        return requests

    def take(self, completion: Completion) -> tuple[list[Candidate], list[Request]]:
        """Takes a chunk; returns it, and the request of the next one of its chain."""
        candidate, requests = self._settle(completion.id, completion)
        return [candidate], requests

    def text(self, index: int) -> np.ndarray:
        """All tokens of a chain, int32 [N]."""
        chunks = [candidate for (_, i), candidate in sorted(self.candidates.items()) if i == index]
        return np.concatenate([chunk.completion.tokens for chunk in chunks])

    def _settle(self, request_id: str, completion: Completion) -> tuple[Candidate, list[Request]]:
        round, index, request = self._open.pop(request_id)
        before = [self.candidates[round - 1, index].carried] if round else []
        carried = np.concatenate([*before, completion.tokens])[-self.settings.carry :]
        candidate = Candidate(round, index, (index,) if round else (), request, completion, carried)
        self.candidates[round, index] = candidate
        goes_on = completion.finish_reason == "length" and round + 1 < self.settings.chunks
        return candidate, [self._ask(round + 1, index)] if goes_on else []

    def _ask(self, round: int, index: int) -> Request:
        s, tokens = self.settings, self.question.pieces.direct
        if round:
            head = self.candidates[0, index].completion.tokens[: s.head]
            tokens = (*tokens, *head.tolist(), *self.candidates[round - 1, index].carried.tolist())
        request = Request(
            id=f"{self.question.id}/{round}/{index}",
            tokens=tokens,
            seed=candidate_seed(s.seed, self.question.id, round, index),
            sampling=s.sampling,
            max_new_tokens=s.chunk if round == 0 else s.chunk - s.carry,
            stop_ids=self.question.stop_ids,
            think_ids=self.question.think_ids,
            prefix=len(self.question.pieces.direct),
        )
        self._open[request.id] = (round, index, request)
        return request
