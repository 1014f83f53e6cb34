"""The directories of a run's checkpoints: how one appears, gives way to newer ones, and is cleaned up after a crash.

A directory named by a number is a whole checkpoint. `.N.new` is being written, `.N.old` is being removed; both change
into what they become by one rename, so a kill at any moment leaves either a whole checkpoint or none under a number.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import shutil
import time
from collections.abc import Sequence

from zaya_jax.checkpoint.files import sync_directory
from zaya_jax.checkpoint.manifest import MANIFEST
from zaya_jax.errors import mistake

Path = pathlib.Path

_STEP = re.compile(r"0|[1-9][0-9]*")
_UNFINISHED = re.compile(r"\.(0|[1-9][0-9]*)\.(new|old)")


def steps(directory: Path | str) -> list[int]:
    """Steps that have a checkpoint, oldest first. Other names are other people's."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _STEP.fullmatch(path.name) and path.is_dir())


def expired(found: Sequence[int], keep_last: int, keep_every: int | None) -> list[int]:
    """Steps to be removed: all but the last few and every multiple of `keep_every`."""
    old = sorted(found)[:-keep_last]
    return [step for step in old if keep_every is None or step % keep_every]


def begin(directory: Path, step: int) -> Path:
    """An empty directory to write a checkpoint into."""
    new = unfinished(directory, step)
    if new.exists():
        shutil.rmtree(new)
    new.mkdir()
    return new


def unfinished(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step is written."""
    return directory / f".{step}.new"


def publish(directory: Path, step: int) -> None:
    """Gives a sealed checkpoint its name; one that had it before is removed."""
    if (directory / str(step)).exists():
        _rename_away(directory, step)
    unfinished(directory, step).rename(directory / str(step))
    sync_directory(directory)
    shutil.rmtree(_leaving(directory, step), ignore_errors=True)


def remove(directory: Path, step: int) -> None:
    """Removes a checkpoint."""
    _rename_away(directory, step)
    shutil.rmtree(_leaving(directory, step), ignore_errors=True)


def clean(directory: Path) -> None:
    """Ends what a killed run left: sealed checkpoints get their name, everything else half-way goes."""
    found = [match for path in directory.iterdir() if (match := _UNFINISHED.fullmatch(path.name)) and path.is_dir()]
    for match in found:
        if match[2] == "new" and (directory / match[0] / MANIFEST).exists():
            publish(directory, int(match[1]))
    for match in found:
        shutil.rmtree(directory / match[0], ignore_errors=True)


def lock(directory: Path, patience: float = 5.0) -> int:
    """Makes this process the only one that writes into a directory until it closes the descriptor or ends.

    Args:
        patience: seconds to wait for another process, one that was just killed for instance.

    Raises:
        UserError: another process is writing there.
    """
    descriptor, deadline = os.open(directory, os.O_RDONLY), time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            fix = "wait for it to end, or choose another directory"
            raise mistake("another run is writing its checkpoints here", where=directory, fix=fix) from None
        except OSError:
            pass  # a file system without locks: two runs in one directory are then the user's to avoid
        return descriptor


def _leaving(directory: Path, step: int) -> Path:
    return directory / f".{step}.old"


def _rename_away(directory: Path, step: int) -> None:
    shutil.rmtree(_leaving(directory, step), ignore_errors=True)
    (directory / str(step)).rename(_leaving(directory, step))
    sync_directory(directory)  # or a power cut could bring the name back, with half of its files
