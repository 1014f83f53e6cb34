"""Which walls this machine can put around a program, and the commands that put them there."""

from __future__ import annotations

import functools
import itertools
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

from zaya_jax.grading import sandbox_child
from zaya_jax.grading.limits import Limits

Isolation = Literal["bwrap", "unshare", "none"]
ISOLATIONS: tuple[Isolation, ...] = ("bwrap", "unshare", "none")

PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
CHILD = os.path.realpath(sandbox_child.__file__)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_UIDS, _USERS_EACH = 1_000_000_000, 1000  # far above those that machines give to people and services
_CAPABILITIES = (6, 7, 21)  # CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
_runs = itertools.count()


@functools.cache
def isolation() -> Isolation:
    """Returns the best isolation that works here; tried by running a program once in each process."""
    return next((name for name in ISOLATIONS[:-1] if not why_not(name)), "none")


@functools.cache
def why_not(name: Isolation) -> str:
    """Returns why an isolation does not work here, in one line; empty if it does."""
    from zaya_jax.grading.sandbox import Sandbox, SandboxBroken  # which asks this module

    if name == "none":
        return ""
    if missing := _missing(name):
        return missing
    try:
        run = Sandbox(Limits(), isolation=name, _checked=True).run("print(6 * 7)")
    except (SandboxBroken, OSError) as error:
        return str(error)
    return "" if run.stdout == "42\n" else f"a test program ended with {run}"


def _missing(name: Isolation) -> str:
    if sys.platform != "linux":
        return f"{name} needs Linux, this is {sys.platform}"
    if name == "bwrap" and not shutil.which("bwrap"):
        return "bubblewrap is not installed (Debian: apt install bubblewrap)"
    if name == "unshare" and platform.machine() not in sandbox_child.PIVOT_ROOT:
        return f"unshare knows {' and '.join(sandbox_child.PIVOT_ROOT)}, this is {platform.machine()}"
    return ""


@functools.cache
def privileged() -> bool:
    """Whether this process is root, with the means to run programs as users that nobody else is.

    Then no user namespace is needed. Root without them (in most containers), like everybody else, needs one.
    """
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    held = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    first, _, count = map(int, Path("/proc/self/uid_map").read_text().split()[:3])
    return all(held >> bit & 1 for bit in _CAPABILITIES) and first == 0 and count > 2 * _UIDS


def fresh_user(name: Isolation) -> int | None:
    """Returns the id of a user that runs one program only: its processes are counted, and signalled, apart."""
    if name == "none" or not privileged():
        return None
    return _UIDS + os.getpid() % 1_000_000 * _USERS_EACH + next(_runs) % _USERS_EACH


def system_view(*extra: str) -> tuple[dict[str, str], list[str]]:
    """Returns the symlinks and the paths that make the system as a program sees it, read-only."""
    links = {path: os.readlink(path) for path in _SYSTEM if os.path.islink(path)}
    paths = ["/usr", *(path for path in _SYSTEM if os.path.isdir(path) and path not in links)]
    paths += [path for path in ("/etc/ld.so.cache",) if os.path.exists(path)]
    for path in (os.path.realpath(sys.base_prefix), *extra):
        if not any(Path(path).is_relative_to(other) for other in paths):
            paths.append(path)
    return links, paths


def command(name: Isolation, config: int, status: int, limits: Limits, uid: int | None) -> list[str]:
    """Returns the command that makes the walls and starts `sandbox_child.py` behind or before them.

    Args:
        name: the isolation.
        config: descriptor of the file that `sandbox_child.py` reads.
        status: descriptor that progress is reported to.
        limits: of the program.
        uid: see `fresh_user`.
    """
    child = [PYTHON, "-I", "-S", "-B", CHILD, str(config)]
    if name != "bwrap":
        return child
    links, paths = system_view(CHILD)
    # Made first: bubblewrap itself would let only root into them.
    above = dict.fromkeys(str(folder) for path in paths for folder in reversed(Path(path).parents[:-1]))
    memory = ["--perms", "1777", "--size", str(limits.file_bytes), "--tmpfs"]
    user = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    if uid is None:
        user = ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    return [
        *("bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--as-pid-1", "--hostname", "sandbox", "--json-status-fd", str(status), *user),
        *memory,
        "/tmp",  # before the rest, which may lie below it
        *(word for link, target in links.items() for word in ("--symlink", target, link)),
        *(word for path in above for word in ("--perms", "0755", "--dir", path)),
        *(word for path in paths for word in ("--ro-bind", path, path)),
        *("--proc", "/proc", "--dev", "/dev", *memory, "/dev/shm"),
        *("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--", *child),
    ]
