"""The manifest of a training checkpoint: what was written, so that what is read can be held against it.

Orbax returns silently wrong arrays for most flipped bytes. So every file's size and SHA-256 stand in `manifest.json`,
which is written last and carries its own hash. Nothing is read from a checkpoint before all of it has been checked.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from zaya_jax.checkpoint.files import sync_directory
from zaya_jax.errors import UserError, mistake

Path = pathlib.Path

FORMAT = 1  # of the directory of one step; another number is refused by name
MANIFEST = "manifest.json"
HASH = "sha256"  # the manifest's own hash; this rule stays whatever the format, so damage is never taken for a version
THREADS = 4  # that hash files; hashing and reading hold no lock of Python's


class Damaged(UserError):
    """A checkpoint is not what was written: a file, what was expected of it, what was found."""


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """A file of a checkpoint: its size in bytes and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class ArrayEntry:
    """An array of a checkpoint: its global shape and the name of its type."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What one checkpoint holds.

    Attributes:
        step: of the run.
        record: what the run wants to remember beside arrays: data position, seed, configuration. JSON.
        fingerprint: what makes two runs different; None if the run gave none. JSON.
        arrays: path in the tree -> shape and type.
        files: path in the directory -> size and hash, all files but the manifest.
    """

    step: int
    record: dict[str, Any]
    fingerprint: dict[str, Any] | None
    arrays: dict[str, ArrayEntry]
    files: dict[str, FileEntry] = dataclasses.field(default_factory=dict)


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Makes every file below a directory durable, hashes it, and writes the manifest of all that.

    The manifest appears whole or not at all, and only after the disk has everything that it names.

    Args:
        directory: of one step, complete but for the manifest.
        manifest: without files.

    Returns:
        The manifest with files.
    """
    names = sorted(_found(directory))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        entries = list(pool.map(lambda name: _entry(directory / name, durable=True), names))
    for folder in [path for path in directory.rglob("*") if path.is_dir()] + [directory]:
        sync_directory(folder)
    manifest = dataclasses.replace(manifest, files=dict(zip(names, entries, strict=True)))
    temporary = directory / f".{MANIFEST}.tmp"
    with temporary.open("wb") as stream:
        stream.write(encode(manifest))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(directory / MANIFEST)
    sync_directory(directory)
    return manifest


def encode(manifest: Manifest) -> bytes:
    """The text of a manifest: JSON, the format first and the hash of everything else last.

    Raises:
        ValueError: record or fingerprint are not JSON (NaN and infinity are not).
    """
    return _rendered({"format": FORMAT, **dataclasses.asdict(manifest)})


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest of one step.

    Raises:
        Damaged: it is missing, cannot be read, was changed by a single byte, or names another step than the directory.
        UserError: it is of a format that this version does not know.
    """
    path = directory / MANIFEST
    body = _checked_body(path)
    if body.get("format") != FORMAT:
        fix = "use the version of zaya_jax that wrote it"
        raise mistake("unknown checkpoint format", where=path, expected=FORMAT, found=body.get("format"), fix=fix)
    if directory.name != str(body["step"]):
        found = f"the manifest of step {body['step']}"
        raise _damaged("is of another checkpoint", path, f"the manifest of step {directory.name}", found)
    return Manifest(
        step=body["step"],
        record=body["record"],
        fingerprint=body["fingerprint"],
        arrays={name: ArrayEntry(tuple(entry["shape"]), entry["dtype"]) for name, entry in body["arrays"].items()},
        files={name: FileEntry(**entry) for name, entry in body["files"].items()},
    )


def verify(directory: Path, manifest: Manifest) -> None:
    """Holds every file below a directory against the manifest: names and sizes first, then hashes.

    Raises:
        Damaged: names the first file that differs, and how many more do.
    """
    try:
        problems = list(_wrong_names_and_sizes(directory, manifest.files))
    except OSError as error:
        raise _damaged("cannot be read", error.filename or directory, None, error.strerror) from None
    if not problems:
        names = sorted(manifest.files)
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            checked = pool.map(lambda name: _wrong_hash(directory / name, manifest.files[name]), names)
            problems = [problem for problem in checked if problem]
    if problems:
        more = f"; {len(problems) - 1} more files of this checkpoint differ" if problems[1:] else ""
        raise Damaged(str(problems[0]) + more)


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two nested dicts differ: (dotted key, saved, given), `...` for what one of them does not have."""
    ours, theirs = dict(_flat(saved)), dict(_flat(given))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    pairs = [(key, ours.get(key, ...), theirs.get(key, ...)) for key in keys]
    return [pair for pair in pairs if pair[1] != pair[2] or type(pair[1]) is not type(pair[2])]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _rendered(body: dict[str, Any]) -> bytes:
    def text(value: dict[str, Any]) -> bytes:
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()

    return text({**body, HASH: hashlib.sha256(text(body)).hexdigest()})


def _checked_body(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        body = json.loads(raw)
        body.pop(HASH)
    except FileNotFoundError:
        raise _damaged("is missing", path, "the manifest of a whole checkpoint", "no such file") from None
    except OSError as error:
        raise _damaged("cannot be read", path, None, error.strerror) from None
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        raise _damaged("is damaged", path, "a manifest", "something that is none") from None
    if _rendered_or_none(body) != raw:  # not a byte may differ, be it a blank
        raise _damaged("is damaged", path, "a text that gives its own hash", "another one")
    return body


def _rendered_or_none(body: dict[str, Any]) -> bytes | None:
    try:
        return _rendered(body)
    except ValueError:  # NaN
        return None


def _found(directory: Path) -> set[str]:
    """All below a directory that is no directory, but for its manifest."""
    paths = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir())
    return set(paths) - {MANIFEST}


def _entry(path: Path, durable: bool = False) -> FileEntry:
    with path.open("rb") as stream:
        if durable:
            os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(stream.tell(), digest)


def _wrong_names_and_sizes(directory: Path, files: Mapping[str, FileEntry]) -> Iterator[Damaged]:
    for name, entry in files.items():
        path = directory / name
        if not path.exists():
            yield _damaged("is missing", path, f"a file of {entry.size} bytes", "no such file")
        elif not path.is_file():
            yield _damaged("is damaged", path, f"a file of {entry.size} bytes", "something that is no file")
        elif path.stat().st_size != entry.size:
            yield _damaged("is damaged", path, f"{entry.size} bytes", f"{path.stat().st_size} bytes")
    for name in sorted(_found(directory) - set(files)):
        yield _damaged("is no part of the checkpoint", directory / name, "only what the run wrote", "one more file")


def _wrong_hash(path: Path, entry: FileEntry) -> Damaged | None:
    try:
        found = _entry(path)
    except OSError as error:
        return _damaged("cannot be read", path, None, error.strerror)
    if found == entry:
        return None
    return _damaged("is damaged", path, f"SHA-256 {entry.sha256[:16]}...", f"{found.sha256[:16]}...")


def _damaged(what: str, path: Path, expected: str | None, found: str | None) -> Damaged:
    return Damaged(str(mistake(what, where=path, expected=expected, found=found)))
