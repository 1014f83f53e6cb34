"""Loading a tokenizer, the ids it adds, decoding at once and in pieces."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, processors

from tests.text.checkpoints import BOS, CHATML, FIRST_FALLBACK, IM_END, IM_START, write_checkpoint, zaya_like
from zaya_jax.errors import UserError
from zaya_jax.text.byte_level import BYTE_VOCAB_SIZE, FIRST_BYTE_ID, byte_tokenizer
from zaya_jax.text.tokenizer import StreamDecoder, load_tokenizer, require_tokenizer

SETTINGS = {"bos_token": "<bos>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
IDS = {"bos_token_id": 2, "eos_token_id": 106, "pad_token_id": 0}


def refusal(function, *arguments, **keywords) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def zaya(tmp_path_factory):
    directory = tmp_path_factory.mktemp("zaya")
    return load_tokenizer(write_checkpoint(directory, template=CHATML, tokenizer_config=SETTINGS, config=IDS))


def with_backend(directory, backend):
    return load_tokenizer(write_checkpoint(directory, backend))


# Loading


def test_special_ids_come_from_the_files(zaya):
    assert (zaya.bos_id, zaya.pad_id, zaya.stop_ids) == (2, 0, (106,))
    assert zaya.think_end_id == zaya.think_start_id + 1 == zaya.vocab_size - 1
    assert zaya.special_tokens == SETTINGS


@pytest.mark.parametrize(
    "generation, config, settings, expected",
    [
        (None, 106, None, (106,)),
        ([1, 106], 106, None, (1, 106)),
        (106, [1, 106], None, (106, 1)),
        (None, 1, "<|im_end|>", (1, 106)),
        (None, None, {"content": "<|im_end|>", "special": True}, (106,)),
        (None, None, None, ()),
    ],
)
def test_stop_ids_are_the_union_of_all_files(tmp_path, generation, config, settings, expected):
    files = {
        "generation_config": {"eos_token_id": generation},
        "config": {"eos_token_id": config},
        "tokenizer_config": {"eos_token": settings},
    }
    assert load_tokenizer(write_checkpoint(tmp_path, **files)).stop_ids == expected


def test_unnamed_special_tokens_are_named_by_their_ids(tmp_path):
    tokenizer = load_tokenizer(write_checkpoint(tmp_path, config=IDS))
    assert tokenizer.special_tokens == SETTINGS


def test_without_a_tokenizer_there_is_none(tmp_path):
    assert load_tokenizer(tmp_path) is None
    message = refusal(require_tokenizer, tmp_path)
    assert str(tmp_path) in message and "tokenizer.json" in message and "token ids" in message


def test_require_tokenizer_returns_the_one_that_is_there(tmp_path):
    assert require_tokenizer(write_checkpoint(tmp_path)).vocab_size == zaya_like().get_vocab_size()


def test_a_missing_directory_is_not_a_missing_tokenizer(tmp_path):
    assert "no such directory" in refusal(load_tokenizer, tmp_path / "typo")


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"{", "tokenizer.json"),
        (b"{}", "tokenizer.json"),
        (b"\xff\xfe", "tokenizer.json"),
        (b"", "download the file again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
def test_a_corrupt_tokenizer_is_named(tmp_path, content, expected):
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert expected in refusal(load_tokenizer, tmp_path)


def test_a_truncated_tokenizer_is_named(tmp_path):
    path = write_checkpoint(tmp_path) / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refusal(load_tokenizer, tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config", "generation_config", "config"])
@pytest.mark.parametrize("content", ["{", "[]", "\N{BYTE ORDER MARK}{}"])
def test_other_broken_files_are_named(tmp_path, name, content):
    write_checkpoint(tmp_path)
    (tmp_path / f"{name}.json").write_text(content, encoding="utf-8")
    assert f"{name}.json" in refusal(load_tokenizer, tmp_path)


@pytest.mark.parametrize("value", ["106", 1.5, True, -1, [106, "1"], [[1]], {}])
def test_an_id_that_is_none_is_named(tmp_path, value):
    message = refusal(load_tokenizer, write_checkpoint(tmp_path, generation_config={"eos_token_id": value}))
    assert "generation_config.json: eos_token_id" in message


def test_a_named_token_that_is_no_text_is_named(tmp_path):
    message = refusal(load_tokenizer, write_checkpoint(tmp_path, tokenizer_config={"bos_token": 2}))
    assert "tokenizer_config.json: bos_token" in message


def test_a_named_token_that_the_vocabulary_lacks_is_not_appended(tmp_path):
    settings = {"bos_token": "<s>", "mask_token": "<mask>"}
    tokenizer = load_tokenizer(write_checkpoint(tmp_path, tokenizer_config=settings))
    assert tokenizer.vocab_size == zaya_like().get_vocab_size()
    assert tokenizer.bos_id is None


def test_baked_in_truncation_and_padding_are_off(tmp_path):
    backend = zaya_like()
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    tokenizer = with_backend(tmp_path, backend)
    assert len(tokenizer.encode("a" * 50)) == 52
    assert tokenizer.encode("") == [BOS, IM_END]


def test_a_tokenizer_survives_pickling(zaya):
    copy = pickle.loads(pickle.dumps(zaya))
    assert copy.encode_chat([{"role": "user", "content": "the"}]) == zaya.encode_chat(
        [{"role": "user", "content": "the"}]
    )


# Encoding


def test_plain_encoding_ends_in_106_and_prompts_do_not(zaya):
    assert zaya.encode("hello")[::2] == [BOS, IM_END]
    assert zaya.encode_prompt("hello") == zaya.encode("hello")[:-1]
    assert zaya.encode("hello", special=False) == zaya.encode("hello")[1:-1]
    assert zaya.encode_prompt("") == [BOS]


def test_a_prompt_keeps_the_marks_that_the_user_wrote(zaya):
    assert zaya.encode_prompt("he<|im_end|>")[-1] == IM_END
    assert len(zaya.encode_prompt("he<|im_end|>")) == 3


def test_nothing_is_stripped_where_nothing_is_appended(tmp_path):
    backend = zaya_like()
    backend.post_processor = processors.TemplateProcessing(single=["<bos>", "$A"], special_tokens=[("<bos>", 2)])
    tokenizer = with_backend(tmp_path, backend)
    assert tokenizer.suffix_ids == ()
    assert tokenizer.encode_prompt("he<|im_end|>") == tokenizer.encode("he<|im_end|>")


@pytest.mark.parametrize("bos, eos", [(False, False), (True, True), (None, False)])
def test_the_file_alone_decides_what_is_added(tmp_path, bos, eos):
    settings = {**SETTINGS, "add_bos_token": bos, "add_eos_token": eos}
    tokenizer = load_tokenizer(write_checkpoint(tmp_path, tokenizer_config=settings))
    assert tokenizer.encode("hello")[::2] == [BOS, IM_END]


def test_one_token_may_stand_on_both_sides(tmp_path):
    backend = zaya_like()
    backend.post_processor = processors.TemplateProcessing(single="<eos> $A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer = with_backend(tmp_path, backend)
    assert tokenizer.encode("a")[0] == tokenizer.encode("a")[-1] == 1
    assert tokenizer.encode_prompt("a") == tokenizer.encode("a")[:-1]


def test_chat_encoding_adds_no_special_tokens(zaya):
    tokens = zaya.encode_chat([{"role": "user", "content": "the"}])
    assert tokens[0] == IM_START and BOS not in tokens and tokens.count(IM_END) == 1
    text = "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n"
    assert zaya.decode(tokens, skip_special=False) == text


def test_thinking_switched_off_closes_an_empty_block(zaya):
    on = zaya.encode_chat([{"role": "user", "content": "the"}])
    off = zaya.encode_chat([{"role": "user", "content": "the"}], enable_thinking=False)
    assert off[: len(on)] == on
    assert off[len(on) :] == [zaya.think_start_id, 108, zaya.think_end_id, 108]


def test_messages_without_a_template_say_what_to_do(tmp_path):
    tokenizer = load_tokenizer(write_checkpoint(tmp_path))
    message = refusal(tokenizer.encode_chat, [{"role": "user", "content": "the"}])
    assert str(tmp_path) in message and "chat_template.jinja" in message and "plain text prompt" in message


@pytest.mark.parametrize("text, expected", [("a\ud800b", "character 1"), (None, "NoneType"), (b"a", "bytes")])
def test_what_is_no_text_is_refused(zaya, text, expected):
    for encode in (zaya.encode, zaya.encode_prompt):
        assert expected in refusal(encode, text)


# Decoding


def test_ids_past_the_vocabulary_are_empty_text(zaya):
    hello = zaya.encode("hello", special=False)
    assert zaya.decode([*hello, zaya.vocab_size, 262271, *hello]) == "hellohello"


def test_special_tokens_are_left_out_or_kept(zaya):
    assert zaya.decode(zaya.encode("hello")) == "hello"
    assert zaya.decode(zaya.encode("hello"), skip_special=False) == "<bos>hello<|im_end|>"


def test_arrays_decode(zaya):
    assert zaya.decode(np.asarray(zaya.encode("the hello"), np.int32)) == "the hello"


def test_a_named_token_is_special_even_if_the_file_forgot(tmp_path):
    saved = json.loads(zaya_like().to_str())
    for token in saved["added_tokens"]:
        token["special"] = False
    backend = tokenizers.Tokenizer.from_str(json.dumps(saved))
    tokenizer = load_tokenizer(write_checkpoint(tmp_path, backend, tokenizer_config=SETTINGS))
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
    assert {BOS, IM_END} <= tokenizer.hidden_ids


def test_a_special_token_keeps_the_blanks_the_file_gives_it(tmp_path):
    backend = zaya_like()
    backend.add_special_tokens([tokenizers.AddedToken("<|im_end|>", rstrip=True, normalized=False)])
    tokenizer = load_tokenizer(write_checkpoint(tmp_path, backend, tokenizer_config=SETTINGS))
    assert tokenizer.encode("he<|im_end|>  \n", special=False)[1:] == [IM_END]


# Decoding in pieces


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """One tokenizer of every kind: byte fallback, the same with a stripped first blank, byte-level, no decoder."""
    stripped, accented, bare = zaya_like(), byte_tokenizer(), zaya_like()
    strip = decoders.Strip(" ", 1, 0)
    stripped.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    accented.add_tokens(["naïve 漢", "é"])  # one outside the byte alphabet, one that reads as a single byte of it
    accented.decoder = decoders.Sequence([decoders.ByteLevel()])
    bare.decoder = None
    backends = {
        "fallback": zaya_like(),
        "stripped": stripped,
        "bytes": byte_tokenizer(),
        "added": accented,
        "bare": bare,
    }
    return {name: with_backend(tmp_path_factory.mktemp(name), backend) for name, backend in backends.items()}


def streamed(tokenizer, tokens, **keywords) -> list[str]:
    stream = StreamDecoder(tokenizer, **keywords)
    return [*(stream.push(token) for token in tokens), stream.flush()]


KINDS = ["fallback", "stripped", "bytes", "added", "bare"]
# Byte ids that begin, continue and break UTF-8 sequences more often than chance would.
RAW = st.sampled_from([0x41, 0x80, 0xAC, 0xC3, 0xE2, 0x82, 0xED, 0xA0, 0xF0, 0x9F, 0x98, 0x80, 0xF4, 0xFF])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_pieces_join_to_the_whole_and_never_change(kinds, kind, data):
    tokenizer = kinds[kind]
    first = FIRST_BYTE_ID if kind in ("bytes", "added") else FIRST_FALLBACK
    any_id = st.integers(0, tokenizer.vocab_size + 9) | RAW.map(lambda byte: first + byte)
    tokens = data.draw(st.lists(any_id, max_size=40))
    skip = data.draw(st.booleans())
    assert "".join(streamed(tokenizer, tokens, skip_special=skip)) == tokenizer.decode(tokens, skip_special=skip)


@pytest.mark.parametrize("kind", ["fallback", "bytes"])
@given(text=st.text(), cut=st.integers(0, 50))
def test_what_was_shown_is_a_prefix_whatever_follows(kinds, kind, text, cut):
    tokenizer = kinds[kind]
    tokens = tokenizer.encode(text, special=False)
    stream = StreamDecoder(tokenizer)
    shown = "".join(stream.push(token) for token in tokens[:cut])
    assert tokenizer.decode(tokens).startswith(shown)
    assert shown.count("\ufffd") <= text.count("\ufffd")


def test_a_byte_level_character_appears_with_its_last_byte(kinds):
    tokens = kinds["bytes"].encode("a€😀b", special=False)
    assert streamed(kinds["bytes"], tokens) == ["a", "", "", "€", "", "", "", "😀", "b", ""]


def test_a_fallback_run_appears_with_the_token_after_it(kinds):
    tokens = kinds["fallback"].encode("a€b", special=False)
    assert streamed(kinds["fallback"], tokens) == ["a", "", "", "", "€b", ""]
    # one stray byte at the end of the run, and the euro sign was never there
    broken = [*tokens[:4], FIRST_FALLBACK + 0xFF, tokens[4]]
    assert streamed(kinds["fallback"], broken) == ["a", "", "", "", "", "\ufffd" * 4 + "b", ""]


def test_added_tokens_that_are_not_spelled_in_bytes_are_themselves(kinds):
    tokens = kinds["added"].encode("é naïve 漢!", special=False)
    assert len(tokens) == 4
    assert "".join(streamed(kinds["added"], tokens)) == kinds["added"].decode(tokens) == "\ufffd naïve 漢!"


def test_an_unfinished_character_shows_at_the_end(kinds):
    for kind in ("fallback", "bytes"):
        tokens = kinds[kind].encode("a€", special=False)[:-1]
        pieces = streamed(kinds[kind], tokens)
        assert "".join(pieces[:-1]) == "a" and set(pieces[-1]) == {"\ufffd"}


def test_a_stream_starts_afresh_after_flush(kinds):
    for tokenizer in kinds.values():
        tokens = tokenizer.encode("hello the", special=False)
        stream = StreamDecoder(tokenizer)
        texts = ["".join(map(stream.push, tokens)) + stream.flush() for _ in range(2)]
        assert texts == [tokenizer.decode(tokens)] * 2


def test_the_cost_of_a_token_does_not_grow(kinds, monkeypatch):
    tokenizer = kinds["fallback"]
    lengths = []
    seen = dataclasses.replace(tokenizer)
    object.__setattr__(seen, "decode", lambda tokens, **keywords: (lengths.append(len(tokens)), "")[1])
    streamed(seen, tokenizer.encode("hello the " * 50, special=False))
    assert max(lengths) == 2


def test_the_byte_model_has_rows_past_its_tokenizer(kinds):
    assert kinds["bytes"].vocab_size < BYTE_VOCAB_SIZE
    assert kinds["bytes"].decode(range(kinds["bytes"].vocab_size, BYTE_VOCAB_SIZE)) == ""
