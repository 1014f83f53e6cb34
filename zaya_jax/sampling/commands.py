"""What the launchers `score` and `generate` do with files; nothing else needs it."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from zaya_jax.checkpoint import open_checkpoint, resolve
from zaya_jax.errors import mistake
from zaya_jax.loading import load
from zaya_jax.report.progress import Progress
from zaya_jax.sampling.files import (
    answer_row,
    check_output,
    new_array,
    prompt_tokens,
    read_array,
    read_prompts,
    write_rows,
)
from zaya_jax.sampling.generate import generate, stream
from zaya_jax.sampling.request import Request, Sampling, check_request, derive_seed
from zaya_jax.sampling.score import Kind, check_tokens, result_shape, score
from zaya_jax.sampling.terminal import shown
from zaya_jax.text.tokenizer import load_tokenizer

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How prompts are answered, the same for all; see `Request` and `generate`."""

    sampling: Sampling
    max_new_tokens: int
    seed: int = 0
    stop_strings: Sequence[str] = ()
    thinking: bool = True
    batch_size: int = 8
    dtype: str = "bfloat16"


def score_file(checkpoint: Path, tokens: Path, mask: Path | None, output: Path, *, kind: Kind, dtype: str) -> None:
    """Scores the tokens of a .npy file into another one (`score.score`), piece by piece.

    Raises:
        UserError: a file or what is in it is not what it should be; the output is then left as it was.
    """
    check_output(output)
    tokens_BT, mask_BT = read_array(tokens), None if mask is None else read_array(mask)
    config = open_checkpoint(resolve(checkpoint)).config  # mistakes show before any weight is read
    tokens_BT, mask_BT = check_tokens(config, tokens_BT, mask_BT, where=tokens, mask_where=mask)
    model, variables, _ = load(checkpoint, dtype=dtype)
    shape = result_shape(config, tokens_BT, kind)
    with new_array(output, shape) as out, Progress("score", len(tokens_BT), "rows") as progress:
        watch = _Watch(progress)
        score(model, variables, tokens_BT, mask_BT, kind=kind, out=out, progress=watch.rows(tokens_BT.shape[1]))


def answer_file(checkpoint: Path, prompts: Path, output: Path | None, settings: Settings, sink: TextIO) -> None:
    """Answers every row of a jsonl file; the rows go to `output`, or to `sink` if that is None.

    Raises:
        UserError: a file or a row in it is not what it should be; the output is then left as it was.
    """
    if output is not None:
        check_output(output)
    rows = list(read_prompts(prompts))
    answered = _answer(checkpoint, rows, settings)
    if output is None:
        sink.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in answered)
    else:
        write_rows(output, answered)


def answer_text(checkpoint: Path, prompt: str, output: Path | None, settings: Settings, sink: TextIO) -> None:
    """Continues one text: into `output` as `answer_file` does, or as it comes to `sink` if that is None.

    Raises:
        UserError: as `answer_file`.
    """
    row = ("--prompt", {"prompt": prompt})
    if output is not None:
        check_output(output)
        write_rows(output, _answer(checkpoint, [row], settings))
        return
    requests, tokenizer = _requests(checkpoint, [row], settings)
    model, variables, _ = load(checkpoint, dtype=settings.dtype)
    for deltas in stream(model, variables, requests, tokenizer=tokenizer, chunk=4):
        sink.write(shown(deltas[0].text, sink))
        sink.flush()
    sink.write("\n")


def _answer(checkpoint: Path, rows: list[tuple[str, dict]], settings: Settings) -> list[dict[str, Any]]:
    requests, tokenizer = _requests(checkpoint, rows, settings)
    model, variables, _ = load(checkpoint, dtype=settings.dtype)
    with Progress("generate", len(rows), "prompts") as progress:
        completions = generate(
            model,
            variables,
            requests,
            tokenizer=tokenizer,
            batch_size=settings.batch_size,
            progress=_Watch(progress).prompts,
        )
    triples = zip(rows, requests, completions, strict=True)
    return [answer_row(row, request.tokens, completion) for (_, row), request, completion in triples]


def _requests(checkpoint: Path, rows: list[tuple[str, dict]], settings: Settings):
    """The requests, checked before any weight is read, and the tokenizer (or None)."""
    opened = open_checkpoint(resolve(checkpoint))
    tokenizer = load_tokenizer(opened.directory)
    requests = [
        Request(
            id=where,
            tokens=prompt_tokens(row, tokenizer, where, enable_thinking=settings.thinking),
            seed=derive_seed(settings.seed, index),
            sampling=settings.sampling,
            max_new_tokens=settings.max_new_tokens,
            stop_ids=tokenizer.stop_ids if tokenizer else opened.special_tokens.eos,
            stop_strings=tuple(settings.stop_strings),
        )
        for index, (where, row) in enumerate(rows)
    ]
    for request in requests:
        check_request(request, opened.config)
    return requests, tokenizer


def one_of(prompt: str | None, prompts: str | None) -> None:
    """Checks the two flags.

    Raises:
        UserError: both are given, or none.
    """
    if (prompt is None) == (prompts is None):
        found = "none" if prompt is None else "both"
        raise mistake("what to continue is not clear", expected="one of --prompt and --prompts", found=found)


class _Watch:
    """Turns counts into figures: speed, and how long it still takes at that speed."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic):
        self._progress, self._clock, self._start = progress, clock, clock()

    def prompts(self, done: int, total: int, tokens: int) -> None:
        elapsed = self._clock() - self._start
        self._progress.show(done, tokens=tokens, tokens_per_s=tokens / max(elapsed, 1e-9), left=self._left(done, total))

    def rows(self, length: int) -> Callable[[int, int], None]:
        def show(done: int, total: int) -> None:
            rate = done * length / max(self._clock() - self._start, 1e-9)
            self._progress.show(done, tokens_per_s=rate, left=self._left(done, total))

        return show

    def _left(self, done: int, total: int) -> str:
        if not done:
            return "?"
        seconds = round((self._clock() - self._start) * (total - done) / done)
        return f"{seconds // 60}:{seconds % 60:02d}"
