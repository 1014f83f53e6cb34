"""What a training step is made of."""

from __future__ import annotations

import dataclasses
from typing import Literal

from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.lora import LoraConfig
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.preference import DpoConfig
from zaya_jax.train.reward_model import BradleyTerryConfig


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What a step is made of. Hashable: a static argument.

    Attributes:
        model: the architecture.
        execution: how it is computed. The state is stacked whatever its layout: few large arrays for the optimizer. An
            unstacked step of a hundred experts compiles for minutes (`docs/performance.md`).
        optimizer: of the parameters, or of the adapters.
        balance_rate: learning rate of the router biases.
        skip: whether the skip class's bias stays where it is, "frozen", or is "balanced" like an expert's.
        loss_chunk: tokens of a device whose logits exist at once; 0 is all of them.
        lora: trains adapters beside a base that stands still; None trains the parameters.
        dpo: the loss is on pairs of answers, against the base; None: cross-entropy.
        reward: the loss is on the scores of pairs of answers: a reward model is trained; None: a language model.
    """

    model: ModelConfig
    execution: Execution
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    balance_rate: float = 1e-3
    skip: Literal["frozen", "balanced"] = "frozen"
    loss_chunk: int = 0
    lora: LoraConfig | None = None
    dpo: DpoConfig | None = None
    reward: BradleyTerryConfig | None = None

    @property
    def on_pairs(self) -> bool:
        """Whether the loss is one of pairs of answers."""
        return self.dpo is not None or self.reward is not None

    @property
    def needs_base(self) -> bool:
        """Whether a step reads variables that stand still: those that the run began with."""
        return self.lora is not None or self.dpo is not None
