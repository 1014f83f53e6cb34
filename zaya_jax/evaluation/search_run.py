"""Searching problems with a checkpoint: the model, the engine, the records, what was found in the end."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.checkpoint import open_checkpoint, resolve
from zaya_jax.environments.environment import Problem
from zaya_jax.evaluation.grades import Grade, grade, grades_path, write_grades
from zaya_jax.evaluation.samples import SINGLE, Sample
from zaya_jax.evaluation.search_records import (
    CANDIDATES,
    FINALS,
    PROBLEMS,
    CandidateWriter,
    Row,
    candidate_row,
    claim,
    known,
    read_reused,
    read_rows,
    rewrite,
)
from zaya_jax.loading import load
from zaya_jax.report.progress import Progress
from zaya_jax.sampling.delethink import Chains, Delethink
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.markovian_rsa import Question, Search, Settings, check_room
from zaya_jax.sampling.rsa_run import bill, run_searches
from zaya_jax.text.aggregation import cut_prompts, load_wording
from zaya_jax.text.tokenizer import Tokenizer, require_tokenizer

WORDINGS = {"integer": "math", "latex": "math", "choice": "choice", "code": "code"}  # the others are "general"
SAMPLES = "samples.jsonl"

AnySettings = Settings | Delethink


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


def search_problems(
    machine: Machine,
    problems: Sequence[Problem],
    settings: AnySettings,
    directory: pathlib.Path,
    *,
    method: str,
    benchmark: str,
    wording: str | None = None,
    workers: int = 2,
    sandbox: Any = None,
) -> tuple[list[Sample], list[Grade]]:
    """Searches every problem, writes the records of `search_records` and grades what was found.

    An interrupted run goes on where it was. What is wrong with a problem shows before any weight is read.

    Args:
        wording: of the aggregation prompts, a kind or a file (`text.aggregation`); None goes by the problem's kind.

    Raises:
        UserError: a problem is longer than the context, the directory is of another run, a file is not right.
    """
    opened = open_checkpoint(resolve(machine.checkpoint))
    tokenizer = require_tokenizer(opened.directory)
    context = min(machine.context or opened.config.max_position_embeddings, opened.config.max_position_embeddings)
    count = settings.c if isinstance(settings, Settings) else 1
    questions = [make_question(tokenizer, problem, count, wording, settings) for problem in problems]
    searches = [make_search(question, settings, context) for question in questions]
    claim(directory, _recorded(machine, settings, method, benchmark, wording))
    rows = read_rows(directory)
    _draw(machine, tokenizer, searches, rows, directory, _room(questions, settings))
    return conclude(problems, searches, tokenizer, settings, directory, method, benchmark, workers, sandbox)


def make_question(
    tokenizer: Tokenizer, problem: Problem, count: int, wording: str | None, settings: AnySettings
) -> Question:
    """A problem's prompts in tokens, with this many attempts in those of aggregation."""
    chosen = load_wording(wording_of(problem, wording))
    marks = (tokenizer.think_start_id, tokenizer.think_end_id)
    pieces = cut_prompts(tokenizer, problem.prompt, chosen, count)
    return Question(problem.id, pieces, tuple(tokenizer.stop_ids), None if None in marks else marks)


def wording_of(problem: Problem, wording: str | None) -> str:
    """The aggregation prompts that are asked for, or those of the problem's kind."""
    return wording or WORDINGS.get(problem.hidden["kind"], "general")


def make_search(question: Question, settings: AnySettings, context: int) -> Search | Chains:
    """The search of one problem."""
    return (Search if isinstance(settings, Settings) else Chains)(question, settings, context)


def _room(questions: Sequence[Question], settings: AnySettings) -> int:
    """The most tokens that any request needs room for."""
    if isinstance(settings, Delethink):
        return max(len(question.pieces.direct) for question in questions) + settings.head + settings.chunk
    rooms = [check_room(question, settings, 2**30) for question in questions]
    probes = settings.beta + 2 + settings.answer_budget if settings.probe_answers else 0
    return max(rooms) + probes


