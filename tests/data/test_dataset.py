"""Rows of several sources against rows laid by hand; the same order for any number of processes and any start."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conversations import byte_level, conversations, flat, pieces
from zaya_jax.data.dataset import DataConfig, Dataset, open_dataset, pack, prefetched
from zaya_jax.data.encoding import Encoded
from zaya_jax.data.schema import parse_chat
from zaya_jax.data.sources import SourceConfig
from zaya_jax.data.turns import chat_turns, weights_of
from zaya_jax.errors import UserError

TOKENIZER = byte_level()
LENGTH = 48
ASK = {"role": "user", "content": "q"}


def reply(text):
    return {"role": "assistant", "content": text}


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def dataset(folder):
    """Texts, some longer than a window, and chats of one turn."""
    random = np.random.default_rng(0)
    texts = [{"text": "".join(random.choice(list("abc "), size))} for size in random.integers(1, 120, 60)]
    chats = [{"messages": [ASK, reply("x" * (i % 7 + 1))]} for i in range(40)]
    sources = (
        SourceConfig("texts", "jsonl", write(folder / "texts.jsonl", texts), weight=0.75),
        SourceConfig("chats", "chat", write(folder / "chats.jsonl", chats), weight=0.25),
    )
    return open_dataset(DataConfig(sources, LENGTH, seed=3), TOKENIZER)


def by_hand(dataset, folder, name):
    """Tokens and weights of an example, from its file and ChatML's rules."""
    source, _, number = name.partition(":")
    record, _, piece = number.partition(".")
    row = json.loads((folder / f"{source}.jsonl").read_text().splitlines()[int(record)])
    if source == "chats":
        return flat(pieces(row["messages"], [0, 1]), TOKENIZER)
    tokens = [2, *(7 + byte for byte in row["text"].encode()), 4]
    start = (int(piece or 1) - 1) * (LENGTH - 1)
    tokens = tokens[start : start + LENGTH]
    return tokens, [1] * len(tokens)


def laid_out(examples, length):
    """The five arrays of a row, token by token."""
    columns = []
    for segment, (tokens, weights) in enumerate(examples, 1):
        for position, token in enumerate(tokens):
            last = position + 1 == len(tokens)
            target, weight = (0, 0) if last else (tokens[position + 1], weights[position + 1])
            columns.append((token, target, weight, position, segment))
    columns += [(0, 0, 0, 0, 0)] * (length - len(columns))
    return np.array(columns).T


def assert_row(row, expected):
    for found, wanted, dtype in zip(row[:5], expected, (np.int32, np.int32, np.float32, np.int32, np.int32)):
        np.testing.assert_array_equal(found, wanted.astype(dtype))
        assert found.dtype == dtype


def test_rows_are_their_examples_laid_end_to_end(dataset, folder):
    for number in range(200):
        row = dataset.row(number)
        assert_row(row, laid_out([by_hand(dataset, folder, name) for name in row.examples], LENGTH))


def test_an_epoch_holds_every_example_once(dataset):
    counts = {summary.name: (summary.windows, summary.examples) for summary in dataset.summary()}
    seen = {name: [] for name in counts}
    for number in range(8 * sum(windows for windows, _ in counts.values())):
        row = dataset.row(number)
        seen[row.examples[0].partition(":")[0]].append(row.examples)
    for name, (windows, examples) in counts.items():
        epochs = [sorted(itertools.chain(*seen[name][start : start + windows])) for start in (0, windows)]
        assert epochs[0] == epochs[1] and len(set(epochs[0])) == len(epochs[0]) == examples
        assert seen[name][:windows] != seen[name][windows : 2 * windows]


def test_rows_depend_on_the_seed_and_the_number_alone(dataset):
    again = open_dataset(dataset.config, TOKENIZER)
    numbers = [7, 10**6, 3, 10**12, 0]
    for number in numbers:
        for found, wanted in zip(again.row(number), dataset.row(number)):
            np.testing.assert_array_equal(found, wanted)
    assert again.digest == dataset.digest
    other = open_dataset(dataclasses.replace(dataset.config, seed=4), TOKENIZER)
    assert [other.row(n).examples for n in range(20)] != [dataset.row(n).examples for n in range(20)]
    assert other.digest != dataset.digest


def test_another_source_leaves_the_order_of_the_others(dataset):
    texts = dataclasses.replace(dataset.config.sources[0], weight=1.0)
    alone = open_dataset(dataclasses.replace(dataset.config, sources=(texts,)), TOKENIZER)
    both = [dataset.row(number).examples for number in range(80)]
    ours = [names for names in both if names[0].startswith("texts")]
    assert ours == [alone.row(number).examples for number in range(len(ours))] and len(ours) == 60


