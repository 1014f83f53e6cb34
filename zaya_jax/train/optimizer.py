"""Optimizers whose treatment of each weight comes from the table of weights."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Layout
from zaya_jax.model.layout import Slot, build
from zaya_jax.model.sharding import slot_sharding
from zaya_jax.train.muon import Matrices, scale_by_muon
from zaya_jax.train.schedule import DECAYS, learning_rate
from zaya_jax.train.zero import memory_sharding, split_memories

__all__ = ["OptimizerConfig", "is_matrix", "learning_rate", "memory_shardings", "optimizer"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How weights are trained.

    Attributes:
        name: "adamw" for everything, or "muon" for the matrices and AdamW with Nesterov momentum for the rest.
        learning_rate: the peak; Muon's updates are scaled to AdamW's size (RMS 0.2), so that one rate serves both.
        warmup: share of the run that the rate takes to rise to the peak.
        final: share of the peak at the end of the decay.
        b1, b2, epsilon: AdamW's; Muon adds the same epsilon to its norms.
        weight_decay: of the matrices (those the table gives to Muon); nothing else decays. Times the learning rate.
        momentum: Muon's; with 0 it remembers nothing, and no memory is allocated (reinforcement learning).
        clip: largest global norm of the gradient; infinity for any.
        decay, warmup_steps, start: see `schedule.Schedule`.
        newton_schulz_dtype: type of Muon's iteration; "exact" is the gradient's, "bfloat16" is what GPUs are fast at.
        zero1: on a mesh, whether memories are split further than their weights (`zero.memory_spec`).

    Raises:
        UserError: a value is impossible.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-3
    warmup: float = 0.05
    final: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.95
    clip: float = 1.0
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int | None = None
    start: float = 0.0
    newton_schulz_dtype: Literal["exact", "bfloat16"] = "exact"
    zero1: bool = True

    def __post_init__(self):
        choices = {"name": ("adamw", "muon"), "decay": DECAYS, "newton_schulz_dtype": ("exact", "bfloat16")}
        for name, expected in choices.items():
            if getattr(self, name) not in expected:
                found = repr(getattr(self, name))
                raise mistake("unknown choice", where=f"OptimizerConfig.{name}", expected=expected, found=found)
        for name, (good, expected) in self._limits().items():
            if not good:
                found = getattr(self, name)
                raise mistake("out of range", where=f"OptimizerConfig.{name}", expected=expected, found=found)

    def _limits(self) -> dict[str, tuple[bool, str]]:
        shares = {name: (0 <= getattr(self, name) <= 1, "0 to 1") for name in ("warmup", "final")}
        decays = {name: (0 <= getattr(self, name) < 1, "0 or more, below 1") for name in ("b1", "b2", "momentum")}
        sizes = {name: (getattr(self, name) >= 0, "0 or more") for name in ("learning_rate", "weight_decay", "start")}
        steps = {"warmup_steps": (self.warmup_steps is None or self.warmup_steps >= 0, "None, or 0 or more")}
        return shares | decays | sizes | steps | {"clip": (self.clip > 0, "a positive number")}


def optimizer(
    config: OptimizerConfig, model: ModelConfig, layout: Layout, mesh: jax.sharding.Mesh | None = None
) -> optax.GradientTransformation:
    """Clipping and the update for a learning rate of 1; the step multiplies it by the rate of the moment.

    Args:
        config: how.
        model: whose weights.
        layout: of the trees it will be given.
        mesh: the devices that the weights lie on by `model.sharding`; gradients come and updates leave like that.
            Each device then orthogonalises matrices of its own. None is one device.
    """
    matrices = is_matrix(model, layout)
    direction = _muon(config, model, layout, mesh) if config.name == "muon" else _adam(config)
    if mesh is not None:
        home = build(model, layout, slot_sharding(mesh))["params"]
        direction = split_memories(direction, memory_shardings(config, model, layout, mesh), home)
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        direction,
        optax.add_decayed_weights(config.weight_decay, mask=matrices),
        optax.scale(-1.0),
    )


def is_matrix(model: ModelConfig, layout: Layout) -> Any:
    """True for the weights that the table gives to Muon, in the tree of the layout's `params`."""
    return build(model, layout, lambda slot: slot.weight.update == "muon")["params"]


def memory_shardings(config: OptimizerConfig, model: ModelConfig, layout: Layout, mesh: jax.sharding.Mesh) -> Any:
    """Where what is remembered of each weight lies, in the tree of the layout's `params`."""
    place = memory_sharding(mesh, config.name == "muon") if config.zero1 else slot_sharding(mesh)
    return build(model, layout, place)["params"]


def _adam(config: OptimizerConfig, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon, nesterov=nesterov)


def _muon(config: OptimizerConfig, model: ModelConfig, layout: Layout, mesh) -> optax.GradientTransformation:
    def matrices(slot: Slot) -> Matrices:
        return Matrices(slot.weight.matrices, None if mesh is None else memory_sharding(mesh, muon=True)(slot))

    table = build(model, layout, matrices)["params"]
    dtype = None if config.newton_schulz_dtype == "exact" else jnp.bfloat16
    by_label = {"muon": scale_by_muon(table, config.momentum, dtype, config.epsilon), "adamw": _adam(config, True)}
    return optax.partition(by_label, build(model, layout, lambda slot: slot.weight.update)["params"])