def _recorded(machine: Machine, settings: AnySettings, method: str, benchmark: str, wording: str | None):
    """What makes two runs the same run, as settings.json has it."""
    values = dataclasses.asdict(settings)
    sampling = values.pop("sampling")
    if "carry" in values:
        values["compaction"] = values.pop("carry")
    if isinstance(settings, Delethink):
        values = {"t": settings.chunks - 1, "c": 1, **values}
    own = {"checkpoint": machine.checkpoint, "dtype": machine.dtype, "wording": wording}
    return {"method": method, "benchmark": benchmark, **values, **sampling, **own}


def _draw(machine: Machine, tokenizer: Tokenizer, searches, rows: Sequence[Row], directory, room: int) -> None:
    """Draws what is not known yet."""
    expected = sum(_expected(search) for search in searches)
    found = known(rows)
    if all(_complete(search, found) for search in searches):
        return
    model, variables, _ = load(machine.checkpoint, dtype=machine.dtype)
    engine = Engine(model, variables, slots=machine.slots, capacity=room, chunk=machine.chunk)
    start, done = time.monotonic(), len(rows)
    last = searches[0].settings.t if isinstance(searches[0], Search) else searches[0].rounds
    with CandidateWriter(directory, last) as writer, Progress("search", expected, "candidates") as progress:
        for search, candidate in run_searches(engine, searches, found):
            row = candidate_row(tokenizer, search.question, candidate)
            writer.write(row, candidate.completion.known_tokens)
            done += 1
            rate = engine.stats.decoded_tokens / max(time.monotonic() - start, 1e-9)
            progress.show(done, tokens=engine.stats.decoded_tokens, tokens_per_s=rate)


def _expected(search: Search | Chains) -> int:
    """The most candidates that a search has."""
    settings = search.settings
    return settings.generations + settings.final_call if isinstance(search, Search) else settings.n * settings.chunks


def _complete(search, found: Mapping) -> bool:
    """Whether all of a search is known already; it is then as if it had been run."""
    return not search.begin(found.get(search.question.id))


def conclude(
    problems, searches, tokenizer, settings: AnySettings, directory, method: str, benchmark: str, workers: int, sandbox
) -> tuple[list[Sample], list[Grade]]:
    """Grades every answer, writes what was found, and gives the samples of the last round and their grades."""
    rows = _ordered(problems, read_rows(directory))
    known_rows = known(list(rows.values()), read_reused(directory))
    for search in searches:
        search.begin(known_rows.get(search.question.id))
    asked = {problem.id for problem in problems}
    answers = _answers(benchmark, [row for row in rows.values() if row["problem"] in asked])
    grades = {one.key: one for one in grade(problems, list(answers.values()), workers, sandbox)}
    _mark(rows, answers, grades)
    finals = [row for row in rows.values() if _is_final(settings, row)]
    rewrite(directory / CANDIDATES, [row for row in rows.values() if not _is_final(settings, row)])
    if finals:
        rewrite(directory / FINALS, finals)
    samples = _samples(problems, searches, settings, rows, method, benchmark)
    by_place = {(one.problem, one.index): one for one in grade(problems, samples, workers, sandbox)}
    ordered = [by_place[sample.problem, sample.index] for sample in samples]
    found = [_problem(*pair, settings, rows, by_place) for pair in zip(problems, searches)]
    rewrite(directory / PROBLEMS, found)
    rewrite(directory / SAMPLES, [dataclasses.asdict(sample) for sample in samples])
    write_grades(grades_path(directory / SAMPLES), ordered)
    return samples, ordered


def _ordered(problems: Sequence[Problem], rows: Sequence[Row]) -> dict[tuple[str, int, int], Row]:
    """Rows by problem, round and index, in this order: not that in which they came, which differs after a restart.

    Those of other problems, of a run with a larger `limit`, stay behind them.
    """
    order = {problem.id: place for place, problem in enumerate(problems)}
    by_place = {(row["problem"], row["round"], row["index"]): row for row in rows}
    return dict(sorted(by_place.items(), key=lambda item: (order.get(item[0][0], len(order)), *item[0])))


def _is_final(settings: AnySettings, row: Row) -> bool:
    return isinstance(settings, Settings) and row["round"] > settings.t


