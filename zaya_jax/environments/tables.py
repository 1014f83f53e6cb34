"""Tables of rows from csv, json, jsonl or parquet files."""

from __future__ import annotations

import csv
import json
import pathlib
from typing import Any

from zaya_jax.environments.rows import read_rows
from zaya_jax.errors import mistake


def read_table(path: pathlib.Path | str) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a csv, json (a list of objects), jsonl or parquet file, each with where it stands.

    Raises:
        UserError: it cannot be read, is none of these, or is empty.
    """
    path = pathlib.Path(path).expanduser()
    readers = {".csv": _read_csv, ".json": _read_json, ".jsonl": read_rows, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise mistake("unknown kind of file", where=path, expected=", ".join(readers), found=path.suffix or "no suffix")
    try:
        rows = list(readers[path.suffix](path))
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror or error) from None
    if not rows:
        raise mistake("is empty", where=path, expected="at least one row")
    return rows


def parse_json(text: str | bytes, where: str, column: str) -> Any:
    """What a text of JSON says.

    Raises:
        UserError: it is none; `where` and `column` are named.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise mistake(f"{column} is not JSON", where=where, found=str(error)[:60]) from None


def _read_csv(path: pathlib.Path):
    csv.field_size_limit(1 << 24)  # a GPQA row holds whole explanations
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            for row in reader:
                yield f"{path}, line {reader.line_num}", {str(key): value for key, value in row.items()}
        except (csv.Error, UnicodeDecodeError) as error:
            raise mistake("is not a csv file in UTF-8", where=path, found=str(error)[:60]) from None


def _read_json(path: pathlib.Path):
    rows = parse_json(path.read_bytes(), str(path), "the file")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise mistake("is not a list of JSON objects", where=path, found=type(rows).__name__)
    return [(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]


def _read_parquet(path: pathlib.Path):
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        fix = "run `pip install -e .[parquet]`, or save it as jsonl"
        raise mistake("parquet needs pyarrow", where=path, found="it is not installed", fix=fix) from None
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise mistake("is not a parquet file", where=path, found=str(error)[:60]) from None
    return [(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]
