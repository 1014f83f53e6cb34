"""Conversations in tokens, turn by turn: where each reply begins and ends, and which of its tokens count in the loss.

The chat template is a program that knows nothing of masks. So the boundaries are found by rendering beginnings of the
conversation: up to the header of a reply (what a sampler would be given), and up to the end of the reply. Each has to
be a beginning of the whole rendering; then the text between two of them is a reply or what leads to it. Every such
text is tokenized on its own, as it is when a model is sampled: no token lies across a boundary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zaya_jax.data.schema import Chat
from zaya_jax.data.trimming import Tokens, Turn
from zaya_jax.errors import mistake
from zaya_jax.text.thinking import THINK_END
from zaya_jax.text.tokenizer import Tokenizer

_REASONING = ("reasoning_content", "thinking", "reasoning")


class TrainedTurn(NamedTuple):
    """A reply, with everything that leads to it.

    Attributes:
        turn: its header holds the messages before it and the template's header of the reply.
        weight: how much its tokens count.
        uncounted: tokens at the end of the answer that do not: what the template puts behind the end of the turn.
    """

    turn: Turn
    weight: float
    uncounted: int


class Section(NamedTuple):
    """The text of a reply, with everything that leads to it, and how much it counts."""

    header: str
    reply: str
    weight: float


def chat_turns(chat: Chat, tokenizer: Tokenizer) -> list[TrainedTurn]:
    """The turns of a conversation, one for each assistant message; joined, they are its rendering.

    Templates that leave out earlier reasoning are supported; a reply that lost its reasoning is context and has weight
    0: the model would otherwise learn to answer without.

    Raises:
        UserError: the template refuses the messages, or renders a beginning unlike the beginning of the whole.
    """
    return [_trained_turn(section, tokenizer) for section in sections(chat, tokenizer)]


def weights_of(turns: Sequence[TrainedTurn]) -> list[float]:
    """How much each token counts, over the tokens of all turns."""
    weights: list[float] = []
    for turn, weight, uncounted in turns:
        replied = len(turn.tokens) - len(turn.header) - uncounted
        weights += [0.0] * len(turn.header) + [weight] * replied + [0.0] * uncounted
    return weights


def sections(chat: Chat, tokenizer: Tokenizer) -> list[Section]:
    """Cuts the rendered conversation at its replies. See `chat_turns`."""
    whole = _render(tokenizer, chat, chat.messages, False)
    cuts, lost = _cuts(chat, tokenizer, whole), frozenset()
    if isinstance(cuts, int):
        bare, lost = _without_earlier_reasoning(chat)
        again = _cuts(bare, tokenizer, whole) if _render(tokenizer, bare, bare.messages, False) == whole else cuts
        cuts = again if not isinstance(again, int) else cuts
    if isinstance(cuts, int):
        fix = "use a template that only appends, or split the conversation into several records"
        where, what = f"messages[{cuts}]", "the chat template renders the messages up to here unlike those of the whole"
        raise mistake(what, where=where, fix=fix)
    stops = [0, *(stop for _, _, stop in cuts)]
    return [
        Section(whole[begin:start], whole[start:stop], 0.0 if index in lost else chat.weights[index])
        for begin, (index, start, stop) in zip(stops, cuts)
    ]


def _cuts(chat: Chat, tokenizer: Tokenizer, whole: str) -> list[tuple[int, int, int]] | int:
    """(message, start, stop) of each reply in the rendering; the number of a message where it cannot be told."""
    cuts, end = [], 0
    for index, message in enumerate(chat.messages):
        if message["role"] != "assistant":
            continue
        before = _render(tokenizer, chat, chat.messages[:index], True)
        behind = _render(tokenizer, chat, chat.messages[: index + 1], False)
        start, stop = len(before), len(behind)
        if not (whole.startswith(before) and whole.startswith(behind) and end <= start < stop):
            return index
        cuts.append((index, start, stop))
        end = stop
    return cuts


def _without_earlier_reasoning(chat: Chat) -> tuple[Chat, frozenset[int]]:
    """The conversation without the reasoning before its last user message, and the messages that had some."""
    last = max((i for i, message in enumerate(chat.messages) if message["role"] == "user"), default=0)
    bare = [_bare(m) if i < last and m["role"] == "assistant" else m for i, m in enumerate(chat.messages)]
    lost = frozenset(i for i, (old, new) in enumerate(zip(chat.messages, bare)) if _reasons(old) and old != new)
    return dataclasses.replace(chat, messages=tuple(bare)), lost


def _reasons(message: Mapping[str, Any]) -> bool:
    return any(message.get(key) for key in _REASONING) or THINK_END in message.get("content", "")


def _bare(message: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key not in _REASONING}
    if THINK_END in kept.get("content", ""):
        kept["content"] = kept["content"].rpartition(THINK_END)[2].lstrip("\n")
    return kept


def _render(tokenizer: Tokenizer, chat: Chat, messages: Sequence[Mapping[str, Any]], reply: bool) -> str:
    return tokenizer.render_chat(messages, tools=chat.tools, add_generation_prompt=reply)


def _trained_turn(section: Section, tokenizer: Tokenizer) -> TrainedTurn:
    header, reply = (tuple(tokenizer.encode(text, special=False)) for text in (section.header, section.reply))
    turn = _split_thinking(header, reply, tokenizer)
    return TrainedTurn(turn, section.weight, _behind_the_end(turn.answer, tokenizer))


def _split_thinking(header: Tokens, reply: Tokens, tokenizer: Tokenizer) -> Turn:
    """Tells the first think block from the answer. One that never closes, or without think tokens, is all answer.

    The tags keep the white space around them, as far as it is tokens of its own: a turn without its block is then as
    the template renders one that never had any. Where the template's header opens the block, the tag moves from the
    header to the turn, so that a block goes whole or not at all.
    """
    start_id, end_id = tokenizer.think_start_id, tokenizer.think_end_id
    if start_id is None or end_id is None or end_id not in reply:
        return Turn(header, answer=reply)
    header, reply = _with_opening(header, reply, start_id, tokenizer)
    end = reply.index(end_id)
    if start_id not in reply[:end] or not _is_blank(reply[: reply.index(start_id)], tokenizer):
        return Turn(header, answer=reply)
    first = _skip_blanks(reply, reply.index(start_id) + 1, tokenizer)
    behind = _skip_blanks(reply, end + 1, tokenizer)
    last = end
    while last > first and _is_blank(reply[last - 1 : last], tokenizer):
        last -= 1
    first = min(first, last)
    return Turn(header, reply[:first], reply[first:last], reply[last:behind], reply[behind:])


def _skip_blanks(tokens: Tokens, place: int, tokenizer: Tokenizer) -> int:
    while place < len(tokens) and _is_blank(tokens[place : place + 1], tokenizer):
        place += 1
    return place


def _with_opening(header: Tokens, reply: Tokens, start_id: int, tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    if start_id not in header:
        return header, reply
    place = len(header) - 1 - header[::-1].index(start_id)
    if not _is_blank(header[place + 1 :], tokenizer):
        return header, reply
    return header[:place], header[place:] + reply


def _behind_the_end(answer: Tokens, tokenizer: Tokenizer) -> int:
    """Tokens behind the one that ends the turn, if only blanks stand there."""
    for place in reversed(range(len(answer))):
        if answer[place] in tokenizer.stop_ids:
            return len(answer) - 1 - place
        if not _is_blank(answer[place : place + 1], tokenizer):
            break
    return 0


def _is_blank(tokens: Tokens, tokenizer: Tokenizer) -> bool:
    return not tokenizer.decode(tokens, skip_special=False).strip()
