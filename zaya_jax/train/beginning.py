"""What a run begins with: fresh weights, another model's, or where it was when it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, NamedTuple, TextIO

import jax

from zaya_jax.checkpoint import load_variables, open_checkpoint, resolve
from zaya_jax.checkpoint.processes import by_first
from zaya_jax.checkpoint.train_state import Checkpoints
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.layout import Variables
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.train.config import RunConfig
from zaya_jax.train.settings import differences
from zaya_jax.train.sharding import Programs, abstract_state
from zaya_jax.train.step import TrainState
from zaya_jax.train.trainer import Trainer

# What a phase may change in a model that it goes on with. (Files of the hub do not say what the skip class gives.)
_MAY_CHANGE = ("full_rope", "sliding_rope", "max_position_embeddings", "skip_output")


class Beginning(NamedTuple):
    """Where a run goes on, or begins.

    Attributes:
        state: with a step of 0 at the very beginning.
        base: the variables that stand still, None if nothing needs them.
        bad_steps: how many there were.
    """

    state: TrainState
    base: Variables | None
    bad_steps: int


def begin(
    config: RunConfig,
    trainer: Trainer,
    programs: Programs,
    checkpoints: Checkpoints,
    allow_older: bool,
    say: TextIO,
) -> Beginning:
    """Restores the newest checkpoint, or makes the first state.

    Raises:
        UserError: `initial` is another architecture or cannot be read, or the newest checkpoint is damaged.
    """
    mesh = trainer.execution.mesh
    base = load_initial(config, trainer.execution.dtype, mesh) if trainer.needs_base else None
    if checkpoints.steps():
        restored = checkpoints.restore(abstract_state(trainer, mesh), allow_older=allow_older)
        for line in restored.skipped:
            print(f"damaged, skipped: {line}", file=say)
        print(f"goes on after step {restored.step:,}", file=say, flush=True)
        return Beginning(restored.state, base, restored.record["bad_steps"])
    if not config.initial:
        return Beginning(programs.init(config.seed), None, 0)
    read = base if trainer.lora else load_initial(config, trainer.execution.exact_dtype.name, mesh)
    return Beginning(programs.start(read, config.seed), base, 0)


def check_initial(config: RunConfig) -> None:
    """Raises a UserError unless the model that a run begins with is there and of its architecture."""
    if not config.initial:
        return
    found = open_checkpoint(resolve(config.initial)).config
    wrong = differences(_architecture(found), _architecture(config.model))
    if wrong:
        shown = ", ".join(f"{key} {old}, in model {new}" for key, (old, new) in wrong.items())
        fix = "give the configuration of that checkpoint"
        raise mistake("is of another architecture", where=config.initial, found=shown, fix=fix)


def check_base(config: RunConfig, digest: str) -> None:
    """Raises a UserError unless `initial` still is the model that adapters were trained on, by its `base_digest`."""
    check_initial(config)
    found = base_digest(config.initial)
    if found != digest:
        what, fix = "is not the model that the adapters were trained on", "bring back what was there"
        expected = f"weights with SHA-256 {digest[:16]}..."
        raise mistake(what, where=config.initial, expected=expected, found=f"{found[:16]}...", fix=fix)


def fingerprint(config: RunConfig, digest: str, needs_base: bool) -> dict[str, Any]:
    """What a run that goes on must find unchanged: its data, and the base that its checkpoints do not hold."""
    return {"data": digest} | ({"base": by_first(lambda: base_digest(config.initial))} if needs_base else {})


def _architecture(model: ModelConfig) -> dict[str, Any]:
    values = json.loads(json.dumps(dataclasses.asdict(model)))
    return {key: value for key, value in values.items() if key not in _MAY_CHANGE}


def load_initial(config: RunConfig, dtype: str, mesh: jax.sharding.Mesh | None) -> Variables:
    """The variables that a run begins with, stacked, on one device or a mesh."""
    shardings = None if mesh is None else slot_sharding(mesh)
    return load_variables(open_checkpoint(resolve(config.initial)), "stacked", dtype, shardings=shardings)


def base_digest(initial: str) -> str:
    """SHA-256 over all weights of a checkpoint."""
    whole = hashlib.sha256()
    for path in sorted(open_checkpoint(resolve(initial)).directory.glob("*.safetensors")):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
