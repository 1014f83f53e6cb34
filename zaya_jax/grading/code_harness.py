"""Runs the tests of one program, inside of the sandbox: each in a fork of its own, none knowing what is expected.

A program of its own, read as text by `code.py`; it imports the standard library only. On standard input: JSON with the
code, the tests' inputs and the time for each. On standard output, for each test that was run: a JSON line
[status, output, error]. Tests run in processes that cannot write there, or read or trace this process.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
import types

# What contest sites have imported already, and their starter code takes for granted.
STARS = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io typing"
NAMES = f"{STARS} sys json"
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36


def main():
    """Returns nothing, or, in a test's own process, the arguments of `run_program`."""
    with open(0, "rb", closefd=False) as file:
        task = json.load(file)
    libc, replies = ctypes.CDLL(None), os.dup(1)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no other process opens our files or memory
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # daemons that a test leaves become our children
    sys.setrecursionlimit(50_000)
    namespace = prelude()
    try:
        program = compile(task["code"], "main.py", "exec")
    except BaseException as error:
        reply(replies, ["error", "", f"{type(error).__name__}: {error}"])
        return None
    for test in task["tests"]:
        pipes = [os.pipe() for _ in ("result", "output", "error")]
        pid = os.fork()
        if not pid:
            os.close(replies)
            return program, namespace, test, enter_test(test, pipes)
        result = watch_test(pid, pipes, test, task["seconds"], task["output_bytes"])
        end_children()
        reply(replies, result)
        if result[0] != "ok":
            break
    return None


def reply(replies, result):
    data = json.dumps(result).encode() + b"\n"
    while data:
        data = data[os.write(replies, data) :]


def prelude():
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    for name in [*STARS.split(), "builtins"]:  # which gives pow, open and the like back
        exec(f"from {name} import *", namespace)
    for name in NAMES.split():
        exec(f"import {name}", namespace)
    return namespace


def enter_test(test, pipes):
    """Gives the test's process its input and outputs; returns where a function's result goes."""
    (result_read, result), (output_read, output), (error_read, error) = pipes
    give_input(test["input"] if test["testtype"] == "stdin" else "")
    os.dup2(output, 1)
    os.dup2(error, 2)
    for descriptor in (result_read, output_read, error_read, output, error):
        os.close(descriptor)
    if test["testtype"] == "stdin":
        os.close(result)
    return result


def watch_test(pid, pipes, test, seconds, most):
    """[status, output, error] of a test's process: what is compared, and the end of its standard error."""
    for _, written in pipes:
        os.close(written)
    read = {pipe: bytearray() for pipe, _ in pipes}
    status = watch(pid, read, time.monotonic() + seconds, most)
    result, output, error = map(bytes, read.values())
    for pipe in read:
        os.close(pipe)
    if status == "error" and error.rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
        status = "memory"
    compared = output if test["testtype"] == "stdin" else result
    return [status, compared.decode("utf-8", "replace"), error[-1000:].decode("utf-8", "replace")]


def watch(pid, pipes, deadline, most):
    """Reads until the test's first process ends, then what is in the pipes still."""
    ended = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    for pipe in pipes:
        os.set_blocking(pipe, False)
        poll.register(pipe, select.POLLIN)
    status = None
    while status is None:
        left = deadline - time.monotonic()
        events = poll.poll(max(0, left * 1000))
        if left <= 0:
            status = "timeout"
        for pipe, _ in events:
            if pipe != ended and not drain(pipe, pipes[pipe]):
                poll.unregister(pipe)
        if any(len(data) > most for data in pipes.values()):
            status = "output"
        elif any(pipe == ended for pipe, _ in events) and status is None:
            status = "ended"
    if status != "ended":
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(ended)
    if status != "ended":
        return status
    for pipe, data in pipes.items():
        while len(data) <= most and drain(pipe, data, block=False):
            pass
    if any(len(data) > most for data in pipes.values()):
        return "output"
    if code == -signal.SIGXCPU:
        return "timeout"
    return "ok" if code == 0 else "killed" if code < 0 else "error"


def drain(pipe, data, block=True):
    """Reads once; False at the end, or, unless `block`, when nothing is there."""
    try:
        chunk = os.read(pipe, 1 << 16)
    except BlockingIOError:
        return block
    data += chunk
    return bool(chunk)


def end_children():
    """Kills what a test left behind: those that lost their parent are our children now."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = [int(pid) for pid in file.read().split()]
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
        if not children:
            return


def give_input(text):
    """Standard input from an unnamed file: of any length, without a writer."""
    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogatepass"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.dup2(descriptor, 0)
    os.close(descriptor)


def run_program(program, namespace, test, result_write):
    """In the test's process. Whatever it raises ends the interpreter as it would end any program."""
    module = types.ModuleType("__main__")
    module.__dict__.update(namespace)
    sys.modules["__main__"] = module
    sys.argv = ["main.py"]
    if test["testtype"] == "stdin":
        exec(program, module.__dict__)
        return
    module.__name__ = "solution"  # what stands under `if __name__ == "__main__"` is not part of it
    exec(program, module.__dict__)
    solution = module.__dict__.get("Solution")
    holder = solution() if isinstance(solution, type) else module
    arguments = [json.loads(line) for line in test["input"].split("\n") if line.strip()]
    result = getattr(holder, test["fn_name"])(*arguments)
    data = json.dumps(result).encode()
    while data:
        data = data[os.write(result_write, data) :]
    sys.stdout = None  # what it printed is not asked for


if __name__ == "__main__":
    run_here = main()
    if run_here:
        run_program(*run_here)
