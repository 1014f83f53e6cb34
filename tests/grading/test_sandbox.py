"""What a program gets from its sandbox, and what is left of a thousand of them."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tests.grading.test_sandbox_hostile import children, users_of_the_sandbox
from zaya_jax.errors import UserError
from zaya_jax.grading import isolation as isolations
from zaya_jax.grading import sandbox_process, seccomp
from zaya_jax.grading.limits import Limits
from zaya_jax.grading.sandbox import Job, Sandbox, SandboxBroken


def test_output_errors_and_exit_codes_come_back(sandbox):
    run = sandbox.run("import sys\nprint(input()[::-1])\nsys.stderr.write('é')\nsys.exit(3)", "olleh\n")
    assert (run.status, run.stdout, run.stderr, run.exit_code) == ("error", "hello\n", "é", 3)
    assert 0 < run.seconds < 10
    run = sandbox.run("raise ValueError('no')")
    assert run.status == "error" and run.exit_code == 1
    assert run.stderr.endswith(
        "File \"/tmp/main.py\", line 1, in <module>\n    raise ValueError('no')\nValueError: no\n"
    )


@pytest.mark.parametrize(
    ("program", "status", "code"),
    [
        ("pass", "ok", 0),
        ("import os; os._exit(0)", "ok", 0),
        ("raise SystemExit('no')", "error", 1),
        ("x = ", "error", 1),
        ("raise MemoryError", "memory", 1),
        ("import os; os.kill(os.getpid(), 9)", "killed", 137),
        ("import os; os.abort()", "killed", 134),
    ],
)
def test_how_a_program_ended(sandbox, program, status, code):
    run = sandbox.run(program)
    assert (run.status, run.exit_code) == (status, code)


def test_the_processor_time_is_limited_though_the_clock_is_not(isolation):
    sandbox = Sandbox(Limits(cpu_seconds=1, wall_seconds=60), isolation=isolation)
    run = sandbox.run("while True: pass")
    assert (run.status, run.exit_code) == ("timeout", 128 + signal.SIGXCPU)
    run = sandbox.run("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass")
    assert (run.status, run.exit_code) == ("timeout", 128 + signal.SIGKILL)


def test_input_is_whole_whatever_its_size(sandbox):
    text = "line\n" * 2_000_000
    assert sandbox.run("import sys\nprint(len(sys.stdin.read()))", text).stdout == f"{len(text)}\n"
    assert sandbox.run("pass", text).status == "ok"  # unread input is nobody's trouble
    assert sandbox.run("import sys\nprint(sys.stdin.buffer.read())", b"\xff\x00").stdout == "b'\\xff\\x00'\n"
    assert sandbox.run("import sys\nprint(repr(sys.stdin.read()))").stdout == "''\n"


def test_output_up_to_the_limit_is_whole_and_beyond_it_cut(isolation):
    sandbox = Sandbox(Limits(output_bytes=1 << 20), isolation=isolation)
    run = sandbox.run("import os\nos.write(1, b'x')\nprint('x' * ((1 << 20) - 2))")
    assert run.status == "ok" and len(run.stdout) == 1 << 20
    run = sandbox.run("print('x' * (1 << 20))")
    assert run.status == "output" and len(run.stdout) == 1 << 20 and run.exit_code is None


def test_a_flood_fills_no_memory_of_ours(isolation):
    sandbox = Sandbox(Limits(output_bytes=1 << 20), isolation=isolation)
    code = f"""
        import resource
        from zaya_jax.grading.sandbox import Sandbox
        from zaya_jax.grading.limits import Limits
        sandbox = Sandbox(Limits(output_bytes=1 << 20), isolation={isolation!r})
        sandbox.run("pass")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(sandbox.run("while True: print('x' * 1000000)").status)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout == "output\nTrue\n", done.stderr
    assert sandbox.run("pass").status == "ok"


def test_files_are_there_and_only_there(sandbox):
    program = "import os\nprint(sorted(os.listdir('.')), open('a/b.txt').read(), open('c', 'rb').read())"
    run = sandbox.run(program, files={"a/b.txt": "text", "c": b"\xff"})
    listed = run.stdout.split("]")[0]
    assert "'a', 'c'" in listed and "'main.py'" in listed and run.stdout.endswith("text b'\\xff'\n")
    assert "'a'" not in sandbox.run("import os\nprint(os.listdir('.'))").stdout


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "main.py", "./main.py", "a\0b"])
def test_files_that_lead_out_are_refused(sandbox, name):
    with pytest.raises(UserError, match="path is not usable"):
        sandbox.run("pass", files={name: ""})


def test_ordinary_programs_work(sandbox):
    program = """
        import decimal, json, math, sqlite3, subprocess, tempfile, threading, zlib, asyncio, multiprocessing
        from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor
        with tempfile.TemporaryFile() as file: file.write(b'x')
        print(list(ThreadPoolExecutor(4).map(abs, [-1, -2])))
        print(subprocess.run(['echo', 'hi'], capture_output=True, text=True).stdout)
        with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-3, -4]))
        print(asyncio.run(asyncio.sleep(0, 'slept')))
        print('ünï')
        class A: pass
        import pickle; print(type(pickle.loads(pickle.dumps(A()))) is A, __name__)
    """
    run = sandbox.run(textwrap.dedent(program))
    assert run.stdout == "[1, 2]\nhi\n\n[3, 4]\nslept\nünï\nTrue __main__\n", run.stderr