def test_a_batch_is_its_rows_in_order(dataset):
    rows = [dataset.row(number) for number in range(18, 24)]
    batch, ids = dataset.batch(step=3, rows=6)
    for name, values in zip(batch._fields, batch):
        np.testing.assert_array_equal(values, np.stack([getattr(row, name[:-2] + "T") for row in rows]))
    assert ids == tuple(row.examples for row in rows)
    parts, same = dataset.batch(step=3, rows=2, accumulate=3)
    assert same == ids and parts.tokens_BT.shape == (3, 2, LENGTH)
    for values, wanted in zip(parts, batch):
        np.testing.assert_array_equal(values.reshape(wanted.shape), wanted)


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_order_is_the_same_for_any_number_of_processes(dataset, monkeypatch, processes, accumulate):
    whole, ids = dataset.batch(5, 8, accumulate)
    read, row = [], Dataset.row
    monkeypatch.setattr(Dataset, "row", lambda self, number: read.append(number) or row(self, number))
    share = 8 // processes
    parts = [dataset.batch(5, 8, accumulate, range(p * share, (p + 1) * share)) for p in range(processes)]
    for wanted, found in zip(whole, zip(*(batch for batch, _ in parts))):
        np.testing.assert_array_equal(np.concatenate(found, axis=-2), wanted)
    by_row = [[part[a * share : (a + 1) * share] for _, part in parts] for a in range(accumulate)]
    assert tuple(itertools.chain(*itertools.chain(*by_row))) == ids
    first = 5 * accumulate * 8
    assert sorted(read) == list(range(first, first + accumulate * 8))  # nobody reads what another one needs


def test_batches_read_ahead_are_those_of_their_steps(dataset):
    batches = prefetched(dataset, 4, 3, local_rows=[1, 2], threads=3, ahead=5)
    for step in range(4, 14):
        assert batches.step == step
        found, batch, ids = next(batches)
        wanted, names = dataset.batch(step, 3, local_rows=[1, 2])
        assert (found, ids) == (step, names)
        for a, b in zip(batch, wanted):
            np.testing.assert_array_equal(a, b)
    resumed = prefetched(dataset, batches.step, 3)
    assert next(resumed)[0] == 14 and next(batches)[0] == 14
    batches.close(), resumed.close()


SEGMENTS = st.lists(st.tuples(st.lists(st.integers(3, 99), min_size=1, max_size=9), st.booleans()), max_size=4)


