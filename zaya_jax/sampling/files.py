"""Files of the sampler: prompts in, answers and scores out."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from zaya_jax.errors import UserError, mistake
from zaya_jax.sampling.request import Completion, integers
from zaya_jax.text.tokenizer import Tokenizer

Path = pathlib.Path

FORMS = ("prompt", "prompt_tokens", "messages")


def read_prompts(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads a jsonl file of prompts; empty lines are left out.

    Yields:
        Where each row stands ("FILE, line N") and the row: a dict with exactly one of `prompt`, `prompt_tokens` and
        `messages`, and whatever else was in it.

    Raises:
        UserError: the file cannot be read, a line is not a JSON object, or a row does not have one prompt.
    """
    count = 0
    for number, line in enumerate(_lines(Path(path)), 1):
        where = f"{path}, line {number}"
        if line.strip():
            count += 1
            yield where, _row(line, where)
    if not count:
        raise mistake("no prompts", where=path, expected="a JSON object a line")


def prompt_tokens(row: Mapping[str, Any], tokenizer: Tokenizer | None, where: object, **template: Any) -> list[int]:
    """The ids of a row's prompt, with what the tokenizer or its chat template adds (`template`: its variables).

    Raises:
        UserError: the prompt is not one, or text is given and the checkpoint has no tokenizer or no template.
    """
    if "prompt_tokens" in row:
        return list(integers(row["prompt_tokens"], f"{where}, prompt_tokens"))
    if tokenizer is None:
        fix = "give prompt_tokens, or copy tokenizer.json into the checkpoint"
        raise mistake("text needs a tokenizer", where=where, expected="tokenizer.json", fix=fix)
    try:
        if "prompt" in row:
            return tokenizer.encode_prompt(_some_text(row["prompt"]))
        return tokenizer.encode_chat(row["messages"], **template)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def answer_row(row: Mapping[str, Any], tokens: Iterable[int], completion: Completion) -> dict[str, Any]:
    """A row of the output: what the prompt's row had, its tokens, and the answer. Log-probabilities are the model's."""
    return {
        "prompt": None,
        **row,
        "prompt_tokens": list(tokens),
        "tokens": completion.tokens.tolist(),
        "text": completion.text,
        "logprobs": completion.logprobs_model.tolist(),
        "logprobs_sampling": completion.logprobs_sampling.tolist(),
        "finish_reason": completion.finish_reason,
    }


def write_rows(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a jsonl file; what stood at `path` stays until all rows are written.

    Raises:
        UserError: the file cannot be written.
    """
    with replacement(path) as beside, beside.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_array(path: Path | str) -> np.ndarray:
    """Reads a .npy file, memory-mapped.

    Raises:
        UserError: there is none, or it is not one.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror or error) from None
    except (ValueError, EOFError) as error:
        fix = "write it with numpy.save"
        raise mistake("is not an array", where=path, expected="a .npy file", found=error, fix=fix) from None


@contextlib.contextmanager
def new_array(path: Path | str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Gives a float32 array in a file beside `path`, which becomes that .npy file when the block ends well.

    Raises:
        UserError: the file cannot be written.
    """
    with replacement(path) as beside:
        if 0 in shape:  # nothing to map
            array = np.zeros(shape, np.float32)
            with beside.open("wb") as stream:
                np.lib.format.write_array(stream, array)
            yield array
            return
        array = np.lib.format.open_memmap(beside, mode="w+", dtype=np.float32, shape=shape)
        yield array
        array.flush()


@contextlib.contextmanager
def replacement(path: Path | str) -> Iterator[Path]:
    """Gives a path beside `path` for a new file, which takes its place when the block ends and vanishes if it fails.

    Raises:
        UserError: the directory does not exist, `path` is a directory, or the disk refuses.
    """
    path = Path(path).expanduser()
    check_output(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise mistake("cannot be written", where=path, found=error.strerror or error) from error
    finally:
        beside.unlink(missing_ok=True)


def check_output(path: Path | str) -> None:
    """Checks, before the work, that there is a place for its result.

    Raises:
        UserError: the directory does not exist or cannot be written to, or `path` is a directory.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise mistake("is a directory", where=path, expected="the name of a file")
    if not path.parent.is_dir():
        raise mistake("no such directory", where=path.parent, expected="the directory of the output", fix="create it")
    if not os.access(path.parent, os.W_OK):
        raise mistake("not writable", where=path.parent, expected="the directory of the output")


def _some_text(prompt: Any) -> str:
    if prompt == "":
        raise mistake("empty prompt", expected="at least one character")
    return prompt


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield _decoded(line, f"{path}, line {number}")
    except OSError as error:
        raise mistake("cannot be read", where=path, found=error.strerror) from None


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise mistake("is not UTF-8", where=where, found=f"byte {error.start} is not") from None


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        found = f"{error.msg} at column {error.colno}"
        raise mistake("is not JSON", where=where, found=found, fix="write one JSON object a line") from None
    except (RecursionError, ValueError) as error:
        raise mistake("is not JSON", where=where, found=str(error)[:80], fix="write one JSON object a line") from None
    if not isinstance(row, dict):
        raise mistake("is not a JSON object", where=where, expected='{"prompt": "..."}', found=type(row).__name__)
    given = [form for form in FORMS if row.get(form) is not None]
    if len(given) != 1:
        found = f"{given[0]} and {given[1]}" if given else f"keys {sorted(row)[:8]}"
        raise mistake("not one prompt", where=where, expected=f"one of {', '.join(FORMS)}", found=found)
    return {key: value for key, value in row.items() if key not in FORMS or value is not None}
