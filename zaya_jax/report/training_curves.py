"""The curves of a training report: loss, optimisation, router balance, speed."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from zaya_jax.report.axes import Axis, fit
from zaya_jax.report.charts import Chart, Line, Mark, draw
from zaya_jax.report.downsample import downsample, running_mean
from zaya_jax.report.heat import heat_map
from zaya_jax.report.html import Html
from zaya_jax.report.plots import Curve, Panel, save_png
from zaya_jax.report.runs import Run
from zaya_jax.report.training_facts import skipped_updates

_POINTS = 2400  # columns of all runs' curves in a chart together: what keeps the page small
_EARLY = 0.05  # of a run: the fall from the loss of a random model, which would flatten all the rest
LOSS = "nats/token"


def groups(runs: Sequence[Run]) -> list[tuple[str, str, list[Html]]]:
    """Title, note and figures of each section that has something to show."""
    every = [
        ("Loss", "", _losses(runs)),
        ("Optimisation", "", _optimisation(runs)),
        ("Router balance", _BALANCE, [*_balance(runs), *_heat_maps(runs)]),
        ("Speed", "", _speed(runs)),
    ]
    return [(title, note, figures) for title, note, figures in every if figures]


_BALANCE = (
    "Load entropy is 1 when every expert of a layer gets the same share of the tokens, 0 when one gets all. "
    "Load is given in even shares: 2 means twice as many tokens as 1/E."
)


def _losses(runs: Sequence[Run]) -> list[Html]:
    if not any(len(run.steps["step"]) or run.listed["eval"] for run in runs):
        return []
    charts = [_loss(runs), *_late(runs), *_bits(runs)]
    if len(runs) > 1:
        charts += [
            _by(runs, "tokens", "Loss by tokens", "tokens"),
            _by(runs, "elapsed", "Loss by wall clock", *_unit_of_time(runs)),
        ]
    return [draw(chart) for chart in charts]


def _loss(runs: Sequence[Run]) -> Chart:
    """Every step faintly, the running mean, held-out points, spikes."""
    lines = _all_raw_and_mean(runs, "loss", "training loss")
    held_out = _held_out(runs, 0)
    axis = _late_axis(runs, [*lines, *held_out])
    marks = [
        Mark(i, float(r["step"]), float(r["loss"]) if r.get("loss") is not None else "top", "▲", _spike_hint(run, r))
        for i, run in enumerate(runs)
        for r in run.listed["spike"]
    ]
    styles = _RAW_AND_MEAN | ({"points": "held out"} if held_out else {}) | ({"▲": "loss spike"} if marks else {})
    highest = max((float(np.nanmax(line.y)) for line in lines if np.isfinite(line.y).any()), default=0.0)
    cut = f"The first steps lie above the axis, up to {highest:.2f}." if highest > axis.high else ""
    title = "Training and held-out loss" if held_out else "Training loss"
    return _chart(title, LOSS, [*lines, *held_out], runs, styles, y=axis, note=cut, marks=marks, wide=True)


def _late(runs: Sequence[Run]) -> list[Chart]:
    """The running means over the second half, where runs that end close together part."""
    lines = [*(line for i, run in enumerate(runs) for line in _raw_and_mean(i, run, "loss", "training loss", runs)[1:]),
             *_held_out(runs, 0)]  # fmt: skip
    stop = max((float(line.x[-1]) for line in lines if len(line.x)), default=0.0)
    late = [Line(line.run, line.label, line.x[line.x >= stop / 2], line.y[line.x >= stop / 2], line.style)
            for line in lines if len(line.x) >= 20 or line.style == "points"]  # fmt: skip
    if not any(len(line.x) >= 10 for line in late):
        return []
    styles = {"line": "training, mean of the last 1 %", "points": "held out"}
    styles = {style: meaning for style, meaning in styles.items() if any(line.style == style for line in late)}
    return [_chart("Loss over the second half", LOSS, late, runs, styles)]


def _bits(runs: Sequence[Run]) -> list[Chart]:
    lines = [line for line in _held_out(runs, 1) if np.isfinite(line.y).any()]
    return [_chart("Held out, per byte", "bits/byte", lines, runs, {"points": "held out"})] if lines else []


def _unit_of_time(runs: Sequence[Run]) -> tuple[str, float]:
    """Name and seconds of the unit that the longest run is a handful of."""
    longest = max((float(run.steps["elapsed"].max(initial=0)) for run in runs), default=0.0)
    units = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))
    return next(((name, size) for name, size in units if longest >= 3 * size), ("seconds", 1.0))


def _by(runs: Sequence[Run], column: str, title: str, x_label: str, size: float = 1.0) -> Chart:
    lines = []
    for i, run in enumerate(runs):
        known = np.isfinite(run.steps[column])
        x = np.maximum.accumulate(run.steps[column][known]) / size if known.any() else np.empty(0)
        lines.append(Line(i, _label(run, "training loss", runs), x, _mean(run.steps["loss"])[known]))
    axis = _late_axis(runs, lines)
    return _chart(title, LOSS, lines, runs, {"line": "mean of the last 1 % of the steps"}, y=axis, x_label=x_label)


def _optimisation(runs: Sequence[Run]) -> list[Html]:
    rates = [_line(i, run, "learning_rate", "learning rate", runs) for i, run in enumerate(runs)]
    norms = _all_raw_and_mean(runs, "gradient_norm", "gradient norm")
    marks = [mark for i, run in enumerate(runs) for mark in (*_skipped_marks(i, run), *_spike_marks(i, run))]
    signs = {"×": "update skipped: loss or gradient not finite", "▼": "loss spike"}
    styles = _RAW_AND_MEAN | {sign: words for sign, words in signs.items() if any(mark.sign == sign for mark in marks)}
    charts = []
    if _known(rates):
        charts.append(_chart("Learning rate", "", rates, runs, zero=True))
    if _known(norms) or marks:
        charts.append(_chart("Gradient norm", "before clipping, log scale", norms, runs, styles, log=True, marks=marks))
    return [draw(chart) for chart in charts]


def _skipped_marks(i: int, run: Run) -> list[Mark]:
    steps = run.steps["step"][skipped_updates(run)]
    return [Mark(i, float(step), "bottom", "×", f"{run.name}: update skipped at step {step:,.0f}") for step in steps]


def _spike_marks(i: int, run: Run) -> list[Mark]:
    return [Mark(i, float(r["step"]), "top", "▼", _spike_hint(run, r)) for r in run.listed["spike"]]


def _spike_hint(run: Run, record) -> str:
    usual = f", usually {record['usual']:.3f}" if record.get("usual") is not None else ""
    loss = f"{record['loss']:.3f}" if record.get("loss") is not None else "not finite"
    return f"{run.name}: loss {loss} at step {record['step']:,}{usual}"


def _balance(runs: Sequence[Run]) -> list[Html]:
    charts = []
    for title, unit, worst, column, how, zero in (
        ("Load entropy", "1 = even", "most uneven layer", "load_entropy", np.nanmin, False),
        ("Fullest expert", "even shares", "worst layer", "max_load", np.nanmax, False),
        ("Emptiest expert", "even shares", "worst layer", "min_load", np.nanmin, True),
        ("Tokens that skip the experts", "%", "layer that skips most", "skipped", np.nanmax, True),
    ):
        scale = 100 if unit == "%" else 1
        lines = []
        for i, run in enumerate(runs):
            mean, extreme = _over_layers(run.layers[column], how)
            lines += [Line(i, _label(run, "mean of layers", runs), run.steps["step"], scale * mean),
                      Line(i, _label(run, worst, runs), run.steps["step"], scale * extreme, "thin")]  # fmt: skip
        if _known(lines):
            charts.append(_chart(title, unit, lines, runs, {"line": "mean of layers", "thin": worst}, zero=zero))
    return [draw(chart) for chart in charts]


def _over_layers(values_NL: np.ndarray, how) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the layers and the extreme one, each [N]; NaN where nothing is known."""
    mean, extreme = np.full(len(values_NL), np.nan), np.full(len(values_NL), np.nan)
    known = np.isfinite(values_NL).any(axis=1)
    values = np.where(np.isfinite(values_NL[known]), values_NL[known], np.nan)
    if known.any():
        mean[known], extreme[known] = np.nanmean(values, axis=1), how(values, axis=1)
    return mean, extreme


