"""Published benchmark files as ours: MathArena, IMO-AnswerBench, GPQA, MMLU-Pro, LiveCodeBench, IFEval and IFBench.

Each form is a function from rows, as the publisher names their columns, to rows of `zaya_jax.environments.schema`.
Files are csv, json, jsonl or parquet (extra `parquet`). What comes out is checked like any other benchmark file.
"""

from __future__ import annotations

import collections
import pathlib
import pickletools
import sys
import zlib
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zaya_jax.environments.ifeval import check_of
from zaya_jax.environments.schema import MOST_BYTES, check_date, check_row, is_small_integer
from zaya_jax.environments.tables import parse_json, read_table
from zaya_jax.errors import mistake
from zaya_jax.sampling.files import write_rows

Row = Mapping[str, Any]


def convert(
    source: pathlib.Path | str,
    form: str,
    output: pathlib.Path | str,
    since: str | None = None,
    until: str | None = None,
) -> int:
    """Writes a benchmark file from a published one and gives the number of its problems.

    Args:
        source: csv, json, jsonl or parquet.
        form: of `FORMS`.
        output: the jsonl file.
        since, until: first and last day (YYYY-MM-DD) of the problems to keep; only of forms that have dates.

    Raises:
        UserError: the source cannot be read, lacks a column, has a bad row, or nothing is left of it.
    """
    if form not in FORMS:
        raise mistake("unknown form", where=form, expected=f"one of {', '.join(FORMS)}")
    since, until = (day and check_date(day, name) for day, name in ((since, "--since"), (until, "--until")))
    columns, function = FORMS[form]
    rows = read_table(source)
    for where, row in rows:
        _need(row, columns, where)
    made = [row for row in function(rows) if _within(row, since, until)]
    if not made:
        raise mistake(
            "no problems", where=source, expected="at least one that can be checked, within the days asked for"
        )
    for row in made:
        check_row(row, f"{source}, problem {row['id']}")
    write_rows(output, made)
    return len(made)


def _matharena(rows: Sequence[tuple[str, Row]]) -> list[dict[str, Any]]:
    # One kind for the whole contest: where one answer is LaTeX, the model is not to be told that others are numbers.
    answers = [str(row["answer"]).strip() for _, row in rows]
    kind = "integer" if all(map(is_small_integer, answers)) else "latex"
    return [
        _plain({"id": str(row["problem_idx"]), "problem": row["problem"], "kind": kind, "answer": answer,
                "source": row.get("source")})
        for (_, row), answer in zip(rows, answers)
    ]  # fmt: skip


def _answerbench(rows: Sequence[tuple[str, Row]]) -> list[dict[str, Any]]:
    return [
        _plain({"id": str(row["Problem ID"]), "problem": row["Problem"], "kind": "latex",
                "answer": str(row["Short Answer"]).strip(), "source": row.get("Source")})
        for _, row in rows
    ]  # fmt: skip


def _gpqa(rows: Sequence[tuple[str, Row]]) -> list[dict[str, Any]]:
    wrong = [f"Incorrect Answer {i}" for i in (1, 2, 3)]
    return [
        {"id": str(row["Record ID"]), "problem": row["Question"], "kind": "choice", "answer": 0,
         "choices": _distinct([row["Correct Answer"], *(row[column] for column in wrong)], 0, where)[0]}
        for where, row in rows
    ]  # fmt: skip


def _mmlu_pro(rows: Sequence[tuple[str, Row]]) -> list[dict[str, Any]]:
    made = []
    for where, row in rows:
        options, right = [str(option) for option in row["options"]], row["answer_index"]
        if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(options):
            raise mistake("answer_index is none of the options", where=where, found=repr(right)[:40])
        choices, right = _distinct(options, right, where)
        row_made = {"id": str(row["question_id"]), "problem": row["question"], "kind": "choice", "choices": choices}
        made.append(_plain(row_made | {"answer": right, "source": row.get("category") or None}))
    return made


def _distinct(options: Sequence[str], right: int, where: str) -> tuple[list[str], int]:
    """Options without a second copy of the right one, which a model could not tell from the first."""
    options = [option.strip() for option in options]
    kept = [i for i, option in enumerate(options) if i == right or option != options[right]]
    if len(kept) < len(options):
        print(f"warning: {where}: the right option is there twice; one of them is kept", file=sys.stderr)
    return [options[i] for i in kept], kept.index(right)


def _livecodebench(rows: Sequence[tuple[str, Row]]) -> list[dict[str, Any]]:
    return [_livecodebench_row(row, where) for where, row in rows]


