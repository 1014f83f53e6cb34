"""Sources of training data: which files, in which order, and the records in them, one at a time."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from zaya_jax.data import made_preferences, python_library, sums
from zaya_jax.data.schema import Example, Text, check_text, parse_chat, parse_preference, parse_text
from zaya_jax.errors import UserError, mistake

Path = pathlib.Path

KINDS = ("text", "jsonl", "chat", "preference", "parquet", "python_library", "sums", "made_preferences")
PAIRS = ("preference", "made_preferences")  # whose records are two ways to go on
RECORDS = (".jsonl", ".parquet")  # suffixes of files of records
_SUFFIXES = {"jsonl": RECORDS[:1], "parquet": RECORDS[1:]}  # of a directory's files; chat and preference take both
TOO_LONG = {
    "chat": ("trim", "drop", "error"),
    "sums": ("trim", "drop", "error"),
    "preference": ("drop", "error"),
    "made_preferences": ("drop", "error"),
}  # the first is the default
TOO_LONG_TEXT = ("split", "drop", "error")
_MADE = {"sums": sums.conversations, "made_preferences": made_preferences.pairs}  # on the spot, by part


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A source of training data.

    Attributes:
        name: what its examples are called by; letters, digits, "-" and "_".
        kind: "text" (every file is a document), "jsonl" or "parquet" (a text a record), "chat" and "preference"
            (conversations; jsonl or parquet), "python_library", "sums" and "made_preferences" (see these modules of
            `zaya_jax.data`).
        path: a file, a directory or a glob; for the last three the part: "train", "held_out".
        weight: share of the windows that come from here; the weights of all sources add up to 1.
        too_long: what happens to an example that is longer than the window. "split" (text; its default): pieces that
            fit; "trim" (chat; its default): reasoning is cut, never an answer (`data/trimming.py`); "drop"; "error".
        text_field: key of the text in a record of "jsonl" and "parquet".

    Raises:
        UserError: a value is impossible.
    """

    name: str
    kind: str
    path: str
    weight: float = 1.0
    too_long: str = ""
    text_field: str = "text"

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            expected = "letters, digits, '-' and '_'"
            raise mistake("not a name", where="source", expected=expected, found=repr(self.name))
        if self.kind not in KINDS:
            raise mistake("unknown kind", where=self.label, expected=" or ".join(KINDS), found=repr(self.kind))
        if not self.path:
            raise mistake("no path", where=self.label, expected="a file, a directory or a glob")
        possible = TOO_LONG.get(self.kind, TOO_LONG_TEXT)
        if self.too_long and self.too_long not in possible:
            expected = f"{' or '.join(possible)} for {self.kind}"
            raise mistake("impossible too_long", where=self.label, expected=expected, found=repr(self.too_long))
        object.__setattr__(self, "too_long", self.too_long or possible[0])

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"source {self.name!r}"


class Entry(NamedTuple):
    """A record before anything is known about it.

    Attributes:
        where: for messages, "FILE, line N" or the like.
        raw: the bytes of a text or of a line of JSON, or the dict of a row.
    """

    where: str
    raw: bytes | dict[str, Any]


def read(source: SourceConfig) -> Iterator[tuple[str, Example]]:
    """Reads a source record by record, in an order that is the same everywhere.

    Yields:
        Where each record stands, and the record.

    Raises:
        UserError: there is no file, one cannot be read or is empty, or a record is not right ("FILE, line N: ...").
    """
    count = 0
    for entry in entries(source):
        count += 1
        yield entry.where, parse(entry, source)
    if not count:
        raise mistake("holds nothing to train on", where=source.path, expected="at least one character of text")


def entries(source: SourceConfig) -> Iterator[Entry]:
    """The records of a source as they are stored.

    Empty files among several texts (`__init__.py`) are passed over; any other empty file is a mistake.

    Raises:
        UserError: there is no file, or one cannot be read or is empty.
    """
    if source.kind == "python_library":
        for name, text in python_library.documents(source.path).items():
            yield Entry(name, text.encode())
        return
    if source.kind in _MADE:
        for name, record in _MADE[source.kind](source.path):
            yield Entry(name, record)
        return
    files = source_files(source)
    for file in files:
        found = False
        for entry in _file_entries(file, source.kind):
            found = True
            yield entry
        if not found and (source.kind != "text" or len(files) == 1):
            raise mistake("empty file", where=file, expected="at least one record of training data")