def _heat_maps(runs: Sequence[Run]) -> list[Html]:
    """Entropy and fullest expert of every layer, on the same axes and colours for all runs."""
    shown = [run for run in runs if run.layers["load_entropy"].size or run.layers["max_load"].size]
    steps = fit([run.steps["step"] for run in shown], margin=0.0)
    figures = []
    for column, title, unit in (("load_entropy", "Load entropy by layer", "1 = even"),
                                ("max_load", "Fullest expert by layer", "even shares")):  # fmt: skip
        with_it = [run for run in shown if np.isfinite(run.layers[column]).any()]
        values = _colors([run.layers[column] for run in with_it], column)
        for run in with_it:
            name = f"{title}: {run.name}" if len(runs) > 1 else title
            figures.append(heat_map(name, unit, run.steps["step"], run.layers[column], x_axis=steps, values=values))
    return figures


def _colors(layers: Sequence[np.ndarray], column: str) -> Axis:
    """From the value that 1 % lie beyond, to the even load (entropy); from the even load to that value (load)."""
    every = np.concatenate([values[np.isfinite(values)] for values in layers]) if layers else np.ones(1)
    if column == "load_entropy":
        return Axis(min(float(np.quantile(every, 0.01)), 0.99), 1.0)
    return Axis(1.0, max(float(np.quantile(every, 0.99)), 1.1))


