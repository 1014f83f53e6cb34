"""What the launcher `data` does; nothing else needs it."""

from __future__ import annotations

import sys
import tempfile
from typing import TextIO

from zaya_jax.data.dataset import DataConfig, open_dataset
from zaya_jax.data.preview import show, table
from zaya_jax.data.sources import SourceConfig
from zaya_jax.data.validate import MOST_MISTAKES, describe, guess_kind, validate
from zaya_jax.errors import mistake
from zaya_jax.text.byte_level import write_tokenizer
from zaya_jax.text.tokenizer import Tokenizer, require_tokenizer

BYTES = "bytes"


def check(path: str, kind: str = "", text_field: str = "text", sink: TextIO | None = None) -> None:
    """Says what a file holds, or prints its first mistakes, a line each.

    Raises:
        UserError: there are mistakes, or there is no such file.
    """
    sink = sink or sys.stdout
    report = validate(SourceConfig("data", kind or guess_kind(path), path, text_field=text_field))
    if not report.mistakes:
        print(describe(report), file=sink)
        return
    print(*report.mistakes, sep="\n", file=sink)
    count = len(report.mistakes)
    found = f"{count} mistakes or more" if count == MOST_MISTAKES else f"{count} mistake{'s' * (count > 1)}"
    raise mistake(f"not sound data of kind {report.source.kind}", where=path, found=found)


def preview(source: SourceConfig, tokenizer: str, length: int, rows: int = 0, sink: TextIO | None = None) -> None:
    """Prints what a source gives in windows of `length` tokens, and the first rows as text.

    Args:
        tokenizer: "bytes", or the directory of a checkpoint.

    Raises:
        UserError: the source or the tokenizer is not right.
    """
    sink, reader = sink or sys.stdout, open_tokenizer(tokenizer)
    dataset = open_dataset(DataConfig((source,), length), reader)
    print(table(dataset.summary()), file=sink)
    for number in range(rows):
        print("", show(dataset, reader, number), sep="\n", file=sink)


def open_tokenizer(name: str) -> Tokenizer:
    """The byte-level tokenizer for "bytes", else that of a directory."""
    if name != BYTES:
        return require_tokenizer(name)
    with tempfile.TemporaryDirectory() as directory:
        return require_tokenizer(write_tokenizer(directory))
