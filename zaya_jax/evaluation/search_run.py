"""Searching benchmarks with a checkpoint: one engine for all of them, every candidate recorded as it comes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.checkpoint import open_checkpoint, resolve
from zaya_jax.evaluation.grades import Grade
from zaya_jax.evaluation.samples import Sample
from zaya_jax.evaluation.search_found import conclude
from zaya_jax.evaluation.search_records import CandidateWriter, candidate_row, claim, known, read_rows
from zaya_jax.evaluation.search_task import Task, recorded, room
from zaya_jax.loading import load
from zaya_jax.report.progress import Progress
from zaya_jax.sampling.delethink import Chains
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.markovian_rsa import Candidate, Known, Question, Search
from zaya_jax.sampling.request import Completion, Delta
from zaya_jax.sampling.rsa_run import run_searches
from zaya_jax.text.tokenizer import Tokenizer, require_tokenizer

Place = tuple[int, int]  # round and index


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a search runs on; none of it changes what is drawn but for near-ties (`engine.Engine`).

    Attributes:
        checkpoint: a directory, or owner/name of the Hub.
        dtype: what the model is computed in.
        slots: candidates drawn together.
        chunk: tokens of a prompt read at a time.
        context: tokens that a prompt and what is drawn may have; None for the model's own limit.
    """

    checkpoint: str
    dtype: str = "bfloat16"
    slots: int = 16
    chunk: int = 256
    context: int | None = None


def open_machine(machine: Machine) -> tuple[Tokenizer, int]:
    """The tokenizer, and the most tokens of prompt and answer. No weight is read.

    Raises:
        UserError: the checkpoint is not one, or has no tokenizer.
    """
    opened = open_checkpoint(resolve(machine.checkpoint))
    limit = opened.config.max_position_embeddings
    return require_tokenizer(opened.directory), min(machine.context or limit, limit)


def search_all(
    machine: Machine, tasks: Sequence[Task], tokenizer: Tokenizer, workers: int = 2, sandbox: Any = None
) -> Iterator[tuple[list[Sample], list[Grade]]]:
    """Searches benchmarks one after the other, writes their records and grades what was found.

    Whatever is wrong with any of them shows before the first is searched. An interrupted run goes on where it was.
    Weights are read once, and only if a candidate is missing.

    Yields:
        The samples of each benchmark and their grades, once they are written.

    Raises:
        UserError: a problem is longer than the context or has changed, or a directory is of another run.
    """
    for task in tasks:
        for question in task.questions:
            task.search(question)  # that one is too long shows before there is any directory
    found = [_begin(machine, task) for task in tasks]
    # As much room as any task needs, whatever is left of it: the programs are the same when a run goes on.
    most, engine = max(map(room, tasks)), None
    for task in tasks:
        there = found.pop(0)
        if left := [question for question in task.questions if _unfinished(task, question, there)]:
            engine = engine or _make_engine(machine, most)
            _search_missing(engine, tokenizer, task, left, there)
        yield conclude(task, workers, sandbox)


def search_problems(
    machine: Machine, task: Task, tokenizer: Tokenizer, workers: int = 2, sandbox: Any = None
) -> tuple[list[Sample], list[Grade]]:
    """Searches one benchmark, as `search_all` does several."""
    return next(search_all(machine, [task], tokenizer, workers, sandbox))


def _begin(machine: Machine, task: Task) -> dict[str, Known]:
    """Makes a task's directory, or finds that it is its own, and gives what is known already."""
    claim(task.directory, recorded(task, machine.checkpoint, machine.dtype))
    return known(read_rows(task.directory, task.digests))


def _make_engine(machine: Machine, capacity: int) -> Engine:
    model, variables, _ = load(machine.checkpoint, dtype=machine.dtype)
    return Engine(model, variables, slots=machine.slots, capacity=capacity, chunk=machine.chunk)


def _unfinished(task: Task, question: Question, found: Mapping[str, Known]) -> bool:
    """Whether anything is left to ask of a problem."""
    there = found.get(question.id, {})
    return len(there) < task.most_candidates and bool(task.search(question).begin(there))  # chains may end earlier


def _search_missing(
    engine: Engine, tokenizer: Tokenizer, task: Task, left: Sequence[Question], found: dict[str, Known]
) -> None:
    """Searches problems, going on from what is known of them, and records every candidate as it comes."""
    expected = len(task.questions) * task.most_candidates
    done = sum(len(found.get(question.id, ())) for question in task.questions)
    start, before = time.monotonic(), engine.stats.decoded_tokens
    searches = [task.search(question) for question in left]
    files = CandidateWriter(task.directory, task.last_round, task.final_call)
    with files as writer, Progress("search", expected, "candidates") as progress:
        for search, candidate in run_searches(_Light(engine), searches, found):
            name = search.question.id
            row = candidate_row(tokenizer, search.question, candidate, task.digests[name])
            writer.write(row, candidate.completion.known_tokens)
            _forget(search, [*found.pop(name, ()), (candidate.round, candidate.index)])
            done, tokens = done + 1, engine.stats.decoded_tokens - before
            progress.show(done, tokens=tokens, tokens_per_s=tokens / max(time.monotonic() - start, 1e-9))


class _Light:
    """An engine whose answers have no routes: those of long prompts are many times their tokens, and of no use here."""

    def __init__(self, engine: Engine):
        self._engine, self.slots, self.submit = engine, engine.slots, engine.submit

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""
        return self._engine.waiting

    def step(self) -> list[Delta]:
        """Goes on a little."""
        return [
            delta if delta.completion is None else dataclasses.replace(delta, completion=_without(delta.completion))
            for delta in self._engine.step()
        ]


def _without(completion: Completion, **more: np.ndarray) -> Completion:
    """An answer without routes and versions of weights, and without what else is replaced by nothing."""
    routes, versions = np.zeros((0, 0), np.int8), np.zeros(0, np.int32)
    return dataclasses.replace(completion, routes_LT=routes, versions_T=versions, **more)


def _forget(search: Search | Chains, places: Iterable[Place]) -> None:
    """Keeps of recorded candidates what later rounds read, and of a finished search nothing: the files have it."""
    for place in search.candidates.keys() & set(places):
        search.candidates[place] = _tokens_alone(search.candidates[place])
    if search.done:
        search.candidates.clear()


def _tokens_alone(candidate: Candidate) -> Candidate:
    """A candidate without its prompt and log-probabilities."""
    nothing = np.zeros(0, np.float32)
    completion = _without(candidate.completion, logprobs_model=nothing, logprobs_sampling=nothing)
    request = dataclasses.replace(candidate.request, tokens=(), prefix=0)
    return dataclasses.replace(candidate, request=request, completion=completion, probe=None)
