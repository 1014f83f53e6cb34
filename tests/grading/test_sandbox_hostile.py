"""Programs that mean harm are held: none gets out, none stays, none changes a file outside."""

import dataclasses
import functools
import os
import socket
import uuid
from pathlib import Path

import pytest

from tests.grading import hostile
from zaya_jax.grading.limits import Limits
from zaya_jax.grading.sandbox import Sandbox

LIMITS = Limits(
    cpu_seconds=1, wall_seconds=5, memory_bytes=256 << 20, processes=16, file_bytes=8 << 20, output_bytes=1 << 20
)
PRECIOUS = "nobody changes this\n"


@functools.cache
def is_shut(isolation: str) -> bool:
    """Checked with a harmless program, before any that would kill or delete what it can reach."""
    program = """
import os
print(os.getpid() < 10, os.getuid() != 0, all(int(p) < 10 for p in os.listdir('/proc') if p.isdigit()))
print(os.path.exists('/root/.ssh') or os.path.exists('/var') or os.path.exists('/etc/passwd'))
"""
    return Sandbox(isolation=isolation).run(program).stdout == "True True True\nFalse\n"


def marked(mark: str) -> list[str]:
    """Processes of the whole machine whose command or environment has the mark, and what lives below this one."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                text = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.append(directory.name)
    return found


def children() -> list[str]:
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def users_of_the_sandbox() -> list[str]:
    """Processes that belong to a user of a sandbox; where we are not root, they are children."""
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and directory.stat().st_uid // 1000 == 1_000_000 + os.getpid() % 1_000_000:
                found.append(directory.name)
        except OSError:
            continue
    return found


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """What a program may be after: a file, sockets that listen, a secret in our environment."""
    monkeypatch.setenv("TOKEN", "PLANTED")
    (tmp_path / "precious.txt").write_text(PRECIOUS)
    os.chmod(tmp_path, 0o777)
    with (
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        mark = f"mark-{uuid.uuid4().hex}"
        os.chdir(tmp_path)  # a socket's path is short
        unix.bind("socket")
        unix.listen()
        os.chmod("socket", 0o777)
        abstract.bind("\0" + mark)
        abstract.listen()
        yield {"host": str(tmp_path), "port": tcp.getsockname()[1], "parent": os.getpid(), "mark": mark}


@pytest.fixture
def here():
    before = os.getcwd()
    yield
    os.chdir(before)


@pytest.mark.parametrize("name", hostile.CONTAINED)
def test_contained(name, isolation, here, outside):
    sandbox = Sandbox(LIMITS, isolation=isolation)
    assert is_shut(isolation)
    statuses, program = hostile.CONTAINED[name]
    repository = {path: path.stat().st_mtime_ns for path in Path(hostile.__file__).parent.iterdir() if path.is_file()}
    tmp = set(os.listdir("/tmp"))

    # Whoever can only be waited for need not be waited for long.
    wall = 0.6 if "timeout" in statuses and statuses != hostile.ANY else LIMITS.wall_seconds
    limits = dataclasses.replace(LIMITS, wall_seconds=wall)

    run = sandbox.run(hostile.HEADER.format(**outside) + program, limits=limits)

    assert "ESCAPED" not in run.stdout, run
    assert run.status in statuses, run
    assert run.seconds < wall + 5
    assert len(run.stdout) <= LIMITS.output_bytes and len(run.stderr) <= LIMITS.output_bytes
    assert marked(outside["mark"]) == children() == users_of_the_sandbox() == []
    host = Path(outside["host"])
    assert sorted(os.listdir(host)) == ["precious.txt", "socket"]
    assert (host / "precious.txt").read_text() == PRECIOUS
    assert repository == {path: path.stat().st_mtime_ns for path in repository}
    assert not any("zaya" in name for name in set(os.listdir("/tmp")) - tmp)
