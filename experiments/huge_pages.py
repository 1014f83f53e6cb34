"""Large arrays on pages of 2 MB: without them a CPU spends a tenth of a prefill, a third of a training step on faults.

XLA:CPU takes the memory of every call anew and gives it back, so each call finds its pages unmapped. Where the kernel
gives large pages only to who asks (Ubuntu's, for one), glibc asks if GLIBC_TUNABLES says so when the process starts.
Figures: `docs/performance.md`.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping

_TUNABLE = "glibc.malloc.hugetlb=1"
_MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use() -> None:
    """Starts the command once more, under the same process id, if that gives it large pages."""
    if not needed(os.environ, _MODE.read_text(encoding="ascii") if _MODE.exists() else "", _libc()):
        return
    given = os.environ.get("GLIBC_TUNABLES")
    os.environ["GLIBC_TUNABLES"] = f"{given}:{_TUNABLE}" if given else _TUNABLE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def needed(environment: Mapping[str, str], mode: str, libc: str) -> bool:
    """Whether GLIBC_TUNABLES would give large pages, and says nothing about them yet.

    Args:
        environment: of the process.
        mode: what the kernel says, e.g. "always [madvise] never"; empty if it says nothing.
        libc: e.g. "glibc 2.36"; 2.35 was the first that knows the tunable.
    """
    name, _, version = libc.partition(" ")
    knows = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
    return knows and "[madvise]" in mode and "glibc.malloc.hugetlb" not in environment.get("GLIBC_TUNABLES", "")


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # not Linux, or not glibc
        return ""
