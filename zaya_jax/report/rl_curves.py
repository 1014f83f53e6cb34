"""The curves of a run of reinforcement learning: rewards, environments, held-out problems, answers, agreement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from zaya_jax.report.axes import Axis
from zaya_jax.report.charts import Chart, Line, draw
from zaya_jax.report.downsample import running_mean
from zaya_jax.report.html import Html
from zaya_jax.report.rl_run import RlRun, shown

_SHARE = Axis(-0.04, 1.04)  # of charts whose values are shares, so that all of them compare
_BLUE, _RED = 0, 1  # colours of page.css


@dataclasses.dataclass(frozen=True)
class Group:
    """Figures under a heading.

    Attributes:
        small: many alike, of one environment each.
    """

    title: str
    note: str
    figures: Sequence[Html]
    small: bool = False


def groups(run: RlRun) -> list[Group]:
    """Those that have something to show."""
    every = [
        Group("Reward and signal", _SIGNAL, _drawn(_signal(run))),
        Group("Scores", _SCORES, _drawn(_scores(run))),
        Group("Pass rate by environment", _PASS_RATE, _drawn(_pass_rates(run)), small=True),
        Group("Difficulty by environment", _DIFFICULTY, _drawn(_difficulties(run)), small=True),
        Group("Held-out problems by environment", _HELD_OUT, _drawn(_held_out(run)), small=True),
        Group("Answers", "", _drawn(_answers(run))),
        Group("Engine and learner", _AGREEMENT, _drawn(_agreement(run))),
    ]
    return [group for group in every if group.figures]


_SIGNAL = "Rewards are of all groups, those that teach nothing and are dropped included."
_PASS_RATE = (
    "Of the problems that were asked, at the difficulty of the moment: a steady rate while difficulty climbs is "
    "progress. Faint: each step; strong: the mean of the last steps."
)
_SCORES = "Of the reward model or the judge, over all answers that it scored. Gated: they break what was asked for."
_DIFFICULTY = "Where the curriculum stood after each step."
_HELD_OUT = "Mean accuracy at fixed difficulties, on problems that are never learnt from."
_AGREEMENT = (
    "Of the same tokens, by the weights that drew them and by those that learn. In a synchronous run the versions are "
    "equal and what is left is numerics; in a pipelined one it holds the drift of the policy as well. Flips are "
    "experts that the learner would have chosen otherwise if they were not replayed."
)


def _drawn(charts: Iterable[Chart]) -> list[Html]:
    """Those with something to show."""
    return [draw(chart) for chart in charts if any(np.isfinite(line.y).any() for line in chart.lines)]


def _signal(run: RlRun) -> list[Chart]:
    columns, window = run.steps, mean_window(run)
    with np.errstate(divide="ignore", invalid="ignore"):
        taught = 100 * columns["taught"] / columns["groups"]
    steps, held_out = run.held_out()
    return [
        _raw_and_mean("Reward", "", columns["step"], columns["reward"], window, zero=True),
        Chart("Held out", "mean accuracy", [_points("held out", steps, held_out)], (), y=_SHARE),
        _raw_and_mean("Groups that teach", "%", columns["step"], taught, window, zero=True),
    ]


def _scores(run: RlRun) -> list[Chart]:
    columns, window = run.steps, mean_window(run)
    x = columns["step"]
    return [
        _raw_and_mean("Mean score", "", x, columns["score_mean"], window),
        _raw_and_mean("Spread of scores", "standard deviation", x, columns["score_std"], window, zero=True),
        _raw_and_mean("Gated answers", "%", x, 100 * columns["score_gated"], window, zero=True),
    ]


def _pass_rates(run: RlRun) -> list[Chart]:
    steps, window = run.steps["step"], mean_window(run)
    return [
        dataclasses.replace(_raw_and_mean(shown(name), "", steps, columns["pass_rate"], window), y=_SHARE, styles={})
        for name, columns in run.environments.items()
    ]


def _difficulties(run: RlRun) -> list[Chart]:
    """All on one axis, so that they compare; an environment that stays at 0 is left out, as some have no other."""
    every = {name: columns["difficulty"] for name, columns in run.environments.items()}
    highest = {name: float(np.nanmax(values, initial=0)) for name, values in every.items()}
    axis = Axis(0.0, 1.06 * max(highest.values(), default=1.0) or 1.0)
    steps = run.steps["step"]
    return [
        Chart(shown(name), "", [Line(_BLUE, "difficulty", steps, values)], y=axis)
        for name, values in every.items()
        if highest[name] > 0
    ]


def _held_out(run: RlRun) -> list[Chart]:
    """A line for each difficulty."""
    difficulties = sorted({difficulty for _, difficulty in run.looks})
    names = [f"difficulty {difficulty}" for difficulty in difficulties]
    charts = []
    for name in dict.fromkeys(environment for environment, _ in run.looks):
        own = [(place, run.looks[name, d]) for place, d in enumerate(difficulties) if (name, d) in run.looks]
        lines = [Line(place, names[place], look["step"], look["average"], "points") for place, look in own]
        charts.append(Chart(shown(name), "", lines, names, y=_SHARE))
    return charts


def _answers(run: RlRun) -> list[Chart]:
    columns, window = run.steps, mean_window(run)
    cut = [
        Line(_BLUE, "cut off by a budget", columns["step"], 100 * columns["truncated"]),
        Line(_RED, "going round in circles", columns["step"], 100 * columns["degenerate"], "thin"),
    ]
    styles = {"line": "cut off by a budget", "thin": "going round in circles"}
    return [
        _raw_and_mean("Length of an answer", "tokens", columns["step"], columns["length"], window, zero=True),
        Chart("Answers without an end", "%", cut, (), styles, zero=True),
        _raw_and_mean("Entropy", "nats/token", columns["step"], columns["entropy"], window, zero=True),
    ]


def _agreement(run: RlRun) -> list[Chart]:
    columns, kind = run.steps, agreement_kind(run)
    known = np.isfinite(columns[f"{kind}_kl"])
    steps, of = columns["step"][known], {name: columns[f"{kind}_{name}"][known] for name in _COMPARED}
    with np.errstate(divide="ignore", invalid="ignore"):
        flips = 100 * of["route_flips"] / of["routes"]
    stale = [
        Line(_BLUE, "mean", columns["step"], columns["staleness"]),
        Line(_RED, "oldest", columns["step"], columns["most_stale"], "thin"),
    ]
    updates = Line(_BLUE, "all tokens of the update", columns["step"], columns["kl"], "thin")
    styles = {"thin": "all tokens of the update", "points": f"compared ({kind})"}
    divergence, distance = [updates, _points("compared", steps, of["kl"])], _points(kind, steps, 1 - of["pearson"])
    return [
        Chart("Staleness", "updates", stale, (), {"line": "mean", "thin": "oldest group"}, zero=True),
        Chart("Divergence (K3)", "nats/token, log scale", divergence, (), styles, log=True),
        Chart("1 − Pearson's r", "of probabilities, log scale", [distance], log=True),
        Chart("Routes flipped", "%", [_points(kind, steps, flips)], zero=True),
    ]


_COMPARED = ("kl", "pearson", "route_flips", "routes")


def agreement_kind(run: RlRun) -> str:
    """As what comparisons of engine and learner were logged: "drift" if versions differed, "parity" if not."""
    return "drift" if np.isfinite(run.steps["drift_kl"]).any() else "parity"


def mean_window(run: RlRun) -> int:
    """Steps that a running mean is over: a twentieth of them, at least 4 as far as there are so many."""
    count = len(run.steps["step"])
    return max(min(4, count), math.ceil(count / 20), 1)


def _raw_and_mean(title: str, unit: str, x: np.ndarray, y: np.ndarray, window: int, **more) -> Chart:
    name = title.lower()
    lines = [Line(_BLUE, f"{name}, this step", x, y, "faint"), Line(_BLUE, name, x, running_mean(y, window))]
    return Chart(title, unit, lines, (), {"faint": "each step", "line": f"mean of {window} steps"}, **more)


def _points(label: str, x: np.ndarray, y: np.ndarray) -> Line:
    return Line(_BLUE, label, x, y, "points")
