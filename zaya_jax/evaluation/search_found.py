"""What a search has found: its candidates graded and marked, the samples of its last round, and the files of them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.environment import Problem
from zaya_jax.evaluation.grades import Grade, grade, grades_path, write_grades
from zaya_jax.evaluation.samples import SINGLE, Sample
from zaya_jax.evaluation.search_records import (
    CANDIDATES,
    FINALS,
    PROBLEMS,
    SAMPLES,
    Place,
    Row,
    known,
    read_reused,
    read_rows,
    rewrite,
)
from zaya_jax.evaluation.search_task import Task
from zaya_jax.sampling.markovian_rsa import Settings
from zaya_jax.sampling.rsa_run import Bill, bill


@dataclasses.dataclass(frozen=True)
class Found:
    """The candidates of a finished benchmark.

    Attributes:
        task: what was searched.
        rows: the recorded lines, by problem, round and index, in this order. Those of problems that were not asked
            for this time stand behind the others.
        bills: what each round has cost, by problem.
    """

    task: Task
    rows: Mapping[Place, Row]
    bills: Mapping[str, Sequence[Bill]]


def conclude(task: Task, workers: int = 2, sandbox: Any = None) -> tuple[list[Sample], list[Grade]]:
    """Grades every answer, writes what was found, and gives the samples of the last round and their grades.

    Raises:
        UserError: a recorded candidate is of a problem that has changed, or there is no sandbox to run code in.
    """
    found = read_found(task)
    mark_candidates(found, workers, sandbox)
    samples = make_samples(found)
    grades = grade(task.problems, samples, workers, sandbox)
    write_found(found, samples, grades)
    return samples, grades


def read_found(task: Task) -> Found:
    """All that is recorded. Bills are made of one search at a time, for each holds all of its prompts."""
    rows = _ordered(task.problems, read_rows(task.directory, task.digests))
    there, bills = known(list(rows.values()), read_reused(task.directory)), {}
    for question in task.questions:
        search = task.search(question)
        search.begin(there.get(question.id))
        bills[question.id] = bill(search)
    return Found(task, rows, bills)


def _ordered(problems: Sequence[Problem], rows: Sequence[Row]) -> dict[Place, Row]:
    """Rows by place, in an order that is not that in which they came, for this differs after a restart."""
    order = {problem.id: place for place, problem in enumerate(problems)}
    for row in rows:
        order.setdefault(row["problem"], len(order))
    by_place = {(row["problem"], row["round"], row["index"]): row for row in rows}
    return dict(sorted(by_place.items(), key=lambda item: (order[item[0][0]], *item[0][1:])))


def mark_candidates(found: Found, workers: int = 2, sandbox: Any = None) -> None:
    """Writes what graders say into candidates and their probes. No answer is neither right nor wrong."""
    answers = _answers(found)
    drawn = {sample.key: row for sample, row in answers}
    for one in grade(found.task.problems, [sample for sample, _ in answers], workers, sandbox):
        row = drawn[one.key]
        row["extracted"] = one.answer
        row["correct"] = one.correct if one.answer is not None else None


def _answers(found: Found) -> list[tuple[Sample, Row]]:
    """What may hold an answer, candidates and probes, each as a sample to be graded and the line it stands in."""
    asked, out = found.task.digests, []
    for place, row in enumerate(row for (name, *_), row in found.rows.items() if name in asked):
        for probe, drawn in enumerate((row, row["probe"])):
            if drawn is not None:
                key = (row["problem"], 2 * place + probe, "candidate", 0)
                out.append((Sample(found.task.benchmark, *key, drawn["response"], drawn["finish"], 0, 0), drawn))
    return out


def make_samples(found: Found) -> list[Sample]:
    """The candidates of the last round, each with an even share of what its search has drawn; a chain is one sample."""
    make = _candidate_sample if isinstance(found.task.settings, Settings) else _chain_sample
    return [make(found, problem, index) for problem in found.task.problems for index in range(found.task.settings.n)]


def _candidate_sample(found: Found, problem: Problem, index: int) -> Sample:
    """Single answers have none of the settings of Markovian RSA: tables would take them for a population."""
    settings = found.task.settings
    row = found.rows[problem.id, settings.t, index]
    if found.task.method == SINGLE:
        return _sample(found, problem, row, row["response"], row["tokens"], {"thinking_budget": settings.beta})
    drawn = sum(one.generated for one in found.bills[problem.id][: settings.t + 1])
    meta = {"T": settings.t, "N": settings.n, "C": settings.c, "beta": settings.beta, "tau": settings.tau}
    return _sample(found, problem, row, row["response"], -(-drawn // settings.n), meta)


def _chain_sample(found: Found, problem: Problem, index: int) -> Sample:
    settings, places = found.task.settings, [(problem.id, chunk, index) for chunk in range(found.task.settings.chunks)]
    chunks = [found.rows[place] for place in places if place in found.rows]
    meta = {"chunk": settings.chunk, "chunks": len(chunks), "carry": settings.carry, "head": settings.head}
    return _sample(found, problem, chunks[-1], _joined(chunks), sum(chunk["tokens"] for chunk in chunks), meta)


def _joined(chunks: Sequence[Row]) -> str:
    """A chain's text. Every chunk after the first goes on inside whatever the one before has left open."""
    first, *later = [chunk["response"] for chunk in chunks]
    return first + "".join(text.removeprefix("<think>") for text in later)


