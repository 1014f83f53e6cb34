"""What a run of reinforcement learning left in its metrics.jsonl, as columns."""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.report.metrics import each_record
from zaya_jax.report.runs import FILE, number

# Of a step: numbers by the name of their column, and where in its record they stand. Null and missing ones are NaN.
COLUMNS = {
    **{name: (name,) for name in (
        "step", "learning_rate", "reward", "groups", "taught", "truncated", "degenerate", "length", "entropy", "loss",
        "gradient_norm", "kl", "ratio", "clipped", "learnt_tokens", "drawn_tokens", "evicted", "stale",
    )},
    "seconds": ("seconds", "whole"),
    **{f"score_{name}": ("scores", name) for name in ("mean", "std", "none", "gated")},
    "staleness": ("staleness", "mean"),
    "most_stale": ("staleness", "max"),
    **{f"{kind}_{name}": (kind, name) for kind in ("parity", "drift")
       for name in ("kl", "pearson", "max_delta", "route_flips", "routes")},
}  # fmt: skip
_ENVIRONMENT = ("difficulty", "pass_rate", "groups")
_LOOK = ("difficulty", "average", "any", "truncated", "tokens")


@dataclasses.dataclass(frozen=True)
class RlRun:
    """A run.

    Attributes:
        name: of its directory.
        starts: its records of kind start, the first and one for each time that it went on.
        steps: columns by name (`COLUMNS`), float64 [N].
        environments: by name, columns difficulty, pass_rate and groups, float64 [N].
        looks: by environment and difficulty, columns step, average, any, truncated and tokens, float64 [n].
        warnings: records with step and text.
        found: records of start difficulties.
    """

    name: str
    starts: Sequence[Mapping[str, Any]]
    steps: Mapping[str, np.ndarray]
    environments: Mapping[str, Mapping[str, np.ndarray]]
    looks: Mapping[tuple[str, int], Mapping[str, np.ndarray]]
    warnings: Sequence[Mapping[str, Any]]
    found: Sequence[Mapping[str, Any]]

    @property
    def config(self) -> Mapping[str, Any]:
        """Of the last start; empty if there is none."""
        config = self.starts[-1].get("config") if self.starts else None
        return config if isinstance(config, Mapping) else {}

    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps of the looks [n], and the mean accuracy of all environments and difficulties at each [n]."""
        by_step: dict[float, list[float]] = collections.defaultdict(list)
        for columns in self.looks.values():
            for step, average in zip(columns["step"], columns["average"]):
                by_step[float(step)].append(float(average))
        steps = sorted(by_step)
        return np.array(steps), np.array([np.mean(by_step[step]) for step in steps])


def is_rl_run(workdir: pathlib.Path | str) -> bool:
    """Whether a directory's metrics are of reinforcement learning: their first start says what is drawn from."""
    path = pathlib.Path(workdir) / FILE
    records = (record for _, _, record in each_record(path)) if path.is_file() else iter(())
    config = next((record.get("config") for record in records if record.get("kind") == "start"), None)
    return isinstance(config, Mapping) and "schedule" in config


def read_rl_run(workdir: pathlib.Path | str) -> RlRun:
    """Reads `workdir`/metrics.jsonl, also of a run that is under way. Kinds of records that are not known are left out.

    Raises:
        UserError: it is missing or damaged, or a field is not what it should be; the line is named.
    """
    path = pathlib.Path(workdir) / FILE
    if not path.is_file():
        raise mistake(f"has no {FILE}", where=workdir, fix="give the directory of a run of experiments.rl")
    kinds: dict[str, list[tuple[str, dict[str, Any]]]] = collections.defaultdict(list)
    for line, _, record in each_record(path):
        kinds[str(record.get("kind"))].append((f"{path}, line {line}", record))
    listed = {kind: [record for _, record in kinds[kind]] for kind in ("start", "warning", "start_difficulty")}
    steps = kinds["step"]
    return RlRun(
        pathlib.Path(workdir).resolve().name, listed["start"], _columns(steps), _environments(steps),
        _looks(kinds["look"]), listed["warning"], listed["start_difficulty"],
    )  # fmt: skip


def shown(environment: str) -> str:
    """An environment's name without the folder and the suffix of what it is read from, and without options."""
    return re.sub(r"([:@])[^?@]*/", r"\1", environment).partition("?")[0].removesuffix(".jsonl")


def _columns(records: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, np.ndarray]:
    columns = {name: np.array([_at(record, keys, where) for where, record in records], np.float64)
               for name, keys in COLUMNS.items()}  # fmt: skip
    order = columns["step"]
    for place, (where, _) in enumerate(records):
        if not math.isfinite(order[place]):
            raise mistake("step without a number", where=where)
        if place and order[place] <= order[place - 1]:
            expected = f"more than {order[place - 1]:g}"
            raise mistake("steps out of order", where=where, expected=expected, found=f"{order[place]:g}")
    return columns


def _environments(records: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, np.ndarray]]:
    every: dict[str, dict[str, np.ndarray]] = {}
    for place, (where, record) in enumerate(records):
        for name, own in _mapping(record, "environments", where).items():
            if name not in every:
                every[name] = {key: np.full(len(records), math.nan) for key in _ENVIRONMENT}
            for key in _ENVIRONMENT:
                every[name][key][place] = _at({name: own}, (name, key), where)
    return every


def _looks(records: Sequence[tuple[str, dict[str, Any]]]) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Of several looks at one step the last counts."""
    every: dict[tuple[str, int], dict[float, tuple[str, dict[str, Any]]]] = collections.defaultdict(dict)
    for where, record in records:
        step, difficulty = (_at(record, (key,), where) for key in ("step", "difficulty"))
        if not (math.isfinite(step) and math.isfinite(difficulty)):
            raise mistake("look without a step or a difficulty", where=where)
        every[str(record.get("environment")), int(difficulty)][step] = (where, record)
    return {place: dict(_look_columns(found)) for place, found in every.items()}


def _look_columns(found: Mapping[float, tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, np.ndarray]]:
    steps = sorted(found)
    yield "step", np.array(steps)
    for key in _LOOK[1:]:
        yield key, np.array([_at(found[step][1], (key,), found[step][0]) for step in steps])


def _mapping(record: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = record.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise mistake(f"{name} is not an object", where=where, found=repr(value)[:40])
    return value or {}


def _at(record: Mapping[str, Any], keys: Sequence[str], where: str) -> float:
    for key in keys[:-1]:
        record = _mapping(record, key, where)
    value = record.get(keys[-1])
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise mistake(f"{'.'.join(keys)} is not a number", where=where, found=repr(value)[:40])
    return number(value)
