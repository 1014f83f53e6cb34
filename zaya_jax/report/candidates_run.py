"""A run of Markovian RSA as its page needs it: read from disk, populations in order, answers told apart, totals."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zaya_jax.errors import UserError, mistake

Record = Mapping[str, Any]

CARRIED = "carried"
SPENT = ("generated", "prefilled", "reused", "carried", "probed")  # tokens of a round
_NUMBER, _TEXT, _TRUTH = ("a number", int, float), ("a text", str), ("true or false", bool)
_RECORD, _LIST = ("an object", dict), ("a list", list)
_ANY_ID = ("a text or a number", str, int, float)
# Fields that have to be of a kind if they are there; null stands for what is not known.
_SETTINGS = {"n": _NUMBER, "c": _NUMBER, "t": _NUMBER, "beta": _NUMBER, "tau": _NUMBER, "answer_budget": _NUMBER}
_PROBLEM = {"problem": _ANY_ID, "prompt": _TEXT, "gold": _TEXT, "mean": _NUMBER, "majority": _RECORD, "final": _RECORD,
            "rounds": _LIST}  # fmt: skip
_CANDIDATE = {"problem": _ANY_ID, "round": _NUMBER, "index": _NUMBER, "parents": _LIST, "prompt_tokens": _NUMBER,
              "tokens": _NUMBER, "thinking": _TEXT, "answer": _TEXT, "extracted": _TEXT, "correct": _TRUTH,
              "finish": _TEXT, "think_forced": _TRUTH, "logprob": _NUMBER, "tail": _TEXT, "probe": _RECORD}  # fmt: skip
_ROUND = dict.fromkeys(("round", *SPENT, "seconds"), _NUMBER)
_VERDICT = {"correct": _TRUTH, "votes": _NUMBER}
_MOST = 10_000  # candidates of a round, and rounds: beyond it the file is no run's


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem with its populations.

    Attributes:
        place: in the run, from 0.
        id: its name.
        record: what was found in the end; empty as long as it is worked on.
        rounds: [T+1][N] candidates; None for one that is not there.
        answers: told apart by how they are written, the most frequent of all rounds first.
    """

    place: int
    id: str
    record: Record
    rounds: Sequence[Sequence[Record | None]]
    answers: Sequence[str]

    def there(self, number: int) -> list[Record]:
        """The candidates of a round that are there."""
        return [candidate for candidate in self.rounds[number] if candidate is not None]

    def votes(self, number: int) -> collections.Counter[str | None]:
        """How often each answer was given in a round; None counts candidates without one."""
        return collections.Counter(answer_of(candidate) for candidate in self.there(number))

    def verdict(self, answer: str) -> bool | None:
        """Whether an answer was judged correct."""
        given = (candidate for number in range(len(self.rounds)) for candidate in self.there(number))
        judged = [candidate["correct"] for candidate in given
                  if answer_of(candidate) == answer and candidate.get("correct") is not None]  # fmt: skip
        return judged[0] if judged else None


