"""What a row of a benchmark file looks like: version 1 of the schema, and its checks (examples: docs/benchmarks.md).

    every kind    {"id": "...", "problem": "...", "kind": "...", "source"?: "...", "date"?: "YYYY-MM-DD", "schema"?: 1}
    integer       "answer": 70, or "70": 0 to 999, as AIME asks for
    latex, exact  "answer": "..."
    choice        "choices": ["...", ...], "answer": the index of the right one from 0, or its letter
    code          "tests": [{"input": "...", "output": "...", "testtype"?: "stdin"}, ...], "starter_code"?: "...";
                  or tests {"input", "output", "testtype": "functional", "fn_name"}; all as base64 of zlib of JSON too
    instructions  "instructions": [{"name": "...", "arguments"?: {...}}, ...]
    chat          nothing else: there is no right answer, a reward model or a judge says what a response is worth

Unlike in training data every other key is refused: a misspelt one would quietly change what is measured.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import difflib
import inspect
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.rows import check_keys, text_of
from zaya_jax.errors import mistake
from zaya_jax.grading.instructions import CHECKS

VERSION = 1
KINDS = {
    "integer": ("answer",),
    "latex": ("answer",),
    "exact": ("answer",),
    "choice": ("choices", "answer"),
    "code": ("tests", "starter_code"),
    "instructions": ("instructions",),
    "chat": (),
}
EVERY = ("schema", "id", "problem", "kind", "source", "date")
LETTERS = "ABCDEFGHIJ"
TEST_KINDS = ("stdin", "functional")
MOST_BYTES = 1 << 29  # of tests, unpacked: what claims to be more is refused before it fills the memory


def check_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row as the rest of the program has it: answers are texts, a choice is the index of the right option.

    Raises:
        UserError: what is wrong, after `where`.
    """
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        found = "nothing" if "kind" not in row else repr(kind)[:40]
        raise mistake("no kind of problem", where=where, expected=f"one of {', '.join(KINDS)}", found=found)
    check_keys(row, (*EVERY, *KINDS[kind]), where)
    _check_version(row, where)
    clean = {"id": text_of(row, "id", where), "problem": text_of(row, "problem", where), "kind": kind}
    if row.get("source") is not None:
        clean["source"] = text_of(row, "source", where)
    if row.get("date") is not None:
        clean["date"] = check_date(row["date"], where)
    return clean | _PARTS[kind](row, where)


def check_date(value: Any, where: str) -> str:
    """A day as YYYY-MM-DD, or a UserError."""
    try:
        return datetime.date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise mistake("not a day", where=where, expected='"date": "YYYY-MM-DD"', found=repr(value)[:40]) from None


def unpack_tests(packed: str, where: str) -> Any:
    """Tests from base64 of zlib of JSON.

    Raises:
        UserError: it is not that. A pickle is refused by name: to read one can run whatever it says.
    """
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(packed, validate=True), MOST_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        expected = "a list of tests, or base64 of zlib of JSON"
        raise mistake("tests cannot be unpacked", where=where, expected=expected, found=str(error)[:60]) from None
    if unpacker.unconsumed_tail:
        raise mistake("tests are too large", where=where, expected=f"at most {MOST_BYTES >> 20} MiB, unpacked")
    if data[:1] == b"\x80":
        fix = "convert the file: python -m experiments.convert_benchmark --form=livecodebench"
        raise mistake("tests are pickled", where=where, expected="JSON; a pickle is never loaded", fix=fix)
    try:
        return json.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise mistake("unpacked tests are not JSON", where=where, found=repr(data[:20])) from None


def is_small_integer(answer: str) -> bool:
    """Whether an answer is one of kind integer: 0 to 999, leading zeros allowed."""
    return re.fullmatch(r"0*\d{1,3}", answer.strip(), re.ASCII) is not None


def _check_version(row: Mapping[str, Any], where: str) -> None:
    version = row.get("schema", VERSION)
    if type(version) is not int or version != VERSION:
        raise mistake("unknown schema", where=where, expected=f'"schema": {VERSION}, or none', found=repr(version)[:40])


