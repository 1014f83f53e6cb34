"""Reading rollouts.jsonl: filters, tables by environment, answers as text and as a page."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zaya_jax.environments.rows import read_rows
from zaya_jax.errors import mistake
from zaya_jax.report.html import Html, details, page, section, table, tag, write_page
from zaya_jax.rl.rollout_log import FILE, VERSION

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which answers.

    Attributes:
        steps: first and last; None for all.
        environment: of this one; empty for all.
        verdict: "right", "wrong", "none" (the verifier failed), or "any".
        taught: True for those that the learner got, False for the others, None for both.
        contains: a piece of the text.
    """

    steps: tuple[int, int] | None = None
    environment: str = ""
    verdict: str = "any"
    taught: bool | None = None
    contains: str = ""

    def has(self, row: Row) -> bool:
        """Whether an answer is one of them."""
        verdict = {True: "right", False: "wrong", None: "none"}[row["correct"]]
        return (
            (self.steps is None or self.steps[0] <= row["step"] <= self.steps[1])
            and (not self.environment or row["environment"] == self.environment)
            and self.verdict in ("any", verdict)
            and (self.taught is None or self.taught == (row["dropped"] is None))
            and self.contains in row["text"]
        )


def parse_steps(given: str) -> tuple[int, int] | None:
    """Steps as "5", "5-9", or "" for all, as the first and the last of them.

    Raises:
        UserError: it is none of these.
    """
    if not given:
        return None
    first, dash, last = given.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()) or int(last) < int(first):
        raise mistake("not steps", where="--steps", expected="5 or 5-9", found=repr(given))
    return int(first), int(last)


def read(workdir: pathlib.Path | str, wanted: Wanted) -> Iterator[Row]:
    """The answers of a run that are wanted, in the order in which they were scored.

    Raises:
        UserError: there is no such file, or a line is not of it.
    """
    path = pathlib.Path(workdir) / FILE
    later = _dropped_later(path)
    for number, (where, row) in enumerate(read_rows(path)):
        if row.get("schema") != VERSION:
            raise mistake("not an answer of a run", where=where, expected=f'"schema": {VERSION}')
        if _is_later(row):
            continue
        if row["dropped"] is None:
            row["dropped"] = next((reason for line, reason in later.get(row["group"], ()) if line > number), None)
        if wanted.has(row):
            yield row


def _dropped_later(path: pathlib.Path) -> dict[int, list[tuple[int, str]]]:
    """By group, the lines that say why the learner never got what stands before them."""
    found: dict[int, list[tuple[int, str]]] = {}
    for number, (_, row) in enumerate(read_rows(path)):
        if _is_later(row):
            found.setdefault(row["group"], []).append((number, row["dropped"]))
    return found


def _is_later(row: Row) -> bool:
    return "place" not in row and {"group", "dropped"} <= row.keys()


def summary(rows: Iterable[Row]) -> list[list[str]]:
    """By environment and difficulty: answers, right ones, cut ones, mean length, share that the learner got."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["environment"], row["difficulty"]), []).append(row)
    return [[*map(str, place), *_figures(found)] for place, found in sorted(groups.items())]


HEAD = ("environment", "difficulty", "answers", "right", "cut", "length", "taught")


def _figures(rows: Sequence[Row]) -> list[str]:
    def share(name: str, test=bool) -> str:
        return f"{sum(test(row[name]) for row in rows) / len(rows):.1%}"

    length = sum(len(row["token_ids"]) for row in rows) / len(rows)
    taught = share("dropped", lambda reason: reason is None)
    return [str(len(rows)), share("correct"), share("truncated"), f"{length:.1f}", taught]


def compared(a: Sequence[list[str]], b: Sequence[list[str]]) -> list[list[str]]:
    """Two summaries side by side, "first / second" in every cell."""
    by_place = [{tuple(line[:2]): line[2:] for line in lines} for lines in (a, b)]
    none = ["-"] * (len(HEAD) - 2)
    return [
        [*place, *(f"{x} / {y}" for x, y in zip(*(one.get(place, none) for one in by_place), strict=True))]
        for place in sorted(by_place[0].keys() | by_place[1].keys())
    ]


def columns(lines: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    whole = [HEAD, *lines]
    widths = [max(len(line[i]) for line in whole) for i in range(len(HEAD))]
    shown = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in whole)
    return "\n".join(line.rstrip() for line in shown)


def text_of(row: Row) -> str:
    """An answer for a terminal."""
    return f"{_title(row)}\n{row['prompt']}\n{row['text']}\n"


def _title(row: Row) -> str:
    verdict = {True: "right", False: "wrong", None: "no verdict"}[row["correct"]]
    parts = [f"step {row['step']}", f"{row['problem']}#{row['place']}", verdict, f"advantage {row['advantage']:+.2f}"]
    versions = sorted(set(row["versions"]))
    parts.append(f"weights {versions[0]}" if len(versions) == 1 else f"weights {versions[0]} to {versions[-1]}")
    return ", ".join([*parts, *([row["error"]] if row["error"] else []), *([row["dropped"]] if row["dropped"] else [])])


def write_rollouts(path: pathlib.Path | str, title: str, lines: Sequence[list[str]], rows: Sequence[Row]) -> None:
    """The page of a run: the table, and answers behind their titles; one file, opens from disk."""
    parts = [section("By environment and difficulty", table(HEAD, lines, kind="numbers"))]
    parts.append(section("Answers", *map(_shown, rows)))
    write_page(path, page(title, parts))


def _shown(row: Row) -> Html:
    return details(_title(row), tag("pre", row["prompt"]), tag("pre", row["text"]))