def read_run(directory: pathlib.Path | str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads settings.json, problems.jsonl and candidates.jsonl of a run, which may still be going on.

    A last line that was cut off while it was written is left out; a run that has only begun has no lines yet.

    Raises:
        UserError: there are no settings, a file cannot be read, or a field is not what it should be; the line is named.
    """
    directory = pathlib.Path(directory)
    settings = _read_settings(directory / "settings.json")
    problems = list(_records(directory / "problems.jsonl", _check_problem))
    most = {"round": settings.get("t"), "index": settings["n"] - 1 if settings.get("n") else None}
    candidates = list(_records(directory / "candidates.jsonl", lambda r, where: _check_candidate(r, where, most)))
    return settings, problems, candidates


def arrange(settings: Record, problems: Sequence[Record], candidates: Sequence[Record]) -> list[Problem]:
    """Problems in order, each with its populations; of two records of one candidate the later counts."""
    records = {str(record["problem"]): record for record in problems}
    places: dict[str, dict[tuple[int, int], Record]] = {name: {} for name in records}
    for candidate in candidates:
        places.setdefault(str(candidate["problem"]), {})[candidate["round"], candidate["index"]] = candidate
    every = [place for found in places.values() for place in found]
    rounds = max([_whole(settings.get("t")), *(number for number, _ in every)]) + 1
    size = max([_whole(settings.get("n")), *(index + 1 for _, index in every)])
    return [_problem(place, name, records.get(name, {}), found, rounds, size)
            for place, (name, found) in enumerate(places.items())]  # fmt: skip


def answer_of(candidate: Record) -> str | None:
    """What a candidate answered, without white space around it; None for nothing."""
    return str(candidate.get("extracted") or "").strip() or None


def thinking_cut(candidate: Record) -> bool:
    """Whether the budget ended the reasoning: an answer was forced then, or everything ended there."""
    unfinished = candidate.get("finish") == "length" and candidate.get("answer") is None
    return bool(candidate.get("think_forced")) or unfinished


def letter(rank: int) -> str:
    """The name of an answer on the page: A to Z, AA, AB, ..."""
    return (letter(rank // 26 - 1) if rank >= 26 else "") + chr(ord("A") + rank % 26)


def mean(values: Sequence[float | None]) -> float:
    """Of those that are known; NaN if none is."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def spent(problems: Sequence[Problem]) -> dict[int, dict[str, float]]:
    """Tokens of each kind, and seconds, by round, over all problems whose record is there."""
    out: dict[int, dict[str, float]] = {}
    for problem in problems:
        for record in problem.record.get("rounds") or []:
            row = out.setdefault(record["round"], dict.fromkeys((*SPENT, "seconds"), 0))
            for name in row:
                row[name] += record.get(name) or 0
    return dict(sorted(out.items()))


def _problem(place: int, name: str, record: Record, found: Mapping, rounds: int, size: int) -> Problem:
    populations = [[found.get((number, index)) for index in range(size)] for number in range(rounds)]
    given = (answer_of(candidate) for population in populations for candidate in population if candidate)
    ranked = collections.Counter(answer for answer in given if answer is not None).most_common()
    return Problem(place, name, record, populations, [answer for answer, _ in ranked])


def _whole(value: Any) -> int:
    return int(value) if value is not None else 0


def _read_settings(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise mistake("has no settings.json", where=path.parent, fix="give the directory of a Markovian RSA run")
    try:
        settings = _record(path.read_bytes(), path)
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror or error) from error
    _check(settings, _SETTINGS, path)
    for name in ("n", "c", "t"):
        _check_count(settings, name, path, 0 if name == "t" else 1)
    return settings


def _records(path: pathlib.Path, check: Any) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):  # every whole record does
                    where = f"{path}, line {number}"
                    record = _record(line, where)
                    check(record, where)
                    yield record
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror or error) from error


def _record(line: bytes, where: object) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise mistake("is not JSON", where=where, found=getattr(error, "msg", error)) from None
    if not isinstance(record, dict):
        raise mistake("is not a record", where=where, expected="{...}", found=type(record).__name__)
    return record


def _check_problem(record: Record, where: str) -> None:
    _check(record, _PROBLEM, where, needed=("problem",))
    for name in ("majority", "final"):
        _check(record.get(name) or {}, _VERDICT, f"{where}, {name}")
    for row in record.get("rounds") or []:
        if not isinstance(row, dict):
            raise _not_a("rounds", "a list of objects", row, where)
        _check(row, _ROUND, f"{where}, rounds", needed=("round",))


def _check_candidate(record: Record, where: str, most: Mapping[str, int | None]) -> None:
    _check(record, _CANDIDATE, where, needed=("problem", "round", "index"))
    for name, highest in most.items():
        _check_count(record, name, where, 0, highest)
    _check(record.get("probe") or {}, _VERDICT, f"{where}, probe")
    for parent in record.get("parents") or []:
        _check_count({"parents": parent}, "parents", where, 0, most["index"])


def _check(record: Record, fields: Mapping[str, tuple], where: object, needed: Sequence[str] = ()) -> None:
    for name, (kind, *types) in fields.items():
        value = record.get(name)
        if value is None and name not in needed:
            continue
        # True is an int to Python, and to nobody else.
        if not isinstance(value, tuple(types)) or (isinstance(value, bool) and bool not in types):
            raise _not_a(name, kind, value, where)


def _check_count(record: Record, name: str, where: object, low: int, high: int | None = None) -> None:
    value, high = record.get(name), _MOST if high is None else high
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
        raise _not_a(name, f"a whole number from {low} to {high}", value, where)


def _not_a(name: str, kind: str, value: Any, where: object) -> UserError:
    return mistake(f"{name} is not {kind}", where=where, found="nothing" if value is None else repr(value)[:40])