def _integer(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    answer = _given(row, "answer", where)
    if isinstance(answer, bool) or not is_small_integer(str(answer)):
        fix = 'kind "latex" takes other answers'
        raise mistake("answer is not a whole number from 0 to 999", where=where, found=repr(answer)[:40], fix=fix)
    return {"answer": str(answer).strip()}


def _text(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    answer = _given(row, "answer", where)
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise mistake("answer is not a text", where=where, expected='"answer": "..."', found=repr(answer)[:40])
    return {"answer": answer.strip()}


def _choice(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    choices = _given(row, "choices", where)
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        found = f"{len(choices)} of them" if isinstance(choices, list) else type(choices).__name__
        raise mistake("choices are not a choice", where=where, expected=f"a list of 2 to {len(LETTERS)}", found=found)
    for place, option in enumerate(choices):
        if not isinstance(option, str) or not option.strip():
            found = repr(option)[:40]
            raise mistake(f"choices[{place}] is not a text", where=where, expected="an option", found=found)
    answer = _given(row, "answer", where)
    right = LETTERS.find(answer) if isinstance(answer, str) and len(answer) == 1 else answer
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
        expected = f"0 to {len(choices) - 1}, or A to {LETTERS[len(choices) - 1]}"
        raise mistake("answer is none of the choices", where=where, expected=expected, found=repr(answer)[:40])
    if choices.count(choices[right]) > 1:
        found = repr(choices[right])[:40]
        raise mistake("the right option is there twice", where=where, found=found, fix="leave one of them out")
    return {"choices": list(choices), "answer": right}


def _code(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    tests = _given(row, "tests", where)
    if isinstance(tests, str):
        tests = unpack_tests(tests, where)
    if not isinstance(tests, list) or not tests:
        found = "an empty one" if tests == [] else type(tests).__name__
        raise mistake("no tests", where=where, expected="a list of at least one", found=found)
    clean = {"tests": [_test(test, f"{where}, tests[{place}]") for place, test in enumerate(tests)]}
    starter = row.get("starter_code")
    if starter is not None and not isinstance(starter, str):
        raise mistake("starter_code is not a text", where=where, found=type(starter).__name__)
    return clean | ({"starter_code": starter} if starter and starter.strip() else {})


def _test(test: Any, where: str) -> dict[str, str]:
    if not isinstance(test, Mapping):
        raise mistake("is not a test", where=where, expected='{"input": "...", "output": "..."}', found=repr(test)[:40])
    check_keys(test, ("input", "output", "testtype", "fn_name"), where)
    kind = test.get("testtype", "stdin")
    if kind not in TEST_KINDS:
        raise mistake("no testtype", where=where, expected=" or ".join(TEST_KINDS), found=repr(kind)[:40])
    for key in ("input", "output"):
        if not isinstance(test.get(key), str):
            found = "nothing" if key not in test else type(test[key]).__name__
            raise mistake(f"no {key!r}", where=where, expected="a text, which may be empty", found=found)
    clean = {"input": test["input"], "output": test["output"], "testtype": kind}
    return clean | ({"fn_name": text_of(test, "fn_name", where)} if kind == "functional" else {})


def _instructions(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = _given(row, "instructions", where)
    if not isinstance(given, list) or not given:
        expected = '[{"name": "...", "arguments": {...}}, ...]'
        raise mistake("no instructions", where=where, expected=expected, found=repr(given)[:40])
    clean = []
    for place, item in enumerate(given):
        at = f"{where}, instructions[{place}]"
        if not isinstance(item, Mapping):
            raise mistake("is not an instruction", where=at, expected='{"name": "..."}', found=repr(item)[:40])
        check_keys(item, ("name", "arguments"), at)
        arguments = item.get("arguments") or {}
        if not isinstance(arguments, Mapping):
            raise mistake("arguments are not an object", where=at, found=type(arguments).__name__)
        _check_instruction(text_of(item, "name", at), arguments, at)
        clean.append({"name": item["name"], "arguments": dict(arguments)})
    return {"instructions": clean}


def _check_instruction(name: str, arguments: Mapping[str, Any], where: str) -> None:
    """Refuses what no check could be called with, before anything is sampled."""
    if name not in CHECKS:
        close = difflib.get_close_matches(name, CHECKS, 1)
        fix = f"did you mean {close[0]!r}?" if close else "docs/grading.md has their names"
        raise mistake(f"no check {name!r}", where=where, fix=fix)
    try:
        inspect.signature(CHECKS[name]).bind("", **arguments)
    except TypeError as error:
        raise mistake(f"arguments do not fit {name!r}", where=where, found=str(error)) from None


def _given(row: Mapping[str, Any], key: str, where: str) -> Any:
    if row.get(key) is None:
        raise mistake(f"no {key!r}", where=where, expected=f"one: the kind is {row['kind']!r}")
    return row[key]


_PARTS = {
    "integer": _integer,
    "latex": _text,
    "exact": _text,
    "choice": _choice,
    "code": _code,
    "instructions": _instructions,
    "chat": lambda row, where: {},
}
