"""Charts for a page: curves, points and marks over one pair of axes, and heat maps of layers.

The lines are SVG that stretches with the page; the numbers and marks are text laid over it, so that they keep their
size on a phone. Colours stand in page.css by the number of the run, for light and dark pages and, as dashes, for print.
Where a chart has more points than columns, what is drawn keeps extremes and gaps (`downsample`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from zaya_jax.report.axes import Axis, fit, labels, short
from zaya_jax.report.downsample import downsample
from zaya_jax.report.html import Html, join, tag

SIZE = 100_000  # units of a chart's SVG each way; the script under the pointer reads values off with this resolution
COLORS = 8  # in page.css

Style = Literal["line", "faint", "thin", "points"]
# As in page.css: what a legend says each style with.
_STYLES = ("line", "faint", "thin", "points")


@dataclasses.dataclass(frozen=True)
class Line:
    """y over x, both [n]: x never decreases, NaN in y is a gap.

    Attributes:
        run: its number, from 0: its colour, and what the legend hides.
        label: what the value under the pointer is called.
        style: "line"; "faint", for what lies behind it; "thin", for a second quantity; "points" with a line between.
    """

    run: int
    label: str
    x: np.ndarray
    y: np.ndarray
    style: Style = "line"


@dataclasses.dataclass(frozen=True)
class Mark:
    """A sign at one place: at a value, or at the chart's upper or lower edge.

    Attributes:
        sign: one character.
        hint: what it says under the pointer.
    """

    run: int
    x: float
    y: float | Literal["top", "bottom"]
    sign: str
    hint: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """One pair of axes.

    Attributes:
        title: what is drawn.
        unit: of y.
        lines: may be empty.
        runs: names, by number, for the legend; none where there is nothing to tell apart.
        styles: what the styles and signs mean, for the legend.
        x_label: with its unit.
        y: the axis; None fits the lines.
        log, zero: how it fits them.
        note: a sentence below the title.
        marks: at most `columns` are drawn, evenly chosen.
        wide: takes the whole width of the page.
        columns: the resolution.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    runs: Sequence[str] = ()
    styles: Mapping[str, str] = dataclasses.field(default_factory=dict)
    x_label: str = "step"
    y: Axis | None = None
    log: bool = False
    zero: bool = False
    note: str = ""
    marks: Sequence[Mark] = ()
    wide: bool = False
    columns: int = 400


def draw(chart: Chart) -> Html:
    """A chart as a figure; a note in its place if there is nothing to draw."""
    if not any(np.isfinite(line.y).any() for line in chart.lines):
        return _figure(chart, tag("p", "Nothing recorded.", class_="empty"))
    x = fit([line.x for line in chart.lines], margin=0.012)
    y = chart.y or fit([line.y for line in chart.lines], log=chart.log, zero=chart.zero)
    paths = [_path(line, x, y, chart.columns) for line in chart.lines]
    marks = [_mark(mark, x, y) for mark in _some(chart.marks, chart.columns)]
    of = ": " + ", ".join(chart.runs) if chart.runs else ""
    about = ", ".join(filter(None, [chart.title, chart.unit, f"over {chart.x_label}{of}"]))
    picture = tag("svg", _grid(x, y), *paths, viewBox=f"0 0 {SIZE} {SIZE}", preserveAspectRatio="none", role="img",
                  aria_label=about)  # fmt: skip
    return _figure(chart, frame([picture, *marks], x, y, chart.x_label), _legend(chart))


def frame(inside: Sequence[Html], x: Axis, y: Axis, x_label: str, y_labels: Mapping[float, str] | None = None) -> Html:
    """What is drawn, with labelled axes around it.

    Args:
        inside: fills the area; the script reads values off by the axes.
        y_labels: by their place; None labels the axis's own ticks.
    """
    named = dict(zip(y.ticks(), labels(y.ticks()))) if y_labels is None else y_labels
    ys = [tag("span", name, style=f"bottom:{_percent(y.place(value))}") for value, name in named.items()]
    ticks = x.ticks()
    names = [short(value) for value in ticks] if x.log else labels(ticks)  # over decades no unit fits all
    xs = [tag("span", name, style=f"left:{_percent(x.place(value))}") for value, name in zip(ticks, names)]
    axes = {"data_x": f"{x.low!r} {x.high!r}", "data_y": f"{y.low!r} {y.high!r}", "data_log": "1" if y.log else None}
    return tag(
        "div",
        tag("div", *ys, class_="ys"),
        tag("div", *inside, class_="area", data_across=x_label, **axes),
        tag("div", *xs, class_="xs"),
        tag("div", x_label, class_="x-label"),
        class_="plot",
        style=f"--y:{max(map(len, named.values()), default=1)}ch",
    )


