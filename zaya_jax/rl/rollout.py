"""One answer of the policy, as it is learnt from: a prompt, what was drawn behind it, and what that was worth."""

from __future__ import annotations

import dataclasses

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.sampling.request import Completion

LIVE = -1  # a route that nobody recorded: the trainer's own router decides


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """The ids that each of N tokens was drawn from, one behind the other: most tokens have few.

    Attributes:
        ids: int32, of all tokens.
        counts: int32 [N], how many are of each.
        most: K, how many a token may have.
    """

    ids: np.ndarray
    counts: np.ndarray
    most: int

    def padded(self) -> np.ndarray:
        """int32 [N, K], -1 behind each token's."""
        out = np.full((len(self.counts), self.most), -1, np.int32)
        out[np.arange(self.most) < self.counts[:, None]] = self.ids
        return out


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
        kept: the ids that each token was drawn from; None if from all of them.
    """

    prompt: np.ndarray
    tokens: np.ndarray
    mu: np.ndarray
    drawn: np.ndarray
    routes_LT: np.ndarray
    versions: np.ndarray
    kept: Kept | None = None

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
        kept=None if completion.kept_KN is None else _kept(completion.kept_KN.T, drawn),
    )


def _kept(kept_NK: np.ndarray, drawn: np.ndarray) -> Kept:
    """A token that was forced was drawn from nothing."""
    real_NK = (kept_NK >= 0) & drawn[:, None]
    return Kept(kept_NK[real_NK], real_NK.sum(axis=1, dtype=np.int32), kept_NK.shape[1])
