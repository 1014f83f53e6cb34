"""Files of JSON objects, a line each: what every jsonl file of problems and samples is read with."""

from __future__ import annotations

import difflib
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zaya_jax.errors import mistake


def read_rows(path: pathlib.Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads a jsonl file; empty lines are passed over.

    Yields:
        Where each row stands ("FILE, line N") and the row.

    Raises:
        UserError: the file cannot be read or is empty, or a line is not a JSON object.
    """
    count = 0
    try:
        with pathlib.Path(path).expanduser().open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    count += 1
                    yield f"{path}, line {number}", parse_row(line, f"{path}, line {number}")
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror or error) from None
    if not count:
        raise mistake("is empty", where=path, expected="a JSON object a line")


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        UserError: it is none, it is not UTF-8, or it holds NaN or an infinity, which JSON does not have.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise mistake("is not UTF-8", where=where, found=f"byte {error.start} is not") from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} at column {error.colno}"
        raise mistake("is not JSON", where=where, found=found, fix="write one JSON object a line") from None
    except (RecursionError, ValueError) as error:
        raise mistake("is not JSON", where=where, found=str(error)[:80]) from None
    if not isinstance(row, dict):
        raise mistake("is not a JSON object", where=where, expected='{"...": ...}', found=type(row).__name__)
    return row


def check_keys(row: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuses keys that are not known, and names the nearest one that is."""
    known = tuple(known)
    for key in row:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            fix = f"did you mean {close[0]!r}?" if close else ""
            raise mistake(f"unknown key {key!r}", where=where, expected=f"one of {', '.join(known)}", fix=fix)


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text under a key.

    Raises:
        UserError: there is none, or it is blank.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        found = "nothing" if key not in row else repr(value)[:40]
        raise mistake(f"no {key!r}", where=where, expected="a text that is not empty", found=found)
    return value


def number_of(row: Mapping[str, Any], key: str, where: str) -> int:
    """The count under a key: a whole number from 0 up.

    Raises:
        UserError: there is none.
    """
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < math.inf:
        found = "nothing" if key not in row else repr(value)[:40]
        raise mistake(f"no {key!r}", where=where, expected="a whole number from 0 up", found=found)
    return value


def _no_constant(name: str):
    raise ValueError(f"{name}, which JSON does not have")
