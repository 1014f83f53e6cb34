"""The steps of a run, and what is done between them: looks, samples, checkpoints, an end before the last one."""

from __future__ import annotations

import dataclasses
import pathlib
import time

import jax
import numpy as np

from zaya_jax.checkpoint.train_state import Checkpoints
from zaya_jax.data.batch import Batch
from zaya_jax.data.dataset import Dataset, Ids, Prefetched, prefetched
from zaya_jax.model.layout import Variables
from zaya_jax.parallel import local_rows
from zaya_jax.report.progress import Progress
from zaya_jax.text.tokenizer import Tokenizer
from zaya_jax.train.config import RunConfig
from zaya_jax.train.held_out import HeldOut, Look, counted_bits, look
from zaya_jax.train.optimizer import learning_rate
from zaya_jax.train.profiling import Profiler
from zaya_jax.train.records import NOWHERE, Records
from zaya_jax.train.samples import Prompts, continuations
from zaya_jax.train.sharding import Programs
from zaya_jax.train.step import TrainState
from zaya_jax.train.stopping import Agreement, BadSteps, asked_to_stop
from zaya_jax.train.trainer import Trainer
from zaya_jax.train.watch import Finished, Watch


@dataclasses.dataclass(frozen=True)
class Work:
    """What the steps of a run read and write to.

    Attributes:
        config, trainer, programs: of the run.
        base: the variables that stand still, or None.
        dataset, held_out: what is trained on and looked at.
        prompts: what is continued now and then, or None.
        tokenizer: of the prompts.
        checkpoints, metrics, examples: what is written.
        profile: a directory and the number of steps to record there, or None.
    """

    config: RunConfig
    trainer: Trainer
    programs: Programs
    base: Variables | None
    dataset: Dataset
    held_out: tuple[HeldOut, ...]
    prompts: Prompts | None
    tokenizer: Tokenizer
    checkpoints: Checkpoints
    metrics: Records = NOWHERE
    examples: Records = NOWHERE
    profile: tuple[pathlib.Path, int] | None = None


def make_steps(work: Work, state: TrainState, bad: BadSteps, progress: Progress) -> TrainState:
    """The loop. A step's metrics are read when the next step is under way, so that the device never waits for it."""
    config, programs, mesh = work.config, work.programs, work.trainer.execution.mesh
    first, started = int(state.step), time.monotonic()
    feed = prefetched(work.dataset, first, config.rows, config.accumulate, _own_rows(work))
    watch = Watch(config, first, work.metrics, work.examples, progress, bad, 1 if mesh is None else mesh.size)
    agreement = Agreement(mesh)
    with asked_to_stop() as asked, Profiler(work.profile, first) as profiler:
        try:
            for step in range(first + 1, config.steps + 1):
                with watch.elsewhere():
                    batch, ids = _read(work, feed)
                rate = learning_rate(config.optimizer, (step - 1) / config.steps, config.steps)
                profiler.before(step)
                batch, speed = programs.batch(batch, config.rows), programs.scalar(np.float32(rate))
                with jax.transfer_guard("disallow"):  # nothing may wait for the device in here unnoticed
                    state, metrics = programs.step(state, batch, speed, work.base)
                watch.record_last()
                watch.last = Finished(step, rate, metrics, ids)
                over = config.seconds > 0 and time.monotonic() - started > config.seconds
                stop = agreement.heard(asked.is_set() or over) or step == config.steps
                _between(work, state, watch, bad, step, stop)
                if stop:
                    break
        finally:
            feed.close()
    work.checkpoints.wait()
    return state


def conclude(work: Work, state: TrainState) -> list[str]:
    """The whole of every held-out source, and what counting n-grams makes of it; in words, too."""
    order, lines = work.config.evaluation.ngram, []
    for source, found in zip(work.held_out, evaluate(work, state, 0), strict=True):
        bits = "" if found.bits_per_byte is None else f", {found.bits_per_byte:.3f} bits a byte"
        lines.append(f"{source.name}: loss {found.loss:.4f}{bits}")
        counted = counted_bits(work.config, source.name) if order else None
        if counted is not None:
            record = {"name": source.name, "order": order, "bits_per_byte": counted}
            work.metrics.write(kind="baseline", step=int(state.step), **record)
            lines.append(f"{source.name}: {counted:.3f} bits a byte by {order}-grams of the training text")
    return lines


def evaluate(work: Work, state: TrainState, batches: int) -> list[Look]:
    """A look at every held-out source, on record; 0 batches are all."""
    looks = []
    for source in work.held_out:
        found = look(work.trainer, work.programs, state.variables, work.base, source, batches)
        looks.append(found)
        record = {"name": source.name, "loss": found.loss, "bits_per_byte": found.bits_per_byte}
        work.metrics.write(kind="eval", step=int(state.step), **record)
    return looks


def _own_rows(work: Work) -> tuple[int, ...] | None:
    """Rows of a batch that this process reads; None for all."""
    mesh = work.trainer.execution.mesh
    return None if mesh is None else local_rows(mesh, work.config.rows)


def _read(work: Work, feed: Prefetched) -> tuple[Batch, Ids]:
    """This process's rows of the next step, and the examples of all."""
    config = work.config
    step, batch, ids = next(feed)
    whole = len(ids) == config.rows * config.accumulate
    return batch, ids if whole else work.dataset.ids(step, config.rows, config.accumulate)


def _between(work: Work, state: TrainState, watch: Watch, bad: BadSteps, step: int, stop: bool) -> None:
    """What is due after a step."""
    config, last = work.config, step == work.config.steps
    looks = _due(config.evaluation.every, step) and not last  # behind the last step there is a whole one
    samples = work.prompts is not None and (_due(config.samples.every, step) or last)
    saves = stop or _due(config.checkpoints.every, step)
    if not (looks or samples or saves):
        return
    # The last step is not over before: its time is not theirs. It is on record before its checkpoint.
    watch.record_last()
    with watch.elsewhere():
        if looks:
            evaluate(work, state, config.evaluation.batches)
        if samples:
            _sample(work, state, step, watch)
        if saves:
            _save(work, step, state, bad)


def _sample(work: Work, state: TrainState, step: int, watch: Watch) -> None:
    options, prompts, seed = work.config.samples, work.prompts, np.uint32(work.config.seed + step)
    texts = continuations(work.trainer, options, state.variables, work.base, prompts, work.tokenizer, seed)
    for prompt, text in zip(prompts.texts, texts, strict=True):
        work.metrics.write(kind="sample", step=step, prompt=prompt, text=text)
        watch.say(f"step {step:,}: {prompt!r} -> {text!r}")


def _save(work: Work, step: int, state: TrainState, bad: BadSteps) -> None:
    start = time.monotonic()
    work.checkpoints.save(step, state, {"bad_steps": bad.total})
    work.metrics.write(kind="checkpoint", step=step, seconds=time.monotonic() - start)


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
