"""One worker process as its owner sees it: what it may use, how it is asked, and how it ends.

The other side of the channel, and what goes over it, is `zaya_jax/environments/worker_main.py`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failure
from zaya_jax.environments.worker_main import FLOODED, MOST_REPLY
from zaya_jax.environments.worker_output import MOST_PRINTED
from zaya_jax.errors import UserError, mistake

_START_WITHIN = 60.0  # seconds to start a process and to import an environment
_GONE_WITHIN, _SOON = 15.0, 2.0
_PIECE, _LONGEST = 1 << 16, 400  # bytes, characters
# Threads of numerical libraries would each take address space, and cores from whoever samples.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclasses.dataclass(frozen=True)
class WorkerLimits:
    """What a worker may use.

    Attributes:
        seconds: wall time of a call. Starting the worker and importing the environment have a minute of their own.
        memory_mb: address space of a worker, in MiB. Python needs some 40, numpy some 300.
        hash_seed: of Python's hashes of texts, 0 to 2**32 - 1: the order of sets is the same in every worker.
    """

    seconds: float = 10.0
    memory_mb: int = 2048
    hash_seed: int = 0

    def __post_init__(self):
        for name, kinds, least, most in (
            ("seconds", int | float, 0.001, 10**6),
            ("memory_mb", int, 64, 2**30),
            ("hash_seed", int, 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                expected = f"{'a whole number' if kinds is int else 'a number'} from {least} to {most}"
                raise mistake("not usable", where=f"WorkerLimits.{name}", expected=expected, found=repr(value))


class WorkerProcess:
    """A worker that is asked one thing at a time, and is replaced when it fails in a way that could have hurt it."""

    def __init__(self, limits: WorkerLimits):
        self.limits = limits
        self._process: subprocess.Popen | None = None
        self._channel: socket.socket | None = None
        self._lock, self._closed = threading.Lock(), False

    def ask(self, number: int, request: dict[str, Any]) -> Any:
        """What the environment gave, or a Failure.

        Raises:
            UserError: there is no such environment.
            CancelledError: the pool is closed.
        """
        line = json.dumps({"number": number, **request}).encode() + b"\n"
        try:
            self._start()
            reply = self._exchange(number, line)
        except _Broken as broken:
            kind, detail = (broken.kind, broken.detail) if broken.detail else self._how_it_ended()
            self.stop()
            if self._closed:
                raise concurrent.futures.CancelledError from None
            return Failure(request["environment"], kind, detail)
        if "mistake" in reply:
            raise UserError(reply["mistake"])
        if "failure" in reply:
            kind, detail = reply["failure"]
            if kind == "memory":
                self.stop()  # not all of what fills it may be gone
            return Failure(request["environment"], kind, detail)
        try:
            return _RESULTS[request["do"]](reply["value"])
        except (TypeError, ValueError, UserError) as error:  # nothing that our own code says
            self.stop()
            return Failure(request["environment"], "garbage", f"a reply with no result: {error}"[:_LONGEST])

    def cut(self) -> None:
        """Lets the process die, and no other start. From any thread; `stop` waits for it."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.stdin.close()
                with contextlib.suppress(OSError):  # whoever waits for a reply is told now, not when all are gone
                    self._channel.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Ends the process with all that it started, and returns when they are gone."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            process.stdin.close()  # the lifeline
        self._channel.close()
        try:
            process.wait(_GONE_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        if self._process is not None and self._speaks():
            self.stop()
        with self._lock:
            if self._closed:
                raise concurrent.futures.CancelledError
            if self._process is None:
                self._process, self._channel = _started(self.limits)

    def _speaks(self) -> bool:
        """Whether the worker ended, or says something unasked: its next reply could not be told from that."""
        self._channel.settimeout(0)
        try:
            self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _exchange(self, number: int, line: bytes) -> dict[str, Any]:
        deadline = time.monotonic() + _START_WITHIN
        self._send(line, deadline)
        reply, rest = self._reply(number, b"", deadline, _START_WITHIN)
        if reply.get("loaded") is True:
            seconds = self.limits.seconds
            reply, rest = self._reply(number, rest, time.monotonic() + seconds, seconds)
        if rest:
            raise _Broken("garbage", f"{len(rest)} bytes behind the reply")
        return reply

    def _send(self, line: bytes, deadline: float) -> None:
        try:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            self._channel.sendall(line)
        except TimeoutError:
            raise _Broken("timeout", "the worker does not read") from None
        except OSError:
            raise _Broken("died") from None

    def _reply(self, number: int, data: bytes, deadline: float, seconds: float) -> tuple[dict[str, Any], bytes]:
        """A reply, and what came behind it."""
        pieces, seen = bytearray(data), 0
        while (end := pieces.find(b"\n", seen)) < 0:
            seen = len(pieces)
            if seen > MOST_REPLY:
                raise _Broken("garbage", f"{seen} bytes without an end")
            if not (piece := self._receive(deadline, seconds)):
                raise _Broken("died")
            pieces += piece
        try:
            reply = json.loads(pieces[:end])
        except ValueError:
            reply = None
        keys = {"loaded", "value", "failure", "mistake"}
        if not isinstance(reply, dict) or reply.get("number") != number or not keys & reply.keys():
            raise _Broken("garbage", f"no reply: {bytes(pieces[:60])!r}")
        return reply, bytes(pieces[end + 1 :])

    def _receive(self, deadline: float, seconds: float) -> bytes:
        try:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            return self._channel.recv(_PIECE)
        except TimeoutError:
            raise _Broken("timeout", f"no reply within {seconds:g} s") from None
        except OSError:
            return b""

    def _how_it_ended(self) -> tuple[str, str]:
        """Kind and detail."""
        try:
            code = self._process.wait(_SOON)
        except subprocess.TimeoutExpired:
            return "died", "it closed its channel"
        if code == FLOODED:
            return "output", f"more than {MOST_PRINTED >> 20} MiB on standard output and error"
        number = -code if code < 0 else code - 128  # of the guardian itself, or as it tells of its worker
        names = {each.value: each.name for each in signal.Signals}  # `os._exit(255)` has none
        return "died", f"signal {names[number]}" if number in names else f"exit code {code}"


class _Broken(Exception):
    """A worker that is of no more use; `detail` is empty if the process has to be asked."""

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def _started(limits: WorkerLimits) -> tuple[subprocess.Popen, socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        arguments = [str(theirs.fileno()), str(limits.memory_mb << 20)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zaya_jax.environments.worker_main", *arguments],
            stdin=subprocess.PIPE,  # its lifeline
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            env=_environment(limits.hash_seed),
        )
    return process, ours


def _environment(hash_seed: int) -> dict[str, str]:
    """Modules are found where this process finds them, though it may have changed its path meanwhile."""
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": paths, "PYTHONHASHSEED": str(hash_seed)}


_RESULTS = {
    "generate": Problem.from_json,
    "verify": lambda value: Verdict(*value),
    "explain": lambda value: None if value is None else tuple(value),
}
