"""Scorers that are somebody else's: what they try from within, and what comes out."""

import concurrent.futures
import ctypes
import errno
import fcntl
import multiprocessing
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


GIVING = {
    "json": lambda: {"sum": 2 + 3, "pair": (2, 3)},
    "text": lambda: "\ud800 ü",
    "divide": lambda: 1 / 0,
    "exit": lambda: sys.exit(3),
    "no json": lambda: object(),
    "end": lambda: os._exit(7),
    "crash": lambda: ctypes.string_at(0),
    "flood": lambda: "x" * (2 << 20),
    "memory": lambda: (_ for _ in ()).throw(MemoryError("full")),
    "keep": lambda: SEEN.append(1) or len(SEEN),
    "work": lambda: work(),
}
SEEN: list[int] = []


@pytest.fixture(scope="module")
def alone():
    """Calls functions in a process without JAX, whose threads do not go together with a fork: as workers have none."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(60)


def given(name):
    return confined(GIVING[name])


def test_what_a_function_gives_comes_out_as_json_has_it(alone):
    assert alone(given, "json") == {"sum": 5, "pair": [2, 3]}
    assert alone(given, "text") == "\ud800 ü"


def test_what_it_leaves_in_its_variables_is_gone(alone):
    assert [alone(given, "keep") for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("divide", RuntimeError, "ZeroDivisionError"),
        ("exit", RuntimeError, "SystemExit: 3"),
        ("no json", RuntimeError, "TypeError"),
        ("end", RuntimeError, "exit code 7"),
        ("crash", RuntimeError, "signal 11"),
        ("flood", RuntimeError, "exit code 1|no result"),
        ("memory", MemoryError, "full"),
    ],
)
def test_what_goes_wrong_is_raised(alone, name, error, told):
    with pytest.raises(error, match=told):
        alone(given, name)


def attempts(folder: pathlib.Path) -> dict:
    """Ways out, by name."""
    kept, pid = folder / "kept", os.getpid()
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
        "signal another by a descriptor": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, pid),
        "slow another": lambda: os.setpriority(os.PRIO_PROCESS, pid, nice),
        "limit another": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, files),
        "network": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
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


def attempted(name, folder):
    return confined(tried, attempts(folder)[name])


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_way_out(alone, tmp_path, name):
    kept = tmp_path / "kept"
    kept.write_text("kept")
    before = sorted(os.listdir(tmp_path)), kept.stat().st_mtime_ns, kept.stat().st_mode
    assert alone(attempted, name, tmp_path) == "PermissionError"
    assert before == (sorted(os.listdir(tmp_path)), kept.stat().st_mtime_ns, kept.stat().st_mode)


def attempted_without_walls(name, folder):
    function = attempts(folder)[name]
    if name == "fork":
        function = lambda: os.fork() or os._exit(0)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zaya_jax.grading.sandbox_child.filter_calls", lambda program: None)
        return confined(tried, function)


@pytest.mark.parametrize("name", ["write", "append", "remove", "mode", "folder", "program", "fork", "socket"])
def test_the_walls_are_what_holds_it(alone, tmp_path, name):
    """Without the filter the same attempts succeed: the test above can fail."""
    (tmp_path / "kept").write_text("kept")
    assert alone(attempted_without_walls, name, tmp_path) == "done"


def forged():
    """What a reader of the worker's own channel gets, when a scorer writes to it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        said = confined(tried, lambda: os.write(ours.fileno(), b"forged"))
        ours.close()
        return said, theirs.recv(10)


def test_descriptors_of_the_worker_are_not_its_own(alone):
    assert alone(forged) == ("OSError", b"")


def work():
    """Reads a file that lies beside this one, imports a module and starts a thread."""
    import colorsys

    found = []
    thread = threading.Thread(target=lambda: found.append(colorsys.rgb_to_hsv(0, 0, 1)[2]))
    thread.start()
    thread.join()
    return [pathlib.Path(__file__).read_text(encoding="utf-8").splitlines()[0], *found]


