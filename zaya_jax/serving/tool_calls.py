"""Tool calls as ZAYA1 writes them, in an answer's text.

    <zyphra_tool_call>
    <function=NAME>
    <parameter=KEY>
    VALUE
    </parameter>
    </function>
    </zyphra_tool_call>

A value is what stands between the tags without the line break at either end; what type it has, the tool's JSON schema
says. What does not follow the grammar stays text. A value cannot hold `</zyphra_tool_call>`, nor `</parameter>` where
a parameter or the end of the function follows.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

OPEN, CLOSE = "<zyphra_tool_call>", "</zyphra_tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_NAME = re.compile(r"[\w.:-]{1,128}")
_VALUE_END = re.compile(rf"{_PARAMETER_END}\s*(?={_PARAMETER}|\Z)")
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
_TYPES: dict[str, Any] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}


@dataclasses.dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for.

    Attributes:
        name: of the function.
        arguments: JSON values by name.
    """

    name: str
    arguments: Mapping[str, Any]


def write_call(call: ToolCall) -> str:
    """A call as the model writes it."""
    lines = [OPEN, f"{_FUNCTION}{call.name}>"]
    for key, value in call.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines += [f"{_PARAMETER}{key}>", text, _PARAMETER_END]
    return "\n".join([*lines, _FUNCTION_END, CLOSE])


def read_call(block: str, tools: Sequence[Mapping[str, Any]] = ()) -> ToolCall | None:
    """Reads what stands between the outer tags; None if it does not follow the grammar.

    Args:
        tools: as a client sends them; their schemas give the values' types.
    """
    body = block.strip()
    if not body.startswith(_FUNCTION) or not body.endswith(_FUNCTION_END):
        return None
    name, found, rest = body[len(_FUNCTION) : -len(_FUNCTION_END)].partition(">")
    if not found or not _NAME.fullmatch(name):
        return None
    arguments = _read_arguments(rest.strip(), _schemas(name, tools))
    return None if arguments is None else ToolCall(name, arguments)


def _read_arguments(text: str, schemas: Mapping[str, Any]) -> dict[str, Any] | None:
    arguments: dict[str, Any] = {}
    place = 0
    while place < len(text):
        key_end = text.find(">", place)
        key = text[place + len(_PARAMETER) : key_end].strip()
        end = _VALUE_END.search(text, key_end + 1)
        wrong = not text.startswith(_PARAMETER, place) or key_end < 0 or not key or "\n" in key or key in arguments
        if wrong or end is None:
            return None
        value = text[key_end + 1 : end.start()].removeprefix("\n").removesuffix("\n")
        arguments[key] = _typed(value, schemas.get(key))
        place = end.end()
    return arguments


def _schemas(name: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The schemas of a function's parameters. Clients write them: nothing is sure of their form."""
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, dict) and function.get("name") == name:
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            return properties if isinstance(properties, dict) else {}
    return {}


def _typed(text: str, schema: Any) -> Any:
    """A value of one of the types that its schema allows; a text, if it is of none."""
    allowed = _allowed(schema)
    if not allowed or ("string" in allowed and not ("null" in allowed and text == "null")):
        return text
    try:
        value = json.loads(_PYTHON_WORDS.get(text.strip(), text))
    except (ValueError, RecursionError):
        return text
    return value if any(_TYPES[name](value) for name in allowed if name in _TYPES) else text


def _allowed(schema: Any) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    given = schema.get("type")
    given = given if isinstance(given, list) else [given]
    names = {name for name in given if isinstance(name, str)}
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        for option in options if isinstance(options, list) else ():
            names |= _allowed(option) if isinstance(option, dict) and key not in option else set()
    return names


class ToolStream:
    """Tells calls from text while an answer arrives. A call is given when it is whole.

    White space around a call belongs to it. The texts and calls are in the order in which they were written.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]] = ()):
        self._tools, self._held, self._behind_call = tools, "", False

    def push(self, text: str) -> list[str | ToolCall]:
        """Takes text and returns what is now certain."""
        self._held += text
        out: list[str | ToolCall] = []
        while (start := self._held.find(OPEN)) >= 0 and (end := self._held.find(CLOSE, start)) >= 0:
            stop = end + len(CLOSE)
            call = read_call(self._held[start + len(OPEN) : end], self._tools)
            before = self._held[:stop] if call is None else self._held[:start].rstrip()
            out += [self._text(before)] if call is None else [self._text(before), call]
            self._held, self._behind_call = self._held[stop:], call is not None
        certain = len(self._held[:start].rstrip()) if start >= 0 else _certain(self._held)
        out.append(self._text(self._held[:certain]))
        self._held = self._held[certain:]
        return [part for part in out if part]

    def flush(self) -> list[str | ToolCall]:
        """Takes the answer's end: what is held is text."""
        text, self._held = self._text(self._held), ""
        return [text] if text else []

    def _text(self, text: str) -> str:
        if self._behind_call:
            text = text.lstrip()
            self._behind_call = not text
        return text


def _certain(text: str) -> int:
    """Length of what no later text can make part of a call: all but white space, and the beginning of a tag, at the
    end."""
    partial = next((n for n in range(min(len(OPEN) - 1, len(text)), 0, -1) if OPEN.startswith(text[-n:])), 0)
    return len(text[: len(text) - partial].rstrip())
