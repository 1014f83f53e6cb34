"""Metrics as JSON lines: one object a record, readable by anything."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np

from zaya_jax.errors import mistake


class MetricsWriter:
    """Appends records to a `.jsonl` file; a context manager.

    A record is on disk (in the system's hands) when `write` returns, so that a killed run keeps what it measured.
    Scalars and arrays become numbers and nested lists; NaN and infinities become null, which is what JSON has.

    Args:
        path: the file; its directory is made if missing, an older file is replaced.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: pathlib.Path | str):
        self.path = pathlib.Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise mistake("cannot be written", where=self.path, found=error.strerror or error) from error

    def write(self, **values: Any) -> None:
        """Appends one record."""
        record = {name: _plain(value) for name, value in values.items()}
        try:
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise mistake("cannot be written", where=self.path, found=error.strerror or error) from error

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_metrics(path: pathlib.Path | str) -> list[dict[str, Any]]:
    """The records of a metrics file, in order; a last line that was cut off while it was written is left out.

    Raises:
        UserError: the file cannot be read, or a line is not a JSON object.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise mistake("cannot be read", where=path, expected="a metrics.jsonl", found=error) from error
    lines = text.split("\n")[:-1]  # every whole record ends in a newline
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise mistake("is not JSON", where=where, found=error.msg) from None
    if not isinstance(record, dict):
        raise mistake("is not a record", where=where, expected="{...}", found=type(record).__name__)
    return record


def _plain(value: Any) -> Any:
    if hasattr(value, "dtype"):
        array = np.asarray(value)
        value = (array if array.dtype.kind in "iub" else array.astype(np.float64)).tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
