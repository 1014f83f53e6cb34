"""Checkpoints of a training run: written in the background, whole or not at all, checked before they are read.

    checkpoints/
      1200/                 a whole checkpoint
        arrays/             written by orbax: the same files whatever mesh wrote or reads them
        manifest.json       step, record, tree of arrays, size and hash of every file (`manifest.py`)
      .1300.new/ .900.old/  being written, being removed; gone after the next start (`step_directories.py`)

Several processes need one file system that all of them see; the first of them hashes, names and removes.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from zaya_jax.checkpoint import arrays, step_directories
from zaya_jax.checkpoint.manifest import Damaged, Manifest, differences, read_manifest, seal, verify
from zaya_jax.checkpoint.processes import by_first, is_first
from zaya_jax.checkpoint.step_directories import steps
from zaya_jax.errors import UserError, mistake

__all__ = ["Checkpoints", "Restored", "read_manifest", "restore", "steps"]

Path = pathlib.Path

ARRAYS = "arrays"


class Restored(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        state: the tree that was asked for, on the shardings that were asked for.
        record: what was given to `save`.
        step: of the run.
        skipped: one line for each newer checkpoint that was damaged; empty unless `allow_older`.
    """

    state: Any
    record: dict[str, Any]
    step: int
    skipped: tuple[str, ...]


