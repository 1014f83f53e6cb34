"""Files of attempts at problems, which prompts of aggregation are made of: version 1 of the schema, a row a problem.

    {"schema": 1, "id": "addition/2/6", "environment": "addition", "difficulty": 2,
     "problem": {"id": ..., "prompt": ..., "hidden": {...}, "meta": {...}},
     "attempts": [{"text": "...", "tokens"?: [...], "finished"?: true, "right"?: false}, ...], "made"?: {...}}

`environment` is the specification (`environments.named`) that judges the problem. An attempt is the end of a line of
reasoning, cut to the tokens that a prompt may hold of it: its text and, where it was drawn with the tokenizer of the
policy that will read it, its token ids, which are then what is read. `made` says how, and is not read.

`experiments.make_attempts` writes such a file with a frozen checkpoint. Attempts of another model, or of anybody, are
rows of the same form. All problems have to be of part "train" (`environments.parts`).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from zaya_jax.environments.environment import Problem
from zaya_jax.environments.parts import part_of
from zaya_jax.environments.rows import check_keys, number_of, read_rows, text_of
from zaya_jax.errors import UserError, mistake
from zaya_jax.text.thinking import THINK_END, THINK_START

VERSION = 1
KIND = "attempts"  # of the specifications that such a file has: `environments.aggregation`
_KEYS = ("schema", "id", "environment", "difficulty", "problem", "attempts", "made")


@dataclasses.dataclass(frozen=True)
class Attempt:
    """The end of a line of reasoning.

    Attributes:
        text: it, without marks of reasoning; it may be empty.
        tokens: the same as it was drawn; None if that is not known, or of another tokenizer.
        finished: whether it came to its end rather than to that of a budget; None if nobody knows.
        right: whether the answer behind it is; None if nobody knows.
    """

    text: str
    tokens: tuple[int, ...] | None = None
    finished: bool | None = None
    right: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The record that `parse_attempt` reads."""
        known = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return known | ({} if self.tokens is None else {"tokens": list(self.tokens)})


@dataclasses.dataclass(frozen=True)
class Row:
    """A problem with attempts at it; see the head of this module."""

    id: str
    environment: str
    difficulty: int
    problem: Problem
    attempts: tuple[Attempt, ...]
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record that `parse` reads."""
        own = {"schema": VERSION, "id": self.id, "environment": self.environment, "difficulty": self.difficulty}
        attempts = [attempt.to_json() for attempt in self.attempts]
        return {**own, "problem": self.problem.to_json(), "attempts": attempts, "made": dict(self.made)}


def read_attempts(path: pathlib.Path | str) -> list[Row]:
    """The rows of a file, in its order.

    Raises:
        UserError: the file cannot be read or is empty, a row is not of this form or is there twice, or its problem is
            held out.
    """
    rows: dict[str, Row] = {}
    for where, record in read_rows(path):
        row = parse(record, where)
        if row.id in rows:
            raise mistake(f"id {row.id!r} is there twice", where=where, fix="take one of them out")
        rows[row.id] = row
    return list(rows.values())


def difficulties(path: pathlib.Path | str) -> tuple[int, ...]:
    """The difficulties that a file has, in ascending order. Raises as `read_attempts`."""
    return tuple(sorted({row.difficulty for row in read_attempts(path)}))


def parse(record: Mapping[str, Any], where: str) -> Row:
    """A row from its record.

    Raises:
        UserError: it is of another version, a field is missing, unknown or of another type, or the problem is held out.
    """
    if type(record.get("schema")) is not int or record["schema"] != VERSION:
        found = repr(record.get("schema"))[:40]
        raise mistake("unknown schema", where=where, expected=f'"schema": {VERSION}', found=found)
    check_keys(record, _KEYS, where)
    texts = {name: text_of(record, name, where) for name in ("id", "environment")}
    if texts["environment"].startswith(f"{KIND}:"):
        raise mistake("attempts at prompts with attempts", where=where, fix="give the problem's own environment")
    made = record.get("made", {})
    if not isinstance(made, Mapping):
        raise mistake("made is not an object", where=where, found=repr(made)[:40])
    difficulty, problem = number_of(record, "difficulty", where), _problem(record, where)
    return Row(**texts, difficulty=difficulty, problem=problem, attempts=tuple(_attempts(record, where)), made=made)


def parse_attempt(record: Any, where: str) -> Attempt:
    """An attempt from its record.

    Raises:
        UserError: a field is missing, unknown or of another type, or marks of reasoning stand in the text.
    """
    if not isinstance(record, Mapping):
        raise mistake("is not an attempt", where=where, expected='{"text": "..."}', found=repr(record)[:40])
    check_keys(record, ("text", "tokens", "finished", "right"), where)
    text, tokens = record.get("text"), record.get("tokens")
    if not isinstance(text, str):
        raise mistake("no 'text'", where=where, expected="a text, which may be empty", found=repr(text)[:40])
    if tokens is None and (THINK_START in text or THINK_END in text):
        fix = "give what stands between them, without the answer"
        raise mistake("marks of reasoning in an attempt", where=where, found=repr(text)[:40], fix=fix)
    flags = {name: record.get(name) for name in ("finished", "right")}
    for name, value in flags.items():
        if value is not None and not isinstance(value, bool):
            raise mistake(f"{name} is no flag", where=where, expected="true, false or none", found=repr(value)[:40])
    return Attempt(text, None if tokens is None else _ids(tokens, where), **flags)


def _problem(record: Mapping[str, Any], where: str) -> Problem:
    try:
        problem = Problem.from_json(record.get("problem"))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if part_of(problem.prompt) == "held_out":
        fix = "take the row out: what is looked at must not be learnt from"
        raise mistake("a held-out problem", where=where, found=repr(problem.id)[:60], fix=fix)
    return problem


def _attempts(record: Mapping[str, Any], where: str) -> Iterator[Attempt]:
    given = record.get("attempts")
    if not isinstance(given, list) or not given:
        raise mistake("no attempts", where=where, expected="a list of at least one", found=repr(given)[:40])
    for place, attempt in enumerate(given):
        yield parse_attempt(attempt, f"{where}, attempts[{place}]")


def _ids(tokens: Any, where: str) -> tuple[int, ...]:
    sound = isinstance(tokens, list) and all(type(token) is int and token >= 0 for token in tokens)
    if not sound:
        raise mistake("tokens are no ids", where=where, expected="a list of whole numbers", found=repr(tokens)[:40])
    return tuple(tokens)
