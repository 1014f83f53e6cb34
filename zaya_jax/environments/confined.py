"""A function in a process of its own that can read and compute, and do nothing else.

For scorers that are somebody else's code and are shown what a model wrote: `confined(score, answer)` forks, refuses
the child every system call that changes something outside of it (`seccomp.computing`), and reads its result from a
pipe, the one thing that is open besides standard input and output, which lead nowhere. Whatever the scorer
leaves behind in its variables goes with the child, too.

The child is ended by nobody here: call it in a worker (`zaya_jax.environments.workers`), whose time and memory are
limited. Code that a text makes a scorer run can still give a verdict of its own, and read files that this user may
read; scorers that are known to evaluate texts are refused (`DENIED` of the adapters).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from zaya_jax.errors import UserError, mistake
from zaya_jax.grading import sandbox_child, seccomp

_MOST = 1 << 20  # bytes of a result
_LONGEST = 400  # characters of an exception's text


def check_confinement(where: str) -> None:
    """UserError if processes cannot be confined on this system."""
    if not seccomp.computing():
        expected = "Linux on x86_64 or aarch64"
        raise mistake("scorers that are not our own cannot be confined on this system", where=where, expected=expected)


def confined(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, as JSON gives it back.

    Raises:
        MemoryError: the function raised one.
        RuntimeError: it raised something else, ended its process, gave what JSON cannot hold or more than 1 MiB of it,
            or the walls could not be built.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _become(writer, function, arguments)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read(_MOST)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise RuntimeError(f"the scorer's process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}")
    try:
        kind, value = json.loads(told)
    except (ValueError, TypeError, RecursionError):  # a child may say what it likes
        raise RuntimeError(f"no result from the scorer's process: {told[:60]!r}") from None
    if kind == "memory":
        raise MemoryError(value)
    if kind != "value":
        raise RuntimeError(value)
    return value


def _become(writer: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The child's life; does not return."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # the worker's are a pipe that its other calls need
            os.dup2(null, descriptor)
        os.closerange(3, writer)
        os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
        told = _told(function, arguments)
        with open(writer, "w", encoding="utf-8") as pipe:
            pipe.write(told)
        code = 0
    finally:
        os._exit(code)


def _told(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """What came of it, as JSON."""
    try:
        check_confinement("a scorer")
        sandbox_child.prctl(sandbox_child.PR_SET_NO_NEW_PRIVS, 1)
        sandbox_child.filter_calls(seccomp.computing())
    except (OSError, UserError) as error:
        return json.dumps(["raised", f"the walls around a scorer could not be built: {error}"])
    try:
        return json.dumps(["value", function(*arguments)])
    except MemoryError as error:
        return json.dumps(["memory", str(error)[:_LONGEST]])
    except BaseException as error:
        return json.dumps(["raised", f"{type(error).__name__}: {str(error)[:_LONGEST]}"])
