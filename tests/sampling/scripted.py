"""A model that is a table: which tokens it wants to say behind which prompt. It answers requests as the engine does."""

import numpy as np

from tests.sampling.rules import rules
from zaya_jax.sampling.decode import RUNNING, STOP
from zaya_jax.sampling.reasoning import thinking_end
from zaya_jax.sampling.request import Completion, Delta


class Scripted:
    """Answers `slots` requests a step, the first to come first.

    Attributes:
        asked: all requests, in the order in which they came.
        used: how many slots each step has used.

    Args of the constructor:
        wants: from a request to the tokens the model wants to say; enough of them that budgets end the answer.
    """

    def __init__(self, wants, slots=4):
        self.wants, self.slots, self.asked, self.used, self._queue = wants, slots, [], [], []

    @property
    def waiting(self):
        return max(len(self._queue) - self.slots, 0)

    def submit(self, request):
        assert request.id not in [other.id for other in self._queue]
        self.asked.append(request)
        self._queue.append(request)

    def step(self):
        now, self._queue = self._queue[: self.slots], self._queue[self.slots :]
        self.used.append(len(now))
        return [self._answer(request) for request in now]

    def _answer(self, request):
        tokens, finish = rules(request, self.wants(request))
        assert finish != RUNNING, f"the table has too few tokens for {request.id}"
        numbers = np.zeros(len(tokens), np.float32)
        end, forced = thinking_end(request, tokens)
        completion = Completion(
            request.id,
            np.array(tokens, np.int32),
            numbers,
            numbers,
            np.zeros((1, len(request.tokens) + len(tokens) - 1), np.int8),
            "stop" if finish == STOP else "length",
            np.zeros(len(tokens), np.int32),
            think_end=end,
            think_forced=forced,
        )
        return Delta(request.id, 0, completion.tokens, numbers, numbers, completion=completion)
