"""Tokenized sources: flat arrays in memory, or mapped from files that a restart finds again.

Lengths have to be known before packing, so a source is tokenized once, before training. With a cache the result lies in
a directory named after everything that it depends on (`fingerprint`): the source's files, the tokenizer, the settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from zaya_jax.checkpoint.files import new_directory, write_json
from zaya_jax.data import python_library, sums
from zaya_jax.data.encoding import Encoded, Outcome, encode_all
from zaya_jax.data.sources import SourceConfig, read, source_files
from zaya_jax.errors import mistake
from zaya_jax.text.tokenizer import Tokenizer

Path = pathlib.Path

VERSION = 1  # of the directory's layout and of what `encode` makes of a record
META = "meta.json"
ARRAYS = {
    "tokens": np.int32,
    "weights": np.float32,
    "lengths": np.int32,
    "heads": np.int32,
    "records": np.int64,
    "pieces": np.int32,
}
_EDGE = 1 << 16  # bytes of a file's beginning and end that its fingerprint covers


class Counts(NamedTuple):
    """What became of a source's records.

    Attributes:
        records: how many were read.
        split, trimmed, dropped: how many of them were too long.
        size: UTF-8 bytes of its texts; 0 for conversations.
    """

    records: int = 0
    split: int = 0
    trimmed: int = 0
    dropped: int = 0
    size: int = 0

    def plus(self, outcome: Outcome) -> Counts:
        """With one record more."""
        fates = {fate: getattr(self, fate) + (outcome.fate == fate) for fate in ("split", "trimmed", "dropped")}
        return self._replace(records=self.records + 1, size=self.size + outcome.size, **fates)


class Store(NamedTuple):
    """The examples of a source, one after the other.

    Attributes:
        tokens: ids of all examples, int32.
        weights: how much predicting each token counts, float32; empty if all count 1.
        lengths: tokens of each example, int32.
        heads: tokens of each example's first segment, int32 (all, but for preferences).
        records: number of the record that each example is made of, int64.
        pieces: which piece of it, from 1; 0 for a whole record; int32.
        starts: where each example begins, int64.
        counts: what became of the records.
        digest: of all arrays: two stores with the same digest hold the same examples.
    """

    tokens: np.ndarray
    weights: np.ndarray
    lengths: np.ndarray
    heads: np.ndarray
    records: np.ndarray
    pieces: np.ndarray
    starts: np.ndarray
    counts: Counts
    digest: str

    def example(self, index: int) -> Encoded:
        """An example's tokens and weights."""
        span = slice(int(self.starts[index]), int(self.starts[index] + self.lengths[index]))
        weights = self.weights[span] if self.weights.size else np.ones(span.stop - span.start, np.float32)
        return Encoded(self.tokens[span], weights, int(self.heads[index]))

    def id(self, index: int) -> str:
        """What the example is called in its source: the record's number from 0, ".N" behind it for piece N."""
        piece = int(self.pieces[index])
        return f"{self.records[index]}.{piece}" if piece else str(self.records[index])


def open_store(source: SourceConfig, tokenizer: Tokenizer, length: int, cache: str = "") -> Store:
    """The tokenized source: from the cache if it is there, else made, and kept there if `cache` names a directory.

    Processes that want the same store at the same time wait for the first one to make it.

    Raises:
        UserError: the source, a record of it or the cache is not right.
    """
    if not cache:
        return _in_memory(source, tokenizer, length)
    directory = Path(cache).expanduser() / f"{source.name}-{fingerprint(source, tokenizer, length)}"
    found = _load(directory)
    if found is not None:
        return found
    with _only_one(directory.parent) as locked:
        found = _load(directory)
        if found is not None:
            return found
        for litter in directory.parent.glob(f".{directory.name}.*.tmp") if locked else ():  # of one that was killed
            shutil.rmtree(litter, ignore_errors=True)
        with new_directory(directory, replaceable=lambda entry: True) as beside:
            _write(encode_all(read(source), source, tokenizer, length), beside)
    store = _load(directory)
    if store is None:
        raise mistake("the cache of tokens cannot be read back", where=directory, fix="check the disk")
    return store


