"""A look at held-out problems beside the groups of training, on an engine that is stepped for both."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from zaya_jax.rl.gathering import Asking
from zaya_jax.rl.generation import Answered, Asked, InFlight
from zaya_jax.rl.held_out import decoding_of, seed_of
from zaya_jax.sampling.request import Delta


class Looking:
    """At most one look at a time. Whoever shares it between threads holds a lock around every call but `hear`.

    Args:
        asking: the engine that answers, and who judges.
    """

    def __init__(self, asking: Asking):
        self._asking = asking
        self._wanted: tuple[Sequence[Asked], Future] | None = None
        self._flight: InFlight | None = None
        self._found: list[Answered] = []
        self._error: BaseException | None = None

    @property
    def under_way(self) -> bool:
        """Whether problems of a look are at the engine or at the verifiers."""
        return self._flight is not None

    def want(self, problems: Sequence[Asked]) -> Future[list[Answered]]:
        """Asks for a look; its answers come in the order of the problems."""
        future: Future = Future()
        self._wanted = (problems, future)
        if self._error is not None:
            self.give_up(self._error)
        return future

    def begin(self) -> None:
        """Puts the problems of a look that is wanted to the engine, behind what it has."""
        if self._wanted is None:
            return
        asking, config = self._asking, self._asking.config
        verify = asking.workers.verify
        self._flight = InFlight(
            asking.engine, asking.tokenizer, decoding_of(config), verify, seed_of(config), name="look "
        )
        for one in self._wanted[0]:
            self._flight.ask(one)

    def hear(self, deltas: Sequence[Delta]) -> None:
        """Takes what a step of the engine gave."""
        if self._flight is not None:
            self._flight.hear(deltas)

    def end(self) -> None:
        """Gives the answers to whoever waits, if all are judged."""
        if self._flight is None:
            return
        self._found += self._flight.take()
        if not self._flight.asked:
            (_, future), found = self._wanted, sorted(self._found, key=lambda answered: answered.asked.number)
            self._wanted, self._flight, self._found = None, None, []
            future.set_result(found)

    def give_up(self, error: BaseException) -> None:
        """No look ends any more; whoever waits for one is told why."""
        wanted, self._wanted, self._flight, self._error = self._wanted, None, None, error
        if wanted is not None:
            wanted[1].set_exception(error)
