"""What a record of training data looks like: version 1 of the schemas, and their checks (docs/data.md shows examples).

    text        {"text": "..."}
    chat        {"messages": [{"role", "content", "reasoning_content"?, "train"? or "weight"?}, ...], "tools"?: [...]}
    preference  {"prompt": [messages], "chosen": message(s), "rejected": message(s), "tools"?: [...]}

A record may say `"schema": 1`; another version is refused, so that a later one is never read as this one. Other keys
(ids, sources, licences) are passed over.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.errors import UserError, mistake
from zaya_jax.text.chat import check_messages

VERSION = 1
OWN_KEYS = ("train", "weight")  # of a message: for us, not for the chat template
MESSAGE = '{"role": "...", "content": "..."}'


@dataclasses.dataclass(frozen=True)
class Text:
    """A document. All of it is learnt."""

    text: str


@dataclasses.dataclass(frozen=True)
class Chat:
    """A conversation.

    Attributes:
        messages: as the chat template reads them; the last one is the assistant's.
        weights: how much each counts in the loss; 0 for all but the assistant's.
        tools: JSON schemas of tools, or None.
    """

    messages: tuple[dict[str, Any], ...]
    weights: tuple[float, ...]
    tools: tuple[dict[str, Any], ...] | None = None


@dataclasses.dataclass(frozen=True)
class Preference:
    """Two ways to go on: conversations that are the same up to the replies, which alone count in the loss."""

    chosen: Chat
    rejected: Chat


Example = Text | Chat | Preference


def parse_text(record: Mapping[str, Any], field: str = "text") -> Text:
    """Checks a record with a text in `field`.

    Raises:
        UserError: what is wrong, without where; so do the other functions here.
    """
    check_version(record)
    if field not in record:
        fix = "name the key of the text with text_field" if field == "text" else "correct text_field"
        raise mistake(f"no {field!r}", expected=f'{{"{field}": "..."}}', found=_keys(record), fix=fix)
    return Text(check_text(record[field], field))


def parse_chat(record: Mapping[str, Any]) -> Chat:
    """Checks a conversation. What stands behind the last assistant message is left out: it teaches nothing."""
    check_version(record)
    if "messages" not in record:
        raise mistake("no 'messages'", expected=f'{{"messages": [{MESSAGE}, ...]}}', found=_keys(record))
    messages = _messages(record["messages"], "messages")
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last is None:
        fix = "add an assistant message: it is what is learnt"
        raise mistake("no assistant message", expected="at least one", found=_roles(messages), fix=fix)
    if messages[0]["role"] == "assistant":
        raise mistake("begins with the assistant", expected="a system or user message first", found=_roles(messages))
    messages = messages[: last + 1]
    weights = tuple(_weight(message, f"messages[{i}]") for i, message in enumerate(messages))
    if not any(weights):
        fix = "leave the record out, or let an assistant message count"
        raise mistake("nothing to learn", expected="an assistant message that counts", fix=fix)
    return _chat(messages, weights, record)


def parse_preference(record: Mapping[str, Any]) -> Preference:
    """Checks a prompt with a chosen and a rejected continuation, each a message or a list that begins with a reply."""
    check_version(record)
    missing = [key for key in ("prompt", "chosen", "rejected") if key not in record]
    if missing:
        expected = f'{{"prompt": [{MESSAGE}], "chosen": {MESSAGE}, "rejected": {MESSAGE}}}'
        raise mistake(f"no {missing[0]!r}", expected=expected, found=_keys(record))
    prompt = _messages(record["prompt"], "prompt")
    if prompt[-1]["role"] == "assistant":
        raise mistake("ends with the assistant", where="prompt", expected="a message to reply to")
    chosen, rejected = (_replies(record[key], key) for key in ("chosen", "rejected"))
    if chosen == rejected:
        raise mistake("chosen and rejected are the same", fix="leave the record out")
    return Preference(*(_continued(prompt, replies, record) for replies in (chosen, rejected)))


def check_version(record: Mapping[str, Any]) -> None:
    """Refuses a record of another version than this."""
    version = record.get("schema", VERSION)
    if type(version) is not int or version != VERSION:
        raise mistake("unknown schema", expected=f'"schema": {VERSION}, or none', found=repr(version)[:40])


def check_text(value: Any, where: str) -> str:
    """The text, or a UserError if it is none, is empty, or is not Unicode."""
    if not isinstance(value, str):
        raise mistake("not a text", where=where, expected="a string", found=type(value).__name__)
    if not value:
        raise mistake("empty text", where=where, expected="at least one character")
    _check_unicode(value, where)
    return value


def _messages(value: Any, where: str) -> list[dict[str, Any]]:
    try:
        messages = check_messages(value)
    except UserError as error:  # it speaks of "messages"; here they may be the prompt's
        raise UserError(str(error).replace("messages[", f"{where}[", 1)) from None
    for i, message in enumerate(messages):
        _check_unicode(message, f"{where}[{i}]")
    return messages


def _check_unicode(value: Any, where: str) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"a lone surrogate at character {error.start}"
            raise mistake("not Unicode", where=where, found=found, fix="re-encode it as UTF-8") from None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check_unicode(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_unicode(item, f"{where}[{i}]")


def _weight(message: Mapping[str, Any], where: str) -> float:
    """How much a message counts: 1 for the assistant's, unless it says otherwise."""
    assistant = message["role"] == "assistant"
    train, weight = (message.get(key) for key in OWN_KEYS)
    if train is not None and not isinstance(train, bool):
        raise mistake("not a truth value", where=f"{where}.train", expected="true or false", found=repr(train)[:40])
    if train is not None and weight is not None:
        raise mistake("both 'train' and 'weight'", where=where, expected="one of them")
    weight = float(assistant if train is None else train) if weight is None else _number(weight, f"{where}.weight")
    if weight and not assistant:
        fix = "only the assistant's messages are learnt"
        raise mistake(f"a {message['role']} message that counts", where=where, fix=fix)
    return weight


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise mistake("not a weight", where=where, expected="a number from 0 up", found=repr(value)[:40])
    return float(value)


