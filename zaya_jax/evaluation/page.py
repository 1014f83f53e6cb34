"""The page of an evaluation: scores beside what was published, comparisons, accuracy against tokens, every problem."""

from __future__ import annotations

import math
import pathlib
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

from zaya_jax.evaluation.presets import TEST_TIME
from zaya_jax.evaluation.score import Comparison, Score
from zaya_jax.evaluation.tables import (
    Table,
    attempts_table,
    comparisons_table,
    percent,
    scores_table,
    settings_text,
    title,
)
from zaya_jax.report import html
from zaya_jax.report.axes import Axis, fit, short
from zaya_jax.report.charts import SIZE, frame, run_class, swatch
from zaya_jax.report.html import Html, tag
from zaya_jax.report.plots import Curve, Panel, save_png

MOST_ROWS = 200  # of problems
X_LABEL = "generated tokens a problem"

_SCORES = (
    "Per cent of right samples, averaged over problems, with two standard errors. ± problems: how far the score would "
    "move on other problems of the kind; ± samples: how far if these problems were sampled again, which is what a "
    "published score on the same problems is to be held against. Difference: from the report. Tokens: mean generated "
    "for a sample. The report's prompts are not published; ours are our own."
)
_COMPARISONS = "Paired bootstrap over the problems that both runs have; Holm corrects p for all rows of this section."
_ATTEMPTS = (
    "Exact over all subsets of k samples. pass@k: at least one is right. maj@k: the answer given most often is right, "
    "ties shared. Candidates of one population of Markovian RSA are not independent."
)
_TOKENS = (
    "A problem answered once: a whole population for Markovian RSA, one reply for single rollouts. Prompts and copied "
    "tails do not count. Bars are one standard error over problems. Rings are the report's, where it gives tokens."
)


def write_evaluation(
    output: pathlib.Path | str, scores: Sequence[Score], comparisons: Sequence[Comparison] = (), png: bool = False
) -> list[pathlib.Path]:
    """Writes the page, and its charts as PNGs beside it; gives the files.

    Raises:
        UserError: matplotlib (extra `plot`) is missing, or a file cannot be written.
    """
    output = pathlib.Path(output)
    page = html.write_page(output, evaluation_page(scores, comparisons))
    return [page, *(_save(output, name, group) for name, group in by_benchmark(scores).items() if png)]


def evaluation_page(scores: Sequence[Score], comparisons: Sequence[Comparison] = ()) -> str:
    """The page. It holds what it needs."""
    attempts = _grouped(scores, attempts_table)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(one.run for one in scores))}
    figures = [accuracy_figure(name, group, numbers) for name, group in by_benchmark(scores).items()]
    parts = [
        html.section("Scores", *_grouped(scores, scores_table), note=_SCORES),
        html.section("Comparisons", *_compared(comparisons), note=_COMPARISONS) if comparisons else None,
        html.section("Accuracy against tokens", tag("div", *figures, class_="charts"), note=_TOKENS),
        html.section("Several attempts", *attempts, note=_ATTEMPTS) if attempts else None,
        html.section("Problems", *(_problems(name, group) for name, group in by_benchmark(scores).items())),
    ]
    named = " · ".join(name for name in numbers if name)
    return html.page("Evaluation", [part for part in parts if part], lead=named)


