"""What a run of reinforcement learning is: everything that its result depends on, and how it is watched and kept."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

import jax

from zaya_jax.environments.failures import FailureLimit
from zaya_jax.environments.workers import WorkerLimits
from zaya_jax.errors import mistake
from zaya_jax.model.config import ModelConfig
from zaya_jax.model.execution import Execution
from zaya_jax.rl.aggregation import AggregationConfig
from zaya_jax.rl.generation import Decoding
from zaya_jax.rl.learner import Learner
from zaya_jax.rl.losses import ClipConfig, DppoConfig
from zaya_jax.rl.scheduling import Schedule
from zaya_jax.rl.scoring import RewardConfig
from zaya_jax.rl.start_difficulty import Search
from zaya_jax.rl.warnings import Limits
from zaya_jax.train.config import CheckpointPolicy, ExecutionConfig, MeshConfig
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class HeldOutConfig:
    """Looks at problems that the policy never learns from.

    Attributes:
        every: steps between two looks, and one before the first step; 0: none.
        difficulties: fixed ones, the same for every environment.
        problems: of each environment and difficulty, and of each file.
        answers: drawn for each, at temperature 1.
        files: benchmark files (docs/benchmarks.md) that are looked at too, and that nothing is learnt from. Problems of
            sources that are files are learnt from, all of them: there are no looks at those.
    """

    every: int = 0
    difficulties: tuple[int, ...] = (0,)
    problems: int = 8
    answers: int = 4
    files: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "difficulties", tuple(self.difficulties))
        object.__setattr__(self, "files", tuple(self.files))
        if self.every < 0 or min(self.problems, self.answers) < 1 or not self.difficulties:
            raise mistake("out of range", where="held_out", expected="every 0 or more, all others 1 or more")


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Sampling and learning at the same time (report, IV-B1; PipelineRL, arXiv 2509.19128).

    Attributes:
        sync_every: updates between two sets of weights for the engine; 2 in the report.
        staleness: the most updates between the weights that drew a token and those that learn from it; 2 there.
        buffer: groups between engine and learner, at least as many as an update waits for; the oldest leaves when it is
            full.
        batches: of an update's groups that have to be there before it takes one of them; 2 in the report.
        devices: the engine's own, the last of this machine's; the learner's mesh has the others. 0 shares the learner's
            one device.
    """

    sync_every: int = 2
    staleness: int = 2
    buffer: int = 32
    batches: int = 1
    devices: int = 0

    def __post_init__(self):
        for name, least in {"sync_every": 1, "staleness": 0, "buffer": 1, "batches": 1, "devices": 0}.items():
            if getattr(self, name) < least:
                where = f"pipeline.{name}"
                raise mistake("out of range", where=where, expected=f"{least} or more", found=getattr(self, name))
        # The engine's weights themselves would be too old before new ones come.
        if self.sync_every > self.staleness + 1:
            expected = f"{self.staleness + 1} or less, one more than pipeline.staleness"
            raise mistake("would wait for ever", where="pipeline.sync_every", expected=expected, found=self.sync_every)


