"""What a training run is: everything that its result depends on, and how it is watched and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax

from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import PAIRS, SourceConfig
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.model.lora import LoraConfig
from zaya_jax.parallel import make_mesh
from zaya_jax.train import settings
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.preference import DpoConfig
from zaya_jax.train.reward_model import BradleyTerryConfig
from zaya_jax.train.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """How the model is computed; see `Execution`."""

    dtype: str = "float32"
    attention: str = "auto"
    cca: str = "auto"
    experts: str = "auto"
    remat: str = "none"
    dispatch: str = "auto"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh (`parallel.make_mesh`); -1 is all that the others leave."""

    data: int = -1
    fsdp: int = 1
    expert: int = 1
    context: int = 1

    def make(self, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh | None:
        """The mesh; None for one device. Raises a UserError where the sizes do not fit the devices, by default all."""
        mesh = make_mesh(devices, **dataclasses.asdict(self))
        return mesh if mesh.size > 1 else None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Looks at held-out data.

    Attributes:
        every: steps between two looks; 0 is only at the end.
        sources: what is held out; none: no looks.
        rows: of a batch.
        batches: of a look, at most; 0 is all. The last look, at the end of the run, always takes all.
        ngram: order of a byte n-gram model that is counted on the sources of the run, all texts, and held against the
            last look (`data.ngram`); 0: none. 10 MB take a second and 300 MB of memory.
    """

    every: int = 0
    sources: tuple[SourceConfig, ...] = ()
    rows: int = 8
    batches: int = 8
    ngram: int = 0

    def __post_init__(self):
        object.__setattr__(self, "sources", tuple(self.sources))
        limits = {"every": (0, None), "rows": (1, None), "batches": (0, None), "ngram": (0, 7)}
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                expected = f"{least} or more" if most is None else f"{least} to {most}"
                raise mistake("out of range", where=f"evaluation.{name}", expected=expected, found=value)


@dataclasses.dataclass(frozen=True)
class Samples:
    """Continuations of prompts, written down and shown while the model learns.

    Attributes:
        every: steps between two; 0: none.
        prompts: what is continued.
        tokens: of a continuation.
        temperature: 0 takes the likeliest token.
    """

    every: int = 0
    prompts: tuple[str, ...] = ()
    tokens: int = 48
    temperature: float = 0.8

    def __post_init__(self):
        object.__setattr__(self, "prompts", tuple(self.prompts))
        if self.every and not (self.prompts and all(self.prompts)):
            raise mistake("nothing to continue", where="samples.prompts", expected="at least one prompt, none empty")
        if self.every < 0 or self.tokens < 1 or not self.temperature >= 0:
            raise mistake("out of range", where="samples", expected="0 or more, and at least one token")


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
        initial: a checkpoint in the hub's format to start from; "" draws fresh weights. Its architecture must be that
            of `model`, but for the base of the rotary embedding and the longest position, which phases change.
        optimizer, balance_rate, skip, lora, dpo, reward: see `Trainer`. Adapters and `dpo` need `initial`.
        rows: B, of all devices together; `accumulate` batches of them make a step.
        loss_chunk: tokens whose logits exist at once; 0 is all.
        steps: of the run.
        seed: of the fresh weights.
        execution: how it is computed.
        mesh: the devices that it is spread over.
        seconds: of wall clock after which the run stops with a checkpoint; 0 is no limit.
        bad_steps: not finite, in a row, that end the run.
        evaluation, samples, checkpoints: see there.
        export_dtype: of the model in the hub's format, "float32" or "bfloat16".
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
    lora: LoraConfig | None = None
    dpo: DpoConfig | None = None
    reward: BradleyTerryConfig | None = None
    rows: int = 8
    accumulate: int = 1
    loss_chunk: int = 0
    steps: int = 100
    seed: int = 0
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    seconds: float = 0.0
    bad_steps: int = 10
    evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
    samples: Samples = dataclasses.field(default_factory=Samples)
    checkpoints: CheckpointPolicy = dataclasses.field(default_factory=CheckpointPolicy)
    export_dtype: str = "float32"
    log_every: int = 1

    def __post_init__(self):
        for name in ("rows", "accumulate", "steps", "bad_steps", "log_every"):
            if getattr(self, name) < 1:
                raise mistake("out of range", where=name, expected="a positive integer", found=getattr(self, name))
        if self.seed >= 2**31:
            raise mistake("out of range", where="seed", expected="below 2^31", found=self.seed)
        for name in ("loss_chunk", "seed", "seconds", "balance_rate"):
            if not getattr(self, name) >= 0:
                raise mistake("out of range", where=name, expected="0 or more", found=getattr(self, name))
        if self.skip not in ("frozen", "balanced"):
            raise mistake("unknown choice", where="skip", expected="frozen or balanced", found=repr(self.skip))
        if self.data.length > self.model.max_position_embeddings:
            expected = f"at most {self.model.max_position_embeddings}, model.max_position_embeddings"
            raise mistake("a window is longer than the model's positions", where="data.length", expected=expected)
        self._check_stage()

    def _check_stage(self) -> None:
        if (self.lora or self.dpo) and not self.initial:
            fix = "set --config.initial to a checkpoint's directory"
            raise mistake("adapters and preferences need a model to begin with", where="initial", fix=fix)
        preferences = [source.name for source in self.data.sources if source.kind in PAIRS]
        if (self.dpo or self.reward) and len(preferences) < len(self.data.sources):
            raise mistake("not preferences", where="data.sources", expected='kind "preference" of every source')
        if preferences and not (self.dpo or self.reward):
            fix = "set dpo or reward, or take another source"
            raise mistake("preferences without a loss on pairs", where="data.sources", found=preferences[0], fix=fix)
        others = [name for name in ("dpo", "lora") if getattr(self, name)] + ["samples"] * bool(self.samples.every)
        if self.reward and others:
            fix = "leave it out: a reward model is trained whole, and writes nothing"
            raise mistake(f"goes not together with {others[0]}", where="reward", fix=fix)
        if self.lora and self.optimizer.name != "adamw":
            found = repr(self.optimizer.name)
            raise mistake("adapters are trained by AdamW", where="optimizer.name", expected="'adamw'", found=found)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step, padding among them."""
        return self.rows * self.accumulate * self.data.length

    def trainer(self, mesh: jax.sharding.Mesh | None = None) -> Trainer:
        """What the steps are made of, on a mesh or one device."""
        return Trainer(
            self.model,
            Execution(**dataclasses.asdict(self.execution), mesh=mesh),
            self.optimizer,
            self.balance_rate,
            self.skip,
            self.loss_chunk,
            self.lora,
            self.dpo,
            self.reward,
        )


# What may change when a run goes on: it changes nothing that the run computes but rounding.
OPERATIONAL = (
    "seconds",
    "evaluation",
    "samples",
    "checkpoints",
    "export_dtype",
    "log_every",
    "bad_steps",
    "data.cache",
    "mesh",
    "execution.attention",
    "execution.cca",
    "execution.experts",
    "execution.remat",
    "execution.dispatch",
    "loss_chunk",
)


def conflicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What makes a configuration another run's: differing keys that are not operational.

    Rows may be taken in other portions, as long as a step has the same ones.
    """
    return settings.conflicts(old, new, OPERATIONAL + (("rows", "accumulate") if _rows(old) == _rows(new) else ()))


def _rows(config: dict[str, Any]) -> int:
    return config.get("rows", 0) * config.get("accumulate", 1)
