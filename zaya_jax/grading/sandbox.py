"""Runs an untrusted Python program: without network, without a way to write outside, with an end.

What each isolation holds and does not is in docs/grading.md.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from zaya_jax.errors import mistake
from zaya_jax.grading import seccomp
from zaya_jax.grading.isolation import (
    ENVIRONMENT,
    ISOLATIONS,
    PYTHON,
    Isolation,
    command,
    fresh_user,
    system_view,
    why_not,
)
from zaya_jax.grading.isolation import (
    isolation as best_isolation,
)
from zaya_jax.grading.limits import Limits, Run, Status

MAIN = "main.py"
DEFAULT = Limits()
_TICK = 0.05  # between two looks at the memory of all processes together
_GONE_WITHIN = 10.0  # the kernel needs milliseconds
_SIGXCPU, _SIGKILL = 128 + signal.SIGXCPU, 128 + signal.SIGKILL


class SandboxBroken(RuntimeError):
    """The walls could not be built, or did not come down: nothing is said about the program."""


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


@contextlib.contextmanager
def memory_file(content: str | bytes) -> Iterator[int]:
    """A descriptor of a file in memory that can neither grow nor change, at its beginning."""
    import fcntl

    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)


class Child:
    """A started sandbox: its process here, and what it reports of the first process inside."""

    def __init__(self, process: subprocess.Popen, status: int):
        self.process, self.status = process, status
        self.reports = b""

    @property
    def ready(self) -> bool:
        """The walls stood and the program began."""
        return b"ready\n" in self.reports

    @property
    def first(self) -> int | None:
        """The first process of the new namespace, as a process id here."""
        for line in self.reports.split(b"\n")[:-1]:
            if line.startswith(b"{") and (pid := json.loads(line).get("child-pid")):
                return pid
        return None

    def read_status(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while report := os.read(self.status, 4096):
                self.reports += report

    def end(self) -> None:
        """Kills what still runs, and returns when every process of the sandbox is gone."""
        self.read_status()
        if self.process.returncode is not None:
            return
        # Not our child but the first process inside, with which all others go: our child then takes leave of it, and
        # leaves no zombie to an init that, in a container, may collect none.
        if self._kill_first():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GONE_WITHIN)
                return
        os.killpg(self.process.pid, signal.SIGKILL)  # not waited for yet: the group is ours for sure
        self.process.wait()

    def _kill_first(self) -> bool:
        if not self.first:
            return False
        try:
            descriptor = os.pidfd_open(self.first)
        except ProcessLookupError:
            return True
        try:
            # The number may belong to somebody else by now; our child has no other child than the one we mean.
            parent = Path(f"/proc/{self.first}/stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == self.process.pid:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError):
            pass
        finally:
            os.close(descriptor)
        return True

    def memory(self) -> int:
        """Bytes of memory that the processes inside have for their own."""
        self.read_status()
        page, total, todo = os.sysconf("SC_PAGE_SIZE"), 0, [self.first or self.process.pid]
        while todo:
            directory = Path("/proc", str(todo.pop()))
            with contextlib.suppress(OSError, ValueError, IndexError):
                _, resident, shared = (directory / "statm").read_text().split()[:3]
                total += (int(resident) - int(shared)) * page
                for thread in (directory / "task").iterdir():
                    todo += map(int, (thread / "children").read_text().split())
        return total


@contextlib.contextmanager
def started(
    name: Isolation,
    argv: Sequence[str],
    files: Mapping[str, str | bytes],
    limits: Limits,
    stdin: int,
    extra: Sequence[str] = (),
    environment: Mapping[str, str] = ENVIRONMENT,
) -> Iterator[Child]:
    """Starts a command inside of a sandbox, with pipes for its output; nothing of it is left afterwards.

    Args:
        name: the isolation.
        argv: command, as seen from inside.
        files: written to its current directory.
        limits: of the command.
        stdin: descriptor, or `subprocess.PIPE`.
        extra: paths that it may read besides the system and Python.
        environment: all of it.
    """
    uid = fresh_user(name)
    links, binds = system_view(extra)
    with contextlib.ExitStack() as stack:
        cwd = sandbox_directory(stack) if name == "none" else "/tmp"
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stack.callback(os.close, read)
        lifeline, ours = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, ours)
        status = os.dup(write)  # bubblewrap keeps its own to itself
        config = {
            "isolation": name,
            "argv": list(argv),
            "environment": dict(environment),
            "cwd": cwd,
            "uid": uid,
            "files": {path: base64.b64encode(_bytes(content)).decode() for path, content in files.items()},
            "limits": dataclasses.asdict(limits),
            "links": links,
            "binds": binds,
            "filter": base64.b64encode(seccomp.program()).decode(),
            "status": status,
            "lifeline": lifeline,
        }
        try:
            config_file = stack.enter_context(memory_file(json.dumps(config)))
            process = subprocess.Popen(
                command(name, config_file, write, limits, uid, extra),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(config_file, status, write, lifeline),
                env=dict(ENVIRONMENT),
                cwd="/",
                start_new_session=True,
            )
        finally:
            for descriptor in (write, status, lifeline):
                os.close(descriptor)
        child = Child(process, read)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                stack.callback(pipe.close)
        stack.callback(child.end)
        yield child


def sandbox_directory(stack: contextlib.ExitStack) -> str:
    directory = tempfile.mkdtemp(prefix="zaya_jax_grading_")
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _bytes(content: str | bytes) -> bytes:
    return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content


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
    looked, cut = time.monotonic(), None
    while pipes and not cut:
        now = time.monotonic()
        readable = select.select(list(pipes), [], [], max(0.0, min(_TICK, deadline - now)))[0]
        for pipe in readable:
            if chunk := os.read(pipe, 1 << 16):
                pipes[pipe] += chunk
                cut = "output" if len(pipes[pipe]) > limits.output_bytes else cut
            else:
                del pipes[pipe]
        if now >= deadline:
            cut = cut or "timeout"
        elif now - looked >= _TICK:
            looked = now
            cut = cut or ("memory" if child.memory() > limits.memory_bytes else None)
    if not cut:
        cut = _await(child, deadline)
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
