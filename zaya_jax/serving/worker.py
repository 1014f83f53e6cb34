"""The one thread that owns the engine, and the streams that others hear from it.

Handlers run on an event loop and never touch the engine: they open a `Stream` of requests, and the thread takes them,
steps, and hands each stream what its own requests have gained.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import queue as queue_module
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from zaya_jax.sampling.request import Delta, Request
from zaya_jax.serving.meters import Meters
from zaya_jax.serving.refusals import Refusal

LONGEST_RETRY = 60  # seconds
_log = logging.getLogger(__name__)


class Engine(Protocol):
    """What answers: `sampling.engine.Engine`, or anything that behaves like it."""

    slots: int

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""

    def submit(self, request: Request) -> None:
        """Takes a request."""

    def cancel(self, request_id: str) -> bool:
        """Drops an unfinished request."""

    def step(self) -> list[Delta]:
        """Goes on a little."""


@dataclasses.dataclass
class _Open:
    """An unfinished request."""

    stream: Stream
    asked: float
    first: float | None = None


class Stream:
    """What some requests gain, for one client. Made by `Worker.open`; used on the event loop that made it.

    Close it whatever happens: that is what frees the slots of a client who has left.
    """

    def __init__(self, worker: Worker, places: int):
        self.places, self.closed = places, False
        self.unfinished: set[str] = set()
        self._last_word: Refusal | None = None
        self._worker, self._loop = worker, asyncio.get_running_loop()
        self._queue: asyncio.Queue[list[Delta] | Refusal] = asyncio.Queue()

    @property
    def held(self) -> int:
        """Places that it takes up."""
        return len(self.unfinished) if self.closed else max(len(self.unfinished), self.places)

    def submit(self, requests: Sequence[Request]) -> None:
        """Asks for more, within the places that were reserved. Raises as `Worker.open`, but is never too late."""
        self._worker.submit(self, requests)

    async def next(self, timeout: float | None = None) -> list[Delta] | None:
        """What has been gained since; None if nothing came in time.

        Raises:
            Refusal: there will be no more: the engine has failed, or the server is going down.
        """
        if self._last_word is not None:
            raise self._last_word
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with a result.
            async with asyncio.timeout(timeout):
                got = [await self._queue.get()]
        except TimeoutError:
            return None
        while not self._queue.empty():  # all at once, so that a client who has fallen behind catches up
            got.append(self._queue.get_nowait())
        if isinstance(got[-1], Refusal):  # nothing comes behind it
            self._last_word = got.pop()
        if not got:
            raise self._last_word
        return [delta for deltas in got for delta in deltas]

    def close(self) -> None:
        """Cancels what is unfinished."""
        self._worker.close(self)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def give(self, got: list[Delta] | Refusal) -> None:
        """Called by the engine's thread."""
        with contextlib.suppress(RuntimeError):  # of a loop that has ended, and with it whoever listened
            self._loop.call_soon_threadsafe(self._queue.put_nowait, got)