def fingerprint(source: SourceConfig, tokenizer: Tokenizer, length: int) -> str:
    """Of everything that a store depends on, in 16 hexadecimal digits. Of large files it covers the name, size, time of
    change, beginning and end."""
    digest = hashlib.blake2b(digest_size=8)
    settings = [VERSION, source.kind, source.text_field, source.too_long, length, tokenizer_fingerprint(tokenizer)]
    digest.update(json.dumps(settings).encode())
    for part in _content(source):
        digest.update(hashlib.blake2b(part).digest())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Of a tokenizer's vocabulary, rules, special ids and chat templates."""
    templates = {name: template.source for name, template in sorted(tokenizer.templates.items())}
    parts = [templates, dict(tokenizer.special_tokens), tokenizer.stop_ids, tokenizer.backend.to_str()]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _content(source: SourceConfig) -> Iterator[bytes]:
    if source.kind == "python_library":
        for name, text in python_library.documents(source.path).items():
            yield name.encode()
            yield text.encode()
        return
    if source.kind == "sums":
        for name, record in sums.conversations(source.path):
            yield json.dumps([name, record]).encode()
        return
    for file in source_files(source):
        try:
            with file.open("rb") as stream:
                status = os.fstat(stream.fileno())
                yield f"{file.absolute()} {status.st_size} {status.st_mtime_ns}".encode(errors="surrogateescape")
                yield stream.read(_EDGE)
                stream.seek(max(0, status.st_size - _EDGE))
                yield stream.read(_EDGE)
        except OSError as error:
            raise mistake("cannot be read", where=file, found=error.strerror or error) from None


def _in_memory(source: SourceConfig, tokenizer: Tokenizer, length: int) -> Store:
    streams = {name: io.BytesIO() for name in ARRAYS}
    outcomes = encode_all(read(source), source, tokenizer, length)
    counts, digest = _pour(outcomes, streams)
    arrays = {name: np.frombuffer(streams[name].getvalue(), dtype) for name, dtype in ARRAYS.items()}
    return _assemble(arrays, counts, digest)


def _write(outcomes: Iterable[Outcome], directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        streams = {name: stack.enter_context((directory / f"{name}.bin").open("wb")) for name in ARRAYS}
        counts, digest = _pour(outcomes, streams)
        sizes = {}
        for name, stream in streams.items():
            stream.flush()
            os.fsync(stream.fileno())
            sizes[name] = stream.tell()
    meta = {"version": VERSION, "counts": counts._asdict(), "bytes": sizes, "digest": digest}
    write_json(directory / META, meta)


def _pour(outcomes: Iterable[Outcome], streams: dict[str, BinaryIO]) -> tuple[Counts, str]:
    """Writes what all records give, example by example; the weights only stay if one differs from 1."""
    counts, digest, plain = Counts(), hashlib.blake2b(digest_size=16), True
    for outcome in outcomes:
        for values in _values(outcome, counts.records):
            plain = plain and bool((values["weights"] == 1).all())
            for name, value in values.items():
                streams[name].write(value.data)
                digest.update(value.data)
        counts = counts.plus(outcome)
    if plain:
        streams["weights"].seek(0)
        streams["weights"].truncate()
    return counts, digest.hexdigest()


def _values(outcome: Outcome, record: int) -> Iterator[dict[str, np.ndarray]]:
    """What goes into each array for each example of a record."""
    for piece, example in enumerate(outcome.examples, 1):
        number = piece if outcome.fate == "split" else 0
        row = (example.tokens, example.weights, len(example.tokens), example.head, record, number)
        yield {name: np.array(value, dtype, ndmin=1) for (name, dtype), value in zip(ARRAYS.items(), row)}


def _load(directory: Path) -> Store | None:
    """The store in a directory; None if there is none, or one that is not as its own description says."""
    try:
        meta = json.loads((directory / META).read_text(encoding="utf-8"))
        if meta["version"] != VERSION:
            return None
        arrays = {name: _map(directory / f"{name}.bin", dtype) for name, dtype in ARRAYS.items()}
        if {name: array.nbytes for name, array in arrays.items()} != meta["bytes"]:
            return None
        return _assemble(arrays, Counts(**meta["counts"]), meta["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _map(file: Path, dtype: type) -> np.ndarray:
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.zeros(0, dtype)


def _assemble(arrays: dict[str, np.ndarray], counts: Counts, digest: str) -> Store:
    lengths = arrays["lengths"].astype(np.int64)
    return Store(**arrays, starts=np.cumsum(lengths) - lengths, counts=counts, digest=digest)


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[bool]:
    """Keeps other processes out of the block. The lock is the directory's own: no file is left, a crash frees it.

    Gives False where the file system knows no locks; two processes may then do the same work twice.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        fix = "name another directory, or none"
        raise mistake("cannot hold the cache of tokens", where=directory, found=error.strerror, fix=fix) from None
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
