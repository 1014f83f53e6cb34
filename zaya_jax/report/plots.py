"""Curves as a PNG, and curves and bars as text for a terminal."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from zaya_jax.errors import mistake


@dataclasses.dataclass(frozen=True)
class Curve:
    """y over x, both [n].

    Attributes:
        points: draw marks, in a PNG with a line between.
        color: number of a colour of the PNG; None gives each curve of a panel its own.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    points: bool = False
    color: int | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        y_label: what is drawn, with its unit.
        curves: at least one.
        levels: horizontal lines to compare with, by name.
        limits: lowest and highest y; None fits the curves and the levels.
    """

    y_label: str
    curves: Sequence[Curve]
    levels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    limits: tuple[float, float] | None = None


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Mean of each value and up to `window` - 1 earlier ones, [n]."""
    values = np.asarray(values, np.float64)
    total = np.cumsum(np.concatenate([[0.0], values]))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)


def text_plot(panel: Panel, *, width: int = 64, height: int = 12) -> str:
    """A panel as lines of text: curves in braille dots, points as `●`, levels as dashes named at the right.

    Args:
        panel: x runs over what the curves have.
        width, height: of the area inside the axes, in characters; the y labels take 7 columns more.
    """
    low, high = _limits(panel)
    start, stop = _span([x for curve in panel.curves for x in curve.x])
    rows = [[" "] * width for _ in range(height)]
    names = [""] * height
    for name, level in panel.levels.items():
        row = _cell(high - level, high - low, height)
        if row is not None:
            rows[row] = ["╌"] * width
            names[row] = ", ".join(filter(None, [names[row], f"{name} {level:.2f}"]))
    lines = [curve for curve in panel.curves if not curve.points]
    for r, c, character in _braille(lines, (start, stop), (low, high), width, height):
        rows[r][c] = character
    for curve in panel.curves:
        for x, y in zip(curve.x, curve.y) if curve.points else ():
            row, column = _cell(high - y, high - low, height), _cell(x - start, stop - start, width)
            if row is not None and column is not None:
                rows[row][column] = "●"
    return _with_axes(rows, names, panel.y_label, (start, stop), (low, high))


def bar_chart(values: Mapping[str, float], *, width: int = 32, digits: int = 2) -> str:
    """Names, values and bars of proportional length (in eighths of a character), one line each."""
    longest, most = max(map(len, values)), max(values.values())
    return "\n".join(
        f"{name:<{longest}}  {value:6.{digits}f}  {_bar(width * value / most)}" for name, value in values.items()
    )


def sparkline(values: Sequence[float]) -> str:
    """One block character a value, from the lowest (▁) to the highest (█); a blank for NaN."""
    blocks = "▁▂▃▄▅▆▇█"
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, range_ = min(finite), (max(finite) - min(finite)) or 1.0
    place = [int((value - low) / range_ * 7.999) if np.isfinite(value) else -1 for value in values]
    return "".join(blocks[i] if i >= 0 else " " for i in place)


def save_png(path: pathlib.Path | str, panels: Sequence[Panel], *, title: str, x_label: str) -> pathlib.Path:
    """Draws panels above each other over one x axis. The file appears whole or not at all.

    Raises:
        UserError: matplotlib is not installed (extra `plot`), or the file cannot be written.
    """
    figure = _figure(panels, title, x_label)
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(beside, dpi=150, format="png")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise mistake("cannot be written", where=path, found=error.strerror or error) from error
    return path


_COLORS = ("#b4232a", "#1f4e79", "#3a7d44", "#8a5a00", "#6b3fa0", "#555555")


def _figure(panels: Sequence[Panel], title: str, x_label: str):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        fix = "install it: pip install matplotlib, or zaya_jax with its extra `plot`"
        raise mistake("drawing a PNG needs matplotlib", found="it is not installed", fix=fix) from None
    heights = [3.6] + [1.5] * (len(panels) - 1)
    figure = Figure(figsize=(8, sum(heights) + 0.9), layout="constrained")
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(every, panels):
        _draw(axes, panel)
    if all(np.issubdtype(np.asarray(curve.x).dtype, np.integer) for panel in panels for curve in panel.curves):
        every[-1].xaxis.get_major_locator().set_params(integer=True)  # there is no half a step
    every[0].set_title(title, loc="left", fontsize=11)
    every[-1].set_xlabel(x_label)
    return figure


