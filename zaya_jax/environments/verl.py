"""Rows of verl's data files as problems: parquet (extra `parquet`), jsonl or json.

    {"data_source": "...", "prompt": [{"role": "user", "content": "..."}], "ability": "math" | "code",
     "reward_model": {"style": "rule", "ground_truth": "..."}, "extra_info"?: {...}}

The prompt is shown as it is; no template of ours is put around it. `math` is compared as LaTeX, in a box or behind
"Answer:" or, where the source is GSM8K, behind the last "####". The ground truth of `code` is JSON: a list of tests as
in docs/benchmarks.md, or {"inputs": [...], "outputs": [...]} of standard input and output.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.benchmarks import verify
from zaya_jax.environments.environment import Environment, Problem, Verdict
from zaya_jax.environments.files import rows_environment
from zaya_jax.environments.rows import text_of
from zaya_jax.environments.schema import check_row
from zaya_jax.environments.tables import parse_json, read_table
from zaya_jax.errors import mistake

ABILITIES = {"math": "latex", "code": "code"}
_FORM = '[{"role": "user", "content": "..."}]'
_GSM8K = "####"


def verl_environment(path: pathlib.Path | str) -> Environment:
    """The problems of a file as an environment, judged as benchmarks are.

    Raises:
        UserError: as `read_verl`; or math-verify is not installed and there is mathematics.
    """
    return rows_environment(pathlib.Path(path).stem, read_verl(path), str(path), _judge)


def read_verl(path: pathlib.Path | str) -> list[Problem]:
    """The problems of a file, in its order.

    Raises:
        UserError: it cannot be read, pyarrow is missing, or a row is not of this form; the row is named.
    """
    return [_problem(row, f"{number}", where) for number, (where, row) in enumerate(read_table(path))]


def _problem(row: Mapping[str, Any], number: str, where: str) -> Problem:
    ability = text_of(row, "ability", where).lower()
    if ability not in ABILITIES:
        raise mistake("unknown ability", where=where, expected=" or ".join(ABILITIES), found=repr(row["ability"])[:40])
    truth = _ground_truth(row.get("reward_model"), where)
    kind = ABILITIES[ability]
    given = {"tests": _tests(truth, where)} if kind == "code" else {"answer": truth}
    clean = check_row({"id": number, "problem": _prompt(row.get("prompt"), where), "kind": kind, **given}, where)
    meta = {"source": text_of(row, "data_source", where), "row": int(number)}
    hidden = {"kind": kind, **{key: clean[key] for key in given}}
    if kind == "latex" and "gsm8k" in meta["source"]:
        hidden["mark"] = _GSM8K
    return Problem(number, clean["problem"], hidden, meta)


def _prompt(messages: Any, where: str) -> str:
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise mistake("no prompt", where=where, expected=_FORM, found=repr(messages)[:40])
    roles = [message.get("role") for message in messages]
    if roles != ["user"]:
        fix = "join the messages into one: a problem is one text"
        raise mistake(
            "the prompt is not one message", where=where, expected=_FORM, found=f"roles {roles}"[:60], fix=fix
        )
    return text_of(messages[0], "content", f"{where}, prompt[0]")


def _ground_truth(reward_model: Any, where: str) -> Any:
    if not isinstance(reward_model, Mapping):
        expected = '{"style": "rule", "ground_truth": "..."}'
        raise mistake("no reward_model", where=where, expected=expected, found=repr(reward_model)[:40])
    style = reward_model.get("style", "rule")
    if style != "rule":
        raise mistake(
            "rewards of a model are not read", where=where, expected='"style": "rule"', found=repr(style)[:40]
        )
    truth = reward_model.get("ground_truth")
    if truth is None or truth == "":
        raise mistake("no ground_truth", where=f"{where}, reward_model", expected="the answer, or tests")
    return truth


def _tests(truth: Any, where: str) -> Any:
    tests = parse_json(truth, where, "ground_truth") if isinstance(truth, str) else truth
    if not isinstance(tests, Mapping):
        return tests
    if tests.get("fn_name"):
        expected = 'a list of tests with "testtype": "functional"'
        raise mistake("tests of a function in this form are not read", where=where, expected=expected,
                      found=f"fn_name {tests['fn_name']!r}"[:60])  # fmt: skip
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        expected = '{"inputs": [...], "outputs": [...]} of one length'
        raise mistake("no tests", where=f"{where}, ground_truth", expected=expected, found=sorted(map(str, tests))[:8])
    return [{"input": given, "output": wanted} for given, wanted in zip(inputs, outputs)]


def _judge(problem: Problem, response: str, **tools: Any) -> Verdict:
    mark = problem.hidden.get("mark")
    if mark and mark in response:
        line = response.rpartition(mark)[2].strip().partition("\n")[0]
        response = f"\\boxed{{{line.replace('{', '').replace('}', '')}}}" if line else ""
    return verify(problem, response, **tools)
