"""Whether a program passes its tests: standard input to standard output, or calls of a function.

Modelled on LiveCodeBench (arXiv 2403.07974). What is expected never enters the sandbox; the program's answers come out
and are compared here, so that there is nothing inside to read, patch or forge.
"""

from __future__ import annotations

import dataclasses
import decimal
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.grading import code_harness
from zaya_jax.grading.limits import Run
from zaya_jax.grading.sandbox import Sandbox

_HARNESS = Path(code_harness.__file__).read_text(encoding="utf-8")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_START = 10.0  # seconds for the harness itself, on a busy machine
_MOST_OUTPUT = 256 << 20  # of all tests together


@dataclasses.dataclass(frozen=True)
class CodeVerdict:
    """What became of a program.

    Attributes:
        passed: every test.
        count: tests passed before the first failure; tests behind it are not counted.
        first_failure: index of that test; None if there is none.
        status: "passed", "wrong", or how the failing test ended: "error", "timeout", "memory", "output", "killed".
        detail: the end of what the failing test wrote to standard error.
    """

    passed: bool
    count: int
    first_failure: int | None
    status: str
    detail: str = ""


def check_code(code: str, tests: Sequence[Mapping[str, Any]], sandbox: Sandbox, seconds: float = 6.0) -> CodeVerdict:
    """Runs a program on all tests in one sandbox, each test in a process of its own.

    Args:
        code: Python source.
        tests: JSON objects {"input": str, "output": str, "testtype": "stdin" or "functional", "fn_name": str}; the
            arguments of a function are JSON, one a line, and so is its result.
        sandbox: its limits hold for each test, but wall time: the whole has what `seconds` allows all tests.
        seconds: wall time for each test.

    Raises:
        UserError: a test is not of this form, or there is none.
    """
    tests = _checked(tests)
    run = _run(code, tests, sandbox, seconds)
    results = _results(run.stdout)
    for index, test in enumerate(tests):
        if index >= len(results):  # the harness was cut off
            ended = run.status if run.status not in ("ok", "error") else "killed"
            return CodeVerdict(False, index, index, ended, run.stderr[-1000:])
        status, output, error = results[index]
        if status != "ok":
            return CodeVerdict(False, index, index, status, error)
        if not _right(test, output):
            return CodeVerdict(False, index, index, "wrong", error)
    return CodeVerdict(True, len(tests), None, "passed")


def _run(code: str, tests: Sequence[Mapping[str, Any]], sandbox: Sandbox, seconds: float) -> Run:
    most = sandbox.limits.output_bytes
    task = {
        "code": code,
        "tests": [{key: test[key] for key in ("input", "testtype", "fn_name") if key in test} for test in tests],
        "seconds": seconds,
        "output_bytes": most,
    }
    limits = dataclasses.replace(
        sandbox.limits,
        wall_seconds=seconds * len(tests) + _START,
        output_bytes=min(_MOST_OUTPUT, 2 * most * (len(tests) + 1)),
        processes=sandbox.limits.processes + 1,  # the harness
    )
    return sandbox.run(_HARNESS, json.dumps(task), limits=limits)


def _checked(tests: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    if not tests:
        raise mistake("no tests", expected="at least one", fix="a program without tests passes nothing")
    for index, test in enumerate(tests):
        kind, where = test.get("testtype"), f"tests[{index}]"
        if kind not in ("stdin", "functional"):
            raise mistake("no such testtype", where=where, expected="stdin or functional", found=repr(kind))
        for key in ("input", "output", *(("fn_name",) if kind == "functional" else ())):
            if not isinstance(test.get(key), str):
                raise mistake(f"{key!r} is not usable", where=where, expected="a string", found=repr(test.get(key)))
        if kind == "functional":
            for line in [*filter(str.strip, test["input"].split("\n")), test["output"]]:
                _checked_json(line, where)
    return tests


def _checked_json(text: str, where: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        raise mistake("is no JSON", where=where, expected="one JSON value a line", found=repr(text[:80])) from None


def _results(stdout: str) -> list[tuple[str, str, str]]:
    """What the harness wrote, which no program can; a last line without an end was cut off."""
    return [tuple(json.loads(line)) for line in stdout.split("\n")[:-1]]


def _right(test: Mapping[str, Any], output: str) -> bool:
    if test["testtype"] == "stdin":
        return same_output(test["output"], output)
    try:
        return bool(json.loads(test["output"]) == json.loads(output))
    except (ValueError, RecursionError):
        return False


def same_output(expected: str, output: str) -> bool:
    """Whether the lines are the same, without the space around them, or else their numbers: 1.0 is 1.00."""
    wanted, got = ([line.strip() for line in text.strip().split("\n")] for text in (expected, output))
    return len(wanted) == len(got) and all(a == b or _same_numbers(a, b) for a, b in zip(wanted, got))


def _same_numbers(a: str, b: str) -> bool:
    first, second = a.split(), b.split()
    if len(first) != len(second) or not all(map(_NUMBER.fullmatch, [*first, *second])):
        return False
    return all(decimal.Decimal(x) == decimal.Decimal(y) for x, y in zip(first, second))