def _answers(benchmark: str, rows: Sequence[Row]) -> dict[tuple, Sample]:
    """What may hold an answer, as samples to be graded, by problem, round, index and whether it is a probe."""
    out: dict[tuple, Sample] = {}
    for place, row in enumerate(rows):
        for probe, drawn in ((False, row), (True, row["probe"])):
            if drawn is not None:
                key, text = (row["problem"], row["round"], row["index"], probe), drawn["response"]
                number = 2 * place + probe
                out[key] = Sample(benchmark, row["problem"], number, "candidate", 0, text, drawn["finish"], 0, 0)
    return out


def _mark(rows: Mapping[tuple, Row], answers: Mapping[tuple, Sample], grades: Mapping) -> None:
    """Writes what graders say into candidates and their probes. No answer is neither right nor wrong."""
    for (*place, probe), sample in answers.items():
        one, row = grades[sample.key], rows[tuple(place)]
        target = row["probe"] if probe else row
        target["extracted"] = one.answer
        target["correct"] = one.correct if one.answer is not None else None


def _samples(problems, searches, settings: AnySettings, rows: Mapping, method: str, benchmark: str) -> list[Sample]:
    """The candidates of the last round, each with an even share of what its search has drawn; a chain is one sample.

    Single answers have none of the settings of Markovian RSA: tables would take them for a population.
    """
    out = []
    for problem, search in zip(problems, searches):
        drawn = [one.generated for one in bill(search)]
        options = {key: problem.meta[key] for key in ("choices_seed",) if key in problem.meta}
        for index in range(settings.n):
            round = settings.t if isinstance(settings, Settings) else _last_chunk(search, index)
            row = rows[search.question.id, round, index]
            if isinstance(settings, Settings):
                text, generated = row["response"], -(-sum(drawn[: settings.t + 1]) // settings.n)
                meta = {"T": settings.t, "N": settings.n, "C": settings.c, "beta": settings.beta, "tau": settings.tau}
                if method == SINGLE:
                    generated, meta = row["tokens"], {"thinking_budget": settings.beta}
            else:
                chunks = [rows[search.question.id, chunk, index] for chunk in range(round + 1)]
                text, generated = _joined(chunks), sum(chunk["tokens"] for chunk in chunks)
                meta = {"chunk": settings.chunk, "chunks": round + 1, "carry": settings.carry, "head": settings.head}
            behind = max(row["tokens"] - row["think_end"] - 1, 0) if row["think_end"] >= 0 else 0
            place = (search.question.id, index, method, settings.seed)
            rest = (text, row["finish"], generated, behind, {**meta, **options, "rounds": drawn})
            out.append(Sample(benchmark, *place, *rest))
    return out


def _last_chunk(chains: Chains, index: int) -> int:
    return max(round for round, other in chains.candidates if other == index)


def _joined(chunks: Sequence[Row]) -> str:
    """A chain's text. Every chunk after the first goes on inside whatever the one before has left open."""
    first, *later = [chunk["response"] for chunk in chunks]
    return first + "".join(text.removeprefix("<think>") for text in later)


def _problem(problem: Problem, search, settings: AnySettings, rows: Mapping, grades: Mapping) -> dict[str, Any]:
    """What was found for a problem, as problems.jsonl has it."""
    last = [grades[problem.id, index] for index in range(settings.n)]
    return {
        "problem": problem.id,
        "prompt": problem.prompt,
        "gold": str(problem.hidden["answer"]) if "answer" in problem.hidden else None,
        "mean": sum(one.correct for one in last) / len(last),
        "majority": majority(last),
        "final": _final(problem, settings, rows),
        "rounds": [dataclasses.asdict(one) for one in bill(search)],
    }


def majority(grades: Sequence[Grade]) -> dict[str, Any] | None:
    """The answer that most candidates give, equivalent ones taken together; of several, that of the first candidate.
    None if there is nothing to vote with."""
    votes = collections.Counter(one.cluster for one in grades if one.cluster is not None)
    if not votes:
        return None
    most = max(votes.values())
    winner = next(one for one in grades if votes.get(one.cluster) == most)
    return {"answer": winner.answer, "votes": most, "correct": winner.correct}


def _final(problem: Problem, settings: AnySettings, rows: Mapping) -> dict[str, Any] | None:
    if not isinstance(settings, Settings) or not settings.final_call:
        return None
    row = rows[problem.id, settings.t + 1, 0]
    return {"answer": row["extracted"], "correct": bool(row["correct"])}