def test_the_environment_is_empty_but_for_path_and_language(sandbox):
    run = sandbox.run("import os\nprint(dict(os.environ))")
    assert run.stdout == "{'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8'}\n"


def test_every_descriptor_but_three_is_closed(sandbox):
    with open(__file__):
        run = sandbox.run("import os\nprint([n for n in range(3, 1000) if os.path.exists(f'/proc/self/fd/{n}')])")
    assert run.stdout == "[]\n"


def test_without_isolation_it_refuses_unless_told_otherwise(monkeypatch):
    with pytest.raises(UserError, match=r"refused to run.*allow_unisolated=True") as error:
        Sandbox(isolation="none")
    assert "\n" not in str(error.value)
    run = Sandbox(isolation="none", allow_unisolated=True).run("import os\nprint(input(), os.listdir())", "hi")
    assert run.stdout == "hi ['main.py']\n"
    reason = "bubblewrap is not installed (Debian: apt install bubblewrap)"
    monkeypatch.setattr("zaya_jax.grading.sandbox.why_not", lambda name: reason if name != "none" else "")
    monkeypatch.setattr("zaya_jax.grading.sandbox.best_isolation", lambda: "none")
    with pytest.raises(UserError, match="bubblewrap is not installed"):
        Sandbox()
    with pytest.raises(UserError, match=r"'bwrap' does not work here; found bubblewrap is not"):
        Sandbox(isolation="bwrap")
    with pytest.raises(UserError, match="no such isolation"):
        Sandbox(isolation="docker")


def test_limits_are_checked():
    with pytest.raises(UserError, match=r"Limits.processes: limit is not usable; expected a positive integer; found 0"):
        Limits(processes=0)
    with pytest.raises(UserError, match=r"Limits\.wall_seconds"):
        Limits(wall_seconds=float("nan"))


def test_walls_that_cannot_be_built_are_no_verdict_on_the_program(isolation, monkeypatch):
    sandbox = Sandbox(isolation=isolation)
    for module in (isolations, sandbox_process):
        monkeypatch.setattr(module, "system_view", lambda *_: ({}, ["/no/such/directory"]))
    with pytest.raises(SandboxBroken, match=f"{isolation} did not start"):
        sandbox.run("pass")
    assert children() == []


def test_the_end_of_its_owner_is_the_end_of_a_program(isolation):
    code = f"""
        import threading, time
        from zaya_jax.grading.sandbox import Sandbox
        sandbox = Sandbox(isolation={isolation!r})
        threading.Thread(target=sandbox.run, args=("import time; time.sleep(60)",), daemon=True).start()
        time.sleep(0.7)
        print("started", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"started\n"
        below = descendants(owner.pid)
        assert len(below) >= 2
        owner.kill()
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in below)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_of_calls_jumps_within_itself_and_ends_in_a_verdict(machine):
    import struct

    ops = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    for at, (code, if_true, if_false, _) in enumerate(ops):
        if code not in (0x20, 0x06):
            assert at + 1 + max(if_true, if_false) < len(ops)
    assert ops[-1] == (0x06, 0, 0, 0x7FFF0000)
    assert len(set(seccomp.REFUSED.values())) == len(seccomp.REFUSED)
    assert seccomp.program("riscv64") == b""


def many(isolation: str, count: int) -> float:
    """Runs programs of every kind in parallel and returns how many a second; nothing may be left."""
    sandbox = Sandbox(Limits(wall_seconds=10), isolation=isolation)
    kinds = [
        ("print(int(input()) ** 2)", "ok"),
        ("print(int(input()) ** 2)\nraise SystemExit(1)", "error"),
        (
            "import os\nprint(int(input()) ** 2, flush=True)\nos.fork() or os.setsid() or __import__('time').sleep(99)",
            "ok",
        ),
        ("import os\nprint(int(input()) ** 2, flush=True)\nos.kill(os.getpid(), 9)", "killed"),
    ]
    chosen = [random.Random(i).choice(kinds) for i in range(count)]
    sandbox.run("pass")
    descriptors, temporary = len(os.listdir("/proc/self/fd")), set(os.listdir("/tmp"))
    begun = time.monotonic()
    runs = sandbox.run_many([Job(program, f"{i}\n") for i, (program, _) in enumerate(chosen)], workers=4)
    seconds = time.monotonic() - begun
    assert [run.stdout for run in runs] == [f"{i * i}\n" for i in range(count)]
    assert [run.status for run in runs] == [status for _, status in chosen]
    assert children() == users_of_the_sandbox() == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not any("zaya_jax_grading" in name for name in set(os.listdir("/tmp")) - temporary)
    assert threading.active_count() < 20
    rate = count / seconds
    print(f"\n{isolation}: {count} programs in {seconds:.1f} s, {rate:.0f} a second with 4 threads")
    return rate


def test_a_hundred_programs_leave_nothing(isolation):
    many(isolation, 100)


@pytest.mark.slow
def test_a_thousand_programs_leave_nothing(isolation):
    many(isolation, 1000)


def test_all_but_the_temporary_directories_and_devices_is_read_only(sandbox):
    run = sandbox.run("print(open('/proc/self/mountinfo').read())")
    mounts = {line.split()[4]: line.split()[5].split(",") for line in run.stdout.splitlines() if line}
    writable = {path for path, options in mounts.items() if "ro" not in options and not path.startswith("/dev/")}
    assert writable == {"/tmp"}
    assert all("nosuid" in options for options in mounts.values())
    assert all("nodev" in options for path, options in mounts.items() if not path.startswith("/dev/"))