class Worker:
    """Runs an engine in a thread of its own.

    Attributes:
        places: answers that may be under way or wait: the slots and the queue.

    Args of the constructor:
        queue: requests that may wait for a slot.
    """

    def __init__(self, engine: Engine, queue: int, meters: Meters):
        self.places = engine.slots + queue
        self._engine, self._meters = engine, meters
        self._commands: queue_module.SimpleQueue = queue_module.SimpleQueue()
        self._lock = threading.Lock()  # over all that follows
        self._open: dict[str, _Open] = {}
        self._streams: set[Stream] = set()
        self._refusal: Refusal | None = None  # why nothing more is taken
        self._seconds = 1.0  # that an answer takes, of late
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        meters.watch(slots=lambda: engine.slots, used=self._used, waiting=lambda: self.waiting, up=lambda: self.alive)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the engine's thread lives and takes requests."""
        return self._thread.is_alive() and self._refusal is None

    @property
    def held(self) -> int:
        """Places taken."""
        with self._lock:
            return sum(stream.held for stream in self._streams)

    @property
    def waiting(self) -> int:
        """Answers that wait for a slot."""
        return max(self.held - self._engine.slots, 0)

    def open(self, requests: Sequence[Request], places: int = 0) -> Stream:
        """Asks the engine; on the event loop that will listen.

        Args:
            requests: checked (`Engine.check`), of ids that nobody has.
            places: to be reserved, for requests that are yet to come.

        Raises:
            Refusal: too many wait, the engine has failed, or the server is going down.
        """
        stream = Stream(self, places)
        wanted = max(len(requests), places)
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            held = sum(other.held for other in self._streams)
            if held + wanted > self.places:
                raise self._too_many(held + wanted - self._engine.slots)
            self._streams.add(stream)
            self._enter(stream, requests)
        return stream

    def submit(self, stream: Stream, requests: Sequence[Request]) -> None:
        """`Stream.submit`."""
        with self._lock:
            if stream in self._streams and not stream.closed:
                self._enter(stream, requests)

    def close(self, stream: Stream) -> None:
        """`Stream.close`."""
        with self._lock:
            stream.closed = True
            if stream.unfinished:
                self._commands.put(("cancel", list(stream.unfinished)))
            else:
                self._streams.discard(stream)

    def drain(self) -> None:
        """Takes no new streams from now on; those that are open go on."""
        with self._lock:
            self._refusal = self._refusal or going_down()

    def stop(self) -> None:
        """Ends what is open, and the thread."""
        self.drain()
        self._commands.put(("stop", []))

    def join(self, timeout: float) -> bool:
        """Waits for the thread's end; returns whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _used(self) -> int:
        return min(len(self._open), self._engine.slots)

    def _enter(self, stream: Stream, requests: Iterable[Request]) -> None:
        for request in requests:
            stream.unfinished.add(request.id)
            self._open[request.id] = _Open(stream, time.monotonic())
            self._commands.put(("submit", request))

    def _too_many(self, waiting: int) -> Refusal:
        seconds = math.ceil(self._seconds * max(waiting, 1) / self._engine.slots)
        message = "too many requests wait for the model; try again later"
        after = min(max(seconds, 1), LONGEST_RETRY)
        return Refusal(429, message, code="queue_full", retry_after=after)

    # From here on: the engine's thread.

    def _run(self) -> None:
        try:
            while self._take_commands():
                if self._engine.busy:
                    start = time.perf_counter()
                    deltas = self._engine.step()
                    self._meters.step(time.perf_counter() - start, getattr(self._engine, "stats", None))
                    self._deliver(deltas)
            self._end(going_down())
        except BaseException as error:
            _log.exception("the engine has failed")
            self._end(
                Refusal(
                    503, f"the engine has failed: {type(error).__name__}; see the server's log", code="engine_failed"
                )
            )

    def _take_commands(self) -> bool:
        """Does what has been asked for meanwhile, and waits if there is nothing else to do; False is the end."""
        block = not self._engine.busy
        while True:
            try:
                what, of = self._commands.get(block=block)
            except queue_module.Empty:
                return True
            block = False
            if what == "stop":
                return False
            if what == "submit":
                if of.id in self._open:
                    self._engine.submit(of)
                continue
            for name in of:
                self._engine.cancel(name)
                self._finish(name, "cancelled")

    def _deliver(self, deltas: Sequence[Delta]) -> None:
        """Gives every stream its own, all at once."""
        gained: dict[Stream, list[Delta]] = {}
        for delta in deltas:
            one = self._open.get(delta.id)
            if one is None:  # cancelled
                continue
            self._measure(one, delta)
            gained.setdefault(one.stream, []).append(delta)
            if delta.completion is not None:
                self._finish(delta.id, "finished")
        for stream, own in gained.items():
            stream.give(own)

    def _measure(self, one: _Open, delta: Delta) -> None:
        now = time.monotonic()
        self._meters.drawn(len(delta.tokens))
        if one.first is None and len(delta.tokens):
            one.first = now
            self._meters.first(now - one.asked)
        if delta.completion is not None:
            self._seconds += 0.1 * (now - one.asked - self._seconds)
            if len(delta.completion.tokens) > 1:
                self._meters.pace((now - (one.first or now)) / (len(delta.completion.tokens) - 1))

    def _finish(self, name: str, how: str) -> None:
        with self._lock:
            one = self._open.pop(name, None)
            if one is None:  # finished while its cancellation was under way
                return
            one.stream.unfinished.discard(name)
            if one.stream.closed and not one.stream.unfinished:
                self._streams.discard(one.stream)
        self._meters.answered(how)

    def _end(self, refusal: Refusal) -> None:
        """Tells everybody that there will be nothing more."""
        with self._lock:
            self._refusal = refusal
            streams, names = list(self._streams), list(self._open)
        for name in names:
            self._finish(name, "failed")
        for stream in streams:
            stream.give(refusal)


def going_down() -> Refusal:
    """What is said while the server is shutting down."""
    return Refusal(503, "the server is shutting down", code="shutting_down")