def _sample(found: Found, problem: Problem, last: Row, text: str, generated: int, meta: Mapping[str, Any]) -> Sample:
    """A sample that ends with a candidate."""
    task = found.task
    behind = max(last["tokens"] - last["think_end"] - 1, 0) if last["think_end"] >= 0 else 0
    options = {key: problem.meta[key] for key in ("choices_seed",) if key in problem.meta}
    rounds = [one.generated for one in found.bills[problem.id]]
    place = (problem.id, last["index"], task.method, task.settings.seed)
    return Sample(
        task.benchmark, *place, text, last["finish"], generated, behind, {**meta, **options, "rounds": rounds}
    )


def write_found(found: Found, samples: Sequence[Sample], grades: Sequence[Grade]) -> None:
    """Writes the files of a search anew; each stays what it was until the new one is whole."""
    task, directory = found.task, found.task.directory
    finals = [row for (_, round, _), row in found.rows.items() if round > task.last_round]
    rewrite(directory / CANDIDATES, [row for (_, round, _), row in found.rows.items() if round <= task.last_round])
    if finals:
        rewrite(directory / FINALS, finals)
    by_problem = collections.defaultdict(list)
    for one in grades:
        by_problem[one.problem].append(one)
    rewrite(directory / PROBLEMS, [_problem(found, problem, by_problem[problem.id]) for problem in task.problems])
    rewrite(directory / SAMPLES, [dataclasses.asdict(sample) for sample in samples])
    write_grades(grades_path(directory / SAMPLES), grades)


def _problem(found: Found, problem: Problem, last: Sequence[Grade]) -> dict[str, Any]:
    """What was found for a problem, as problems.jsonl has it."""
    return {
        "problem": problem.id,
        "prompt": problem.prompt,
        "gold": _gold(problem),
        "mean": sum(one.correct for one in last) / len(last),
        "majority": majority(last),
        "final": _final(found, problem),
        "rounds": [dataclasses.asdict(one) for one in found.bills[problem.id]],
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


def _final(found: Found, problem: Problem) -> dict[str, Any] | None:
    if not found.task.final_call:
        return None
    row = found.rows[problem.id, found.task.last_round + 1, 0]
    return {"answer": row["extracted"], "correct": bool(row["correct"])}


def _gold(problem: Problem) -> str | None:
    """The right answer, where there is one; a family's is in its own part."""
    own = problem.hidden.get("hidden", problem.hidden)
    return str(own["answer"]) if "answer" in own else None
