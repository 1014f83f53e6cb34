"""What a sandboxed program may use, and what came of it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from zaya_jax.errors import mistake

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that one run may use.

    Attributes:
        cpu_seconds: processor time of each process, in whole seconds: at this it gets SIGXCPU, a second later SIGKILL.
        wall_seconds: time of the whole run, all of its processes; then all are killed.
        memory_bytes: address space of each process. All processes together are killed soon (about 50 ms) after their
            own pages exceed it. Python itself needs some 40 MB.
        processes: processes and threads at a time.
        file_bytes: size of each file, and of all files in the temporary directory together, which is memory.
        files: number of files in the temporary directory ("unshare" only; bubblewrap has no such option).
        output_bytes: standard output and standard error, each; what exceeds it ends the run.
    """

    cpu_seconds: int = 10
    wall_seconds: float = 15.0
    memory_bytes: int = 1 << 30
    processes: int = 32
    file_bytes: int = 64 << 20
    files: int = 4096
    output_bytes: int = 4 << 20

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0 or (field.name != "wall_seconds" and value != int(value)):
                kind = "a positive number" if field.name == "wall_seconds" else "a positive integer"
                raise mistake("limit is not usable", where=f"Limits.{field.name}", expected=kind, found=repr(value))


@dataclasses.dataclass(frozen=True)
class Run:
    """How a program ended.

    Attributes:
        status: "ok" is exit code 0, "error" any other of its own; "timeout" is either time limit, "memory" the memory
            limit or a MemoryError that ended it, "output" too much output, "killed" any other signal.
        stdout: decoded as UTF-8, with � where it is none.
        stderr: likewise.
        exit_code: as a shell tells it, 128 + n for signal n; None if the run was cut off from outside.
        seconds: wall time, with setting up and clearing away.
    """

    status: Status
    stdout: str
    stderr: str
    exit_code: int | None
    seconds: float
