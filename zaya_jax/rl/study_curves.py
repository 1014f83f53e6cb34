"""Curves of a study: what its arms' steps of reinforcement learning went through, as a PNG (extra `plot`)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.report.metrics import read_metrics
from zaya_jax.report.plots import Curve, Panel, save_png, smooth
from zaya_jax.rl.study import StudyConfig, run_name

WINDOW = 8  # steps that a point is the mean of

Row = dict[str, Any]


def _difficulty(row: Row) -> float:
    return float(np.mean([one["difficulty"] for one in row["environments"].values()]))


FIGURES: dict[str, Callable[[Row], float]] = {
    "difficulty, mean of environments": _difficulty,
    "reward": lambda row: np.nan if row["reward"] is None else row["reward"],
    "entropy, nats a token": lambda row: row["entropy"],
    "length, tokens": lambda row: row["length"],
}


def write_curves(study: StudyConfig, root: pathlib.Path | str, path: pathlib.Path | str) -> pathlib.Path:
    """Draws each arm's mean over its seeds, as far as all of them have come, smoothed over `WINDOW` steps.

    Raises:
        UserError: no arm has made a step of reinforcement learning, or matplotlib is not installed.
    """
    curves = curves_of(study, root)
    if not any(curves.values()):
        raise mistake("no steps to draw", where=root, expected="an arm of reinforcement learning that has begun")
    panels = [Panel(name, own) for name, own in curves.items()]
    title = f"{study.name}: mean of the seeds, over {WINDOW} steps"
    return save_png(path, panels, title=title, x_label="update")


def curves_of(study: StudyConfig, root: pathlib.Path | str) -> dict[str, list[Curve]]:
    """By figure, the curves of all arms that have begun."""
    told = {arm.name: [_steps(pathlib.Path(root, run_name(arm.name, seed))) for seed in study.seeds]
            for arm in study.arms if arm.command == "rl"}  # fmt: skip
    begun = {arm: [rows for rows in seeds if rows] for arm, seeds in told.items()}
    return {
        name: [_curve(arm, seeds, figure) for arm, seeds in begun.items() if seeds] for name, figure in FIGURES.items()
    }


def _steps(run: pathlib.Path) -> list[Row]:
    file = run / "metrics.jsonl"
    return [row for row in read_metrics(file) if row["kind"] == "step"] if file.exists() else []


def _curve(arm: str, seeds: list[list[Row]], figure: Callable[[Row], float]) -> Curve:
    count = min(map(len, seeds))
    mean = np.mean([[figure(row) for row in rows[:count]] for rows in seeds], axis=0)
    return Curve(f"{arm} ({len(seeds)})", np.arange(1, count + 1), smooth(mean, WINDOW))
