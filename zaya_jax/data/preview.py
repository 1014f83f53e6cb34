"""What a source looks like to the model: a table of what it holds, and windows with their loss mask made visible."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from zaya_jax.data.dataset import Dataset, Row, SourceSummary
from zaya_jax.text.tokenizer import Tokenizer

OPEN, CLOSE = "⟦", "⟧"  # around what counts


def table(summaries: Sequence[SourceSummary]) -> str:
    """What each source holds, a line for each figure."""
    names = ["source", *(summary.name for summary in summaries)]
    rows = [names, *([label, *map(form, summaries)] for label, form in _FIGURES.items())]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    )


def show(dataset: Dataset, tokenizer: Tokenizer, number: int) -> str:
    """A row as text: segment by segment, what is learnt between ⟦ and ⟧."""
    row = dataset.row(number)
    padding = int((row.segments_T == 0).sum())
    head = f"row {number}: {', '.join(row.examples)}; {padding} of {len(row.tokens_T)} tokens are padding"
    return "\n".join([head, *(_segment(row, segment, tokenizer) for segment in range(1, row.segments_T.max() + 1))])


def _segment(row: Row, segment: int, tokenizer: Tokenizer) -> str:
    """A segment's text. Token t + 1 is learnt where the mask is set at t."""
    places = np.flatnonzero(row.segments_T == segment)
    tokens, counts = row.tokens_T[places], np.concatenate([[0], row.mask_T[places[:-1]]]) != 0
    cuts = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(tokens)]
    parts = []
    for start, stop in itertools.pairwise(cuts):
        text = tokenizer.decode(tokens[start:stop], skip_special=False)
        parts.append(f"{OPEN}{text}{CLOSE}" if counts[start] else text)
    return f"--- segment {segment}, {len(tokens)} tokens\n{''.join(parts)}"


_FIGURES = {
    "kind": lambda s: s.kind,
    "records": lambda s: f"{s.records:,}",
    "  split": lambda s: f"{s.split:,}",
    "  trimmed": lambda s: f"{s.trimmed:,}",
    "  dropped": lambda s: f"{s.dropped:,}",
    "examples": lambda s: f"{s.examples:,}",
    "tokens": lambda s: f"{s.tokens:,}",
    "  that count": lambda s: f"{s.targets:,}",
    "windows": lambda s: f"{s.windows:,}",
    "  filled": lambda s: f"{s.efficiency:.2%}",
}
