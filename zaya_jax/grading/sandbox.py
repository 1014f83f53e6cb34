"""Runs an untrusted Python program: without network, without a way to write outside, with an end.

What each isolation holds and does not is in docs/grading.md.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from zaya_jax.errors import mistake
from zaya_jax.grading.isolation import ISOLATIONS, PYTHON, Isolation, why_not
from zaya_jax.grading.isolation import isolation as best_isolation
from zaya_jax.grading.limits import Limits, Run, Status
from zaya_jax.grading.sandbox_process import Child, SandboxBroken, memory_file, started

MAIN = "main.py"
DEFAULT = Limits()
_TICK = 0.05  # between two looks at the memory of all processes together
_SIGXCPU, _SIGKILL = 128 + signal.SIGXCPU, 128 + signal.SIGKILL


@dataclasses.dataclass(frozen=True)
class Job:
    """One program for `Sandbox.run_many`; the fields are the arguments of `Sandbox.run`."""

    program: str
    stdin: str | bytes = ""
    files: Mapping[str, str | bytes] | None = None
    limits: Limits | None = None


class Sandbox:
    """Runs programs, each in a fresh sandbox that is gone when `run` returns. Threads may share one.

    Args:
        limits: of every run that does not give its own.
        isolation: "bwrap", "unshare" or "none"; None takes the best that works here.
        allow_unisolated: without it, "none" is refused.

    Raises:
        UserError: the isolation does not work here, or there is none.
    """

    def __init__(
        self,
        limits: Limits = DEFAULT,
        isolation: Isolation | None = None,
        allow_unisolated: bool = False,
        *,
        _checked: bool = False,
    ):
        self.limits = limits
        self.isolation: Isolation = isolation or best_isolation()
        if self.isolation not in ISOLATIONS:
            raise mistake("no such isolation", expected=" or ".join(ISOLATIONS), found=repr(isolation))
        if self.isolation == "none" and not allow_unisolated:
            tried = "; ".join(f"{name}: {why_not(name)}" for name in ISOLATIONS[:-1] if why_not(name))
            raise mistake(
                "refused to run untrusted programs without isolation",
                found=tried or "isolation='none'",
                fix="install bubblewrap, or say allow_unisolated=True where nothing can be harmed",
            )
        if not _checked and (reason := why_not(self.isolation)):
            raise mistake(f"isolation {self.isolation!r} does not work here", found=reason)

    def run(
        self,
        program: str,
        stdin: str | bytes = "",
        files: Mapping[str, str | bytes] | None = None,
        limits: Limits | None = None,
    ) -> Run:
        """Runs a Python program to its end, or to the first limit.

        Args:
            program: source text; it lies in the current directory of the program as `main.py`.
            stdin: its standard input.
            files: further files there, by relative path.
            limits: instead of the sandbox's own.

        Raises:
            UserError: a file's path leads out of the directory, or is the program's.
            SandboxBroken: the sandbox could not be built.
        """
        argv = [PYTHON, "-I", "-S", "-B", "-X", "utf8", MAIN]
        files = {**_checked_files(files or {}), MAIN: program}
        limits, begun = limits or self.limits, time.monotonic()
        with memory_file(stdin) as input_file, started(self.isolation, argv, files, limits, input_file) as child:
            ended = _watch(child, limits, begun + limits.wall_seconds)
            child.end()
        seconds = time.monotonic() - begun
        if not child.ready:
            raise SandboxBroken(f"{self.isolation} did not start: {ended.stderr.strip() or ended}")
        return _judge(ended, limits, seconds)

    def run_many(self, jobs: Sequence[Job], workers: int | None = None) -> list[Run]:
        """As `run`, for many programs in parallel threads, as many as there are cores; results in the jobs' order."""
        with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            return list(pool.map(lambda job: self.run(job.program, job.stdin, job.files, job.limits), jobs))


def _checked_files(files: Mapping[str, str | bytes]) -> Mapping[str, str | bytes]:
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name or str(path) == MAIN:
            raise mistake("path is not usable", where=f"files[{name!r}]", expected=f"a relative path, not {MAIN!r}")
    return files


@dataclasses.dataclass
class _Ended:
    """Why watching ended, what was read until then, and the exit code if the program had one."""

    cut: Status | None
    stdout: str
    stderr: str
    exit_code: int | None


def _watch(child: Child, limits: Limits, deadline: float) -> _Ended:
    """Reads the output while the program runs, until it ends or has to be."""
    pipes = {child.process.stdout.fileno(): bytearray(), child.process.stderr.fileno(): bytearray()}
    output = list(pipes.values())
    poll = select.poll()  # select() knows descriptors below 1024 only
    for pipe in pipes:
        poll.register(pipe, select.POLLIN)
    looked, cut = time.monotonic(), None
    while pipes and not cut:
        now = time.monotonic()
        for pipe, _ in poll.poll(1000 * max(0.0, min(_TICK, deadline - now))):
            if chunk := os.read(pipe, 1 << 16):
                pipes[pipe] += chunk
            else:
                poll.unregister(pipe)
                del pipes[pipe]
        if any(len(data) > limits.output_bytes for data in pipes.values()):
            cut = "output"
        elif now >= deadline:
            cut = "timeout"
        elif now - looked >= _TICK:
            looked = now
            cut = "memory" if child.memory() > limits.memory_bytes else None
    cut = cut or _await(child, deadline)
    texts = [bytes(part[: limits.output_bytes]).decode("utf-8", "replace") for part in output]
    return _Ended(cut, *texts, None if cut else _exit_code(child.process.returncode))


def _await(child: Child, deadline: float) -> Status | None:
    """Waits for a program that closed its output."""
    try:
        child.process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "timeout"
    return None


def _exit_code(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


def _judge(ended: _Ended, limits: Limits, seconds: float) -> Run:
    code, status = ended.exit_code, ended.cut
    if status is None:
        late = code == _SIGXCPU or (code == _SIGKILL and seconds > limits.cpu_seconds)
        last = ended.stderr.rstrip().rpartition("\n")[2]
        if late:
            status = "timeout"
        elif code > 128:
            status = "killed"
        elif code and last.startswith("MemoryError"):
            status = "memory"
        else:
            status = "error" if code else "ok"
    return Run(status, ended.stdout, ended.stderr, code, seconds)
