"""Metrics as JSON lines: one object a record, readable by anything."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from zaya_jax.errors import mistake


class MetricsWriter:
    """Appends records to a `.jsonl` file; a context manager.

    A record is on disk (in the system's hands) when `write` returns, so that a killed run keeps what it measured.
    Scalars and arrays become numbers and nested lists; NaN and infinities become null, which is what JSON has.

    Args:
        path: the file; its directory is made if missing.
        resume_step: None replaces an older file. A step goes on with it: records of later steps, and a last line
            that was cut off while it was written, are taken out first, so that every step stands there once.
        resume_size: instead of a step, the `size` that the file had: what stands behind it is taken out.

    Raises:
        UserError: the file cannot be written, or the older one is damaged (it is left as it is).
    """

    def __init__(self, path: pathlib.Path | str, resume_step: int | None = None, resume_size: int | None = None):
        self.path = pathlib.Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            resumes = resume_step is not None or resume_size is not None
            if resume_size is not None and self.path.exists():
                os.truncate(self.path, min(resume_size, self.path.stat().st_size))
            elif resume_step is not None and self.path.exists():
                _cut_back(self.path, resume_step)
            self._file = self.path.open("a" if resumes else "w", encoding="utf-8")
        except OSError as error:
            raise mistake("cannot be written", where=self.path, found=error.strerror or error) from error

    def write(self, **values: Any) -> None:
        """Appends one record."""
        try:
            self._file.write(json.dumps(plain(values), allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise mistake("cannot be written", where=self.path, found=error.strerror or error) from error

    @property
    def size(self) -> int:
        """Bytes of all records so far."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Ends writing; nothing is lost without it."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(path: pathlib.Path | str) -> list[dict[str, Any]]:
    """The records of a metrics file, in order; a last line that was cut off while it was written is left out.

    Raises:
        UserError: the file cannot be read, or a line is not a JSON object.
    """
    return [record for _, _, record in each_record(path)]


def each_record(path: pathlib.Path | str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, text and record of each whole line of a metrics file, which may be larger than memory.

    Raises:
        UserError: as `read_metrics`.
    """
    path = pathlib.Path(path)
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.endswith("\n"):  # every whole record does
                    yield number, line, _record(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise mistake("cannot be read", where=path, expected="a metrics.jsonl", found=error) from error


def _cut_back(path: pathlib.Path, step: int) -> None:
    """Takes the records of later steps out. The file is the old one or the new one, whenever this is stopped."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line for _, line, record in each_record(path) if not _is_later(record, step))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _is_later(record: dict[str, Any], step: int) -> bool:
    own = record.get("step")
    return isinstance(own, int | float) and own > step


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise mistake("is not JSON", where=where, found=error.msg) from None
    if not isinstance(record, dict):
        raise mistake("is not a record", where=where, expected="{...}", found=type(record).__name__)
    return record


def plain(value: Any) -> Any:
    """Numbers, arrays and what holds them as JSON has them: lists, and null for NaN and infinities."""
    if hasattr(value, "dtype"):
        array = np.asarray(value)
        value = (array if array.dtype.kind in "iub" else array.astype(np.float64)).tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
