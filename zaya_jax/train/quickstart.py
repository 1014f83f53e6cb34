"""The first thing that a newcomer runs: train a small ZAYA on real text, save it, load it, let it write.

What happens is told in the order in which it happens (`quickstart_report`); progress goes to stderr.

The defaults are the best of what was tried on two cores (with tables still in the text), in
bits per held-out byte. After 80 s: Muon at 1e-2 with 16 x 128 tokens a step 1.78, with 8 x 256 as much at twice the
context, with 4 x 512 1.85; at 2e-2 with 32 x 128 1.80. After 40 s: Muon 1.97, AdamW at 6e-3 2.09, at 3e-3 2.18.
Unrolled layers step 17% faster, but compile for 23 s instead of 7.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

import jax
import numpy as np

import zaya_jax
from zaya_jax.data.batch import Batch
from zaya_jax.data.corpus import Corpus, baselines, make_corpus
from zaya_jax.data.python_docs import hold_out, python_topics
from zaya_jax.data.windows import covering_windows, random_windows, whole_rows
from zaya_jax.errors import mistake
from zaya_jax.model import Execution, ModelConfig
from zaya_jax.model.config import nano
from zaya_jax.model.layout import Variables
from zaya_jax.report.metrics import MetricsWriter
from zaya_jax.sampling.generate import stream
from zaya_jax.sampling.request import Request, Sampling, check_request
from zaya_jax.text.tokenizer import Tokenizer
from zaya_jax.train import loop
from zaya_jax.train import quickstart_report as report
from zaya_jax.train.exporting import BYTES, open_tokenizer, save_model
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.quickstart_report import BITS, History
from zaya_jax.train.step import TrainState, evaluate_step, init_state
from zaya_jax.train.trainer import Trainer

MODEL, METRICS, CURVE, VALIDATION = "model", "metrics.jsonl", "loss.png", "validation.npy"
_WEIGHTS = {"config.json", "generation_config.json", "model.safetensors"}
_LOOK = 8  # a look during training reads one in so many of the held-out batches
_SAMPLING = Sampling(temperature=0.7, top_p=0.95)


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """What to do.

    Attributes:
        output: directory of what is left behind: model/, metrics.jsonl, loss.png, validation.npy.
        budget: how long to train, compilation included.
        seed: of the initial weights, the windows and the sample.
        prompt: what the trained model continues; the default is the title of a page that is held out.
        new_tokens: bytes that it writes at most; behind `length` of prompt and answer it loses the thread.
        model: the architecture, over the vocabulary of the byte tokenizer.
        execution: how it is computed in training.
        optimizer, balance_rate: see `Trainer`.
        rows, length: windows of a step, and the tokens in each.
        evaluations: looks at the held-out text during training.
    """

    output: pathlib.Path
    budget: loop.Budget = dataclasses.field(default_factory=loop.Budget)
    seed: int = 0
    prompt: str = 'The "raise" statement\n*********************\n\n'
    new_tokens: int = 200
    model: ModelConfig = dataclasses.field(default_factory=nano)
    execution: Execution = dataclasses.field(default_factory=Execution)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig("muon", 1e-2))
    balance_rate: float = 3e-3
    rows: int = 8
    length: int = 256
    evaluations: int = 10

    @property
    def trainer(self) -> Trainer:
        """What the steps are made of."""
        return Trainer(self.model, self.execution, self.optimizer, self.balance_rate)


def run(job: Quickstart, sink: TextIO | None = None) -> dict[str, float]:
    """Does everything and tells it to `sink`, by default stdout.

    Returns:
        Bits per byte on the held-out text, of "this model" and of each baseline.

    Raises:
        UserError: the output cannot be written or holds files of others, or a value is impossible.
    """
    started, sink = time.monotonic(), sink or sys.stdout
    say = functools.partial(print, file=sink, flush=True)
    tokenizer, tokenizer_files = open_tokenizer(BYTES)
    request = _request(job, tokenizer)
    claim(job.output, _WEIGHTS | tokenizer_files.keys())
    corpus = make_corpus(*hold_out(python_topics()), tokenizer.encode)
    say(report.header(job.trainer, job.budget, corpus, job.rows, job.length))
    state, history = train(job, corpus)
    bits = {report.THIS_MODEL: held_out_bits(job, state.variables, corpus), **baselines(corpus)}
    say(report.results(bits, history))
    say(report.draw(job.output / CURVE, bits, history))
    export(job, state.variables, tokenizer, tokenizer_files, corpus)
    say(report.exported(job.output / MODEL, check_export(job, corpus, bits[report.THIS_MODEL])))
    say(report.sample_header(job.prompt, _SAMPLING, corpus))
    write_sample(job, request, sink)
    say(
        report.next_steps(
            job.output, job.output / MODEL, job.output / VALIDATION, job.length, time.monotonic() - started
        )
    )
    return bits


def claim(output: pathlib.Path, model_files: set[str]) -> None:
    """Makes the output directory; one that an earlier run left is fine. Comes before anything is computed.

    Args:
        output: the directory.
        model_files: what its directory of the model may hold.

    Raises:
        UserError: something else is in it, or it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        foreign = [file for file in output.iterdir() if file.name not in (MODEL, METRICS, CURVE, VALIDATION)]
        foreign = [file for file in foreign if not file.name.startswith(".")]  # what a killed run left behind
        if (output / MODEL).exists():
            foreign += [file for file in (output / MODEL).iterdir() if file.name not in model_files]
    except OSError as error:
        raise mistake("cannot be used", where=output, found=error.strerror or error) from error
    if foreign:
        expected = "a new directory, or one that an earlier quickstart left"
        fix = "choose another --output"
        raise mistake("holds other files", where=output, expected=expected, found=min(foreign), fix=fix)