def by_benchmark(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """The scores of each benchmark, in order."""
    groups: dict[str, list[Score]] = {}
    for one in scores:
        groups.setdefault(one.benchmark, []).append(one)
    return groups


def accuracy_figure(benchmark: str, scores: Sequence[Score], numbers: dict[str, int]) -> Html:
    """One benchmark's runs as lettered points, accuracy over tokens; the letters stand below.

    Args:
        numbers: of the runs, for their colours.
    """
    rings = _rings(benchmark)
    places = [(one.cost, 100 * one.average, _bar(one)) for one in scores]
    places += [(tokens, value, 0.0) for _, value, tokens in rings]
    x = fit([np.array([max(cost, 1.0) for cost, _, _ in places])], log=True, margin=0.08)
    y = fit([np.array([value + side * bar for _, value, bar in places for side in (-1, 1)])], margin=0.1)
    bars = [_bar_path(one, x, y, numbers[one.run]) for one in scores if _bar(one)]
    picture = tag("svg", _grid(x, y), *bars, viewBox=f"0 0 {SIZE} {SIZE}", preserveAspectRatio="none", role="img",
                  aria_label=f"{title(benchmark)}: accuracy over {X_LABEL}")  # fmt: skip
    points, legend = [], []
    for letter, one in zip(_letters(), scores):
        number, about = numbers[one.run], settings_text(one.settings)
        hint = f"{one.run or title(benchmark)}, {about}: {percent(one.average)} % at {short(one.cost)} tokens"
        points += _point("●", letter, x.place(max(one.cost, 1.0)), y.place(100 * one.average), run_class(number), hint)
        legend.append(tag("li", swatch(number, "points"), tag("b", letter), _legend(one)))
    for place, (about, value, tokens) in enumerate(rings, 1):
        points += _point("○", str(place), x.place(tokens), y.place(value), "style", f"report, {about}: {value} %")
        legend.append(tag("li", tag("b", "○"), tag("b", str(place)), f"report: {about}", class_="style"))
    caption = tag("figcaption", tag("h3", title(benchmark), tag("span", " %", class_="unit")))
    return tag("figure", caption, frame([picture, *points], x, y, X_LABEL), tag("ul", *legend, class_="legend"),
               class_="chart")  # fmt: skip


def _rings(benchmark: str) -> list[tuple[str, float, float]]:
    return [(settings_text(point.settings), point.scores[benchmark], point.tokens) for point in TEST_TIME
            if point.tokens and benchmark in point.scores]  # fmt: skip


def _bar(one: Score) -> float:
    return 0.0 if math.isnan(one.error) else 100 * one.error


def _grid(x: Axis, y: Axis) -> Html:
    rows = "".join(f"M0 {SIZE - round(SIZE * float(y.place(value)))}h{SIZE}" for value in y.ticks())
    columns = "".join(f"M{round(SIZE * float(x.place(value)))} 0v{SIZE}" for value in x.ticks())
    return tag("path", d=rows + columns, class_="grid")


def _bar_path(one: Score, x: Axis, y: Axis, number: int) -> Html:
    middle = round(SIZE * float(x.place(max(one.cost, 1.0))))
    top, bottom = (SIZE - round(SIZE * float(y.place(100 * one.average + side * _bar(one)))) for side in (1, -1))
    return tag("path", d=f"M{middle} {top}V{bottom}", class_=f"{run_class(number)} thin")


def _point(sign: str, name: str, x: float, y: float, colour: str, hint: str) -> list[Html]:
    """A sign at its place, in shares of the area, and its name at its right; that of a ring below it at the left."""
    style = f"left:{100 * float(x):.2f}%;bottom:{100 * float(y):.2f}%"
    shift = "translate(.45rem,15%)" if colour != "style" else "translate(calc(-100% - .4rem),85%)"
    soft = "" if colour != "style" else ";color:var(--soft)"
    label = tag("span", name, class_=f"mark {colour}", style=f"{style};transform:{shift}{soft}", aria_hidden="true")
    return [tag("span", sign, class_=f"mark {colour}", style=style, title=hint), label]


def _legend(one: Score) -> str:
    return f"{one.run}: {settings_text(one.settings)}" if one.run else settings_text(one.settings)


def _letters():
    """A to Z, then A2 to Z2, and so on."""
    number = 1
    while True:
        yield from (letter + (str(number) if number > 1 else "") for letter in string.ascii_uppercase)
        number += 1


def _problems(benchmark: str, scores: Sequence[Score]) -> Html:
    """Every problem's accuracy in every run, those first on which the runs differ most."""
    names = dict.fromkeys(name for one in scores for name in one.accuracies)

    def spread(name: str) -> float:
        values = [one.accuracies[name] for one in scores if name in one.accuracies]
        return max(values) - min(values)

    chosen = sorted(names, key=spread, reverse=True)[:MOST_ROWS]
    rows = [(name, *(percent(one.accuracies.get(name)) for one in scores)) for name in chosen]
    cut = f", {MOST_ROWS} of them shown" if len(chosen) < len(names) else ""
    table = html.table(["problem", *(one.run or "score" for one in scores)], rows, kind="numbers")
    return html.details(f"{title(benchmark)}: {len(names):,} problems{cut}", table)


def _grouped(scores: Sequence[Score], make: Callable[..., Table | None]) -> list[Html]:
    """One table for one run; for several one a benchmark, so that a row begins with its run and fits."""
    if len({one.run for one in scores}) < 2:
        tables = [("", make(scores))]
    else:
        tables = [(title(name), make(group, benchmarks=False)) for name, group in by_benchmark(scores).items()]
    return [_table(table, caption) for caption, table in tables if table]


def _compared(comparisons: Sequence[Comparison]) -> list[Html]:
    """The table of comparisons, cut by benchmark."""
    whole = comparisons_table(comparisons)
    names = dict.fromkeys(row[0] for row in whole.rows)
    parts = {name: Table(whole.head[1:], [row[1:] for row in whole.rows if row[0] == name]) for name in names}
    return [_table(part, name) for name, part in parts.items()]


def _table(table: Table, caption: str = "") -> Html:
    """Words and numbers side by side: a cell of words is told to stay at the left."""
    rows = [[row[0], *(_left(cell) if place < table.words else cell for place, cell in enumerate(row[1:], 1))]
            for row in table.rows]  # fmt: skip
    head = [_left(cell) if 0 < place < table.words else cell for place, cell in enumerate(table.head)]
    return html.table(head, rows, caption=caption, kind="numbers")


def _left(cell: str) -> Html:
    return tag("div", cell, style="text-align:left")


def _save(output: pathlib.Path, benchmark: str, scores: Sequence[Score]) -> pathlib.Path:
    curves = [Curve(_legend(one), [one.cost / 1000], [100 * one.average], True, place % 5)
              for place, one in enumerate(scores)]  # fmt: skip
    rings = sorted((tokens / 1000, value) for _, value, tokens in _rings(benchmark))
    if rings:
        curves.append(Curve("report, Markovian RSA", *zip(*rings), points=True, color=5))
    name = re.sub(r"[^\w.-]", "_", benchmark)
    path = output.with_name(f"{output.stem}.{name}.png")
    panel = Panel("right, %", curves)
    return save_png(path, [panel], title=title(benchmark), x_label=f"{X_LABEL}, thousands")
