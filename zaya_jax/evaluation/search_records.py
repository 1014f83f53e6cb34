"""The files of a search: every candidate a line as soon as it is complete, so that an interrupted run goes on.

settings.json      what the run was given; another run does not go on in its directory
candidates.jsonl   a line a candidate; texts for readers, token ids for going on, and a digest of the problem, without
                   which a changed problem would go on with answers to the old one. What is in it depends on the
                   settings alone: in the end it is the same file, however often the run was interrupted
finals.jsonl       the same of final calls, if there are any
reused.jsonl       how much of each candidate's prompt was known already, which depends on how the run went
problems.jsonl     what was found for each problem that was asked for, written at the end
samples.jsonl      the answers of the last round as samples of an evaluation, grades.jsonl beside it
run.html           the page (`zaya_jax.report.candidates`)
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.evaluation.samples import LineWriter, whole_rows
from zaya_jax.sampling.files import replacement
from zaya_jax.sampling.markovian_rsa import Candidate, Known, Question
from zaya_jax.sampling.request import Completion
from zaya_jax.text.thinking import THINK_END, THINK_START
from zaya_jax.text.tokenizer import Tokenizer

SETTINGS, CANDIDATES, FINALS, PROBLEMS = "settings.json", "candidates.jsonl", "finals.jsonl", "problems.jsonl"
REUSED, SAMPLES = "reused.jsonl", "samples.jsonl"
Row = dict[str, Any]
Place = tuple[str, int, int]  # problem, round, index
_FILES = ("wordings", "prompts")  # of settings.json: digests of files by name
_KEYS = ("problem", "round", "index", "token_ids", "think_end", "digest")


def claim(directory: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Makes the directory of a run, or finds that it is of this run.

    Raises:
        UserError: it belongs to a run of other settings (every difference is shown), or cannot be used.
    """
    path, new = directory / SETTINGS, json.loads(json.dumps(settings))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.exists():
            old = json.loads(path.read_text(encoding="utf-8"))
            if found := ", ".join(_differences(old, new)):
                fix = "choose another --output, or the settings that it was made with"
                raise mistake("the directory of another run", where=directory, found=found, fix=fix)
            new |= {key: {**old[key], **new[key]} for key in _FILES if key in old}
        elif any(not file.name.startswith(".") for file in directory.iterdir()):
            expected = "a new directory, or one of this run"
            raise mistake("holds other files", where=directory, expected=expected, fix="choose another --output")
        with replacement(path) as beside:
            beside.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise mistake("cannot be used", where=directory, found=error.strerror or error) from error
    except json.JSONDecodeError as error:
        raise mistake("is not JSON", where=path, found=error.msg, fix="choose another --output") from None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is not the same. Of files only those that both have: which are in use depends on the problems asked for."""
    out = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if key in _FILES and a is not None and b is not None:
            out += [f"{key}.{name}: {a[name][:12]} -> {b[name][:12]}" for name in a if b.get(name, a[name]) != a[name]]
        elif a != b:
            out.append(f"{key}: {a!r} -> {b!r}")
    return out


def candidate_row(
    tokenizer: Tokenizer, question: Question, candidate: Candidate, digest: Mapping[str, str] | None = None
) -> Row:
    """A candidate's line. Whether it is right is not known yet."""
    thinking, answer = texts(tokenizer, question, candidate.completion.tokens)
    probe = candidate.probe
    return {
        "problem": question.id,
        "round": candidate.round,
        "index": candidate.index,
        "digest": dict(digest or {}),
        "parents": list(candidate.parents),
        "prompt_tokens": len(candidate.request.tokens),
        "tokens": len(candidate.completion.tokens),
        "thinking": thinking,
        "answer": answer,
        "extracted": None,
        "correct": None,
        "finish": candidate.completion.finish_reason,
        "think_forced": candidate.completion.think_forced,
        "logprob": _mean(candidate.completion.logprobs_model),
        "tail": tokenizer.decode(candidate.carried),
        "probe": None if probe is None else {"extracted": None, "correct": None, **_drawn(tokenizer, question, probe)},
        **_drawn(tokenizer, question, candidate.completion),
    }


def _drawn(tokenizer: Tokenizer, question: Question, completion: Completion) -> Row:
    """What a completion is made of again."""
    return {
        "token_ids": completion.tokens.tolist(),
        "response": response(tokenizer, question, completion.tokens),
        "finish": completion.finish_reason,
        "think_end": completion.think_end,
        "think_forced": completion.think_forced,
        "logprob": _mean(completion.logprobs_model),
    }


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None


def texts(tokenizer: Tokenizer, question: Question, tokens: Sequence[int]) -> tuple[str, str | None]:
    """Reasoning and answer; None for no answer, or none but its end. All is answer for a model without marks."""
    parts = _parts(question, tokens)
    thinking = "".join(tokenizer.decode(part) for inside, part in parts if inside)
    answer = "".join(tokenizer.decode(part) for inside, part in parts if not inside)
    return thinking, answer or None


