"""math-verify (an extra: `pip install -e .[grading]`) behind a wall clock."""

from __future__ import annotations

import concurrent.futures
import enum
import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from zaya_jax.errors import mistake
from zaya_jax.grading import math_worker

_START_WITHIN = 60.0  # sympy is imported
_LONGEST = 10_000
_MEMORY = 4 << 30


class Judgement(enum.Enum):
    """What is known of an answer: `UNREADABLE` and `TIMED_OUT` are not right, but not shown to be wrong either."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"
    TIMED_OUT = "timed out"


class _Worker:
    """A process that is asked one question at a time, and replaced when it does not answer."""

    def __init__(self):
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            # -P: the folder of the script holds a code.py, which is no module of Python's.
            [sys.executable, "-P", math_worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _limit_memory(self.process.pid)
        reply = self._reply(time.monotonic() + _START_WITHIN)
        if reply != "ready":
            self.stop()
            raise mistake(
                "math-verify does not start" if reply is None or not reply.startswith("missing") else reply,
                expected="math-verify for LaTeX answers",
                fix="pip install -e .[grading]",
            )

    def ask(self, gold: str, answer: str, timeout: float) -> Judgement:
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self.start()
        line = json.dumps([gold, answer]).encode() + b"\n"
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            reply = self._reply(time.monotonic() + timeout)
        except BrokenPipeError:
            reply = ""
        if reply:
            return Judgement(reply)
        self.stop()
        # Killed by us for its time, or dead by itself, of memory or of a crash.
        return Judgement.TIMED_OUT if reply is None else Judgement.UNREADABLE

    def _reply(self, deadline: float) -> str | None:
        """A line; empty if the process ended; None if there is none in time."""
        output, line, poll = self.process.stdout.fileno(), b"", select.poll()
        poll.register(output, select.POLLIN)
        while not line.endswith(b"\n"):
            if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                return None
            if not (chunk := os.read(output, 4096)):
                return ""
            line += chunk
        return line.decode().strip()

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None


def _limit_memory(pid: int) -> None:
    try:
        import resource

        resource.prlimit(pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, AttributeError, OSError):
        return  # not Linux: only the clock is left


class MathVerifier:
    """A pool of processes that run math-verify; a context manager. Threads may share it.

    Args:
        workers: processes.
        timeout: seconds for one pair; then its process is killed, and another takes its place.

    Raises:
        UserError: math-verify is not installed (on entering).
    """

    def __init__(self, workers: int = 1, timeout: float = 5.0):
        self.workers, self.timeout = workers, timeout
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker() for _ in range(workers)]

    def __enter__(self) -> MathVerifier:
        self._all[0].start()  # the others when they are needed
        for worker in self._all:
            self._idle.put(worker)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.stop()

    def equivalent_many(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Judges pairs (gold, answer) of LaTeX, in their order; gold comes first: math-verify is asymmetric."""
        if self.workers == 1 or len(pairs) < 2:
            return [self._judge(*pair) for pair in pairs]
        with concurrent.futures.ThreadPoolExecutor(min(self.workers, len(pairs))) as pool:
            return list(pool.map(lambda pair: self._judge(*pair), pairs))

    def _judge(self, gold: str, answer: str) -> Judgement:
        if max(len(gold), len(answer)) > _LONGEST:
            return Judgement.UNREADABLE
        worker = self._idle.get()
        try:
            return worker.ask(_bare(gold), _bare(answer), self.timeout)
        finally:
            self._idle.put(worker)


def _bare(text: str) -> str:
    return text.strip().strip("$").strip()
