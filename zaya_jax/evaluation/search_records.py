"""The files of a search: every candidate a line as soon as it is complete, so that an interrupted run goes on.

settings.json      what the run was given; another run does not go on in its directory
candidates.jsonl   a line a candidate; texts for readers, token ids for going on. What is in it depends on the settings
                   alone: in the end it is the same file, however often the run was interrupted
finals.jsonl       the same of final calls
reused.jsonl       how much of each candidate's prompt was known already, which depends on how the run went
problems.jsonl     what was found for each problem, written at the end
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
REUSED = "reused.jsonl"
Row = dict[str, Any]
Place = tuple[str, int, int]  # problem, round, index


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
            changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            if changed:
                found = ", ".join(f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in changed)
                fix = "choose another --output, or the settings that it was made with"
                raise mistake("the directory of another run", where=directory, found=found, fix=fix)
        elif any(not file.name.startswith(".") for file in directory.iterdir()):
            expected = "a new directory, or one of this run"
            raise mistake("holds other files", where=directory, expected=expected, fix="choose another --output")
        with replacement(path) as beside:
            beside.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise mistake("cannot be used", where=directory, found=error.strerror or error) from error
    except json.JSONDecodeError as error:
        raise mistake("is not JSON", where=path, found=error.msg, fix="choose another --output") from None


def candidate_row(tokenizer: Tokenizer, question: Question, candidate: Candidate) -> Row:
    """A candidate's line. Whether it is right is not known yet."""
    thinking, answer = texts(tokenizer, question, candidate.completion.tokens)
    probe = candidate.probe
    return {
        "problem": question.id,
        "round": candidate.round,
        "index": candidate.index,
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

    Raises:
        UserError: a file cannot be written, or another process is writing it.
    """

    def __init__(self, directory: pathlib.Path, last_round: int):
        self._last = last_round
        self._files = {name: LineWriter(directory / name) for name in (CANDIDATES, FINALS, REUSED)}

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


def read_rows(directory: pathlib.Path) -> list[Row]:
    """The candidates of a run so far, final calls included. A last line that was cut off is left out, with a warning.

    Raises:
        UserError: a line is not a candidate.
    """
    files = [directory / name for name in (CANDIDATES, FINALS) if (directory / name).exists()]
    rows = []
    for file in files:
        for where, row in whole_rows(file):
            lacking = [key for key in ("problem", "round", "index", "token_ids", "think_end") if key not in row]
            if lacking:
                raise mistake("is not a candidate", where=where, expected=f"the key {lacking[0]!r}")
            rows.append(row)
    return rows


def read_reused(directory: pathlib.Path) -> dict[Place, int]:
    """How many tokens of each candidate's prompt were known already."""
    path = directory / REUSED
    rows = [row for _, row in whole_rows(path)] if path.exists() else []
    return {(row.get("problem"), row.get("round"), row.get("index")): row.get("known_tokens", 0) for row in rows}


def known(rows: Sequence[Row], reused: Mapping[Place, int] | None = None) -> dict[str, Known]:
    """Completions by problem, round and index, for `run_searches`. Log-probabilities by token are not kept: NaN."""
    out: dict[str, dict] = {}
    for row in rows:
        probe = row["probe"] and _completion(f"{row['problem']}/probe", row["probe"])
        place = out.setdefault(row["problem"], {})
        known_tokens = (reused or {}).get((row["problem"], row["round"], row["index"]), 0)
        place[row["round"], row["index"]] = (_completion(str(row["problem"]), row, known_tokens), probe)
    return out


def _completion(name: str, row: Row, known_tokens: int = 0) -> Completion:
    tokens = np.array(row["token_ids"], np.int32)
    unknown = np.full(len(tokens), np.nan, np.float32)
    return Completion(
        name,
        tokens,
        unknown,
        unknown,
        np.zeros((0, 0), np.int8),
        row["finish"],
        np.zeros(len(tokens), np.int32),
        think_end=row["think_end"],
        think_forced=row["think_forced"],
        known_tokens=known_tokens,
    )


def rewrite(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a file of rows anew; the old one stays until the new one is whole."""
    with replacement(path) as beside, beside.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())
