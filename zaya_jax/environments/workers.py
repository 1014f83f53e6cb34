"""Environments in processes of their own: their code may hang, crash or flood, and a run goes on.

    with Workers(count=4) as workers:
        problem = workers.generate("addition", seed=0, difficulty=3).result()
        later = workers.verify("addition", problem, response)  # a future: sample meanwhile
        verdict = later.result()  # a Verdict, or a Failure

A specification names the environment (`zaya_jax.environments.named`). What comes out depends on the call alone: not on
the worker, nor on what it was asked before, as far as the environment keeps no state of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import queue
import threading
from typing import Any

from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failure
from zaya_jax.environments.worker_process import WorkerLimits, WorkerProcess
from zaya_jax.errors import mistake

__all__ = ["WorkerLimits", "Workers"]

Future = concurrent.futures.Future


@dataclasses.dataclass(frozen=True)
class _Job:
    request: dict[str, Any]
    future: Future


class Workers:
    """A pool of worker processes; a context manager. Threads may share it.

    Calls give futures at once and are begun in the order they came in; they may end in another. The result of a future
    is what the environment gave, or a `Failure`. It raises UserError if there is no such environment, or if it cannot
    be imported, and CancelledError if the pool was closed before the call ended.

    Args:
        count: processes; each starts when there is work for it.
        limits: of each.
    """

    def __init__(self, count: int = 1, limits: WorkerLimits | None = None):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise mistake("not a number of workers", where="Workers.count", expected="1 or more", found=repr(count))
        self.count, self.limits = count, limits or WorkerLimits()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._processes = [WorkerProcess(self.limits) for _ in range(count)]
        self._threads: list[threading.Thread] = []
        self._lock, self._closed = threading.Lock(), False

    def __enter__(self) -> Workers:
        for process in self._processes:
            thread = threading.Thread(target=self._serve, args=(process,), name="environment worker", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(self, environment: str, seed: int, difficulty: int) -> Future[Problem | Failure]:
        """The problem of a seed and a difficulty."""
        return self._submit({"environment": environment, "do": "generate", "seed": seed, "difficulty": difficulty})

    def verify(self, environment: str, problem: Problem, response: str) -> Future[Verdict | Failure]:
        """The verdict on a response, which is what follows the reasoning."""
        request = {"environment": environment, "do": "verify", "problem": problem.to_json(), "response": response}
        return self._submit(request)

    def explain(self, environment: str, problem: Problem) -> Future[tuple[str, str] | Failure | None]:
        """Reasoning in steps and the answer; None if the environment has no such texts."""
        return self._submit({"environment": environment, "do": "explain", "problem": problem.to_json()})

    def close(self) -> None:
        """Kills what still runs, and returns when no process is left. Calls that did not end are cancelled."""
        with self._lock:
            self._closed = True
        for process in self._processes:
            process.cut()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                if job := self._jobs.get_nowait():
                    job.future.cancel()

    def _submit(self, request: dict[str, Any]) -> Future:
        job = _Job(request, Future())
        with self._lock:
            if self._closed or not self._threads:
                raise RuntimeError("workers are asked outside of `with Workers(...)`")
            self._jobs.put(job)
        return job.future

    def _serve(self, process: WorkerProcess) -> None:
        number = 0
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            number += 1
            try:
                result = process.ask(number, job.request)
            except BaseException as error:  # a UserError, or that the pool was closed: whoever waits is told
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
        process.stop()
