"""A training run from its configuration to an exported model; killed at any moment, it goes on where it was."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import Any, NamedTuple, TextIO

import jax
import numpy as np

import zaya_jax
from zaya_jax.checkpoint.train_state import Checkpoints
from zaya_jax.data.batch import Batch
from zaya_jax.data.dataset import Dataset, open_dataset, prefetched
from zaya_jax.errors import mistake
from zaya_jax.model.weights import count_active_parameters, count_parameters
from zaya_jax.report.metrics import MetricsWriter
from zaya_jax.report.progress import Progress
from zaya_jax.text.tokenizer import Tokenizer
from zaya_jax.train import workdir as place
from zaya_jax.train.config import RunConfig
from zaya_jax.train.exporting import open_tokenizer, save_model
from zaya_jax.train.held_out import HeldOut, look, open_held_out
from zaya_jax.train.optimizer import learning_rate
from zaya_jax.train.plan_work import model_flops_per_token
from zaya_jax.train.settings import to_dict
from zaya_jax.train.step import TrainState, init_state, start_from, train_step
from zaya_jax.train.stopping import BadSteps, asked_to_stop
from zaya_jax.train.trainer import Trainer
from zaya_jax.train.watch import Finished, Watch


class _Files(NamedTuple):
    """What a run writes to."""

    checkpoints: Checkpoints
    metrics: MetricsWriter
    examples: MetricsWriter


def run(config: RunConfig, workdir: pathlib.Path, allow_older: bool = False, sink: TextIO | None = None) -> bool:
    """Trains, or goes on with what is in `workdir`.

    Args:
        workdir: a new directory, or that of the same run.
        allow_older: goes on from the newest undamaged checkpoint if the newest is damaged.
        sink: what happened, in words; stdout by default.

    Returns:
        Whether the last step was made; False if a signal or the wall clock came before it, with a checkpoint.

    Raises:
        UserError: the configuration, the data or the directory are not right, or the loss is not finite any more.
    """
    tokenizer, tokenizer_files = open_tokenizer(config.tokenizer)
    _check_vocabulary(config, tokenizer)
    dataset, held_out = open_dataset(config.data, tokenizer), open_held_out(config, tokenizer)
    place.claim(workdir, config)
    say = sink or sys.stdout
    policy, fingerprint = config.checkpoints, {"data": dataset.digest}
    trainer = config.trainer
    with Checkpoints(
        workdir / place.CHECKPOINTS,
        keep_last=policy.keep_last,
        keep_every=policy.keep_every or None,
        fingerprint=fingerprint,
    ) as checkpoints:
        state, bad = _begin(config, trainer, checkpoints, allow_older, say)
        start = int(state.step)
        if start == config.steps and (workdir / place.MODEL).exists():
            _tell(config, workdir, start, say)
            return True
        metrics_file = MetricsWriter(workdir / place.METRICS, resume_step=start)
        with metrics_file as metrics, MetricsWriter(workdir / place.EXAMPLES, resume_step=start) as examples:
            metrics.write(**_start_record(config, start))
            files = _Files(checkpoints, metrics, examples)
            state = _steps(config, trainer, state, dataset, held_out, files, BadSteps(config.bad_steps, bad))
            done = int(state.step) == config.steps
            if done:
                _evaluate(trainer, state, held_out, 0, metrics)
    if done:
        save_model(workdir / place.MODEL, config.model, tokenizer, tokenizer_files, state.variables)
    _tell(config, workdir, int(state.step), say)
    return done


def _begin(config: RunConfig, trainer: Trainer, checkpoints: Checkpoints, allow_older: bool, say: TextIO):
    """The state to go on with, and how many bad steps were behind it."""
    if checkpoints.steps():
        like = jax.eval_shape(lambda: init_state(trainer, jax.random.key(config.seed)))
        restored = checkpoints.restore(like, allow_older=allow_older)
        for line in restored.skipped:
            print(f"damaged, skipped: {line}", file=say)
        print(f"goes on after step {restored.step:,}", file=say, flush=True)
        return restored.state, restored.record["bad_steps"]
    if config.initial:
        _, variables, _ = zaya_jax.load(config.initial, trainer.execution.exact_dtype.name, "stacked")
        return start_from(trainer, variables), 0
    return init_state(trainer, jax.random.key(config.seed)), 0


def _steps(
    config: RunConfig,
    trainer: Trainer,
    state: TrainState,
    dataset: Dataset,
    held_out: tuple[HeldOut, ...],
    files: _Files,
    bad: BadSteps,
) -> TrainState:
    """The loop. A step's metrics are read when the next step is under way, so that the device never waits for it."""
    first, started = int(state.step), time.monotonic()
    feed = prefetched(dataset, first, config.rows, config.accumulate)
    with asked_to_stop() as asked, Progress("train", config.steps, "steps") as progress:
        watch = Watch(config, first, files.metrics, files.examples, progress, bad)
        try:
            for step in range(first + 1, config.steps + 1):
                with watch.elsewhere():
                    _, batch, ids = next(feed)
                rate = learning_rate(config.optimizer, (step - 1) / config.steps, config.steps)
                with jax.transfer_guard("disallow"):  # nothing may wait for the device in here unnoticed
                    state, metrics = train_step(trainer, state, *_to_device(batch, rate))
                watch.record_last()
                watch.last = Finished(step, rate, metrics, ids)
                over = config.seconds > 0 and time.monotonic() - started > config.seconds
                stop = asked.is_set() or over or step == config.steps
                if _due(config.evaluation.every, step) and step < config.steps:
                    watch.record_last()  # the last step is not over before: its time is not the look's
                    with watch.elsewhere():
                        _evaluate(trainer, state, held_out, config.evaluation.batches, files.metrics)
                if stop or _due(config.checkpoints.every, step):
                    watch.record_last()  # a checkpoint's step is on record before it, and no bad step is forgotten
                    with watch.elsewhere():
                        _save(files, step, state, bad)
                if stop:
                    break
        finally:
            feed.close()
    files.checkpoints.wait()
    return state


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _to_device(batch: Batch, rate: float) -> tuple[Batch, jax.Array]:
    return jax.device_put(batch), jax.device_put(np.float32(rate))


def _save(files: _Files, step: int, state: TrainState, bad: BadSteps) -> None:
    start = time.monotonic()
    files.checkpoints.save(step, state, {"bad_steps": bad.total})
    files.metrics.write(kind="checkpoint", step=step, seconds=time.monotonic() - start)


def _evaluate(trainer: Trainer, state: TrainState, held_out: tuple[HeldOut, ...], batches: int, metrics) -> None:
    for source in held_out:
        found = look(trainer, state.variables, source, batches)
        metrics.write(
            kind="eval", step=int(state.step), name=source.name, loss=found.loss, bits_per_byte=found.bits_per_byte
        )


def _start_record(config: RunConfig, step: int) -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "kind": "start",
        "time": time.time(),
        "config": json.loads(json.dumps(to_dict(config))),
        "parameters": count_parameters(config.model),
        "active_parameters": count_active_parameters(config.model),
        "flops_per_token": model_flops_per_token(config.model, config.data.length),
        "devices": 1,
        "device_kind": device.device_kind,
        "mesh": {},
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
