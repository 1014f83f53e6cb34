"""The page of runs, whatever they are of: training or reinforcement learning."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from zaya_jax.errors import mistake
from zaya_jax.report import training
from zaya_jax.report.rl_page import write_rl_report
from zaya_jax.report.rl_run import is_rl_run


def write_report(
    workdirs: Sequence[pathlib.Path | str], output: pathlib.Path | str, png: bool = False
) -> list[pathlib.Path]:
    """Reads runs of one kind and writes their page; gives the files.

    Raises:
        UserError: runs of both kinds, pictures of reinforcement learning, or as `training.write_report`.
    """
    learnt = [is_rl_run(workdir) for workdir in workdirs]
    if not any(learnt):
        return training.write_report(workdirs, output, png)
    if not all(learnt):
        other = workdirs[learnt.index(False)]
        raise mistake("runs of training and of reinforcement learning", where=other, fix="give those of one kind")
    if png:
        raise mistake(
            "no pictures of reinforcement learning", where="--png", fix="leave it out; the page has the curves"
        )
    return [write_rl_report(workdirs, output)]
