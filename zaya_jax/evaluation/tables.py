"""Scores and comparisons as tables: for a terminal, as Markdown, as the cells of a page. All scores are per cent."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Mapping, Sequence

from zaya_jax.evaluation.presets import PRESETS, published
from zaya_jax.evaluation.score import Comparison, Score, holm
from zaya_jax.report.axes import short

NONE = "–"
MOST_KS = 8  # columns of pass@k and of maj@k


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text, the first `words` columns words and the others numbers.

    Attributes:
        head: of the columns.
        rows: as many cells each.
        words: columns to be read rather than compared.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


def scores_table(scores: Sequence[Score], benchmarks: bool = True) -> Table:
    """Ours beside what was published, with both errors (SE), sizes, truncation and format; a row a score.

    Args:
        scores: of runs on benchmarks.
        benchmarks: whether these have a column. Without it the runs have one, else only if there are several.
    """
    names, named = _names(scores, benchmarks)
    head = ("score", "± problems", "± samples", "report", "model card", "difference", "problems", "k", "truncated",
            "format", "tokens")  # fmt: skip
    rows = [_score_row(one) for one in scores]
    # Of what was published only what there is.
    shown = [place for place in range(len(head)) if place not in (3, 4, 5) or any(row[place] != NONE for row in rows)]
    rows = [(*name, *(row[place] for place in shown)) for name, row in zip(named, rows)]
    return Table((*names, *(head[place] for place in shown)), rows, len(names))


def attempts_table(scores: Sequence[Score], benchmarks: bool = True) -> Table | None:
    """pass@k and maj@k; None if there is one sample a problem. Of many k the largest, and 1; names as above."""
    ks = sorted({k for one in scores for k in one.passes})
    if not ks or ks[-1] < 2:
        return None
    ks = ks[:1] + ks[1:][-MOST_KS + 1 :]
    voted = [k for k in ks if k > 1 and any(_known(one.majorities.get(k)) for one in scores)]
    names, named = _names(scores, benchmarks)
    rows = [
        (*name, *(percent(one.passes.get(k)) for k in ks), *(percent(one.majorities.get(k)) for k in voted))
        for name, one in zip(named, scores)
    ]
    return Table((*names, *(f"pass@{k}" for k in ks), *(f"maj@{k}" for k in voted)), rows, len(names))


def comparisons_table(comparisons: Sequence[Comparison]) -> Table | None:
    """Differences with intervals, and p also corrected (Holm) for all rows of the table; None without comparisons."""
    if not comparisons:
        return None
    adjusted = holm({str(place): one.p for place, one in enumerate(comparisons)})
    rows = [
        (title(one.benchmark), f"{one.b} – {one.a}", signed(100 * one.difference),
         f"{signed(100 * one.low)} to {signed(100 * one.high)}", _p(one.p), _p(adjusted[str(place)]),
         f"{one.n}" + (f" ({one.left_out} left out)" if one.left_out else ""))
        for place, one in enumerate(comparisons)
    ]  # fmt: skip
    return Table(("benchmark", "runs", "difference", "95 % interval", "p", "p (Holm)", "problems"), rows, 2)


def text(table: Table) -> str:
    """Aligned lines for a terminal: words to the left, numbers to the right."""
    widths = [max(map(_width, column)) for column in zip(table.head, *table.rows)]
    lines = [table.head, ["─" * width for width in widths], *table.rows]
    return "\n".join("  ".join(_aligned(cells, widths, table.words)).rstrip() for cells in lines)


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown; what would end a cell is escaped."""
    marks = ["---" if place < table.words else "---:" for place in range(len(table.head))]
    escaped = [[cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells]
               for cells in (table.head, *table.rows)]  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (escaped[0], marks, *escaped[1:]))


def title(benchmark: str) -> str:
    """A benchmark's name as people write it."""
    return PRESETS[benchmark].title if benchmark in PRESETS else benchmark


def settings_text(settings: Mapping[str, int]) -> str:
    """Settings of Markovian RSA in a line: `T=2 N=16 C=4 β=16K τ=4K`; "single rollout" without them."""
    letters = {"beta": "β", "tau": "τ"}
    parts = [f"{letters.get(name, name)}={_thousands(value) if name in letters else value}"
             for name, value in settings.items()]  # fmt: skip
    return " ".join(parts) or "single rollout"


def reported(one: Score) -> float | None:
    """What the report has for this benchmark and these settings, in per cent."""
    if one.settings:
        return published(one.settings, one.benchmark)
    return PRESETS[one.benchmark].report if one.benchmark in PRESETS else None


def percent(share: float | None) -> str:
    """A share as per cent with a digit behind the point."""
    return f"{100 * share:.1f}" if _known(share) else NONE


def signed(value: float) -> str:
    """A difference with its sign; 0.0 has none."""
    rounded = round(value, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def _names(scores: Sequence[Score], benchmarks: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns that say what a row is about, and their cells."""
    runs = not benchmarks or len({one.run for one in scores}) > 1
    cells = [(title(one.benchmark),) * benchmarks + (one.run or NONE,) * runs for one in scores]
    return ("benchmark",) * benchmarks + ("run",) * runs, cells


def _score_row(one: Score) -> tuple[str, ...]:
    report = reported(one)
    card = PRESETS[one.benchmark].model_card if one.benchmark in PRESETS and not one.settings else ()
    fewest, most = one.k
    return (
        percent(one.average), percent(one.error), percent(one.sampling),
        f"{report:.1f}" if report is not None else NONE,
        " / ".join(f"{value:.1f}" for value in card) or NONE,
        signed(100 * one.average - report) if report is not None else NONE,
        str(len(one.counts)), str(fewest) if fewest == most else f"{fewest}–{most}", percent(one.truncated),
        percent(one.format), short(one.generated),
    )  # fmt: skip


def _known(share: float | None) -> bool:
    return share is not None and not math.isnan(share)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _thousands(value: int) -> str:
    return f"{value // 1024}K" if value >= 1024 and value % 1024 == 0 else str(value)


def _width(cell: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in cell
               if not unicodedata.combining(letter))  # fmt: skip


def _aligned(cells: Sequence[str], widths: Sequence[int], words: int) -> list[str]:
    space = [" " * (width - _width(cell)) for cell, width in zip(cells, widths)]
    return [cell + blank if place < words else blank + cell for place, (cell, blank) in enumerate(zip(cells, space))]
