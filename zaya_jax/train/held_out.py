"""What held-out data cost a model."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from zaya_jax.data.dataset import DataConfig, Dataset, open_dataset
from zaya_jax.data.ngram import ngram_bits
from zaya_jax.data.schema import Text
from zaya_jax.data.sources import SourceConfig, read
from zaya_jax.model.layout import Variables
from zaya_jax.parallel import local_rows
from zaya_jax.text.tokenizer import Tokenizer
from zaya_jax.train.config import RunConfig
from zaya_jax.train.sharding import Programs
from zaya_jax.train.trainer import Trainer


class HeldOut(NamedTuple):
    """A source that is looked at, not trained on: every example in it is read once."""

    name: str
    dataset: Dataset
    rows: int

    @property
    def batches(self) -> int:
        """That hold all of its windows; the last is filled up with windows whose targets do not count."""
        return -(-self.dataset.summary()[0].windows // self.rows)


class Look(NamedTuple):
    """What a look found.

    Attributes:
        loss: nats a target, or a pair.
        bits_per_byte: None where there is no text, or only part of it was read.
    """

    loss: float
    bits_per_byte: float | None


def open_held_out(config: RunConfig, tokenizer: Tokenizer) -> tuple[HeldOut, ...]:
    """The held-out sources of a run, each for itself."""

    def one(source):
        alone = DataConfig((source,), config.data.length, config.data.seed, config.data.cache)
        return HeldOut(source.name, open_dataset(alone, tokenizer), config.evaluation.rows)

    return tuple(one(source) for source in config.evaluation.sources)


def counted_bits(config: RunConfig, name: str) -> float | None:
    """Bits a byte of a held-out source under n-grams of the run's own sources; None where not all of it is text."""
    held_out = next(source for source in config.evaluation.sources if source.name == name)
    texts = [_texts(source) for source in (held_out, *config.data.sources)]
    if None in texts:
        return None
    return ngram_bits(texts[0], [text for part in texts[1:] for text in part], config.evaluation.ngram)


def _texts(source: SourceConfig) -> list[bytes] | None:
    found = [record.text.encode() for _, record in read(source) if isinstance(record, Text)]
    return found or None


def look(
    trainer: Trainer,
    programs: Programs,
    variables: Variables,
    base: Variables | None,
    held_out: HeldOut,
    batches: int = 0,
) -> Look:
    """Evaluates the first batches (0: all) of a source; variables are a state's."""
    mesh, rows = trainer.execution.mesh, held_out.rows
    mine = tuple(range(rows)) if mesh is None else local_rows(mesh, rows)
    summary, number = held_out.dataset.summary()[0], held_out.batches
    chosen = min(batches, number) if batches else number
    sums = np.zeros(2)
    for step in range(chosen):
        batch, _ = held_out.dataset.batch(step, rows, local_rows=mine)
        once = np.asarray(mine) + step * rows < summary.windows
        batch = batch._replace(mask_BT=batch.mask_BT * once[:, None])
        sums += np.asarray(jax.device_get(programs.evaluate(variables, programs.batch(batch, rows), base)), np.float64)
    whole = chosen == number and summary.size > 0
    bits = sums[0] / math.log(2) / summary.size if whole else None
    return Look(float(sums[0] / max(sums[1], 1)), bits)
