"""The byte-level tokenizer: lossless, one id a byte, written whole or not at all."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.errors import UserError
from zaya_jax.text import byte_level
from zaya_jax.text.byte_level import BOS_ID, BYTE_VOCAB_SIZE, FIRST_BYTE_ID, IM_END_ID, byte_tokenizer, write_tokenizer
from zaya_jax.text.chat import ChatTemplate
from zaya_jax.text.tokenizer import load_tokenizer

BACKEND = byte_tokenizer()
FILES = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
# Every code point that UTF-8 carries, with special tokens strewn in.
TEXTS = st.lists(st.text() | st.sampled_from(byte_level.SPECIALS)).map("".join)


def test_ids_are_as_documented():
    ids = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<|im_start|>": 3, "<|im_end|>": 4, "<think>": 5, "</think>": 6}
    assert {token: BACKEND.token_to_id(token) for token in ids} == ids
    assert (FIRST_BYTE_ID, BACKEND.get_vocab_size()) == (7, 263)
    assert BACKEND.get_vocab_size() <= BYTE_VOCAB_SIZE == 272


def test_the_alphabet_is_that_of_byte_level_bpe():
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(byte_level.byte_characters()) == sorted(ByteLevel.alphabet())


@given(st.text())
def test_plain_text_is_its_bytes(text):
    tokens = BACKEND.encode(text, add_special_tokens=False).ids
    marked = any(token in text for token in byte_level.SPECIALS)
    assert marked or tokens == [FIRST_BYTE_ID + byte for byte in text.encode()]


@given(TEXTS)
def test_any_text_comes_back_exactly(text):
    tokens = BACKEND.encode(text, add_special_tokens=False).ids
    assert BACKEND.decode(tokens, skip_special_tokens=False) == text


@given(TEXTS)
def test_the_marks_around_a_text_go_as_they_came(text):
    tokens = BACKEND.encode(text).ids
    assert (tokens[0], tokens[-1]) == (BOS_ID, IM_END_ID)
    assert BACKEND.decode(tokens[1:-1], skip_special_tokens=False) == text


def test_written_files_load_with_the_same_traps(tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "new" / "model"))
    assert sorted(os.listdir(tmp_path / "new" / "model")) == FILES
    assert tokenizer.encode("é") == [2, 7 + 0xC3, 7 + 0xA9, 4]
    assert tokenizer.encode_prompt("é") == [2, 7 + 0xC3, 7 + 0xA9]
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.stop_ids) == (2, 0, (4,))
    assert (tokenizer.think_start_id, tokenizer.think_end_id, tokenizer.suffix_ids) == (5, 6, (4,))


def test_the_reasoning_stays_visible(tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path))
    assert tokenizer.decode(tokenizer.encode("<think>a</think>b")) == "<think>a</think>b"


def test_another_template_can_be_written(tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, template=ChatTemplate("{{ messages[0].content }}", "test")))
    assert tokenizer.render_chat([{"role": "user", "content": "é"}]) == "é"


def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    write_tokenizer(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_tokenizer(tmp_path, template=ChatTemplate("other", "test"))
    assert {name: (tmp_path / name).read_bytes() for name in sorted(os.listdir(tmp_path))} == before


def test_a_directory_that_is_a_file_is_named(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(UserError, match="model: cannot write the tokenizer"):
        write_tokenizer(tmp_path / "model")


def test_the_config_names_only_tokens_that_exist(tmp_path):
    config = json.loads((write_tokenizer(tmp_path) / "tokenizer_config.json").read_text())
    assert {config[f"{key}_token"] for key in ("bos", "eos", "pad")} <= set(BACKEND.get_vocab())
