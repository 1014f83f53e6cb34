"""Scorers that are somebody else's: what they try from within, and what comes out."""

import contextlib
import ctypes
import os
import pathlib
import resource
import socket
import struct
import subprocess
import sys
import threading

import pytest

from zaya_jax.environments.confined import check_confinement, confined
from zaya_jax.errors import UserError
from zaya_jax.grading import seccomp

pytestmark = pytest.mark.skipif(not seccomp.computing(), reason="scorers are confined on Linux (x86_64, aarch64) only")


def test_what_a_function_gives_comes_out_as_json_has_it():
    assert confined(lambda a, b: {"sum": a + b, "pair": (a, b)}, 2, 3) == {"sum": 5, "pair": [2, 3]}
    assert confined(lambda: "\ud800 ü") == "\ud800 ü"


def test_what_it_leaves_in_its_variables_is_gone():
    seen = []
    assert confined(lambda: seen.append(1) or len(seen)) == 1
    assert seen == []


@pytest.mark.parametrize(
    ("function", "error", "told"),
    [
        (lambda: 1 / 0, RuntimeError, "ZeroDivisionError"),
        (lambda: sys.exit(3), RuntimeError, "SystemExit: 3"),
        (lambda: object(), RuntimeError, "TypeError"),
        (lambda: os._exit(7), RuntimeError, "exit code 7"),
        (lambda: ctypes.string_at(0), RuntimeError, "signal 11"),
        (lambda: "x" * (2 << 20), RuntimeError, "exit code 1|no result"),
        (lambda: (_ for _ in ()).throw(MemoryError("full")), MemoryError, "full"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_raised(function, error, told):
    with pytest.raises(error, match=told):
        confined(function)


def attempts(folder: pathlib.Path) -> dict:
    """Ways out, by name."""
    kept, pid = folder / "kept", os.getpid()
    with contextlib.closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()
    nice, files = os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "write": lambda: (folder / "new").write_text("x"),
        "append": lambda: kept.open("a"),
        "both": lambda: os.open(kept, os.O_RDWR),
        "remove": lambda: kept.unlink(),
        "rename": lambda: kept.rename(folder / "other"),
        "mode": lambda: kept.chmod(0o777),
        "times": lambda: os.utime(kept),
        "shorten": lambda: os.truncate(kept, 0),
        "folder": lambda: (folder / "new").mkdir(),
        "link": lambda: (folder / "new").symlink_to(kept),
        "name": lambda: os.mkfifo(folder / "new"),
        "program": lambda: subprocess.run(["/bin/true"], check=True),
        "become": lambda: os.execv("/bin/true", ["/bin/true"]),
        "fork": os.fork,
        "signal another": lambda: os.kill(pid, 0),
        "slow another": lambda: os.setpriority(os.PRIO_PROCESS, pid, nice),
        "limit another": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, files),
        "network": lambda: socket.create_connection(address, timeout=1),
        "socket": lambda: socket.socket(socket.AF_UNIX),
        "its memory": lambda: open(f"/proc/{pid}/mem", "r+b"),
        "trace": lambda: refused(ctypes.CDLL(None, use_errno=True).ptrace(16, pid, 0, 0)),
        "namespace": lambda: refused(ctypes.CDLL(None, use_errno=True).unshare(0x10000000)),
    }  # fmt: skip


def refused(result: int) -> None:
    if result < 0:
        raise PermissionError(ctypes.get_errno(), "refused")


def tried(function) -> str:
    try:
        function()
    except OSError as error:
        return type(error).__name__
    return "done"


NAMES = sorted(attempts(pathlib.Path("nowhere")))


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_way_out(tmp_path, name):
    (tmp_path / "kept").write_text("kept")
    before = sorted(os.listdir(tmp_path)), (tmp_path / "kept").stat()
    assert confined(tried, attempts(tmp_path)[name]) == "PermissionError"
    after = sorted(os.listdir(tmp_path)), (tmp_path / "kept").stat()
    assert (
        before[0] == after[0]
        and before[1].st_mtime_ns == after[1].st_mtime_ns
        and before[1].st_mode == after[1].st_mode
    )


@pytest.mark.parametrize("name", ["write", "append", "remove", "mode", "folder", "program", "fork", "socket"])
def test_the_walls_are_what_holds_it(tmp_path, name, monkeypatch):
    """Without the filter the same attempts succeed: the test above can fail."""
    monkeypatch.setattr("zaya_jax.grading.sandbox_child.filter_calls", lambda program: None)
    (tmp_path / "kept").write_text("kept")
    function = attempts(tmp_path)[name]
    if name == "fork":
        function = lambda: os.fork() or os._exit(0)  # noqa: E731
    assert confined(tried, function) == "done"


def test_descriptors_of_the_worker_are_not_its_own():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert confined(tried, lambda: os.write(ours.fileno(), b"forged")) == "OSError"
        ours.close()
        assert theirs.recv(10) == b""


def test_it_may_read_import_and_start_threads(tmp_path):
    (tmp_path / "text").write_text("read")
    (tmp_path / "own_module_of_a_scorer.py").write_text("VALUE = 41")

    def work():
        sys.path.insert(0, str(tmp_path))
        from own_module_of_a_scorer import VALUE

        found = []
        thread = threading.Thread(target=lambda: found.append(VALUE + 1))
        thread.start()
        thread.join()
        return [(tmp_path / "text").read_text(), *found]

    assert confined(work) == ["read", 42]


def test_a_system_without_walls_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    with pytest.raises(UserError, match="cannot be confined") as caught:
        check_confinement("environment x")
    assert "\n" not in str(caught.value) and "Linux" in str(caught.value)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_jumps_within_itself_and_ends_in_a_verdict(machine):
    ops = list(struct.iter_unpack("=HBBI", seccomp.computing(machine)))
    for at, (code, if_true, if_false, _) in enumerate(ops):
        if code not in (0x20, 0x06):
            assert at + 1 + max(if_true, if_false) < len(ops)
    assert ops[-1] == (0x06, 0, 0, 0x7FFF0000)
    column = ("x86_64", "aarch64").index(machine)
    numbers = [own[column] for own in (seccomp.REFUSED | seccomp.CHANGING).values() if own[column] is not None]
    assert len(set(numbers)) == len(numbers)