def _speed(runs: Sequence[Run]) -> list[Html]:
    charts = []
    for column, title, unit, scale in (
        ("tokens_per_s", "Throughput", "tokens/s", 1),
        ("mfu", "MFU", "% of peak", 100),
        ("step_share", "The step's share of the loop", "%", 100),
    ):
        lines = _all_raw_and_mean(runs, column, "MFU" if column == "mfu" else title.lower(), scale)
        if _known(lines):
            charts.append(_chart(title, unit, lines, runs, _RAW_AND_MEAN, zero=True))
    return [draw(chart) for chart in charts]


def _chart(title: str, unit: str, lines: Sequence[Line], runs: Sequence[Run], styles=None, **options) -> Chart:
    most = 800 if options.get("wide") else 400
    columns = max(min(most, _POINTS // max(len(runs), 1)), 60)
    names = [run.name for run in runs]
    return Chart(title, unit, lines, names, styles or {}, columns=columns, **options)


def _line(i: int, run: Run, column: str, what: str, runs: Sequence[Run]) -> Line:
    return Line(i, _label(run, what, runs), run.steps["step"], run.steps[column])


_RAW_AND_MEAN = {"faint": "each step", "line": "mean of the last 1 % of the steps"}


def _all_raw_and_mean(runs: Sequence[Run], column: str, what: str, scale: float = 1) -> list[Line]:
    """Every step of every run, and above them the running means."""
    pairs = [_raw_and_mean(i, run, column, what, runs, scale) for i, run in enumerate(runs)]
    return [raw for raw, _ in pairs] + [mean for _, mean in pairs]


def _raw_and_mean(i: int, run: Run, column: str, what: str, runs: Sequence[Run], scale: float = 1) -> list[Line]:
    x, y = run.steps["step"], scale * run.steps[column]
    label = _label(run, what, runs)
    return [Line(i, f"{label}, this step", x, y, "faint"), Line(i, label, x, _mean(y))]


def _mean(values: np.ndarray) -> np.ndarray:
    return running_mean(values, max(len(values) // 100, 1))


def _held_out(runs: Sequence[Run], column: int) -> list[Line]:
    """Losses (0) or bits per byte (1) of every held-out set."""
    lines = []
    for i, run in enumerate(runs):
        for name, (steps, *values) in run.evaluations().items():
            lines.append(Line(i, _label(run, f"held out ({name})", runs), steps, values[column], "points"))
    return lines


def _late_axis(runs: Sequence[Run], lines: Sequence[Line]) -> Axis:
    """Fits what comes after the first 5 % of each curve, as far as there is enough of it."""
    parts = [
        line.y[int(_EARLY * len(line.y)) if line.style != "points" and len(line.y) >= 50 else 0 :] for line in lines
    ]
    fitted = fit(parts)
    low = fit([line.y for line in lines]).low
    return Axis(min(low, fitted.low), fitted.high) if low < fitted.high else fitted


def _label(run: Run, what: str, runs: Sequence[Run]) -> str:
    return what if len(runs) == 1 else f"{run.name}, {what}"


def _known(lines: Sequence[Line]) -> bool:
    return any(np.isfinite(line.y).any() for line in lines)


def save_pngs(runs: Sequence[Run], output: pathlib.Path) -> list[pathlib.Path]:
    """The main curves as PNGs beside the page: NAME.loss.png, NAME.balance.png, NAME.speed.png.

    Raises:
        UserError: matplotlib (extra `plot`) is missing, or a file cannot be written.
    """
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    pictures = {"loss": _loss_panels(runs), "balance": _balance_panels(runs), "speed": _speed_panels(runs)}
    return [
        save_png(output.with_name(f"{output.stem}.{name}.png"), panels, title=title, x_label="step")
        for name, panels in pictures.items()
        if panels
    ]


def _loss_panels(runs: Sequence[Run]) -> list[Panel]:
    lines = [_raw_and_mean(i, run, "loss", "training loss", runs)[1] for i, run in enumerate(runs)]
    held_out = [line for line in _held_out(runs, 0) if np.isfinite(line.y).any()]
    axis = _late_axis(runs, [*lines, *held_out])
    panels = _panel("loss, nats/token", [*lines, *held_out], (axis.low, axis.high))
    panels += _panel("learning rate", [_line(i, run, "learning_rate", "", runs) for i, run in enumerate(runs)])
    return panels + _panel("gradient norm", [_line(i, run, "gradient_norm", "", runs) for i, run in enumerate(runs)])


def _balance_panels(runs: Sequence[Run]) -> list[Panel]:
    panels = []
    for column, label, how in (("load_entropy", "load entropy", np.nanmin), ("max_load", "fullest expert", np.nanmax),
                               ("skipped", "share skipped", np.nanmax)):  # fmt: skip
        worst = [Line(i, _label(run, "worst layer", runs), run.steps["step"], _over_layers(run.layers[column], how)[1])
                 for i, run in enumerate(runs)]  # fmt: skip
        panels += _panel(label, worst)
    return panels


def _speed_panels(runs: Sequence[Run]) -> list[Panel]:
    panels = []
    for column, label in (("tokens_per_s", "tokens/s"), ("mfu", "MFU"), ("step_share", "step's share")):
        panels += _panel(label, [_raw_and_mean(i, run, column, "", runs)[1] for i, run in enumerate(runs)])
    return panels


def _panel(label: str, lines: Sequence[Line], limits: tuple[float, float] | None = None) -> list[Panel]:
    curves = []
    for line in lines:
        if np.isfinite(line.y).any():
            kept = downsample(line.x, line.y, 600)
            name, points = line.label.rstrip(", "), line.style == "points"
            curves.append(Curve(name, line.x[kept], line.y[kept], points, color=line.run))
    return [Panel(label, curves, limits=limits)] if curves else []