@dataclasses.dataclass(frozen=True)
class RlConfig:
    """A run.

    Attributes:
        name: of the stage.
        initial: the model to begin with, in the hub's format, with its tokenizer; its architecture is the run's.
        schedule: the environments, how hard their problems are, and in which order they come.
        decoding: how answers are drawn.
        rewards: what they are worth.
        loss: "dppo" or "clip", with the constants of either.
        aggregation: from tokens to a batch.
        optimizer: of the parameters. Muon with momentum 0 in the report.
        balance_rate: of the routers' biases; 0 leaves them as they are.
        steps: updates.
        groups: with signal that an update learns from, as far as `waves` give so many.
        waves: the most rounds of asking before an update. The first asks `groups` problems, a later one
            `oversample` times as many as are missing.
        oversample: see `waves`.
        rows, length: of the learner's batches; a prompt with its answer fits into `length` tokens.
        start: finds the difficulties that environments start at; None starts where the schedule says.
        replay: whether the experts that the engine took are pinned (router replay).
        pipeline: samples while it learns; None does one after the other.
        parity_every: steps between two comparisons of engine and learner on the first batch; 0: none.
        execution: how both compute the model.
        mesh: the devices that the learner is spread over; the engine has the same, or its own (`rl.devices`).
        loss_chunk: tokens whose logits exist at once; 0 is all of them.
        workers: processes that verify.
        limits, failures: of these, and of how often an environment may fail.
        held_out, warnings, checkpoints: how the run is watched and kept.
        export_dtype: of the model that it ends with.
        seed: of problems and answers.
    """

    name: str
    initial: str
    schedule: Schedule
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    rewards: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    loss: Literal["dppo", "clip"] = "dppo"
    dppo: DppoConfig = dataclasses.field(default_factory=DppoConfig)
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    aggregation: AggregationConfig = dataclasses.field(default_factory=AggregationConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig("muon", momentum=0.0))
    balance_rate: float = 0.0
    steps: int = 100
    groups: int = 16
    waves: int = 3
    oversample: float = 1.5
    rows: int = 16
    length: int = 256
    start: Search | None = None
    replay: bool = True
    pipeline: PipelineConfig | None = None
    parity_every: int = 10
    execution: ExecutionConfig = dataclasses.field(default_factory=ExecutionConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    loss_chunk: int = 0
    workers: int = 2
    limits: WorkerLimits = dataclasses.field(default_factory=WorkerLimits)
    failures: FailureLimit = dataclasses.field(default_factory=FailureLimit)
    held_out: HeldOutConfig = dataclasses.field(default_factory=HeldOutConfig)
    warnings: Limits = dataclasses.field(default_factory=Limits)
    checkpoints: CheckpointPolicy = dataclasses.field(default_factory=CheckpointPolicy)
    export_dtype: str = "float32"
    seed: int = 0

    def __post_init__(self):
        if self.loss not in ("dppo", "clip"):
            raise mistake("no such loss", where="loss", expected="dppo or clip", found=repr(self.loss))
        if not self.initial:
            fix = "give initial=DIR, what supervised finetuning ended with"
            raise mistake("no model to begin with", where="initial", expected="a directory", fix=fix)
        least = {"steps": 1, "groups": 1, "waves": 1, "rows": 1, "length": 1, "workers": 1, "parity_every": 0}
        for name, fewest in least.items():
            if getattr(self, name) < fewest:
                raise mistake("out of range", where=name, expected=f"{fewest} or more", found=getattr(self, name))
        if self.oversample < 1:
            raise mistake("out of range", where="oversample", expected="1 or more", found=self.oversample)
        self._check_parts()
        if self.length < self.decoding.capacity - 1:
            fix = "raise length, or lower the budgets of decoding"
            expected = f"{self.decoding.capacity - 1} or more: prompt, reasoning and answer"
            raise mistake("too short for an answer", where="length", expected=expected, found=self.length, fix=fix)

    def _check_parts(self) -> None:
        """What has to go together."""
        waited_for = 0 if self.pipeline is None else self.pipeline.batches * self.groups
        if self.pipeline is not None and self.pipeline.buffer < waited_for:
            expected = f"{waited_for} or more, the groups that an update waits for"
            fix = "raise it, or lower pipeline.batches or groups"
            raise mistake("too small", where="pipeline.buffer", expected=expected, found=self.pipeline.buffer, fix=fix)
        learnt = {_path(name.removeprefix("file:")) for name in self.schedule.names if name.startswith("file:")}
        for file in self.held_out.files:
            if _path(file) in learnt:
                raise mistake("is learnt from", where="held_out.files", expected="a file of no source", found=file)
        window, size = self.schedule.window, self.decoding.group_size
        if self.schedule.rule == "window" and window.group_size != size:
            where, fix = "schedule.window.group_size", "its groups are counted in answers of as many"
            raise mistake("another group size", where=where, expected=size, found=window.group_size, fix=fix)

    def learner(self, model: ModelConfig, mesh: jax.sharding.Mesh | None = None) -> Learner:
        """What updates are made of, on a mesh or one device."""
        execution = Execution(**dataclasses.asdict(self.execution), mesh=mesh)
        trainer = Trainer(model, execution, self.optimizer, self.balance_rate, loss_chunk=self.loss_chunk)
        return Learner(trainer, self.dppo if self.loss == "dppo" else self.clip, self.aggregation)


def _path(file: str) -> pathlib.Path:
    return pathlib.Path(file).expanduser().resolve()
