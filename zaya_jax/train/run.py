"""A training run from its configuration to an exported model; killed at any moment, it goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TextIO

import jax

from zaya_jax.checkpoint.processes import by_first, is_first
from zaya_jax.checkpoint.train_state import Checkpoints
from zaya_jax.data.dataset import Dataset, open_dataset
from zaya_jax.errors import mistake
from zaya_jax.model.lora import lora_slots
from zaya_jax.model.weights import count_active_parameters, count_parameters
from zaya_jax.parallel import check_columns, check_rows
from zaya_jax.report.metrics import MetricsWriter
from zaya_jax.report.progress import Progress
from zaya_jax.report.sinks import check_sinks, sinks
from zaya_jax.text.tokenizer import Tokenizer
from zaya_jax.train import workdir as place
from zaya_jax.train.beginning import Beginning, begin, check_initial, fingerprint
from zaya_jax.train.config import RunConfig
from zaya_jax.train.exporting import open_tokenizer, save_model
from zaya_jax.train.held_out import HeldOut, open_held_out
from zaya_jax.train.plan_work import model_flops_per_token
from zaya_jax.train.records import Records
from zaya_jax.train.samples import open_prompts
from zaya_jax.train.settings import to_json
from zaya_jax.train.sharding import programs
from zaya_jax.train.steps import Work, conclude, make_steps
from zaya_jax.train.stopping import BadSteps


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run is started this time; nothing that it computes depends on it.

    Attributes:
        allow_older: goes on from the newest undamaged checkpoint if the newest is damaged.
        profile: steps to record for XProf, in the directory `profile`; 0: none.
        sinks: "tensorboard", "wandb", beside metrics.jsonl.
    """

    allow_older: bool = False
    profile: int = 0
    sinks: tuple[str, ...] = ()


def run(config: RunConfig, workdir: pathlib.Path, options: Options = Options(), sink: TextIO | None = None) -> bool:
    """Trains, or goes on with what is in `workdir`. With several processes, all call this alike.

    Args:
        config: of the run.
        workdir: a new directory, or that of the same run; one that all processes see.
        options: of this start.
        sink: what happened, in words; stdout by default.

    Returns:
        Whether the last step was made; False if a signal or the wall clock came before it, with a checkpoint.

    Raises:
        UserError: the configuration, the data or the directory are not right, or the loss is not finite any more.
    """
    check_sinks(options.sinks)
    mesh = config.mesh.make()
    trainer = config.trainer(mesh)
    inputs = _open_inputs(config, mesh)
    by_first(lambda: place.claim(workdir, config))
    _check_same_data(inputs.dataset)
    told, policy = fingerprint(config, inputs.dataset.digest, trainer.needs_base), config.checkpoints
    keep = {"keep_last": policy.keep_last, "keep_every": policy.keep_every or None, "fingerprint": told}
    with _voice(sink) as say, Checkpoints(workdir / place.CHECKPOINTS, **keep) as checkpoints:
        made = programs(trainer, mesh)
        begun = begin(config, trainer, made, checkpoints, options.allow_older, say)
        work = Work(
            config=config,
            trainer=trainer,
            programs=made,
            base=begun.base,
            dataset=inputs.dataset,
            held_out=inputs.held_out,
            prompts=open_prompts(config.samples, inputs.tokenizer, mesh) if config.samples.every else None,
            tokenizer=inputs.tokenizer,
            checkpoints=checkpoints,
            profile=(workdir / place.PROFILE, options.profile) if options.profile else None,
        )
        step = int(begun.state.step)
        if step < config.steps or not (workdir / place.MODEL).exists():
            step = _train(work, begun, inputs, workdir, options, say)
        _tell(config, workdir, step, say)
    return step == config.steps


class _Inputs(NamedTuple):
    """What a run reads."""

    tokenizer: Tokenizer
    tokenizer_files: Mapping[str, bytes]
    dataset: Dataset
    held_out: tuple[HeldOut, ...]


