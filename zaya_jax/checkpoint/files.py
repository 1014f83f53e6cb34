"""Files that are read with care and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from zaya_jax.errors import mistake

Path = pathlib.Path


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is absent or unreadable, is not JSON (the message has the line), or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fix = "point at a directory that holds a whole checkpoint"
        raise mistake("file is missing", where=path, fix=fix) from None
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror) from None
    except UnicodeDecodeError as error:
        raise mistake("is not JSON", where=path, expected="UTF-8 text", found=f"byte {error.start} is not") from None
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise mistake("is not JSON", where=where, found=error.msg, fix="repair or download the file again") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or integers of thousands of digits
        raise mistake("is not JSON", where=path, expected="a configuration", found=str(error)[:80]) from None
    if not isinstance(value, dict):
        raise mistake("is not a JSON object", where=path, expected="{...}", found=type(value).__name__)
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object, indented, keys in the order given."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def new_directory(target: Path | str, replaceable: Callable[[Path], bool] = lambda entry: False) -> Iterator[Path]:
    """Gives an empty directory beside `target` that takes its place when the block ends, and vanishes if it fails.

    What stood at `target` is untouched until then. Files that somebody has mapped stay valid after being replaced.

    Args:
        target: where the directory shall be; parents are created. An existing one may be replaced if it is empty, or
            if `replaceable(entry)` holds for everything in it.

    Raises:
        UserError: there is something else at `target`, or the disk refuses (full, read-only).
    """
    target = Path(target).expanduser().resolve()
    _check_replaceable(target, replaceable)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _swap(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        fix = "nothing was changed there; check free space and permissions"
        raise mistake("cannot be written", where=target, found=error.strerror or error, fix=fix) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_replaceable(target: Path, replaceable: Callable[[Path], bool]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise mistake("is in the way", where=target, expected="a new or empty directory", found="a file")
    foreign = sorted(entry.name for entry in target.iterdir() if not (entry.is_file() and replaceable(entry)))
    if foreign:
        found = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        fix = "choose another directory, or move these away"
        raise mistake("is in the way", where=target, expected="a new or empty directory", found=found, fix=fix)


def _swap(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
    else:
        old = temporary.with_suffix(".old")
        target.rename(old)
        try:
            temporary.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync_directory(target.parent)
