"""The numbers at the head of a training report, and how the runs' configurations differ."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.report.axes import short
from zaya_jax.report.progress import duration
from zaya_jax.report.runs import Run, number

NONE = "–"


@dataclasses.dataclass(frozen=True)
class Facts:
    """A run's figures, as text.

    Attributes:
        tiles: the few to be seen first.
        rows: all, by name, with units.
    """

    tiles: Mapping[str, str]
    rows: Mapping[str, str]


def facts(run: Run) -> Facts:
    """What a run was and gave."""
    losses = _losses(run)
    speed = {"tokens/s": _short(median(run, "tokens_per_s")), "MFU": _share(median(run, "mfu"))}
    wall = duration(last(run, "elapsed")) if len(run.steps["step"]) else NONE
    tiles = {**losses, "tokens": _short(last(run, "tokens")), **speed, "wall clock": wall}
    rows = {**_size(run), **_work(run), **_long_losses(run), **_speed(run), "wall clock": wall, **_incidents(run)}
    return Facts({name: value for name, value in tiles.items() if value != NONE}, rows)


def final_loss(run: Run) -> tuple[float, int]:
    """Mean training loss of the last 1 % of the steps (at least 10), and how many those are."""
    window = min(max(len(run.steps["step"]) // 100, 10), len(run.steps["step"]))
    known = run.steps["loss"][len(run.steps["loss"]) - window :]
    known = known[np.isfinite(known)]
    return (float(known.mean()) if len(known) else math.nan), window


def last(run: Run, name: str) -> float:
    """The last value of a column that is known, or NaN."""
    known = run.steps[name][np.isfinite(run.steps[name])]
    return float(known[-1]) if len(known) else math.nan


def median(run: Run, name: str) -> float:
    """The median of a column, or NaN."""
    known = run.steps[name][np.isfinite(run.steps[name])]
    return float(np.median(known)) if len(known) else math.nan


def skipped_updates(run: Run) -> np.ndarray:
    """Which records saw the count of skipped updates rise, bool [N]."""
    counts = np.nan_to_num(run.steps["bad_steps"])
    return np.diff(counts, prepend=0.0) > 0


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as dotted keys and texts; lists as they are in JSON."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, config if isinstance(config, str) else json.dumps(config, ensure_ascii=False)


def differences(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The keys in which configurations differ, each with its value in every run."""
    configs = [dict(flat(run.start.get("config"))) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [(key, *(config.get(key, NONE) for config in configs)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _losses(run: Run) -> dict[str, str]:
    out = {"training loss": _loss(final_loss(run)[0])}
    for name, (_, losses, bits) in run.evaluations().items():
        out[f"{name} loss"] = _loss(losses[-1])
        out[f"{name} bits/byte"] = _loss(bits[-1])
    return out


def _long_losses(run: Run) -> dict[str, str]:
    loss, window = final_loss(run)
    out = {"training loss at the end": f"{_loss(loss)} nats/token, mean of {window:,} steps"}
    for name, (steps, losses, bits) in run.evaluations().items():
        per_byte = f"; {_loss(bits[-1])} bits/byte" if math.isfinite(bits[-1]) else ""
        out[f"{name} loss at the end"] = f"{_loss(losses[-1])} nats/token{per_byte}{_lowest(steps, losses)}"
    for record in run.listed["baseline"]:
        bits = _loss(number(record.get("bits_per_byte")))
        out[f"{record.get('name')}, by {record.get('order')}-grams of the training text"] = f"{bits} bits/byte"
    return out


def _lowest(steps: np.ndarray, losses: np.ndarray) -> str:
    if not np.isfinite(losses).any():
        return ""
    place = int(np.nanargmin(losses))
    return f"; lowest {_loss(losses[place])} at step {steps[place]:,.0f}"


def _size(run: Run) -> dict[str, str]:
    start = run.start
    at_work = number(start.get("active_parameters"))
    size = _short(number(start.get("parameters")))
    return {
        "parameters": f"{size} ({_short(at_work)} at work on a token)" if math.isfinite(at_work) else size,
        "FLOPs a token": _short(number(start.get("flops_per_token"))),
    }


def _work(run: Run) -> dict[str, str]:
    start = run.start
    rows, length, accumulate = (start.get(name) for name in ("rows", "length", "accumulate"))
    batch = f"{rows} rows of {length} tokens" if rows and length else NONE
    times = f", {accumulate} times a step" if accumulate and accumulate != 1 else ""
    return {
        "steps": _whole(last(run, "step")),
        "tokens": _short(last(run, "tokens")),
        "batch": f"{batch}{times}",
    }


def _speed(run: Run) -> dict[str, str]:
    start = run.start
    return {
        "tokens/s": f"{_short(median(run, 'tokens_per_s'))} (median)",
        "MFU": f"{_share(median(run, 'mfu'))} (median)" if math.isfinite(median(run, "mfu")) else NONE,
        "step's share of the loop": _share(median(run, "step_share")),
        "load entropy of 20 steps, least even layer": _loss(_least_even(run)),
        "hardware": hardware(start),
        "mesh": _mesh(start.get("mesh")),
    }


def _least_even(run: Run) -> float:
    """At the end; 1 is an even load."""
    layers = run.layers["recent_load_entropy"]
    return float(layers[-1].min()) if layers.size else math.nan


def _incidents(run: Run) -> dict[str, str]:
    start = run.listed["start"][0] if run.listed["start"] else {}
    checkpoints = run.listed["checkpoint"]
    saved = f"{len(checkpoints):,}, the last at step {checkpoints[-1]['step']:,}" if checkpoints else "0"
    return {
        "began": moment(start.get("time")),
        "times resumed": str(sum(record.get("resumed_from") is not None for record in run.listed["start"])),
        "updates skipped": _whole(np.nanmax(run.steps["bad_steps"], initial=0)) if len(run.steps["step"]) else NONE,
        "loss spikes": f"{len(run.listed['spike']):,}",
        "checkpoints": saved,
    }


def hardware(start: Mapping[str, Any]) -> str:
    """How many devices of which kind a start's record names."""
    devices, kind = start.get("devices"), start.get("device_kind")
    return f"{devices:g} × {kind}" if devices and kind else NONE


def moment(seconds: Any) -> str:
    """Unix time as date and time in UTC."""
    try:
        return f"{datetime.datetime.fromtimestamp(float(seconds), datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError, OverflowError, OSError):
        return NONE


def _mesh(mesh: Any) -> str:
    if isinstance(mesh, Mapping):
        used = [f"{axis} {size}" for axis, size in mesh.items() if size != 1]
        return ", ".join(used) or "one device"
    return NONE if mesh is None else str(mesh)


def _loss(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else NONE


def _short(value: float) -> str:
    return short(value) if abs(value) >= 1e4 or not math.isfinite(value) else f"{value:,.0f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else NONE


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else NONE