def _open_inputs(config: RunConfig, mesh: jax.sharding.Mesh | None) -> _Inputs:
    """Opens everything, and finds what would otherwise come to light when the run has begun."""
    if mesh is not None:
        check_rows(mesh, config.rows, *([config.evaluation.rows] if config.evaluation.sources else []))
        check_columns(mesh, config.data.length)
    if config.lora is not None:
        lora_slots(config.model, config.lora)
    tokenizer, files = open_tokenizer(config.tokenizer)
    _check_vocabulary(config, tokenizer)
    check_initial(config)
    return _Inputs(tokenizer, files, open_dataset(config.data, tokenizer), open_held_out(config, tokenizer))


def _check_same_data(dataset: Dataset) -> None:
    if by_first(lambda: dataset.digest) != dataset.digest:
        fix = "give all processes the same files, and the same Python"
        raise mistake("this process reads other data than the first one", where="data.sources", fix=fix)


def _train(work: Work, begun: Beginning, inputs: _Inputs, workdir: pathlib.Path, options: Options, say: TextIO) -> int:
    """Makes the steps, and with the last one the model; returns the last step that was made."""
    config, start = work.config, int(begun.state.step)
    with _records(config, workdir, options, start) as (metrics, examples):
        metrics.write(**_start_record(config, start, work.trainer.execution.mesh))
        work = dataclasses.replace(work, metrics=metrics, examples=examples)
        with Progress("train", config.steps, "steps", stream=None if is_first() else say) as progress:
            state = make_steps(work, begun.state, BadSteps(config.bad_steps, begun.bad_steps), progress)
        done = int(state.step) == config.steps
        for line in conclude(work, state) if done else ():
            print(line, file=say)
    if done:
        files, target = inputs.tokenizer_files, workdir / place.MODEL
        save_model(target, work.trainer, work.tokenizer, files, state.variables, work.base, config.export_dtype)
    return int(state.step)


@contextlib.contextmanager
def _voice(sink: TextIO | None) -> Iterator[TextIO]:
    """Where words go: the first process speaks for all."""
    if is_first():
        yield sink or sys.stdout
        return
    with open(os.devnull, "w") as nowhere:
        yield nowhere


@contextlib.contextmanager
def _records(
    config: RunConfig, workdir: pathlib.Path, options: Options, start: int
) -> Iterator[tuple[Records, Records]]:
    """Metrics, and the examples of each step. The first process writes them; if it cannot, all end."""
    opened: list[tuple[Any, ...]] = []

    def open_all() -> None:
        again = (workdir / place.METRICS).exists()
        others = sinks(options.sinks, workdir, to_json(config), start if again else None)
        opened.append((MetricsWriter(workdir / place.METRICS, resume_step=start), *others))
        opened.append((MetricsWriter(workdir / place.EXAMPLES, resume_step=start),))

    by_first(open_all)
    with contextlib.ExitStack() as stack:
        for writer in itertools.chain(*opened):
            stack.enter_context(contextlib.closing(writer))
        metrics, examples = opened or ((), ())
        yield Records(metrics), Records(examples)


def _start_record(config: RunConfig, step: int, mesh: jax.sharding.Mesh | None) -> dict[str, Any]:
    return {
        "kind": "start",
        "time": time.time(),
        "config": to_json(config),
        "parameters": count_parameters(config.model),
        "active_parameters": count_active_parameters(config.model),
        "flops_per_token": model_flops_per_token(config.model, config.data.length),
        "devices": 1 if mesh is None else mesh.size,
        "device_kind": jax.devices()[0].device_kind,
        "mesh": {} if mesh is None else dict(mesh.shape),
        "processes": jax.process_count(),
        "resumed_from": step or None,
        "rows": config.rows,
        "length": config.data.length,
        "accumulate": config.accumulate,
    }


def _check_vocabulary(config: RunConfig, tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    if size > config.model.vocab_size:
        fix = "choose the tokenizer of this model"
        found = f"{size} tokens in {config.tokenizer}"
        raise mistake("too small for the tokenizer", where="model.vocab_size", expected=found, fix=fix)


def _tell(config: RunConfig, workdir: pathlib.Path, step: int, say: TextIO) -> None:
    if step == config.steps:
        print(f"done: {step:,} steps; the model is in {workdir / place.MODEL}", file=say)
    else:
        print(f"stopped after step {step:,} of {config.steps:,}; the same command goes on from there", file=say)