class Checkpoints:
    """The checkpoints of one run, which alone writes them. With several processes, all call every method alike.

    >>> with Checkpoints("run/checkpoints", keep_last=3, fingerprint={"width": 16}) as checkpoints:
    ...     if checkpoints.steps():
    ...         state, record, step, _ = checkpoints.restore(state)
    ...     checkpoints.save(step, state, {"window": 4096})
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        keep_last: int = 3,
        keep_every: int | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ):
        """Makes the directory, locks it against a second run, and removes what a killed run left half-way.

        Args:
            directory: of all steps. Names that are not ours are left alone.
            keep_last: how many of the newest stay, at least one.
            keep_every: steps that are a multiple of it stay for good.
            fingerprint: what another run must not differ in, the configuration for instance. JSON; compared by
                `restore`.

        Raises:
            UserError: a number is out of range, the directory cannot be made, or another run is writing there.
        """
        _check_positive("keep_last", keep_last)
        _check_positive("keep_every", 1 if keep_every is None else keep_every)
        self._directory = Path(directory).expanduser().absolute()
        self._keep = (keep_last, keep_every)
        self._fingerprint = None if fingerprint is None else _json("fingerprint", fingerprint)
        self._lock: int | None = None
        by_first(self._prepare)
        self._of_this_run = not self.steps()
        self._left_behind: list[int] = []
        self._writer = arrays.Writer()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first; damage is found by `restore`."""
        return steps(self._directory)

    def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
        """Writes a checkpoint in the background; the arrays may be donated as soon as this returns.

        Waits for the last one first, then until the arrays are copied from the devices. Writing, hashing, giving the
        name, and removing older checkpoints go on in a thread. If an older step than the newest was restored, the newer
        ones are of a line that was left: they are removed when this one is whole.

        Args:
            step: its number. A checkpoint that has it is replaced.
            state: tree of `jax.Array`s, of any sharding.
            record: what else the run needs to go on. JSON.

        Raises:
            UserError: the last save failed, this one cannot begin, or the directory holds the checkpoints of a run
                that was not restored.
            ValueError: the state has leaves that are no arrays, or the record is not JSON.
        """
        self.wait()
        if not self._of_this_run:
            fix = "restore the newest, or choose another directory"
            raise mistake("holds the checkpoints of an earlier run", where=self._directory, fix=fix)
        flat = arrays.flatten(state)
        manifest = Manifest(step, _json("record", record), self._fingerprint, arrays.describe(flat))
        new = step_directories.unfinished(self._directory, step)
        try:
            if is_first():
                step_directories.begin(self._directory, step)
            self._writer.save(new / ARRAYS, flat)
        except Exception as error:
            self._give_up(step)
            raise self._not_written(step, error) from error
        self._thread = threading.Thread(target=self._finish, args=(manifest,), name=f"checkpoint {step}")
        self._thread.start()

    def wait(self) -> None:
        """Waits until the last checkpoint is whole.

        Raises:
            UserError: it could not be written; older ones are untouched.
        """
        if self._thread is None:
            return
        self._join()
        if self._failure is not None and not is_first():
            self._raise_failure()
        by_first(self._raise_failure)

    def close(self) -> None:
        """Waits, ends all threads and unlocks the directory.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        try:
            self.wait()
        finally:
            self._release()

    def restore(
        self, abstract_state: Any, step: int | None = None, *, allow_older: bool = False, partial: bool = False
    ) -> Restored:
        """Reads the newest checkpoint, or that of a step: see `restore` of this module."""
        self.wait()
        found = restore(
            self._directory, abstract_state, step, self._fingerprint, allow_older=allow_older, partial=partial
        )
        self._of_this_run = True
        self._left_behind = [other for other in self.steps() if other > found.step]
        return found

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        else:  # the others may be elsewhere: nothing that they would have to take part in
            self._join()
            self._release()

    def _prepare(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = step_directories.lock(self._directory)
            step_directories.clean(self._directory)
        except OSError as error:
            fix = "choose another directory, or mend its permissions"
            where = self._directory
            raise mistake("cannot hold checkpoints", where=where, found=error.strerror, fix=fix) from error

    def _finish(self, manifest: Manifest) -> None:
        """Runs in the thread."""
        try:
            self._writer.wait()
            if is_first():
                self._publish(manifest)
        except Exception as error:
            self._give_up(manifest.step)
            self._failure = self._not_written(manifest.step, error)

    def _publish(self, manifest: Manifest) -> None:
        seal(step_directories.unfinished(self._directory, manifest.step), manifest)
        # Before the new one has its name, which the next start would give it: after a kill none of these is the newest.
        for step in set(self._left_behind) & set(self.steps()):
            step_directories.remove(self._directory, step)
        self._left_behind = []
        step_directories.publish(self._directory, manifest.step)
        for step in step_directories.expired(self.steps(), *self._keep):
            step_directories.remove(self._directory, step)

    def _give_up(self, step: int) -> None:
        if is_first():
            shutil.rmtree(step_directories.unfinished(self._directory, step), ignore_errors=True)

    def _not_written(self, step: int, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        what, fix = f"the checkpoint of step {step} could not be written", "older ones are untouched; check free space"
        failure = mistake(what, where=self._directory, found=reason, fix=fix)
        failure.__cause__ = error
        return failure

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _release(self) -> None:
        try:
            self._writer.close()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def restore(
    directory: Path | str,
    abstract_state: Any,
    step: int | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    *,
    allow_older: bool = False,
    partial: bool = False,
) -> Restored:
    """Reads a checkpoint; writes nothing, so a run may be saving into the same directory.

    Every file's size and hash is checked before anything is read, by the first process for all.

    Args:
        directory: of all steps.
        abstract_state: tree of `jax.ShapeDtypeStruct`s or arrays. Each array comes with the sharding of its leaf, on
            any mesh and any number of processes; without one, on this process's first device.
        step: which; the newest if None.
        fingerprint: what must equal the fingerprint of the run that wrote; not compared if either has none.
        allow_older: if the newest is damaged, takes the newest that is not.
        partial: reads only what `abstract_state` has, the parameters without the optimizer's memory for instance.

    Raises:
        Damaged: names the file, what was expected and what was found.
        UserError: there is no checkpoint, none that is undamaged, an unknown format, another run's fingerprint, or an
            array of another path, shape or type.
    """
    directory = Path(directory).expanduser().absolute()
    chosen, skipped = by_first(lambda: _choose(directory, step, allow_older))
    where = directory / str(chosen)
    manifest = _seen_by_all(where)
    _check_fingerprint(where, manifest, fingerprint)
    arrays.check(manifest, arrays.flatten(abstract_state), where, partial)
    state = arrays.read(where / ARRAYS, manifest, abstract_state)
    return Restored(state, manifest.record, manifest.step, tuple(skipped))


def _choose(directory: Path, step: int | None, allow_older: bool) -> tuple[int, list[str]]:
    """The step to read, verified, and what is wrong with the newer ones."""
    found, skipped = steps(directory), []
    if step is not None and step not in found:
        listed = ", ".join(map(str, found)) or "none"
        raise mistake("there is no such checkpoint", where=directory, expected=f"one of {listed}", found=step)
    for candidate in [step] if step is not None else reversed(found):
        try:
            verify(directory / str(candidate), read_manifest(directory / str(candidate)))
            return candidate, skipped
        except Damaged as damage:
            if step is not None or not allow_older:
                older = len(found) > 1 and step is None
                fix = "--allow_older goes on from the newest undamaged one" if older else "choose another step"
                raise Damaged(f"{damage}; {fix}" if len(found) > 1 else str(damage)) from None
            skipped.append(str(damage))
    if skipped:
        raise mistake("no undamaged checkpoint is left", where=directory, found=" | ".join(skipped))
    raise mistake("there are no checkpoints", where=directory, expected="directories named by their step")


def _seen_by_all(where: Path) -> Manifest:
    try:
        return read_manifest(where)
    except Damaged:
        if is_first():
            raise
        fix = "all processes need one directory: use a file system that they share"
        raise mistake(
            "this process does not see the checkpoint that the first one sees", where=where, fix=fix
        ) from None


def _check_fingerprint(where: Path, manifest: Manifest, fingerprint: Mapping[str, Any] | None) -> None:
    if fingerprint is None or manifest.fingerprint is None:
        return
    wrong = differences(manifest.fingerprint, _json("fingerprint", fingerprint))
    if wrong:
        said = ["nothing" if value is ... else json.dumps(value) for value in wrong[0][1:]]
        more = f" (and {len(wrong) - 1} more: {', '.join(key for key, *_ in wrong[1:4])})" if wrong[1:] else ""
        fix = "continue with the configuration that wrote it, or choose another directory"
        what = f"is of another run: {wrong[0][0]} differs"
        raise mistake(what, where=where, expected=said[1], found=said[0] + more, fix=fix)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise mistake("out of range", where=name, expected="a positive integer", found=value)


def _json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader will get: tuples are lists."""
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {name} is not JSON: {error}") from None
