"""A run that kills itself where it is told to: `python -m tests.rl.killed CONFIG WORKDIR PLACE COUNT`."""

import json
import os
import pathlib
import signal
import sys

import jax

from zaya_jax.checkpoint import train_state
from zaya_jax.rl import learner
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.run import run
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.prefixes import Prefixes
from zaya_jax.train.settings import from_dict


def half_of_a_wave(engine, *_):
    """Some answers of the second step are drawn, others have begun."""
    return engine.version == 1 and engine.busy


# Place -> what is called there, whether it has run by then, and which of the calls count.
PLACES = {
    "rollout": (Engine, "step", True, half_of_a_wave),
    "update": (learner, "update", False, None),  # all batches are added up
    "sync": (Prefixes, "clear", False, None),  # in the middle of Engine.update_weights
    "checkpoint": (train_state, "seal", False, None),  # the arrays are written, what says so is not
    "publish": (train_state.step_directories, "publish", False, None),  # whole, but without its name
}


def arm(workdir: pathlib.Path, place: str, count: int) -> None:
    """The `count`-th of the calls ends this process."""
    owner, name, behind, counts = PLACES[place]
    original, left = getattr(owner, name), [count]

    def deadly(*arguments, **options):
        result = original(*arguments, **options) if behind else None
        if counts is None or counts(*arguments):
            left[0] -= 1
        if not left[0]:
            (workdir / f"killed in {place}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result if behind else original(*arguments, **options)

    setattr(owner, name, deadly)


def main(config: str, workdir: str, place: str, count: str) -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    arm(pathlib.Path(workdir), place, int(count))
    run(from_dict(RlConfig, json.loads(config)), pathlib.Path(workdir))


if __name__ == "__main__":
    main(*sys.argv[1:])
