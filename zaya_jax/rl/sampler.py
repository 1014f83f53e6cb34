"""The thread that samples without pause: problems out, scored groups into the buffer, new weights in between."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from zaya_jax.environments.environment import Problem
from zaya_jax.model.layout import Variables
from zaya_jax.rl.buffer import Buffer
from zaya_jax.rl.completion import Progress
from zaya_jax.rl.gathering import Asking, draw
from zaya_jax.rl.generation import Answered, Asked, InFlight, Spent, prompt_of
from zaya_jax.rl.looking import Looking
from zaya_jax.rl.scoring import Scored, score

_IDLE = 0.002  # seconds between two looks at verifiers when there is nothing to draw


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What a checkpoint keeps of sampling.

    Attributes:
        progress: curricula and solve rates.
        asked: problems whose answers would be lost: those under way, and those in the buffer.
        seen: of each, whether curricula and solve rates have seen its group.
        failures: of the environments, as `Failures.to_json` has them.
    """

    progress: Progress
    asked: tuple[Asked, ...]
    seen: tuple[bool, ...]
    failures: dict[str, Any]

    def to_json(self) -> list[dict[str, Any]]:
        """The problems, for `again`."""
        return [
            {
                "number": one.number,
                "environment": one.environment,
                "difficulty": one.difficulty,
                "problem": one.problem.to_json(),
                "seen": seen,
            }
            for one, seen in zip(self.asked, self.seen, strict=True)
        ]


class Sampler:
    """Samples in a thread of its own; a context manager.

    Args:
        asking: what problems are drawn from and answered with. Nobody else uses its engine meanwhile.
        progress: before the first group.
        buffer: where groups with signal go.
        note: is told of every scored group, with the version of the engine's weights; from the thread.
        again: problems to be asked before any other, with their `seen`.
        place: a context that the thread runs in, e.g. `jax.default_device`.
    """

    def __init__(
        self,
        asking: Asking,
        progress: Progress,
        buffer: Buffer,
        note: Callable[[Scored, int], None],
        again: Sequence[tuple[Asked, bool]] = (),
        place: Callable[[], Any] | None = None,
    ):
        self._asking, self._progress, self._buffer, self._note, self._place = asking, progress, buffer, note, place
        self._again = collections.deque(again)
        self._seen: set[int] = set()  # numbers under way whose group has been seen before
        self._mail: tuple[Variables, int] | None = None
        self._looking = Looking(asking)
        self._lock, self._stop = threading.Lock(), threading.Event()
        config = asking.config
        self._flight = InFlight(asking.engine, asking.tokenizer, config.decoding, asking.workers.verify, config.seed)
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def spent(self) -> Spent:
        """Wall time of the engine so far."""
        return self._flight.spent

    def post(self, variables: Variables, version: int) -> None:
        """Weights for the engine, taken before its next step; older ones that were not taken yet are forgotten."""
        with self._lock:
            self._mail = (variables, version)

    def look(self, problems: Sequence[Asked], variables: Variables, version: int) -> list[Answered]:
        """Answers held-out problems with the given weights, and with no others; waits until all are judged.

        Groups under way are drawn on beside them. Nothing else is asked meanwhile, as it would grow old.

        Raises:
            BaseException: what has ended the thread.
        """
        with self._lock:
            self._mail, future = (variables, version), self._looking.want(problems)
        return future.result()

    def snapshot(self, mark: Callable[[], None] = lambda: None) -> Snapshot:
        """What is to be asked again if all ends here.

        Args:
            mark: is called at that moment, when no group is being scored: `note` is told of none before that is not in
                the snapshot, and of none behind that is.
        """
        with self._lock:
            mark()
            held = [one.answered.asked for one in self._buffer.groups()]
            under_way = self._flight.asked + [one for one, _ in self._again]
            seen = {one.number for one, seen in self._again if seen} | self._seen
            asked = (*held, *under_way)
            known = (True,) * len(held) + tuple(one.number in seen for one in under_way)
            return Snapshot(self._progress, asked, known, self._asking.failures.to_json())

    def _run(self) -> None:
        try:
            if self._place is None:
                self._sample()
            else:
                with self._place():
                    self._sample()
        except BaseException as error:  # the learner raises it
            self.error = error
        finally:
            self._buffer.close()
            with self._lock:
                self._looking.give_up(self.error or RuntimeError("the sampler has ended"))

    def _sample(self) -> None:
        engine, flight = self._asking.engine, self._flight
        while not self._stop.is_set():
            with self._lock:
                self._take_mail()
                while self._wants_more():
                    flight.ask(self._next())
            if engine.busy:
                self._looking.hear(flight.step())
            with self._lock:
                for answered in flight.take():
                    self._finish(answered)
                self._looking.end()
            if not engine.busy:
                time.sleep(_IDLE)

    def _take_mail(self) -> None:
        """New weights, unless a look is under way, which is of one version; and the look that came with them."""
        if self._looking.under_way:
            return
        mail, self._mail = self._mail, None
        if mail is not None:
            self._asking.engine.update_weights(*mail)
        self._looking.begin()

    def _wants_more(self) -> bool:
        """None during a look. Else one group waits for slots. Where verifiers are slower than the engine, it waits for
        them: what piles up there would be too old when it comes out."""
        if self._looking.under_way:
            return False
        decoding = self._asking.config.decoding
        at_once = -(-decoding.slots // decoding.group_size)
        return self._asking.engine.waiting < decoding.group_size and len(self._flight.asked) < 2 * at_once + 2

    def _next(self) -> Asked:
        if self._again:
            one, seen = self._again.popleft()
            if seen:
                self._seen.add(one.number)
            return one
        (one,), self._progress = draw(self._asking, self._progress, 1)
        return one

    def _finish(self, answered: Answered) -> None:
        asking, asked, version = self._asking, answered.asked, self._asking.engine.version
        for verdict in answered.verdicts:
            asking.failures.add(asked.environment, verdict)
        seen = asked.number in self._seen
        self._seen.discard(asked.number)
        given = (asking.config.rewards, asking.config.schedule, self._progress, answered, version, asking.scorer)
        self._progress, scored = score(*given, seen=seen)
        self._note(scored, version)
        if scored.reason is None:
            self._buffer.put(scored)


def again(asking: Asking, stored: Sequence[dict[str, Any]]) -> list[tuple[Asked, bool]]:
    """The problems of `Snapshot.to_json`, to be asked again."""
    found = []
    for row in stored:
        problem = Problem.from_json(row["problem"])
        prompt = prompt_of(asking.tokenizer, problem)
        found.append((Asked(row["number"], row["environment"], row["difficulty"], problem, prompt), row["seen"]))
    return found
