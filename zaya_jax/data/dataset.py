"""Rows for training: several sources, tokenized, packed and mixed, as a pure function of the seed and the row's number.

Everything is planned once, over all examples, before anything is divided among processes. A run's place in its data is
therefore one integer, the step, and the order is the same whatever the number of processes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np

from zaya_jax.data.batch import Batch
from zaya_jax.data.encoding import Encoded
from zaya_jax.data.mixture import Mixture, make_mixture
from zaya_jax.data.packing import Plan, best_fit_decreasing
from zaya_jax.data.sources import SourceConfig
from zaya_jax.data.store import Store, open_store
from zaya_jax.errors import mistake
from zaya_jax.text.tokenizer import Tokenizer

Ids = tuple[tuple[str, ...], ...]  # of the examples in each row
_ENDLESS = 1 << 62  # steps


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
        sources: one or more, each with a name of its own.
        length: tokens in a window.
        seed: of the order of the windows.
        cache: directory that keeps tokenized sources; "" keeps them in memory.

    Raises:
        UserError: a value is impossible, or the weights do not add up to 1.
    """

    sources: tuple[SourceConfig, ...]
    length: int
    seed: int = 0
    cache: str = ""

    def __post_init__(self):
        object.__setattr__(self, "sources", tuple(self.sources))
        names = [source.name for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise mistake("two sources of one name", where="sources", found=repr(twice), fix="rename one")
        if not names:
            raise mistake("no source", where="sources", expected="at least one")
        for name, value, least in (("length", self.length, 2), ("seed", self.seed, 0)):
            if type(value) is not int or value < least:
                raise mistake("out of range", where=name, expected=f"an integer from {least} up", found=repr(value))
        self.mixture()

    def mixture(self) -> Mixture:
        """The sources by their weights."""
        return make_mixture({source.name: source.weight for source in self.sources}, self.seed)


class Row(NamedTuple):
    """A window of whole examples. Arrays as in `Batch`, all [T].

    Attributes:
        examples: the examples in it, in their order: "source:record" or, of a text in pieces, "source:record.piece".
    """

    tokens_T: np.ndarray
    targets_T: np.ndarray
    mask_T: np.ndarray
    positions_T: np.ndarray
    segments_T: np.ndarray
    examples: tuple[str, ...]


class SourceSummary(NamedTuple):
    """What a source holds.

    Attributes:
        name, kind: as configured.
        records: what was read; of them `split`, `trimmed` and `dropped` were longer than the window.
        size: UTF-8 bytes of its texts; 0 for conversations.
        examples: what is packed: records or pieces of them.
        tokens: in all examples.
        targets: tokens that count in the loss, whatever their weight.
        windows: that hold every example once: an epoch.
        efficiency: share of the windows that is tokens, not padding.
    """

    name: str
    kind: str
    records: int
    split: int
    trimmed: int
    dropped: int
    size: int
    examples: int
    tokens: int
    targets: int
    windows: int
    efficiency: float


class _Packed(NamedTuple):
    """A source that has been tokenized and planned."""

    config: SourceConfig
    store: Store
    plan: Plan


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Rows by number. Made by `open_dataset`; nothing in it changes.

    Attributes:
        config: what it was made from.
        pad_id: what fills the end of a row.
        mixture: which source and window a row is.
        packed: the sources, tokenized and planned, by name.
    """

    config: DataConfig
    pad_id: int
    mixture: Mixture = dataclasses.field(repr=False)
    packed: dict[str, _Packed] = dataclasses.field(repr=False)

    def row(self, number: int) -> Row:
        """The row of a number from 0 on; without end, epoch after epoch of each source."""
        source, window = self.mixture.place(number)
        _, store, plan = self.packed[source]
        indices = plan.window(window)
        row = pack([store.example(index) for index in indices], self.config.length, self.pad_id)
        return row._replace(examples=self._ids(number))

    def batch(
        self, step: int, rows: int, accumulate: int = 1, local_rows: Sequence[int] | None = None
    ) -> tuple[Batch, Ids]:
        """The rows of a step: numbers `step * accumulate * rows` on.

        Args:
            step: from 0.
            rows: B, of all processes together.
            accumulate: A: batches of that size whose gradients the step adds up.
            local_rows: which of the B rows this process reads; None for all.

        Returns:
            Arrays [A, B or fewer, T], without the first axis if A is 1; and the ids of each row's examples, all rows of
            the first batch first.
        """
        chosen = range(rows) if local_rows is None else local_rows
        first = step * accumulate * rows
        read = [self.row(first + part * rows + row) for part in range(accumulate) for row in chosen]
        shape = (accumulate, len(chosen)) if accumulate > 1 else (len(chosen),)
        arrays = (np.stack(values).reshape(*shape, self.config.length) for values in list(zip(*read))[:5])
        return Batch(*arrays), tuple(row.examples for row in read)

    def ids(self, step: int, rows: int, accumulate: int = 1) -> Ids:
        """The examples in the rows of a step, as `batch` gives them with all rows; nothing else is read."""
        first = step * accumulate * rows
        return tuple(self._ids(number) for number in range(first, first + accumulate * rows))

    def _ids(self, number: int) -> tuple[str, ...]:
        source, window = self.mixture.place(number)
        _, store, plan = self.packed[source]
        return tuple(f"{source}:{store.id(index)}" for index in plan.window(window))

    def summary(self) -> tuple[SourceSummary, ...]:
        """What each source holds, in the order of the configuration."""
        return tuple(_summary(packed, self.config.length) for packed in self.packed.values())

    @functools.cached_property
    def digest(self) -> str:
        """Of everything that decides what row n is: two datasets with the same digest give the same rows."""
        stores = [(name, packed.store.digest) for name, packed in self.packed.items()]
        parts = (self.config.length, self.config.seed, self.mixture.shares, stores)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def open_dataset(config: DataConfig, tokenizer: Tokenizer) -> Dataset:
    """Tokenizes all sources, or finds them in the cache, and plans their windows.

    Raises:
        UserError: a source or a record is not right; the message says which file and line.
    """
    packed = {source.name: _pack_source(source, config, tokenizer) for source in config.sources}
    return Dataset(config, tokenizer.pad_id or 0, config.mixture(), packed)


def pack(examples: Sequence[Encoded], length: int, pad_id: int) -> Row:
    """Lays examples end to end in a window: each is a segment of its own, a preference two (chosen, then rejected).

    The last token of a segment has no target. Padding is segment 0.
    """
    row = Row(np.full(length, pad_id, np.int32), *(_zeros(length) for _ in range(4)), examples=())
    row = row._replace(targets_T=np.full(length, pad_id, np.int32), mask_T=np.zeros(length, np.float32))
    start, segment = 0, 0
    for example in examples:
        for tokens, weights in _segments(example):
            segment, stop = segment + 1, start + len(tokens)
            row.tokens_T[start:stop] = tokens
            row.targets_T[start : stop - 1] = tokens[1:]
            row.mask_T[start : stop - 1] = weights[1:]
            row.positions_T[start:stop] = np.arange(len(tokens))
            row.segments_T[start:stop] = segment
            start = stop
    return row


class Prefetched(Iterator[tuple[int, Batch, Ids]]):
    """Batches of steps that threads of grain read ahead. Made by `prefetched`.

    Attributes:
        step: of the next batch: all there is to save.
    """

    def __init__(self, batches: grain.DatasetIterator, step: int):
        self._batches = batches
        batches.set_state({"next_index": step})

    @property
    def step(self) -> int:
        """The step whose batch comes next."""
        return self._batches.get_state()["next_index"]

    def __next__(self) -> tuple[int, Batch, Ids]:
        return next(self._batches)

    def close(self) -> None:
        """Stops the threads."""
        self._batches.close()


def prefetched(
    dataset: Dataset,
    start_step: int,
    rows: int,
    accumulate: int = 1,
    local_rows: Sequence[int] | None = None,
    *,
    threads: int = 2,
    ahead: int = 8,
) -> Prefetched:
    """Batches from a step on, without end, `ahead` of them read before they are wanted; see `Dataset.batch`.

    Yields:
        (step, batch, ids).
    """

    def read(step: int) -> tuple[int, Batch, Ids]:
        return step, *dataset.batch(step, rows, accumulate, local_rows)

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return Prefetched(iter(grain.MapDataset.range(_ENDLESS).map(read).to_iter_dataset(options)), start_step)


def _pack_source(source: SourceConfig, config: DataConfig, tokenizer: Tokenizer) -> _Packed:
    store = open_store(source, tokenizer, config.length, config.cache)
    if not len(store.lengths):
        found = f"{store.counts.dropped} of {store.counts.records} records dropped"
        fix = f"all are longer than {config.length} tokens: take longer windows"
        raise mistake("nothing to train on", where=source.label, found=found, fix=fix)
    bins = tuple(map(tuple, best_fit_decreasing(store.lengths, config.length)))
    # By its name: a source more or less leaves the order of the others as it is.
    digest = hashlib.blake2b(f"{config.seed}:{source.name}".encode(), digest_size=8).digest()
    return _Packed(source, store, Plan(bins, int.from_bytes(digest, "big")))


def _segments(example: Encoded) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for span in (slice(0, example.head), slice(example.head, None)):
        if len(example.tokens[span]):
            yield example.tokens[span], example.weights[span]


def _zeros(length: int) -> np.ndarray:
    return np.zeros(length, np.int32)


def _summary(packed: _Packed, length: int) -> SourceSummary:
    config, store, plan = packed
    counts, tokens = store.counts, int(store.lengths.sum(dtype=np.int64))
    return SourceSummary(
        name=config.name,
        kind=config.kind,
        records=counts.records,
        split=counts.split,
        trimmed=counts.trimmed,
        dropped=counts.dropped,
        size=counts.size,
        examples=len(store.lengths),
        tokens=tokens,
        targets=_targets(store),
        windows=len(plan.bins),
        efficiency=tokens / (len(plan.bins) * length),
    )


def _targets(store: Store) -> int:
    """Tokens that count, less the first ones of segments, which nothing predicts."""
    if not store.weights.size:
        return int(store.tokens.size - len(store.lengths) - (store.heads < store.lengths).sum())
    seconds = (store.starts + store.heads)[store.heads < store.lengths]
    counts = int(np.count_nonzero(store.weights))
    return counts - sum(int(np.count_nonzero(store.weights[first])) for first in (store.starts, seconds))
