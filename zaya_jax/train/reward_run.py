"""A reward model from its configuration to what it makes of held-out pairs."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import TextIO

from zaya_jax.checkpoint.processes import is_first
from zaya_jax.data.schema import Preference
from zaya_jax.data.sources import read
from zaya_jax.errors import mistake
from zaya_jax.train.config import RunConfig
from zaya_jax.train.reward_files import PairReport, judge_pairs, load_reward_model
from zaya_jax.train.run import run
from zaya_jax.train.workdir import MODEL

PAIRS_FILE = "pairs.json"


def run_reward_model(config: RunConfig, workdir: pathlib.Path, sink: TextIO | None = None) -> dict[str, PairReport]:
    """Trains (`run.run`) and then scores every held-out source with the model that was exported.

    Args:
        config: of a run with `reward`.
        workdir: a new directory, or that of the same run; `PAIRS_FILE` is written into it.
        sink: what happened, in words; stdout by default.

    Returns:
        A report for each held-out source by its name; empty if the run was stopped before its end.

    Raises:
        UserError: as `run.run`, or the configuration trains no reward model.
    """
    if config.reward is None:
        fix = "take configs/rl/reward_model.py"
        raise mistake("trains no reward model", where="config.reward", expected="a BradleyTerryConfig", fix=fix)
    if not run(config, workdir, sink=sink) or not is_first():
        return {}
    reward = load_reward_model(workdir / MODEL, config.execution.dtype)
    found = {}
    for source in config.evaluation.sources:
        preferences = [record for _, record in read(source) if isinstance(record, Preference)]
        found[source.name] = report = judge_pairs(reward, preferences, config.evaluation.rows)
        print(f"{source.name}: {report.accuracy:.1%} of {report.pairs} pairs ranked right", file=sink or sys.stdout)
    _write(workdir / PAIRS_FILE, found)
    return found


def _write(path: pathlib.Path, found: dict[str, PairReport]) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_text(json.dumps({name: report._asdict() for name, report in found.items()}, indent=1) + "\n")
        os.replace(beside, path)
    except OSError as error:
        raise mistake("cannot be written", where=path, found=error.strerror or error) from error