def _draw(axes, panel: Panel) -> None:
    for place, curve in enumerate(panel.curves):
        color = _COLORS[(place if curve.color is None else curve.color) % len(_COLORS)]
        style = {"marker": "o", "markersize": 4, "linewidth": 0.8} if curve.points else {"linewidth": 1.4}
        axes.plot(curve.x, curve.y, color=color, label=curve.label, **style)
    for name, level in panel.levels.items():
        axes.axhline(level, color="#888888", linewidth=0.8, linestyle="--")
        axes.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), xytext=(-4, 2), textcoords="offset points",
            ha="right", fontsize=8, color="#555555",
        )  # fmt: skip
    axes.set_ylabel(panel.y_label)
    axes.set_ylim(*_limits(panel))
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if len(panel.curves) > 1:
        axes.legend(frameon=False, fontsize=9)


def _limits(panel: Panel) -> tuple[float, float]:
    if panel.limits is not None:
        return panel.limits
    low, high = _span([y for curve in panel.curves for y in curve.y] + list(panel.levels.values()))
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _span(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if np.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _cell(distance: float, whole: float, cells: int) -> int | None:
    """Which of `cells` equal parts of the whole a distance falls into; None outside."""
    if not 0 <= distance <= whole:
        return None
    return min(int(distance / whole * cells), cells - 1)


_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a braille character, [row][column]


def _braille(curves: Sequence[Curve], x_span, y_span, width: int, height: int):
    """Row, column and character of every cell that a curve passes through."""
    (start, stop), (low, high) = x_span, y_span
    bits = np.zeros((height, width), np.int64)
    for curve in curves:
        order = np.argsort(curve.x, kind="stable")
        xs = np.linspace(start, stop, 2 * width)
        ys = np.interp(xs, np.asarray(curve.x)[order], np.asarray(curve.y)[order], left=np.nan, right=np.nan)
        dots = (high - ys) / (high - low) * (4 * height - 1)
        for column, (dot, previous) in enumerate(zip(dots, np.concatenate([dots[:1], dots[:-1]]))):
            for row in _between(previous, dot, 4 * height):
                bits[row // 4, column // 2] |= _DOTS[row % 4][column % 2]
    for r, c in zip(*np.nonzero(bits)):
        yield r, c, chr(0x2800 + int(bits[r, c]))


def _between(previous: float, dot: float, rows: int) -> range:
    """The rows of a stroke from the previous column's dot to this one's, as far as they are inside."""
    if not np.isfinite(dot):
        return range(0)
    previous = dot if not np.isfinite(previous) else previous
    top, bottom = round(min(previous, dot)), round(max(previous, dot))
    return range(max(top, 0), min(bottom, rows - 1) + 1)


def _with_axes(rows, names, y_label: str, x_span, y_span) -> str:
    (start, stop), (low, high) = x_span, y_span
    height, width = len(rows), len(rows[0])
    ticks = {_cell(high - value, high - low, height): value for value in round_values(low, high)}
    lines = [y_label]
    for r, (row, name) in enumerate(zip(rows, names)):
        label = f"{ticks[r]:6.4g} ┤" if r in ticks else "       │"
        lines.append(f"{label}{''.join(row)} {name}".rstrip())
    left, right = f"{start:.4g}", f"{stop:.4g}"
    lines += ["       └" + "─" * width, "        " + left + right.rjust(width - len(left))]
    return "\n".join(lines)


def round_values(low: float, high: float) -> list[float]:
    """Three to seven multiples of 1, 2 or 5 times a power of ten between two numbers."""
    power = 10.0 ** np.floor(np.log10((high - low) / 3))
    step = max(power * factor for factor in (1, 2, 5) if power * factor <= (high - low) / 3)
    return [float(step * i) for i in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _bar(length: float) -> str:
    whole, part = divmod(round(8 * length), 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[part] if part else "")