def test_it_may_read_import_and_start_threads(alone):
    assert alone(given, "work") == [f'"""{__doc__.strip()}"""', 1]


def test_a_system_without_walls_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    with pytest.raises(UserError, match="cannot be confined") as caught:
        check_confinement("environment x")
    assert "\n" not in str(caught.value) and "Linux" in str(caught.value)


def verdict(filters: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel's interpreter makes of a call: the value of the return that is reached."""
    given = dict(enumerate(arguments))
    memory = {0: number, 4: architecture} | {16 + 8 * place: value for place, value in given.items()}
    ops, at, held = list(struct.iter_unpack("=HBBI", filters)), 0, 0
    while True:
        code, if_true, if_false, value = ops[at]
        if code == 0x06:
            return value
        if code == 0x20:
            held = memory.get(value, 0)
            at += 1
            continue
        true = {0x15: held == value, 0x35: held >= value, 0x45: held & value != 0}[code]
        at += 1 + (if_true if true else if_false)


ALLOWED, REFUSED, UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# By name, as the kernel's tables have them for x86_64 and aarch64; arguments; what comes of it.
CALLS = {
    "read": ((0, 63), (), ALLOWED),
    "write to what is open": ((1, 64), (), ALLOWED),
    "more memory": ((9, 222), (), ALLOWED),
    "open to read": ((257, 56), (0, 0, 0o2000000), ALLOWED),
    "open to write": ((257, 56), (0, 0, 1), REFUSED),
    "open to make": ((257, 56), (0, 0, 0o100), REFUSED),
    "open to empty": ((257, 56), (0, 0, 0o1000), REFUSED),
    "open anew": ((437, 437), (), UNKNOWN),
    "a thread": ((56, 220), (0x3D0F00,), ALLOWED),
    "a process": ((56, 220), (0x1200011,), REFUSED),
    "a thread with a network of its own": ((56, 220), (0x3D0F00 | 0x40000000,), REFUSED),
    "clone3": ((435, 435), (), UNKNOWN),
    "its own limits": ((302, 261), (0,), ALLOWED),
    "another's limits": ((302, 261), (77,), REFUSED),
    "a descriptor's flags": ((72, 25), (3, 2), ALLOWED),
    "a descriptor's owner": ((72, 25), (3, 8), REFUSED),
    "a descriptor's signal": ((72, 25), (3, 10), REFUSED),
    "a descriptor's owner, in full": ((72, 25), (3, 15), REFUSED),
    "a lease": ((72, 25), (3, 1024), REFUSED),
    "whether it is a terminal": ((16, 29), (3, 0x5401), ALLOWED),
    "how much there is to read": ((16, 29), (3, 0x541B), ALLOWED),
    "a file's attributes": ((16, 29), (3, 0x40086602), REFUSED),
    "a key pressed": ((16, 29), (3, 0x5412), REFUSED),
    "a program": ((59, 221), (), REFUSED),
    "a socket": ((41, 198), (1,), REFUSED),
    "a signal": ((62, 129), (), REFUSED),
    "a lock": ((73, 32), (), REFUSED),
    "removal": ((263, 35), (), REFUSED),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_by_itself(machine):
    """By the kernel's rules, on both machines."""
    filters, column = seccomp.computing(machine), list(MACHINES).index(machine)
    for name, (numbers, arguments, expected) in CALLS.items():
        assert verdict(filters, MACHINES[machine], numbers[column], *arguments) == expected, name
    assert verdict(filters, 0x40000003, 0) == 0x80000000, "another architecture's numbers"


@pytest.mark.parametrize("machine", MACHINES)
def test_no_number_stands_for_two_calls(machine):
    column = list(MACHINES).index(machine)
    numbers = [own[column] for own in (seccomp.REFUSED | seccomp.CHANGING).values() if own[column] is not None]
    others = {numbers[column] for numbers, _, expected in CALLS.values() if expected == ALLOWED}
    assert len(set(numbers)) == len(numbers) and not others & set(numbers)