def train(job: Quickstart, corpus: Corpus) -> tuple[TrainState, History]:
    """Trains for the budget, with progress on stderr and a record a step in metrics.jsonl."""
    trainer, history = job.trainer, History(tokens=job.rows * job.length)
    some = held_out_batches(job, corpus)[::_LOOK]

    def batch(step: int) -> Batch:
        return random_windows(corpus.train.stream, job.rows, job.length, job.seed, step)

    state = init_state(trainer, jax.random.key(job.seed))
    with MetricsWriter(job.output / METRICS) as metrics, report.progress(job.budget) as progress:
        for done in loop.run(trainer, state, batch, job.budget):
            state = done.state
            history.add(done)
            if done.progress >= len(history.looks) / job.evaluations:
                history.looks.append((done.seconds, BITS * _mean_nats(trainer, state.variables, some)))
            metrics.write(**report.record(done, history))
            progress.show(done.step if job.budget.steps else done.seconds, **history.figures())
    return state, history


def held_out_batches(job: Quickstart, corpus: Corpus) -> list[Batch]:
    """The whole held-out text; what counts has up to half a window of its document before it."""
    return list(covering_windows(corpus.held_out.stream, job.rows, job.length, job.length // 2))


def held_out_bits(job: Quickstart, variables: Variables, corpus: Corpus) -> float:
    """Bits per byte that the held-out text costs under stacked variables; ends of documents are paid for too."""
    batches = held_out_batches(job, corpus)
    nats = sum(float(evaluate_step(job.trainer, variables, batch)[0]) for batch in batches)
    return BITS * nats / len(corpus.held_out.text)


def export(
    job: Quickstart, variables: Variables, tokenizer: Tokenizer, files: Mapping[str, bytes], corpus: Corpus
) -> None:
    """Writes the model in the hub's format, and held-out tokens for `experiments.score`; each appears whole."""
    save_model(job.output / MODEL, job.trainer, tokenizer, files, variables)
    _write_array(job.output / VALIDATION, whole_rows(corpus.held_out.stream, job.length))


def check_export(job: Quickstart, corpus: Corpus, expected: float) -> float:
    """Bits per byte of the model loaded back from disk.

    Raises:
        RuntimeError: they are not the expected ones, to 1e-5.
    """
    model, variables, _ = zaya_jax.load(job.output / MODEL, dtype="float32", layout="stacked")
    bits = held_out_bits(dataclasses.replace(job, model=model.config), variables, corpus)
    if not abs(bits - expected) <= 1e-5:
        raise RuntimeError(f"the exported model gives {bits} bits per byte, not the {expected} of the trained one")
    return bits


def write_sample(job: Quickstart, request: Request, sink: TextIO) -> None:
    """Loads the model as users do and writes the prompt and its continuation, as it comes."""
    model, variables, tokenizer = zaya_jax.load(job.output / MODEL, dtype="float32")
    sink.write(job.prompt)
    for deltas in stream(model, variables, [request], tokenizer=tokenizer, chunk=4):
        sink.write(deltas[0].text)
        sink.flush()
    sink.write("\n")


def _request(job: Quickstart, tokenizer: Tokenizer) -> Request:
    """The sample's request, checked before anything is trained."""
    request = Request(
        id="sample",
        tokens=tokenizer.encode_prompt(job.prompt),
        seed=job.seed,
        sampling=_SAMPLING,
        max_new_tokens=job.new_tokens,
        stop_ids=tokenizer.stop_ids,
    )
    check_request(request, job.model)
    return request


def _mean_nats(trainer: Trainer, variables: Variables, batches: Sequence[Batch]) -> float:
    sums = np.asarray([evaluate_step(trainer, variables, batch) for batch in batches])
    return float(sums[:, 0].sum() / sums[:, 1].sum())


def _write_array(path: pathlib.Path, array: np.ndarray) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            np.save(file, array)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise mistake("cannot be written", where=path, found=error.strerror or error) from error
