"""Optimizers whose treatment of each weight comes from the table of weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import optax
from optax import contrib

from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Layout
from zaya_jax.model.layout import build


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How weights are trained.

    Attributes:
        name: "adamw" for everything, or "muon" for the matrices and AdamW with Nesterov momentum for the rest.
        learning_rate: the peak; Muon's updates are scaled to AdamW's size (RMS 0.2), so that one rate serves both.
        warmup: share of the run that the rate takes to rise from 0.
        final: share of the peak at the end of the cosine.
        b1, b2, epsilon: AdamW's.
        weight_decay: of the matrices (those the table gives to Muon); nothing else decays.
        momentum: Muon's.
        clip: largest global norm of the gradient.
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


def learning_rate(config: OptimizerConfig, progress: float) -> float:
    """The rate at a point of the run, 0 <= progress <= 1: linear warmup, then half a cosine down to `final`."""
    if progress < config.warmup:
        return config.learning_rate * progress / config.warmup
    rest = min((progress - config.warmup) / (1 - config.warmup), 1.0)
    low = config.final
    return config.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * rest)) / 2)


def optimizer(config: OptimizerConfig, model: ModelConfig, layout: Layout) -> optax.GradientTransformation:
    """Clipping and the update for a learning rate of 1; the step multiplies it by the rate of the moment."""
    choices = {"adamw": _adamw, "muon": _muon}
    if config.name not in choices:
        raise mistake("unknown optimizer", where="name", expected=sorted(choices), found=repr(config.name))
    return optax.chain(optax.clip_by_global_norm(config.clip), choices[config.name](config, model, layout))


def is_matrix(model: ModelConfig, layout: Layout) -> Any:
    """True for the weights that the table gives to Muon, in the tree of the layout's `params`."""
    return build(model, layout, lambda slot: slot.weight.update == "muon")["params"]


def _adamw(config: OptimizerConfig, model: ModelConfig, layout: Layout) -> optax.GradientTransformation:
    return optax.adamw(
        1.0,
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=is_matrix(model, layout),
    )


def _muon(config: OptimizerConfig, model: ModelConfig, layout: Layout) -> optax.GradientTransformation:
    matrix = contrib.MuonDimensionNumbers(reduction_axis=-1, output_axis=-2)  # [..., out, in]
    return contrib.muon(
        1.0,
        beta=config.momentum,
        adam_b1=config.b1,
        adam_b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=jax.tree.map(lambda yes: matrix if yes else None, is_matrix(model, layout)),
    )
