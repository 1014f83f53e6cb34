"""Answer-preserving trimming: what does not fit loses reasoning, never an answer (ZAYA1 report, III-A)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

Tokens = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Turn:
    """A turn of a conversation in tokens, in the order of the attributes.

    Attributes:
        header: what opens the turn: the role's marks.
        opening, thinking, closing: the think block, its tags apart; empty where there is none.
        answer: the rest, with what ends the turn.
    """

    header: Tokens
    opening: Tokens = ()
    thinking: Tokens = ()
    closing: Tokens = ()
    answer: Tokens = ()

    @property
    def tokens(self) -> Tokens:
        """All of them."""
        return self.header + self.opening + self.thinking + self.closing + self.answer

    def without_thinking(self) -> Turn:
        """The turn as if nothing had been thought."""
        return dataclasses.replace(self, opening=(), thinking=(), closing=())


def trim(turns: Sequence[Turn], budget: int) -> list[Turn] | None:
    """The conversation in at most `budget` tokens, or None where the answers alone are more.

    1. What fits stays. 2. Else the last turn's thinking loses its end, the part next to the answer, by exactly as much
    as is too long. 3. Where that is not enough, earlier turns lose their think blocks, then 1 and 2 again. 4. Else the
    example is dropped. The start of the last reasoning and every answer stay.
    """
    turns = list(turns)
    if not turns:
        return turns
    for attempt in (turns, [*(turn.without_thinking() for turn in turns[:-1]), turns[-1]]):
        excess = sum(len(turn.tokens) for turn in attempt) - budget
        thinking = attempt[-1].thinking
        if excess <= 0:
            return attempt
        if excess <= len(thinking):
            return [*attempt[:-1], dataclasses.replace(attempt[-1], thinking=thinking[: len(thinking) - excess])]
    return None
