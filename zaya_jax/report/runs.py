"""What a training run left in its metrics.jsonl, as columns."""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.report.metrics import each_record

FILE = "metrics.jsonl"
# Of a step: numbers, and lists with a number a layer. What else a step's record holds is left out.
SCALARS = (
    "step", "tokens", "seconds", "loss", "learning_rate", "gradient_norm", "tokens_per_s", "mfu", "bad_steps",
    "step_share",
)  # fmt: skip
LAYERS = ("load_entropy", "recent_load_entropy", "max_load", "min_load", "skipped")
# The other kinds, and those of their fields that have to be numbers (or null).
LISTED = {
    "start": ("time", "parameters", "active_parameters", "flops_per_token", "devices", "resumed_from"),
    "eval": ("step", "loss", "bits_per_byte"),
    "baseline": ("step", "order", "bits_per_byte"),
    "sample": ("step",),
    "spike": ("step", "loss", "usual"),
    "checkpoint": ("step", "seconds"),
    "event": ("step",),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        name: of its directory.
        steps: columns by name, float64 [N], NaN for what a record did not have; `elapsed` is the wall clock in
            seconds over all processes of the run, without what was lost between a checkpoint and a crash.
        layers: columns by name, float32 [N, L]; [N, 0] if there are none.
        listed: the records of each other kind, in order.
        unknown: how many records there were of kinds that this program does not know.
    """

    name: str
    steps: Mapping[str, np.ndarray]
    layers: Mapping[str, np.ndarray]
    listed: Mapping[str, Sequence[Mapping[str, Any]]]
    unknown: Mapping[str, int]

    @property
    def start(self) -> Mapping[str, Any]:
        """The record of the last start; empty if there is none."""
        return self.listed["start"][-1] if self.listed["start"] else {}

    def evaluations(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Steps, losses and bits per byte, each [n], by the name of the held-out set; steps rise.

        Of several looks at one step the last counts: the one at the end, for instance, which takes in everything.
        """
        looks: dict[str, dict[float, Mapping[str, Any]]] = {}
        for record in self.listed["eval"]:
            looks.setdefault(str(record.get("name", "held out")), {})[number(record["step"])] = record
        keys = ("step", "loss", "bits_per_byte")
        return {
            name: tuple(np.array([number(found[step].get(key)) for step in sorted(found)]) for key in keys)
            for name, found in looks.items()
        }


def read_run(workdir: pathlib.Path | str) -> Run:
    """Reads `workdir`/metrics.jsonl. Records without a kind count as steps.

    Raises:
        UserError: it is missing or damaged, or a field is not what it should be; the line is named.
    """
    path = pathlib.Path(workdir) / FILE
    if not path.is_file():
        fix = "give the directory of a run of experiments.train"
        raise mistake(f"has no {FILE}", where=workdir, fix=fix)
    table = _Table()
    for line, _, record in each_record(path):
        table.add(record, f"{path}, line {line}")
    return table.run(pathlib.Path(workdir).resolve().name)


def read_runs(workdirs: Sequence[pathlib.Path | str]) -> list[Run]:
    """Reads several, with names that tell them apart: as much of the end of each path as that needs.

    Raises:
        UserError: as `read_run`, or a directory is given twice.
    """
    paths = [pathlib.Path(workdir).resolve() for workdir in workdirs]
    twice = [path for path, count in collections.Counter(paths).items() if count > 1]
    if twice:
        raise mistake("given twice", where=twice[0])
    return [dataclasses.replace(read_run(path), name=name) for path, name in zip(paths, _names(paths))]


def number(value: Any) -> float:
    """A number, or NaN for null."""
    return math.nan if value is None else float(value)


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    for parts in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


class _Table:
    """Collects the records of a file, steps by the column."""

    def __init__(self):
        self._scalars: dict[str, list[float]] = {name: [] for name in (*SCALARS, "elapsed")}
        self._layers: dict[str, list[np.ndarray | None]] = {name: [] for name in LAYERS}
        self._listed: dict[str, list[dict[str, Any]]] = {kind: [] for kind in LISTED}
        self._unknown: collections.Counter[str] = collections.Counter()
        self._before, self._last = 0.0, 0.0  # seconds of earlier processes, and of all so far
        self._width: dict[str, int] = {}

    def add(self, record: dict[str, Any], where: str) -> None:
        kind = record.get("kind", "train")
        if kind == "train":
            self._add_step(record, where)
        elif isinstance(kind, str) and kind in LISTED:
            for name in LISTED[kind]:
                _checked(record, name, where)
            if kind != "start" and record.get("step") is None:
                raise mistake(f"{kind} without a step", where=where)
            self._listed[kind].append(record)
            if kind == "start":
                self._before = self._last
        else:
            self._unknown[str(kind)] += 1

    def _add_step(self, record: dict[str, Any], where: str) -> None:
        values = {name: _checked(record, name, where) for name in SCALARS}
        steps = self._scalars["step"]
        if math.isnan(values["step"]):
            raise mistake("train without a step", where=where)
        if steps and values["step"] <= steps[-1]:
            raise mistake("steps out of order", where=where, expected=f"more than {steps[-1]:g}", found=record["step"])
        if math.isfinite(values["seconds"]):
            self._last = self._before + values["seconds"]
        for name, value in {**values, "elapsed": self._last}.items():
            self._scalars[name].append(value)
        for name in LAYERS:
            self._layers[name].append(self._checked_layers(record, name, where))

    def _checked_layers(self, record: dict[str, Any], name: str, where: str) -> np.ndarray | None:
        value = record.get(name)
        if value is None:
            return None
        try:
            row = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            row = np.empty((0, 0))
        if row.ndim != 1:
            raise mistake(f"{name} is not a list of numbers", where=where)
        if len(row) != self._width.setdefault(name, len(row)):
            raise mistake(f"{name} has another length than before", where=where, expected=self._width[name],
                          found=len(row))  # fmt: skip
        return row

    def run(self, name: str) -> Run:
        steps = {key: np.array(values, np.float64) for key, values in self._scalars.items()}
        layers = {key: self._stacked(key) for key in LAYERS}
        return Run(name, steps, layers, self._listed, self._unknown)

    def _stacked(self, name: str) -> np.ndarray:
        rows, width = self._layers[name], self._width.get(name, 0)
        out = np.full((len(rows), width), np.nan, np.float32)
        for i, row in _given(rows):
            out[i] = row
        return out


def _given(rows: Sequence[np.ndarray | None]) -> Iterator[tuple[int, np.ndarray]]:
    return ((i, row) for i, row in enumerate(rows) if row is not None)


def _checked(record: Mapping[str, Any], name: str, where: str) -> float:
    value = record.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise mistake(f"{name} is not a number", where=where, found=repr(value)[:40])
    return number(value)
