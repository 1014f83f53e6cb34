"""The samples file: what a model answered, one JSON object a line, appended one by one or written whole.

    {"benchmark", "problem", "index", "method", "seed", "response", "finish_reason", "generated", "answer_tokens",
     "meta"}

A sampler that is killed leaves whole lines and perhaps one that is cut off, which is dropped when the file is read and
taken out when it is written to again. Grades stand in a file beside it (`zaya_jax.evaluation.grades`), so that they can
be made anew without sampling.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zaya_jax.environments.environment import Problem
from zaya_jax.environments.rows import check_keys, number_of, parse_row, text_of
from zaya_jax.errors import mistake

SINGLE = "single"  # the method of plain sampling: one reply, one answer
SETTINGS = ("T", "N", "C", "beta", "tau")  # of Markovian RSA, in a sample's meta

Key = tuple[str, int, str, int]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One answer of a model.

    Attributes:
        benchmark: name of the benchmark; that of its file, without `.jsonl`.
        problem: id of the problem.
        index: number of the sample, from 0, among those of its problem, method and seed.
        method: how it was made: "single", or what the sampler calls it.
        seed: of the run that made it.
        response: the whole text with its think marks. It begins with `<think>` where the prompt opened the reasoning.
        finish_reason: "stop", or "length" if a budget cut it off.
        generated: tokens generated for it over all rounds, those of its reasoning included.
        answer_tokens: how many of them are its final answer.
        meta: anything else, e.g. {"T": 2, "N": 16, "C": 4, "beta": 16384, "tau": 4096, "rounds": [9120, 8800, 9305]}.
    """

    benchmark: str
    problem: str
    index: int
    method: str
    seed: int
    response: str
    finish_reason: str
    generated: int
    answer_tokens: int
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What tells it from the other samples of its benchmark."""
        return self.problem, self.index, self.method, self.seed

    @property
    def truncated(self) -> bool:
        """Whether a budget cut it off."""
        return self.finish_reason == "length"


_FIELDS = tuple(field.name for field in dataclasses.fields(Sample))


class LineWriter:
    """Appends JSON objects to a file, a line each; a context manager. What `write` has taken is in the system's hands.

    Args:
        path: the file; its directory is made if missing. A last line that was cut off is taken out, with a warning.

    Raises:
        UserError: the file cannot be written, or another process is writing it.
    """

    def __init__(self, path: pathlib.Path | str):
        self.path = pathlib.Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            _lock(self._file, self.path)
            _cut_torn_line(self.path)
        except OSError as error:
            raise mistake("cannot be written", where=self.path, found=error.strerror or error) from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record as one line."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            while line:  # a full disk may take a part
                line = line[self._file.write(line) :]
        except OSError as error:
            raise mistake("cannot be written", where=self.path, found=error.strerror or error) from error

    def close(self) -> None:
        """Ends writing; nothing is lost without it."""
        self._file.close()

    def __enter__(self) -> LineWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SampleWriter(LineWriter):
    """Appends samples to a file."""

    def write(self, sample: Sample) -> None:
        """Appends one sample as one line."""
        super().write(dataclasses.asdict(sample))


def read_samples(path: pathlib.Path | str) -> list[Sample]:
    """The samples of a file, in order; none if it is empty. A last line that was cut off is left out, with a warning.

    Raises:
        UserError: the file cannot be read, a line is no sample, or one sample is there twice.
    """
    samples, lines = [], {}
    for where, row in whole_rows(pathlib.Path(path)):
        sample = parse_sample(row, where)
        key = sample.benchmark, sample.key
        if key in lines:
            fix = "take one of them out; did two runs write one file?"
            raise mistake("the sample is there twice", where=where, found=f"it is in {lines[key]} too", fix=fix)
        lines[key] = where.rpartition(", ")[2]
        samples.append(sample)
    return samples


def parse_sample(row: Mapping[str, Any], where: str) -> Sample:
    """A sample from its record.

    Raises:
        UserError: a field is missing, unknown or of another type.
    """
    check_keys(row, _FIELDS, where)
    texts = {key: text_of(row, key, where) for key in ("benchmark", "problem", "method", "finish_reason")}
    counts = {key: number_of(row, key, where) for key in ("index", "seed", "generated", "answer_tokens")}
    response, meta = row.get("response"), row.get("meta", {})
    if not isinstance(response, str):
        raise mistake("no 'response'", where=where, expected="a text, which may be empty", found=repr(response)[:40])
    if not isinstance(meta, Mapping):
        raise mistake("meta is not an object", where=where, found=repr(meta)[:40])
    return Sample(**texts, **counts, response=response, meta=dict(meta))


def missing(
    samples: Iterable[Sample], problems: Sequence[Problem], k: int, method: str = SINGLE, seed: int = 0
) -> list[tuple[str, int]]:
    """What is still to be sampled: problem and index, of `k` samples a problem, in the order of the problems.

    Samples of other methods, seeds and problems are passed over.
    """
    there = {(s.problem, s.index) for s in samples if (s.method, s.seed) == (method, seed)}
    wanted = [(problem.id, index) for problem in problems for index in range(k)]
    return [pair for pair in wanted if pair not in there]


def whole_lines(path: pathlib.Path) -> Iterator[bytes]:
    """The lines of a file that is appended to, without a last one that has no end; that one gives a warning.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield line
                elif line.strip():
                    warnings.warn(f"{path}: the last line was cut off and is left out", stacklevel=2)
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror or error) from None


def whole_rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each record of a file that is appended to stands, and the record. Raises as `whole_lines`; or no JSON."""
    for number, line in enumerate(whole_lines(path), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, parse_row(line, where)


def _lock(stream, path: pathlib.Path) -> None:
    """Keeps a second writer out; the system forgets the lock with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # no such thing on Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise mistake("is being written by another process", where=path, fix="give another file") from None
    except OSError:  # a file system without locks
        return


def _cut_torn_line(path: pathlib.Path) -> None:
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        keep = _last_line_end(stream, end)
        if keep < end:
            warnings.warn(f"{path}: the last line was cut off and is taken out", stacklevel=3)
            stream.truncate(keep)


def _last_line_end(stream, end: int, block: int = 1 << 16) -> int:
    """Where the last whole line ends: 0 if there is none."""
    while end:
        start = max(0, end - block)
        stream.seek(start)
        found = stream.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