@given(SEGMENTS, st.integers(36, 40))
def test_packing_in_drawn_shapes(segments, length):
    """Each pair of a preference is two segments, chosen first; everything else is one."""
    examples, expected = [], []
    for tokens, pair in segments:
        head = max(1, len(tokens) // 2) if pair else len(tokens)
        weights = [token % 3 for token in tokens]
        examples.append(Encoded(np.array(tokens, np.int32), np.array(weights, np.float32), head))
        expected += [part for part in ((tokens[:head], weights[:head]), (tokens[head:], weights[head:])) if part[0]]
    assert_row(pack(examples, length, 0), laid_out(expected, length))


def test_packed_and_alone_an_example_is_the_same(dataset):
    for number in range(40):
        row = dataset.row(number)
        for segment in range(1, len(row.examples) + 1):
            here = row.segments_T == segment
            size = here.sum()
            tokens, weights = row.tokens_T[here], np.concatenate([[0], row.mask_T[here][:-1]])
            alone = pack([Encoded(tokens, weights.astype(np.float32), int(size))], LENGTH, 0)
            for name in ("tokens_T", "targets_T", "mask_T", "positions_T"):
                np.testing.assert_array_equal(getattr(alone, name)[:size], getattr(row, name)[here])
            assert alone.segments_T.tolist() == [1] * size + [0] * (LENGTH - size)


@given(st.lists(conversations(), min_size=1, max_size=6), st.integers(150, 400))
def test_whole_chats_reach_their_windows_with_their_masks(tmp_path_factory, chats, length):
    path = write(tmp_path_factory.getbasetemp() / "drawn.jsonl", [{"messages": chat} for chat in chats])
    source = SourceConfig("drawn", "chat", path, too_long="drop")
    wanted = {}
    for i, chat in enumerate(chats):
        turns = chat_turns(parse_chat({"messages": chat}), TOKENIZER)
        tokens = [token for turn in turns for token in turn.turn.tokens]
        if len(tokens) <= length:
            wanted[f"drawn:{i}"] = (tokens, weights_of(turns))
    if not wanted:
        return
    dataset = open_dataset(DataConfig((source,), length), TOKENIZER)
    (summary,) = dataset.summary()
    assert (summary.examples, summary.dropped) == (len(wanted), len(chats) - len(wanted))
    rows = [dataset.row(number) for number in range(summary.windows)]
    assert sorted(itertools.chain(*(row.examples for row in rows))) == sorted(wanted)
    assert summary.targets == sum((row.mask_T > 0).sum() for row in rows)
    for row in rows:
        assert_row(row, laid_out([wanted[name] for name in row.examples], length))


def test_a_preference_is_two_segments_side_by_side(folder):
    pairs = [{"prompt": [ASK], "chosen": reply("good" * i), "rejected": reply("bad")} for i in (1, 2, 9)]
    source = SourceConfig("pairs", "preference", write(folder / "pairs.jsonl", pairs))
    dataset = open_dataset(DataConfig((source,), 130), TOKENIZER)
    (summary,) = dataset.summary()
    assert (summary.examples, summary.dropped, summary.windows) == (3, 0, 2)
    row = next(row for row in map(dataset.row, range(2)) if len(row.examples) == 2)
    texts = [
        TOKENIZER.decode(row.targets_T[(row.segments_T == segment) & (row.mask_T > 0)], skip_special=False)
        for segment in range(1, 5)
    ]
    expected = [f"{'good' * (int(name[-1]) + 1)}<|im_end|>" for name in row.examples]
    assert texts == [expected[0], "bad<|im_end|>", expected[1], "bad<|im_end|>"]
    assert summary.targets == sum((dataset.row(n).mask_T > 0).sum() for n in range(2))


def test_the_summary_counts_what_is_there(dataset):
    for summary in dataset.summary():
        rows = (dataset.row(number) for number in range(10_000))
        ours = list(itertools.islice((r for r in rows if r.examples[0].startswith(summary.name)), summary.windows))
        assert summary.tokens == sum((row.segments_T > 0).sum() for row in ours)
        assert summary.targets == sum((row.mask_T > 0).sum() for row in ours)
        assert summary.efficiency == pytest.approx(summary.tokens / (LENGTH * summary.windows))


def test_pieces_of_a_text_predict_every_token_but_its_first_once(folder):
    text = "".join(chr(97 + i % 26) for i in range(500))
    source = SourceConfig("long", "jsonl", write(folder / "long.jsonl", [{"text": text}]))
    dataset = open_dataset(DataConfig((source,), 32), TOKENIZER)
    (summary,) = dataset.summary()
    rows = sorted(map(dataset.row, range(summary.windows)), key=lambda row: int(row.examples[0].partition(".")[2]))
    targets = np.concatenate([row.targets_T[row.mask_T > 0] for row in rows])
    assert targets.tolist() == TOKENIZER.encode(text)[1:]
    assert (summary.records, summary.split, summary.size, summary.targets) == (1, 1, 500, 501)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sources": ()}, "sources: no source"),
        ({"length": 1}, "length: out of range; expected an integer from 2 up; found 1"),
        ({"length": 64.0}, "length: out of range"),
        ({"seed": -1}, "seed: out of range"),
        ({"sources": (SourceConfig("a", "text", "x", 0.5),) * 2}, "two sources of one name; found 'a'; rename one"),
        ({"sources": (SourceConfig("a", "text", "x", 0.5),)}, "mixture weights do not add up; expected a sum of 1"),
    ],
)
def test_configurations_that_are_not_right(options, words):
    with pytest.raises(UserError) as caught:
        DataConfig(**{"sources": (SourceConfig("a", "text", "x"),), "length": 8} | options)
    assert words in str(caught.value)


def test_nothing_left_is_a_users_mistake(folder):
    source = SourceConfig("s", "chat", write(folder / "one.jsonl", [{"messages": [ASK, reply("a" * 99)]}]))
    with pytest.raises(
        UserError, match="source 's': nothing to train on; found 1 of 1 records dropped; all are longer"
    ):
        open_dataset(DataConfig((source,), 32), TOKENIZER)


def test_a_mistake_in_a_record_says_which_line(folder):
    path = write(
        folder / "tools.jsonl", [{"messages": [ASK, reply("a")]}] + [{"messages": [ASK, reply("a")], "tools": [{}]}]
    )
    with pytest.raises(UserError, match=r"tools.jsonl, line 2: .*template refuses"):
        open_dataset(DataConfig((SourceConfig("s", "chat", path),), 64), TOKENIZER)