def _replies(value: Any, where: str) -> list[dict[str, Any]]:
    messages = _messages([value] if isinstance(value, Mapping) else value, where)
    for end in (0, -1):
        if messages[end]["role"] != "assistant":
            expected = "replies that begin and end with the assistant"
            raise mistake("not a reply", where=where, expected=expected, found=_roles(messages))
    for i, message in enumerate(messages):
        given = [key for key in OWN_KEYS if key in message]
        if given:
            raise mistake(f"a {given[0]!r} of its own", where=f"{where}[{i}]", expected="none: every reply counts")
    return messages


def _continued(prompt: list[dict[str, Any]], replies: list[dict[str, Any]], record: Mapping[str, Any]) -> Chat:
    weights = (0.0,) * len(prompt) + tuple(float(message["role"] == "assistant") for message in replies)
    return _chat([*prompt, *replies], weights, record)


def _chat(messages: Sequence[Mapping[str, Any]], weights: tuple[float, ...], record: Mapping[str, Any]) -> Chat:
    plain = tuple({key: item for key, item in message.items() if key not in OWN_KEYS} for message in messages)
    return Chat(plain, weights, _tools(record.get("tools")))


def _tools(value: Any) -> tuple[dict[str, Any], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise mistake("not tools", where="tools", expected="a list of JSON schemas", found=type(value).__name__)
    _check_unicode(value, "tools")
    return tuple(dict(tool) for tool in value)


def _keys(record: Mapping[str, Any]) -> str:
    return f"keys {sorted(map(str, record))[:8]}"


def _roles(messages: Sequence[Mapping[str, Any]]) -> str:
    roles = [message["role"] for message in messages]
    return "roles " + ", ".join(roles[:6]) + (", ..." if len(roles) > 6 else "")
