"""Waiting until all processes of a program are there.

`jax.distributed` ends a process that waits in vain with a dump of its stack. Who is missing is found out here first, on
the same port: process 0 listens until every other one has called and said its number.
"""

from __future__ import annotations

import contextlib
import socket
import time

from zaya_jax.errors import mistake

_HELLO = b"zaya"
_PAUSE = 0.2  # seconds between two attempts


def meet(coordinator: str, count: int, index: int, timeout: float) -> None:
    """Returns in all processes when all are there.

    Args:
        coordinator: host:port of process 0.
        count: processes in all.
        index: of this one.
        timeout: seconds.

    Raises:
        UserError: somebody is missing, or the port is taken.
    """
    host, port = coordinator.rsplit(":", 1)
    deadline = time.monotonic() + timeout
    if index == 0:
        _host(int(port), count, deadline)
    else:
        _call((host.strip("[]"), int(port)), index, deadline)


def _host(port: int, count: int, deadline: float) -> None:
    callers: dict[int, socket.socket] = {}
    with _server(port) as server, contextlib.ExitStack() as stack:
        while len(callers) < count - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                caller = stack.enter_context(server.accept()[0])
            except TimeoutError:
                missing = [i for i in range(1, count) if i not in callers]
                raise _not_met(f"all {count} processes", f"no process {missing[0]}", port) from None
            if (number := _number(caller)) is not None and 0 < number < count:
                callers[number] = caller
        for caller in callers.values():
            caller.sendall(b"!")
            caller.recv(1)  # it hangs up first: the port is free at once


def _server(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=1024
        )
    except OSError as error:
        raise _not_met("a free port", error.strerror, port) from None


def _number(caller: socket.socket) -> int | None:
    """What a caller says it is; None for one that is none of ours."""
    caller.settimeout(5)
    try:
        said = caller.recv(8, socket.MSG_WAITALL)
    except OSError:
        return None
    return int.from_bytes(said[4:], "big") if said[:4] == _HELLO and len(said) == 8 else None


def _call(address: tuple[str, int], index: int, deadline: float) -> None:
    found = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left) as line:
                line.sendall(_HELLO + index.to_bytes(4, "big"))
                line.settimeout(left + 5)  # let process 0 be the first to give up: it knows why
                if line.recv(1):
                    return
                found = "it gave up waiting for the others"
                break
        except OSError as error:
            found = error.strerror or str(error)
            time.sleep(_PAUSE)
    raise _not_met("process 0 there", found, ":".join(map(str, address)))


def _not_met(expected: str, found: str, where: object) -> Exception:
    fix = "see that all of them were started, and that the port can be reached"
    return mistake("the processes did not meet", where=where, expected=expected, found=found, fix=fix)