def response(tokenizer: Tokenizer, question: Question, tokens: Sequence[int]) -> str:
    """All that was drawn, with the marks of reasoning, of which the prompt may have held the first."""
    text, open_ = "", False
    for inside, part in _parts(question, tokens):
        text += THINK_START if inside and not open_ else THINK_END if open_ and not inside else ""
        text, open_ = text + tokenizer.decode(part), inside
    return text


def _parts(question: Question, tokens: Sequence[int]) -> list[tuple[bool, list[int]]]:
    """Runs of tokens, reasoning or not, without marks and what ends an answer."""
    start, end = question.think_ids or (None, None)
    marks = [token for token in question.pieces.direct if token in (start, end)]
    inside = bool(marks) and marks[-1] == start
    parts: list[tuple[bool, list[int]]] = [(inside, [])]
    for token in map(int, tokens):
        if token in (start, end):
            parts.append((token == start, []))
        elif token not in question.stop_ids:
            parts[-1][1].append(token)
    return parts if parts[0][1] or parts[0][0] else parts[1:] or parts


class CandidateWriter:
    """Appends candidates to the files of a run; a context manager.

    Args of the constructor:
        last_round: those of later ones are final calls.
        final_call: whether there are any; else there is no file of them.

    Raises:
        UserError: a file cannot be written, or another process is writing it.
    """

    def __init__(self, directory: pathlib.Path, last_round: int, final_call: bool):
        self._last = last_round
        names = (CANDIDATES, REUSED, *([FINALS] if final_call else []))
        self._files = {name: LineWriter(directory / name) for name in names}

    def write(self, row: Row, known_tokens: int = 0) -> None:
        """Appends a candidate's line, and before it how many tokens of its prompt were known."""
        place = {key: row[key] for key in ("problem", "round", "index")}
        self._files[REUSED].write({**place, "known_tokens": known_tokens})
        self._files[CANDIDATES if row["round"] <= self._last else FINALS].write(row)

    def __enter__(self) -> CandidateWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()


def read_rows(directory: pathlib.Path, digests: Mapping[str, Mapping[str, str]] | None = None) -> list[Row]:
    """The candidates of a run so far, final calls included. A last line that was cut off is left out, with a warning.

    Args:
        digests: of problems, by their ids (`search_task.digest`, or a part of it).

    Returns:
        The lines; token ids as int32 arrays, of a tenth of the size.

    Raises:
        UserError: a line is not a candidate, or it is one of a problem that has changed since.
    """
    rows = []
    for file in (directory / name for name in (CANDIDATES, FINALS) if (directory / name).exists()):
        for where, row in whole_rows(file):
            lacking = [key for key in _KEYS if key not in row]
            if lacking:
                raise mistake("is not a candidate", where=where, expected=f"the key {lacking[0]!r}")
            _check_digest(row, (digests or {}).get(row["problem"], {}), where)
            for drawn in filter(None, (row, row.get("probe"))):
                drawn["token_ids"] = np.array(drawn["token_ids"], np.int32)
            rows.append(row)
    return rows


def _check_digest(row: Row, digest: Mapping[str, str], where: str) -> None:
    changed = [key for key, value in digest.items() if row["digest"].get(key) != value]
    if changed:
        what = f"{where}: problem {row['problem']}"
        found = {"problem": "another prompt or answer", "attempts": "other words around the attempts"}[changed[0]]
        fix = "give the problem as it was, or begin in another directory"
        raise mistake("the problem has changed since it was searched", where=what, found=found, fix=fix)


def read_reused(directory: pathlib.Path) -> dict[Place, int]:
    """How many tokens of each candidate's prompt were known already."""
    path = directory / REUSED
    rows = [row for _, row in whole_rows(path)] if path.exists() else []
    return {(row.get("problem"), row.get("round"), row.get("index")): row.get("known_tokens", 0) for row in rows}


def known(rows: Sequence[Row], reused: Mapping[Place, int] | None = None) -> dict[str, Known]:
    """Completions by problem, round and index, for `run_searches`. Of log-probabilities and routes there are none."""
    out: dict[str, dict] = {}
    for row in rows:
        probe = row["probe"] and _completion(f"{row['problem']}/probe", row["probe"])
        place = out.setdefault(row["problem"], {})
        known_tokens = (reused or {}).get((row["problem"], row["round"], row["index"]), 0)
        place[row["round"], row["index"]] = (_completion(str(row["problem"]), row, known_tokens), probe)
    return out


def _completion(name: str, row: Row, known_tokens: int = 0) -> Completion:
    nothing = np.zeros(0, np.float32)
    return Completion(
        name,
        np.asarray(row["token_ids"], np.int32),
        nothing,
        nothing,
        np.zeros((0, 0), np.int8),
        row["finish"],
        np.zeros(0, np.int32),
        think_end=row["think_end"],
        think_forced=row["think_forced"],
        known_tokens=known_tokens,
    )


def rewrite(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a file of rows anew; the old one stays until the new one is whole."""
    with replacement(path) as beside, beside.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, default=np.ndarray.tolist) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())