def parse(entry: Entry, source: SourceConfig) -> Example:
    """Decodes and checks a record.

    Raises:
        UserError: it is not UTF-8, not JSON, or not as `data/schema.py` wants it; the message says where.
    """
    if source.kind in ("text", "python_library"):
        return Text(check_text(_decode(entry.raw, entry.where, lines=True), entry.where))
    record = as_record(entry)
    try:
        if source.kind in ("chat", "sums"):
            return parse_chat(record)
        if source.kind in PAIRS:
            return parse_preference(record)
        return parse_text(record, source.text_field)
    except UserError as error:
        raise UserError(f"{entry.where}: {error}") from None


def as_record(entry: Entry) -> dict[str, Any]:
    """The JSON object of an entry. Raises a UserError if it is none."""
    return entry.raw if isinstance(entry.raw, dict) else _json(_decode(entry.raw, entry.where), entry.where)


def source_files(source: SourceConfig) -> tuple[Path, ...]:
    """The files of a source in the order of their names, byte by byte: the same on every machine.

    A directory gives all files below it that are not hidden and whose suffix is of the kind ("text": any).

    Raises:
        UserError: there is none.
    """
    path = Path(source.path).expanduser()
    if path.is_file():
        return (path,)
    suffixes = _SUFFIXES.get(source.kind, RECORDS)
    if path.is_dir():
        found = [Path(folder, name) for folder, names in _visible(path) for name in names]
        if source.kind != "text":
            found = [file for file in found if file.suffix in suffixes]
        expected = "files of text" if source.kind == "text" else f"files named *{' or *'.join(suffixes)}"
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True) if os.path.isfile(name)]
        expected = "a file, a directory or a glob that matches one"
    if not found:
        raise mistake("no file found", where=source.path, expected=expected)
    return tuple(sorted(found, key=lambda file: os.fsencode(file.as_posix())))


def _visible(directory: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield folder, [name for name in names if not name.startswith(".")]


def _file_entries(file: Path, kind: str) -> Iterator[Entry]:
    try:
        if kind == "text":
            content = file.read_bytes()
            yield from [Entry(str(file), content)] if content else []
        elif file.suffix == ".parquet" or kind == "parquet":
            yield from _rows(file)
        else:
            yield from _lines(file)
    except OSError as error:
        raise mistake("cannot be read", where=file, found=error.strerror or error) from None


def _lines(file: Path) -> Iterator[Entry]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield Entry(f"{file}, line {number}", line)


def _rows(file: Path) -> Iterator[Entry]:
    """Rows of a parquet file. A missing key of a message is a null there; the checks pass over nulls."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        fix = "run `pip install -e .[parquet]`, or convert the file to jsonl"
        raise mistake("parquet needs pyarrow, which is not installed", where=file, fix=fix) from None
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield Entry(f"{file}, row {number}", {key: item for key, item in row.items() if item is not None})
    except pyarrow.ArrowException as error:
        raise mistake("is not a parquet file", where=file, found=str(error)[:120], fix="download it again") from None


def _decode(raw: bytes, where: str, lines: bool = False) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if lines:  # of a whole file: say which one
            where = f"{where}, line {raw.count(10, 0, error.start) + 1}"
        raise mistake("is not UTF-8", where=where, found=f"byte 0x{raw[error.start]:02x}", fix="re-encode it") from None


def _json(line: str, where: str) -> dict[str, Any]:
    fix = "write one JSON object a line"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise mistake("is not JSON", where=where, found=f"{error.msg} at column {error.colno}", fix=fix) from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or integers of thousands of digits
        raise mistake("is not JSON", where=where, found=str(error)[:80], fix=fix) from None
    if not isinstance(record, dict):
        raise mistake("is not a JSON object", where=where, expected="{...}", found=type(record).__name__, fix=fix)
    return record
