"""Runs a plan: each stage is a process of its own, and over when what it makes is there and whole.

Nothing else tells how far a plan is: killed at any moment, the same command passes over what is finished and starts
the stage that was under way once more, which goes on from its own last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from zaya_jax.checkpoint import open_checkpoint
from zaya_jax.errors import UserError, mistake
from zaya_jax.report.cascade import PLAN, SCHEMA
from zaya_jax.rl.stages import Stage
from zaya_jax.train import workdir as place
from zaya_jax.train.settings import conflicts

LOGS, _LOCK = "logs", ".lock"


def run(
    config: Any,
    plan: Sequence[Stage],
    workdir: pathlib.Path,
    sink: TextIO | None = None,
    *,
    free: Sequence[str] = (),
    write_page: Callable[[pathlib.Path], pathlib.Path] | None = None,
) -> int:
    """Runs what is not finished yet, in order.

    Args:
        config: what the plan was made of, a dataclass; a directory is of one only.
        plan: the stages.
        workdir: a new directory, or that of the same plan.
        sink: where the stages' words go, their names in front; each has a file in logs/ as well.
        free: what of the configuration may change when a plan goes on.
        write_page: (workdir) -> the page about it, written anew after each stage; None for none.

    Returns:
        The exit code: that of a stage that failed, which is said in a line on stderr; else 0, also if a signal stopped
        it. SIGTERM and Ctrl-C are passed on to the stage, which makes a checkpoint.

    Raises:
        UserError: the directory is another run's or cannot be used, or a stage ended well without what it makes.
    """
    place.claim(workdir, config, functools.partial(conflicts, free=free))
    write_plan(plan, workdir)
    say = sink or sys.stdout
    with _locked(workdir / _LOCK, say) as lock, _Signals() as signals:
        for number, stage in enumerate(plan, 1):
            head = f"stage {number} of {len(plan)}, {stage.name}"
            if finished(stage):
                _tell(say, f"{head}: finished")
                continue
            if signals.asked is not None:
                _tell(say, f"stopped before stage {stage.name}; the same command goes on from there")
                return 0
            _tell(say, f"{head}: {stage.command}")
            code = _run_stage(stage, workdir / LOGS / f"{stage.name}.log", lock, signals, say)
            _page(write_page, workdir, say)
            if not finished(stage):
                return _unfinished(stage, workdir, code, signals.asked is not None, say)
    page = _page(write_page, workdir, say)
    _tell(say, f"done: all {len(plan)} stages" + (f"; the page is {page}" if page else ""))
    return 0


def write_plan(plan: Sequence[Stage], workdir: pathlib.Path) -> None:
    """Writes the stages down for the page, beside and renamed; directories relative, as a plan's may be moved."""
    records = [{**dataclasses.asdict(stage), "workdir": os.path.relpath(stage.workdir, workdir),
                "command": stage.command} for stage in plan]  # fmt: skip
    beside = workdir / f".{PLAN}.tmp"
    beside.write_text(json.dumps({"schema": SCHEMA, "stages": records}, indent=1) + "\n", encoding="utf-8")
    beside.replace(workdir / PLAN)


def finished(stage: Stage) -> bool:
    """Whether all that a stage makes is there: files, which commands write beside and rename, and whole models."""
    return all(_is_there(pathlib.Path(stage.workdir, product)) for product in stage.products)


def _is_there(path: pathlib.Path) -> bool:
    return _whole_model(path) if path.is_dir() else path.is_file() and path.stat().st_size > 0


def _whole_model(directory: pathlib.Path) -> bool:
    try:
        open_checkpoint(directory)
    except UserError:
        return False
    return True


def _run_stage(stage: Stage, log: pathlib.Path, lock: int, signals: _Signals, say: TextIO) -> int:
    """Its exit code; every line goes to the log and, with the stage's name, to `say`."""
    command = [sys.executable, "-m", stage.module, *stage.arguments]
    log.parent.mkdir(exist_ok=True)
    if stage.kind == "data":  # runs make their own directories
        pathlib.Path(stage.workdir).mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file, _started(command, lock) as child:
        signals.child = child
        signals.pass_on()  # one that came before there was a child
        for line in child.stdout:
            file.write(line)
            file.flush()
            _tell(say, f"[{stage.name}] {line.decode(errors='replace').rstrip()}")
        code = child.wait()
    signals.child = None
    return code


def _started(command: Sequence[str], lock: int) -> subprocess.Popen:
    """A child in a session of its own, as Ctrl-C would reach it twice otherwise.

    It holds the plan's lock: should whoever runs it be killed, the next one waits until the child is gone too, which is
    when it next has something to say and nobody reads it.
    """
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        pass_fds=(lock,), env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def _unfinished(stage: Stage, workdir: pathlib.Path, code: int, asked: bool, say: TextIO) -> int:
    log = workdir / LOGS / f"{stage.name}.log"
    if asked:
        _tell(say, f"stopped in stage {stage.name}; the same command goes on from there")
        return 0
    fix = f"see {log}; alone: {stage.command}"
    if code == 0:
        expected = " and ".join(stage.products)
        raise mistake("ended without what it makes", where=f"stage {stage.name}", expected=expected, fix=fix)
    code = code if code > 0 else 128 - code  # of a signal, as shells have it
    print(f"error: stage {stage.name} failed with exit code {code}; {fix}", file=sys.stderr, flush=True)
    return code


def _page(write_page: Callable[[pathlib.Path], pathlib.Path] | None, workdir: pathlib.Path, say: TextIO):
    """The page, if there is to be one; one that cannot be made stops nothing."""
    try:
        return None if write_page is None else write_page(workdir)
    except UserError as error:
        _tell(say, f"warning: no page: {error}")
        return None


def _tell(say: TextIO, line: str) -> None:
    print(line, file=say, flush=True)


class _Signals:
    """Passes SIGTERM and SIGINT on to the child of the moment; a context manager.

    Attributes:
        child: the process of the stage that is under way.
        asked: which has come; None for none.
    """

    def __init__(self):
        self.child: subprocess.Popen | None = None
        self.asked: int | None = None

    def pass_on(self) -> None:
        """Sends what has come to the child, if there is one."""
        if self.asked is not None and self.child is not None:
            self.child.send_signal(self.asked)

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._come) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _come(self, number: int, frame: object) -> None:
        self.asked = number
        self.pass_on()


@contextlib.contextmanager
def _locked(path: pathlib.Path, say: TextIO) -> Iterator[int]:
    """The descriptor of a lock that one run of a plan, or what it left behind, holds."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _tell(say, f"{path.parent}: another process is at work here; this one goes on when it has ended")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
