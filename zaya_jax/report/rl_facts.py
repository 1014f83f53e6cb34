"""The numbers at the head of a run of reinforcement learning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zaya_jax.report.axes import short
from zaya_jax.report.progress import duration
from zaya_jax.report.rl_curves import agreement_kind, mean_window
from zaya_jax.report.rl_run import RlRun, shown
from zaya_jax.report.training_facts import NONE

ARROW = " → "


def facts(run: RlRun) -> dict[str, str]:
    """What a run gave, as text by name; an en dash for what is not known."""
    columns = run.steps
    return {
        "steps": of_steps(max(columns["step"], default=0), run.config),
        "time in steps": _time(_total(columns["seconds"])),
        "tokens drawn": _count(_total(columns["drawn_tokens"])),
        "reward": change(*ends(columns["reward"], mean_window(run))),
        "score": change(*ends(columns["score_mean"], mean_window(run))),
        "held out": change(*ends(run.held_out()[1], 1)),
        "answer length": change(*ends(columns["length"], mean_window(run)), "tokens"),
        "entropy": change(*ends(columns["entropy"], mean_window(run))),
        "warnings": f"{len(run.warnings):,}",
    }


def agreement(run: RlRun) -> Mapping[str, str]:
    """Engine and learner over all comparisons: K3 of either kind, routes of the one that is drawn; empty if there was
    none."""
    kind, columns = agreement_kind(run), run.steps
    out = {
        f"largest K3 ({one})": short(float(columns[f"{one}_kl"][known].max()))
        for one in ("drift", "parity")
        if (known := np.isfinite(columns[f"{one}_kl"])).any()
    }
    if not out:
        return {}
    known = np.isfinite(columns[f"{kind}_kl"])
    flips, routes = (_total(columns[f"{kind}_{name}"][known]) for name in ("route_flips", "routes"))
    out["routes flipped"] = f"{_count(flips)} of {_count(routes)}" if routes > 0 else NONE
    stale = columns["most_stale"][np.isfinite(columns["most_stale"])]
    return out | ({"most stale": f"{stale.max():.0f} updates"} if len(stale) else {})


def held_out_rows(run: RlRun) -> list[tuple[str, ...]]:
    """Environment, difficulty, first and last mean accuracy and share solved, of every place that was looked at."""
    rows = []
    for (environment, difficulty), look in run.looks.items():
        first, last = ends(look["average"], 1)
        means = (figure(first), figure(last), figure(last - first, sign=True))
        rows.append((shown(environment), str(difficulty), *means, *map(figure, ends(look["any"], 1))))
    return rows


def of_steps(made: float, config: Any) -> str:
    """How many steps were made, and of how many if a configuration asks for more."""
    wanted = config.get("steps") if isinstance(config, Mapping) else None
    return f"{made:,.0f} of {wanted:,}" if isinstance(wanted, int) and wanted != made else f"{made:,.0f}"


def ends(values: np.ndarray, window: int) -> tuple[float, float]:
    """The mean of the first `window` values and of the last; the second is NaN where there are no more than these."""
    return _mean(values[:window]), _mean(values[-window:]) if len(values) > window else math.nan


def change(first: float, last: float, unit: str = "") -> str:
    """Two figures with an arrow between, or the one that there is."""
    known = [figure(value) for value in (first, last) if math.isfinite(value)]
    return f"{ARROW.join(known)} {unit}".strip() if known else NONE


def figure(value: float, sign: bool = False) -> str:
    """Three digits behind the point, fewer of what is large."""
    if not math.isfinite(value):
        return NONE
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _total(values: np.ndarray) -> float:
    """NaN if nothing is known."""
    known = values[np.isfinite(values)]
    return float(known.sum()) if len(known) else math.nan


def _time(seconds: float) -> str:
    return duration(seconds) if math.isfinite(seconds) else NONE


def _count(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    return short(value) if value >= 1e5 else f"{value:,.0f}"
