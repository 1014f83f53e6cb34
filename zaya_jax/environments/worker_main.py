"""The process that runs environments' code: `python -m zaya_jax.environments.worker_main SOCKET BYTES`.

Two processes: a worker, and a guardian that forked it and runs nobody's code. The guardian's standard input is its
lifeline: when it ends, because its owner closed it or is dead, or when the worker ends, the guardian kills all that
descends from it, processes that made a session of their own or lost their parent among them (it is their subreaper).

A request is a line of JSON on the socket, {"number", "environment", "do": "generate" | "verify" | "explain", ...}.
The reply is a line {"number", "loaded"} when the environment is there, then one of
{"number", "value"} or {"number", "failure": [kind, detail]}. Where there is none, the reply is a failure at once, or
{"number", "mistake": one line}.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import json
import math
import numbers
import os
import random
import resource
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from zaya_jax.environments.worker_output import Printed

MARK = "ZAYA_JAX_ENVIRONMENT_WORKER"  # holds the worker's own process id
MOST_REPLY = 64 << 20  # bytes
FLOODED = 128 + signal.SIGXFSZ  # exit code of a guardian whose worker printed more
_PDEATHSIG, _SUBREAPER = 1, 36
_GONE_WITHIN = 10.0
_LONGEST = 400  # characters of a detail


def in_worker() -> bool:
    """Whether this process is a worker, where code that may hang or run what a model wrote belongs."""
    return os.environ.get(MARK) == str(os.getpid())


def main() -> None:
    channel, memory = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    channel.set_inheritable(False)
    _prctl(_SUBREAPER, 1)
    guardian = os.getpid()
    printed = Printed()
    worker = os.fork()
    if not worker:
        _enter(guardian, memory, printed)
        serve(channel, printed)
        os._exit(0)
    channel.close()
    os.close(printed.writer)  # so that there is an end to read when all writers are gone
    _thread.start_new_thread(printed.drain, (lambda: _end(FLOODED),))
    _thread.start_new_thread(lambda: (os.read(0, 1), _end(128 + signal.SIGKILL)), ())
    while True:
        try:
            pid, status = os.waitpid(-1, 0)  # others are descendants that lost their parent
        except ChildProcessError:  # another thread is ending it all, and saw them die
            signal.pause()
            continue
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            _end(FLOODED if printed.flooded else code if code >= 0 else 128 - code)


def serve(channel: socket.socket, printed: Printed) -> None:
    """Answers requests until the channel ends."""
    loaded: dict[str, Any] = {}
    with channel.makefile("rb") as requests:
        for line in requests:
            request = json.loads(line)
            printed.begin()
            number, name = request["number"], request["environment"]
            if name not in loaded:
                reply = _load(name, loaded)
                printed.settle()
                if reply:
                    _send(channel, {"number": number, **reply})
                    continue
            _send(channel, {"number": number, "loaded": True})
            printed.begin()
            reply = _answer(loaded[name], request, line)
            printed.settle()
            _send(channel, {"number": number, **reply})


def _load(name: str, loaded: dict[str, Any]) -> dict[str, Any]:
    """Adds the environment to those that are loaded; else the reply that says why not."""
    from zaya_jax.environments.named import named
    from zaya_jax.errors import UserError

    try:
        loaded[name] = named(name)
    except UserError as error:
        return {"mistake": str(error)}
    except BaseException as error:
        return _failure("memory" if isinstance(error, MemoryError) else "raised", _told(error))
    return {}


def _answer(environment: Any, request: dict[str, Any], line: bytes) -> dict[str, Any]:
    """The reply to a request: {"value"} or {"failure"}."""
    _seed(line)
    try:
        return _DO[request["do"]](environment, request)
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)  # what fills the memory goes, so that there is some to say so
        return _failure("memory", f"MemoryError {error}")
    except BaseException as error:
        return _failure("raised", _told(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm that is left set would hit another call


def _generate(environment: Any, request: dict[str, Any]) -> dict[str, Any]:
    from zaya_jax.environments.environment import Problem
    from zaya_jax.errors import UserError

    problem = environment.generate(request["seed"], request["difficulty"])
    if not isinstance(problem, Problem):
        return _failure("type", f"generate gave {_name(problem)}, not a Problem")
    try:
        return {"value": Problem.from_json(problem.to_json()).to_json()}
    except (UserError, TypeError, ValueError) as error:
        return _failure("type", f"generate: {error}")


def _verify(environment: Any, request: dict[str, Any]) -> dict[str, Any]:
    from zaya_jax.environments.environment import Problem, Verdict

    verdict = environment.verify(Problem.from_json(request["problem"]), request["response"])
    if not isinstance(verdict, Verdict):
        return _failure("type", f"verify gave {_name(verdict)}, not a Verdict")
    if isinstance(verdict.reward, bool) or not isinstance(verdict.reward, numbers.Real):
        return _failure("reward", f"reward is {_name(verdict.reward)}, not a number")
    if not math.isfinite(verdict.reward):
        return _failure("reward", f"reward is {float(verdict.reward)}")
    for field, kinds in (("correct", bool), ("format", bool), ("error", str | None), ("answer", str | None)):
        if not isinstance(value := getattr(verdict, field), kinds):
            return _failure("type", f"Verdict.{field} is {_name(value)}")
    return {"value": [float(verdict.reward), verdict.correct, verdict.format, verdict.error, verdict.answer]}


def _explain(environment: Any, request: dict[str, Any]) -> dict[str, Any]:
    from zaya_jax.environments.environment import Problem

    if environment.explain is None:
        return {"value": None}
    parts = environment.explain(Problem.from_json(request["problem"]))
    if not isinstance(parts, tuple | list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        return _failure("type", f"explain gave {_name(parts)}, not two texts")
    return {"value": list(parts)}


_DO = {"generate": _generate, "verify": _verify, "explain": _explain}


def _seed(line: bytes) -> None:
    """What an environment draws from generators that it shares with others depends on the call alone."""
    request = line.partition(b'"environment"')[2]  # without its number
    random.seed(request)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(random.getrandbits(32))


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    text = json.dumps(reply).encode()
    if len(text) > MOST_REPLY:
        text = json.dumps({"number": reply["number"], **_failure("garbage", f"a reply of {len(text)} bytes")}).encode()
    channel.sendall(text + b"\n")


def _failure(kind: str, detail: str) -> dict[str, Any]:
    return {"failure": [kind, " ".join(detail.split())[:_LONGEST]]}


def _told(error: BaseException) -> str:
    """An exception in a line, with where it was raised."""
    try:
        text = str(error)[:_LONGEST]
    except BaseException:  # its __str__ is somebody's code too
        text = ""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if len(frames) > 2 else ""
    return f"{type(error).__name__}: {text}{place}"


def _name(value: Any) -> str:
    return type(value).__name__


def _enter(guardian: int, memory: int, printed: Printed) -> None:
    """What is of this process alone: its end, its limits, nothing to read, and a pipe for what it prints."""
    _prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guardian:
        os._exit(1)
    os.environ[MARK] = str(os.getpid())
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor, target in enumerate((null, printed.writer, printed.writer)):
        os.dup2(target, descriptor)
    os.close(null)
    os.close(printed.reader)  # the writer stays, for `settle`; what the environment starts does not get it
    # A shell's background jobs ignore it, and so would their children: an environment acts the same everywhere.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # a lower limit is there already, or this is not Linux
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _end(code: int) -> None:
    """Kills all descendants and ends the guardian. They are its own children, or become them when their parent dies."""
    deadline = time.monotonic() + _GONE_WITHIN
    while time.monotonic() < deadline:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
        except ChildProcessError:
            break
    os._exit(code)


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # not Linux
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)


if __name__ == "__main__":
    main()
