"""A command inside of a sandbox: how it is started, watched from outside, and ended with all that it started."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zaya_jax.grading import seccomp
from zaya_jax.grading.isolation import ENVIRONMENT, Isolation, command, fresh_user, system_view
from zaya_jax.grading.limits import Limits

_GONE_WITHIN = 10.0  # seconds; the kernel needs milliseconds


class SandboxBroken(RuntimeError):
    """The walls could not be built: nothing is said about the program."""


@contextlib.contextmanager
def memory_file(content: str | bytes) -> Iterator[int]:
    """A descriptor of a file in memory that can neither grow nor change, at its beginning."""
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(_bytes(content))
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
    name: Isolation, argv: Sequence[str], files: Mapping[str, str | bytes], limits: Limits, stdin: int
) -> Iterator[Child]:
    """Starts a command inside of a sandbox, with pipes for its output; nothing of it is left afterwards.

    Args:
        name: the isolation.
        argv: command, as seen from inside.
        files: written to its current directory.
        limits: of the command.
        stdin: descriptor.
    """
    uid = fresh_user(name)
    with contextlib.ExitStack() as stack:
        cwd = _host_directory(stack) if name == "none" else "/tmp"
        read, status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stack.callback(os.close, read)
        lifeline, ours = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, ours)
        with contextlib.ExitStack() as theirs:
            bwrap_status = os.dup(status)  # bubblewrap keeps its own to itself
            for descriptor in (status, lifeline, bwrap_status):
                theirs.callback(os.close, descriptor)
            config = _config(name, argv, files, limits, uid, cwd) | {"status": status, "lifeline": lifeline}
            config_file = theirs.enter_context(memory_file(json.dumps(config)))
            process = subprocess.Popen(
                command(name, config_file, bwrap_status, limits, uid),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(config_file, status, bwrap_status, lifeline),
                env=dict(ENVIRONMENT),
                cwd="/",
                start_new_session=True,
            )
        child = Child(process, read)
        stack.callback(process.stdout.close)
        stack.callback(process.stderr.close)
        stack.callback(child.end)
        yield child


def _config(
    name: Isolation,
    argv: Sequence[str],
    files: Mapping[str, str | bytes],
    limits: Limits,
    uid: int | None,
    cwd: str,
) -> dict[str, Any]:
    """What `sandbox_child.py` is told, but for the descriptors."""
    links, binds = system_view()
    return {
        "isolation": name,
        "argv": list(argv),
        "environment": dict(ENVIRONMENT),
        "cwd": cwd,
        "uid": uid,
        "files": {path: base64.b64encode(_bytes(content)).decode() for path, content in files.items()},
        "limits": dataclasses.asdict(limits),
        "links": links,
        "binds": binds,
        "filter": base64.b64encode(seccomp.program()).decode(),
    }


def _host_directory(stack: contextlib.ExitStack) -> str:
    directory = tempfile.mkdtemp(prefix="zaya_jax_grading_")
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _bytes(content: str | bytes) -> bytes:
    return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
