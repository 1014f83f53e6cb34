"""One answer of the policy, as it is learnt from: a prompt, what was drawn behind it, and what that was worth."""

from __future__ import annotations

import dataclasses

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.sampling.request import Completion

LIVE = -1  # a route that nobody recorded: the trainer's own router decides


@dataclasses.dataclass(frozen=True, eq=False)
class Rollout:
    """P prompt tokens and N drawn ones.

    Attributes:
        prompt: int32 [P].
        tokens: int32 [N].
        mu: [N] of the model's exact type, each token's log-probability under the distribution it was drawn from.
        drawn: bool [N]; False for a token that was forced, from which nothing is learnt.
        routes_LT: int8 [L, P + N - 1], the experts that the engine took for every token that was read.
        versions: int32 [N], of the weights that drew each token.
    """

    prompt: np.ndarray
    tokens: np.ndarray
    mu: np.ndarray
    drawn: np.ndarray
    routes_LT: np.ndarray
    versions: np.ndarray

    def __post_init__(self):
        N, read = len(self.tokens), len(self.prompt) + len(self.tokens) - 1
        lengths = {"mu": len(self.mu), "drawn": len(self.drawn), "versions": len(self.versions)}
        for name, length in lengths.items():
            if length != N:
                raise mistake("lengths differ", where=f"Rollout.{name}", expected=f"{N}, one a token", found=length)
        if not len(self.prompt) or not N or self.routes_LT.shape[1:] != (read,):
            expected = f"a prompt, an answer, and routes of the {max(read, 0)} tokens that were read"
            raise mistake("not a rollout", where="Rollout", expected=expected, found=self.routes_LT.shape)

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.tokens)

    @property
    def oldest(self) -> int:
        """The oldest version that drew a token."""
        return int(self.versions.min())


def rollout(prompt: np.ndarray, completion: Completion) -> Rollout:
    """What an engine answered to a prompt."""
    count = len(completion.tokens)
    drawn = np.ones(count, bool)
    if completion.think_forced:
        drawn[completion.think_end] = False
    return Rollout(
        prompt=np.asarray(prompt, np.int32),
        tokens=np.asarray(completion.tokens, np.int32),
        mu=np.asarray(completion.logprobs_sampling),
        drawn=drawn,
        routes_LT=np.asarray(completion.routes_LT),
        versions=np.asarray(completion.versions_T, np.int32),
    )
