"""What a training run is: everything that its result depends on, and how it is watched and kept."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.settings import differences
from zaya_jax.train.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """How the model is computed; see `Execution`."""

    dtype: str = "float32"
    attention: str = "auto"
    cca: str = "auto"
    experts: str = "auto"
    remat: str = "none"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Looks at held-out data.

    Attributes:
        every: steps between two looks; 0 is only at the end.
        sources: what is held out; none: no looks.
        rows: of a batch.
        batches: of a look, at most; 0 is all. The last look, at the end of the run, always takes all.
    """

    every: int = 0
    sources: tuple[SourceConfig, ...] = ()
    rows: int = 8
    batches: int = 8


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """When checkpoints are written and how many stay: the newest `keep_last`, and all of a multiple of `keep_every`."""

    every: int = 100
    keep_last: int = 3
    keep_every: int = 0


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A training run.

    Attributes:
        name: of the phase.
        model: the architecture.
        data: what is trained on, and the length of a window.
        tokenizer: "bytes", or a directory that holds one.
        initial: a checkpoint in the hub's format to start from; "" draws fresh weights.
        optimizer, balance_rate, skip: see `Trainer`.
        rows: B, of all devices together; `accumulate` batches of them make a step.
        loss_chunk: tokens whose logits exist at once; 0 is all.
        steps: of the run.
        seed: of the fresh weights.
        execution: how it is computed.
        seconds: of wall clock after which the run stops with a checkpoint; 0 is no limit.
        bad_steps: not finite, in a row, that end the run.
        evaluation, checkpoints: see there.
        log_every: steps between two records of metrics.

    Raises:
        UserError: a value is impossible.
    """

    name: str
    model: ModelConfig
    data: DataConfig
    tokenizer: str = "bytes"
    initial: str = ""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    balance_rate: float = 1e-3
    skip: Literal["frozen", "balanced"] = "frozen"
    rows: int = 8
    accumulate: int = 1
    loss_chunk: int = 0
    steps: int = 100
    seed: int = 0
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)
    seconds: float = 0.0
    bad_steps: int = 10
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
    checkpoints: CheckpointPolicy = dataclasses.field(default_factory=CheckpointPolicy)
    log_every: int = 1

    def __post_init__(self):
        for name in ("rows", "accumulate", "steps", "bad_steps", "log_every"):
            if getattr(self, name) < 1:
                raise mistake("out of range", where=name, expected="a positive integer", found=getattr(self, name))
        for name in ("loss_chunk", "seed", "seconds", "balance_rate"):
            if not getattr(self, name) >= 0:
                raise mistake("out of range", where=name, expected="0 or more", found=getattr(self, name))
        if self.skip not in ("frozen", "balanced"):
            raise mistake("unknown choice", where="skip", expected="frozen or balanced", found=repr(self.skip))

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step, padding among them."""
        return self.rows * self.accumulate * self.data.length

    @property
    def trainer(self) -> Trainer:
        """What the steps are made of."""
        execution = Execution(**dataclasses.asdict(self.execution))
        return Trainer(self.model, execution, self.optimizer, self.balance_rate, self.skip, self.loss_chunk)


# What may change when a run goes on: it changes nothing that the run computes but rounding.
OPERATIONAL = ("seconds", "evaluation", "checkpoints", "log_every", "bad_steps", "data.cache")
_OPERATIONAL_PREFIXES = tuple(f"{key}." for key in OPERATIONAL)


def conflicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What makes a configuration another run's: differing keys that are not operational."""
    found = differences(old, new)
    return {key: pair for key, pair in found.items() if not f"{key}.".startswith(_OPERATIONAL_PREFIXES)}
