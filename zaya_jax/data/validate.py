"""Checks of data files before a run: what is in them, or what is wrong and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from zaya_jax.data.schema import VERSION, Chat, Example, Preference, Text
from zaya_jax.data.sources import RECORDS, SourceConfig, as_record, entries, parse, source_files
from zaya_jax.errors import UserError, mistake

MOST_MISTAKES = 10


class Report(NamedTuple):
    """What a check found.

    Attributes:
        source: what was checked.
        counts: of records, and of what is in them, by name.
        mistakes: "FILE, line N: ..." of the first ones, at most ten.
    """

    source: SourceConfig
    counts: Counter
    mistakes: tuple[str, ...]


def validate(source: SourceConfig, most: int = MOST_MISTAKES) -> Report:
    """Reads all records, or up to the `most`-th mistake.

    Raises:
        UserError: there is no file.
    """
    counts, mistakes = Counter(), []
    for result in _checked(source):
        if isinstance(result, str):
            mistakes.append(result)
        else:
            counts.update(_counts(result))
        if len(mistakes) == most:
            break
    if not counts and not mistakes:
        mistakes.append(str(mistake("holds nothing to train on", where=source.path)))
    return Report(source, counts, tuple(mistakes))


def describe(report: Report) -> str:
    """What a file without mistakes holds, in one line."""
    counts = [f"{count:,} {name}" for name, count in report.counts.items()]
    return f"{report.source.path}: no mistakes; kind {report.source.kind}, schema {VERSION}: " + ", ".join(counts)


def guess_kind(path: str) -> str:
    """The kind of a file, a directory or a glob: by the suffix of the first file and the keys of its first record.

    Raises:
        UserError: there is no file, or it cannot be read.
    """
    file = source_files(SourceConfig("data", "text", path))[0]
    if file.suffix not in RECORDS:
        return "text"
    first = next(entries(SourceConfig("data", "chat", str(file))))
    try:
        record = as_record(first)
    except UserError:  # the check will say so
        record = {}
    kinds = {"chosen": "preference", "messages": "chat"}
    plain = "jsonl" if file.suffix == ".jsonl" else "parquet"
    return next((kind for key, kind in kinds.items() if key in record), plain)


def _checked(source: SourceConfig) -> Iterator[Example | str]:
    """Each record, or what is wrong with it; what is wrong with a file ends it."""
    try:
        for entry in entries(source):
            try:
                yield parse(entry, source)
            except UserError as error:
                yield str(error)
    except UserError as error:
        yield str(error)


def _counts(example: Example) -> dict[str, int]:
    if isinstance(example, Text):
        return {"records": 1, "characters": len(example.text)}
    if isinstance(example, Preference):
        return {"records": 1, "messages of prompts and replies": _messages(example.chosen, example.rejected)}
    trained = sum(weight > 0 for weight in example.weights)
    return {"records": 1, "messages": _messages(example), "replies that count": trained}


def _messages(*chats: Chat) -> int:
    return sum(len(chat.messages) for chat in chats)