def swatch(run: int, style: Style = "line") -> Html:
    """A short piece of a run's line, for legends and tables."""
    points = tag("path", d="M12 4h0", class_=f"{run_class(run)} points") if style == "points" else ""
    line = "thin" if style == "points" else style
    piece = tag("path", d="M1 4H23", class_=f"{run_class(run)} {line}")
    return tag("svg", piece, points, class_="swatch", viewBox="0 0 24 8", aria_hidden="true")


def run_class(run: int) -> str:
    """The classes of a run's colour and, where colours repeat, of its dashes."""
    return f"r{run % COLORS}" + (f" again{min(run // COLORS, 2)}" if run >= COLORS else "")


def _figure(chart: Chart, *parts: Html) -> Html:
    unit = tag("span", f" {chart.unit}", class_="unit") if chart.unit else ""
    caption = tag("figcaption", tag("h3", chart.title, unit), tag("p", chart.note) if chart.note else "")
    return tag("figure", caption, *parts, class_="chart wide" if chart.wide else "chart")


def _legend(chart: Chart) -> Html:
    if not chart.runs and not chart.styles:
        return Html("")
    shown = {line.run for line in chart.lines} | {mark.run for mark in chart.marks}
    runs = [tag("li", swatch(run), name, data_run=run) for run, name in enumerate(chart.runs) if run in shown]
    styles = [tag("li", _sample(sign), meaning, class_="style") for sign, meaning in chart.styles.items()]
    return tag("ul", *runs, *styles, class_="legend")


def _sample(sign: str) -> Html:
    if sign not in _STYLES:
        return tag("b", sign)
    points = tag("path", d="M12 4h0", class_="grey points") if sign == "points" else ""
    line = tag("path", d="M1 4H23", class_=f"grey {'thin' if sign == 'points' else sign}")
    return tag("svg", line, points, class_="swatch", viewBox="0 0 24 8", aria_hidden="true")


def _grid(x: Axis, y: Axis) -> Html:
    rows = "".join(f"M0 {SIZE - round(SIZE * float(y.place(value)))}h{SIZE}" for value in y.ticks())
    columns = "".join(f"M{round(SIZE * float(x.place(value)))} 0v{SIZE}" for value in x.ticks())
    return tag("path", d=rows + columns, class_="grid")


def _path(line: Line, x: Axis, y: Axis, columns: int) -> Html:
    places = y.place(line.y)
    kept = downsample(x.place(line.x), places, columns, (0.0, 1.0))
    across = np.rint(SIZE * x.place(line.x[kept]))
    down = np.rint(SIZE * (1 - np.clip(places[kept], -1, 2)))  # far outside: cut off, without endless coordinates
    d = _strokes(across, down)
    dots = tag("path", d=_dots(across, down), class_=f"{run_class(line.run)} points", data_run=line.run)
    style = "thin" if line.style == "points" else line.style
    curve = tag("path", d=d, class_=f"{run_class(line.run)} {style}", data_run=line.run, data_label=line.label)
    return join([curve, dots if line.style == "points" else ""])


def _strokes(across: np.ndarray, down: np.ndarray) -> str:
    """Runs of known points as `M x y l dx dy ...`; one alone becomes a dot."""
    known = np.isfinite(down)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]])))
    return "".join(_stroke(across[a:b].astype(int), down[a:b].astype(int)) for a, b in zip(edges[::2], edges[1::2]))


def _stroke(across: np.ndarray, down: np.ndarray) -> str:
    moves = np.stack([np.diff(across), np.diff(down)], axis=1)
    moves = moves[np.any(moves != 0, axis=1)]
    start = f"M{across[0]} {down[0]}"
    # A blank only where there is no minus sign to part two numbers.
    steps = "".join(f" {number}" if number >= 0 else f"{number}" for number in moves.ravel().tolist())
    return f"{start}l{steps.lstrip()}" if len(moves) else f"{start}h0"


def _dots(across: np.ndarray, down: np.ndarray) -> str:
    return "".join(f"M{a:.0f} {d:.0f}h0" for a, d in zip(across, down) if np.isfinite(d))


def _mark(mark: Mark, x: Axis, y: Axis) -> Html:
    edge = {"top": 1.0, "bottom": 0.0}
    place = edge[mark.y] if isinstance(mark.y, str) else float(np.clip(np.nan_to_num(y.place(mark.y), nan=1.0), 0, 1))
    style = f"left:{_percent(x.place(mark.x))};bottom:{_percent(place)}"
    kind = f"mark {run_class(mark.run)}" + (f" {mark.y}" if isinstance(mark.y, str) else "")
    return tag("span", mark.sign, class_=kind, style=style, title=mark.hint, data_run=mark.run)


def _some(marks: Sequence[Mark], most: int) -> Sequence[Mark]:
    if len(marks) <= most:
        return marks
    return [marks[i] for i in np.linspace(0, len(marks) - 1, most).astype(int)]


def _percent(share: np.ndarray | float) -> str:
    return f"{100 * float(share):.2f}%"
