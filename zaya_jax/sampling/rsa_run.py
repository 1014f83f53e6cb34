"""Searches over an engine: many problems at a time, so that one that waits leaves no slot idle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from zaya_jax.sampling.markovian_rsa import Candidate, Known, Search
from zaya_jax.sampling.request import Delta, Request


class Answering(Protocol):
    """What answers requests: `engine.Engine`, or anything that behaves like it."""

    slots: int

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""

    def submit(self, request: Request) -> None:
        """Takes a request."""

    def step(self) -> list[Delta]:
        """Goes on a little; the deltas of finished requests hold their completions."""


@dataclasses.dataclass(frozen=True)
class Bill:
    """What a round has cost, in tokens.

    Attributes:
        round: 0 to T, or T + 1 for the final call.
        generated: drawn for its candidates: what the report counts.
        prefilled: of prompts, read.
        reused: of prompts, known already.
        carried: of all that prompts hold, tails of the round before.
        probed: drawn to look at what a candidate would have answered.
    """

    round: int
    generated: int = 0
    prefilled: int = 0
    reused: int = 0
    carried: int = 0
    probed: int = 0


def run_searches(
    engine: Answering, searches: Sequence[Search], known: Mapping[str, Known] | None = None
) -> Iterator[tuple[Search, Candidate]]:
    """Runs searches to their ends and yields every candidate as it becomes complete.

    Problems are begun in their order, the next one as soon as fewer requests wait than there are slots.

    Args:
        engine: best one without other requests: their deltas are lost.
        searches: of problems with different ids.
        known: completions of earlier, interrupted searches, by problem (`Search.begin`). They are not yielded.
    """
    queue, of_request = list(searches), {}

    def submit(search: Search, requests: list[Request]) -> None:
        for request in requests:
            of_request[request.id] = search
            engine.submit(request)

    while queue or of_request:
        while queue and (not of_request or engine.waiting < engine.slots):
            search = queue.pop(0)
            submit(search, search.begin((known or {}).get(search.question.id)))
        for delta in engine.step() if of_request else ():
            if delta.completion is not None and delta.id in of_request:
                search = of_request.pop(delta.id)
                complete, requests = search.take(delta.completion)
                submit(search, requests)
                yield from ((search, candidate) for candidate in complete)


def bill(search: Search) -> list[Bill]:
    """What each round of a search has cost so far."""
    return [_bill(search, round) for round in range(search.rounds) if search.population(round)]


def _bill(search: Search, round: int) -> Bill:
    candidates = search.population(round)
    probes = [candidate.probe for candidate in candidates if candidate.probe is not None]
    read = sum(len(c.request.tokens) for c in candidates)
    reused = sum(c.completion.known_tokens for c in candidates)
    return Bill(
        round,
        generated=sum(len(c.completion.tokens) for c in candidates),
        prefilled=read - reused,
        reused=reused,
        carried=sum(len(search.candidates[round - 1, parent].carried) for c in candidates for parent in c.parents),
        probed=sum(len(probe.tokens) for probe in probes),
    )
