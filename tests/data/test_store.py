"""Tokenized sources: the same from memory and from the cache, made once, made anew when anything has changed."""

import concurrent.futures
import json
import os

import numpy as np
import pytest

from tests.data.conversations import KEEPING, byte_level
from zaya_jax.data import store as stores
from zaya_jax.data.sources import SourceConfig
from zaya_jax.data.store import ARRAYS, Counts, open_store
from zaya_jax.errors import UserError

TOKENIZER = byte_level()
TEXTS = ["one", "a longer text that is split", "é"]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    return SourceConfig("texts", "jsonl", str(path))


@pytest.fixture
def chats(tmp_path):
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "chats.jsonl").write_text("\n".join([json.dumps({"messages": turn})] * 2))
    return SourceConfig("chats", "chat", str(tmp_path / "chats.jsonl"))


@pytest.fixture
def made(monkeypatch):
    """How often a source has been tokenized."""
    calls, encode_all = [], stores.encode_all
    monkeypatch.setattr(stores, "encode_all", lambda *arguments: calls.append(1) or encode_all(*arguments))
    return calls


def assert_same(a, b):
    for name in (*ARRAYS, "starts"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert (a.counts, a.digest) == (b.counts, b.digest)


def test_texts_are_laid_end_to_end_and_long_ones_in_pieces(texts):
    store = open_store(texts, TOKENIZER, 12)
    assert store.counts == Counts(records=3, split=1, size=sum(len(text.encode()) for text in TEXTS))
    assert [store.id(i) for i in range(5)] == ["0", "1.1", "1.2", "1.3", "2"]
    parts = [store.example(i).tokens.tolist() for i in range(5)]
    assert parts[0] == TOKENIZER.encode("one") and parts[4] == TOKENIZER.encode("é")
    whole = TOKENIZER.encode(TEXTS[1])
    assert parts[1:4] == [whole[:12], whole[11:23], whole[22:]]
    assert not store.weights.size and (store.example(2).weights == 1).all()


@pytest.mark.parametrize("too_long, examples, dropped", [("split", 5, 0), ("drop", 2, 1)])
def test_what_is_too_long_is_split_or_dropped(texts, too_long, examples, dropped):
    store = open_store(SourceConfig("t", "jsonl", texts.path, too_long=too_long), TOKENIZER, 12)
    assert (len(store.lengths), store.counts.dropped) == (examples, dropped)


def test_what_is_too_long_may_be_a_mistake(texts):
    with pytest.raises(UserError) as caught:
        open_store(SourceConfig("t", "jsonl", texts.path, too_long="error"), TOKENIZER, 12)
    line = f"{texts.path}, line 2: longer than the window; expected at most 12 tokens; found 29; take longer windows"
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("kind", ["texts", "chats"])
def test_the_cache_holds_what_memory_would(request, tmp_path, made, kind):
    source, cache = request.getfixturevalue(kind), str(tmp_path / "deep" / "cache")
    found = [open_store(source, TOKENIZER, 64, cache) for _ in range(2)]
    assert len(made) == 1
    for store in found:
        assert_same(store, open_store(source, TOKENIZER, 64))
    assert bool(found[0].weights.size) == (kind == "chats")


def test_another_file_tokenizer_or_setting_is_another_store(texts, chats, tmp_path, made):
    def times(source, tokenizer=TOKENIZER, length=64):
        before = len(made)
        open_store(source, tokenizer, length, str(tmp_path / "cache"))
        return len(made) - before

    assert (times(texts), times(texts)) == (1, 0)
    assert (times(texts, length=65), times(texts, byte_level(KEEPING))) == (1, 1)
    assert times(SourceConfig("texts", "jsonl", texts.path, too_long="drop")) == 1
    content = (tmp_path / "texts.jsonl").read_bytes()
    (tmp_path / "texts.jsonl").write_bytes(content.replace(b"one", b"two"))  # of the same size
    assert (times(texts), times(texts)) == (1, 0)
    os.utime(texts.path, ns=(0, 0))
    assert times(texts) == 1


def test_a_store_that_is_damaged_is_made_anew(texts, tmp_path, made):
    cache = tmp_path / "cache"
    expected = open_store(texts, TOKENIZER, 64)
    open_store(texts, TOKENIZER, 64, str(cache))
    (directory,) = cache.iterdir()
    for damage in (
        lambda: (directory / "tokens.bin").write_bytes(b"1234"),
        lambda: (directory / "heads.bin").unlink(),
        lambda: (directory / "meta.json").write_text("{"),
        lambda: (directory / "meta.json").write_text('{"version": 0}'),
    ):
        before = len(made)
        damage()
        assert_same(open_store(texts, TOKENIZER, 64, str(cache)), expected)
        assert len(made) == before + 1
    assert list(cache.iterdir()) == [directory]


def test_a_failure_leaves_nothing_and_litter_goes_with_the_next_start(texts, tmp_path):
    cache = tmp_path / "cache"
    with open(texts.path, "a") as stream:
        stream.write("\n[")
    with pytest.raises(UserError, match="line 4"):
        open_store(texts, TOKENIZER, 64, str(cache))
    assert list(cache.iterdir()) == []
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}')
    open_store(texts, TOKENIZER, 64, str(cache))
    (directory,) = cache.iterdir()
    litter = cache / f".{directory.name}.0123abcd.tmp"
    directory.rename(litter)  # as a kill before the last rename leaves it
    open_store(texts, TOKENIZER, 64, str(cache))
    assert list(cache.iterdir()) == [directory]


def test_many_at_once_make_it_once(texts, tmp_path, made):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_store(texts, TOKENIZER, 64, str(tmp_path / "cache")), range(8)))
    assert len(made) == 1
    for store in found[1:]:
        assert_same(store, found[0])


def test_a_cache_that_cannot_be_is_a_users_mistake(texts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot hold the cache of tokens; found"):
        open_store(texts, TOKENIZER, 64, str(tmp_path / "file"))