def _livecodebench_row(row: Row, where: str) -> dict[str, Any]:
    function = (parse_json(row.get("metadata") or "{}", where, "metadata") or {}).get("func_name")
    tests = parse_json(row["public_test_cases"], where, "public_test_cases")
    tests = tests + _private_tests(row["private_test_cases"], where)
    made = [{"input": test["input"], "output": test["output"], "testtype": test["testtype"]} for test in tests]
    for test in made:
        if test["testtype"] == "functional":
            if not function:
                raise mistake("no func_name in metadata", where=where, expected="one: there are functional tests")
            test["fn_name"] = function
    source = " ".join(str(row[key]) for key in ("platform", "difficulty") if row.get(key))
    return _plain({
        "id": str(row["question_id"]), "problem": row["question_content"], "kind": "code", "tests": made,
        "starter_code": row.get("starter_code") or None, "date": str(row["contest_date"])[:10],
        "source": source or None,
    })  # fmt: skip


def _private_tests(value: str, where: str) -> list[Any]:
    """Private tests: JSON, or base64 of zlib of JSON, or of a pickle that is a text of JSON and nothing else."""
    if value.lstrip().startswith("["):
        return parse_json(value, where, "private_test_cases")
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(b64decode(value, validate=True), MOST_BYTES)
    except (ValueError, zlib.error) as error:
        raise mistake("private_test_cases cannot be unpacked", where=where, found=str(error)[:60]) from None
    if unpacker.unconsumed_tail:
        raise mistake("private_test_cases are too large", where=where, expected=f"at most {MOST_BYTES >> 20} MiB")
    text = pickled_text(data, where) if data[:1] == b"\x80" else data
    return parse_json(text, where, "private_test_cases")


# What a pickle of one text is made of. None of these imports, calls or builds anything.
_HARMLESS = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}


def pickled_text(data: bytes, where: str) -> str:
    """The text of a pickle that holds one text, read off its opcodes: the pickle is not loaded, nothing in it is run.

    Raises:
        UserError: it holds anything else; the opcode is named.
    """
    texts = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _TEXTS:
                texts.append(argument)
            elif opcode.name not in _HARMLESS:
                fix = "a pickle is never loaded; get the tests as JSON"
                raise mistake("tests are pickled", where=where, expected="a text alone", found=opcode.name, fix=fix)
    except ValueError as error:
        raise mistake("tests are a damaged pickle", where=where, found=str(error)[:60]) from None
    if len(texts) != 1:
        raise mistake("tests are pickled", where=where, expected="a text alone", found=f"{len(texts)} texts")
    return texts[0]


def _ifeval(rows: Sequence[tuple[str, Row]]) -> list[dict[str, Any]]:
    made, unknown = [], collections.Counter()
    for where, row in rows:
        names, given = row["instruction_id_list"], row["kwargs"]
        if len(names) != len(given):
            found = f"{len(given)} for {len(names)} instructions"
            raise mistake("kwargs do not fit instruction_id_list", where=where, found=found)
        checks = [_check(name, arguments or {}, where) for name, arguments in zip(names, given)]
        if None in checks:
            unknown.update({name for name, check in zip(names, checks) if check is None})
            continue
        row_made = {"id": str(row["key"]), "problem": row["prompt"], "kind": "instructions"}
        made.append(row_made | {"instructions": checks})
    if unknown:
        named = ", ".join(f"{name} ({count})" for name, count in unknown.most_common(8))
        print(f"warning: {len(rows) - len(made)} rows are left out; there is no check of {named}", file=sys.stderr)
    return made


def _check(name: str, arguments: Row, where: str) -> dict[str, Any] | None:
    try:
        return check_of(name, arguments)
    except KeyError as error:
        raise mistake(f"no {error} among the kwargs of {name}", where=where, found=sorted(arguments)) from None


FORMS: dict[str, tuple[tuple[str, ...], Callable[[Sequence[tuple[str, Row]]], list[dict[str, Any]]]]] = {
    "matharena": (("problem_idx", "problem", "answer"), _matharena),
    "answerbench": (("Problem ID", "Problem", "Short Answer"), _answerbench),
    "gpqa": (("Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2",
              "Incorrect Answer 3"), _gpqa),
    "mmlu_pro": (("question_id", "question", "options", "answer_index"), _mmlu_pro),
    "livecodebench": (("question_id", "question_content", "contest_date", "public_test_cases", "private_test_cases"),
                      _livecodebench),
    "ifeval": (("key", "prompt", "instruction_id_list", "kwargs"), _ifeval),
}  # fmt: skip


def _need(row: Row, columns: Sequence[str], where: str) -> None:
    for column in columns:
        if row.get(column) is None:
            raise mistake(
                f"no {column!r}", where=where, expected=f"columns {', '.join(columns)}", found=sorted(row)[:12]
            )


def _within(row: Row, since: str | None, until: str | None) -> bool:
    if not since and not until:
        return True
    if "date" not in row:
        raise mistake("no dates", where=f"problem {row['id']}", fix="leave out --since and --until")
    day = check_date(row["date"], f"problem {row['id']}")
    return (since or day) <= day <= (until or day)


def _plain(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}
