"""Reasoning and answer, whole and in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.checkpoints import write_checkpoint
from zaya_jax.text.byte_level import write_tokenizer
from zaya_jax.text.thinking import Piece, ThinkingStream, opens_thinking, split_thinking, split_thinking_tokens
from zaya_jax.text.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("bytes")))


CASES = [
    ("<think>a</think>b", False, "a", "b", True),
    ("\n<think>a</think>b", False, "a", "\nb", True),
    ("a</think>b", False, "a", "b", True),  # the template opened the block
    ("a</think>b", True, "a", "b", True),
    ("<think>a", False, "a", "", False),  # cut off by its budget
    ("a", True, "a", "", False),
    ("a", False, "", "a", True),
    ("", False, "", "", True),
    ("", True, "", "", False),
    ("<think></think>", False, "", "", True),
    ("<think>a</think>b<think>c</think>d", False, "ac", "bd", True),
    ("<think>a<think>b</think>c", False, "ab", "c", True),
    ("<think>a</think>b</think>c", False, "a", "bc", True),
    ("a < think > b", False, "", "a < think > b", True),
]


@pytest.mark.parametrize("text, inside, thinking, answer, closed", CASES)
def test_a_reply_splits(tokenizer, text, inside, thinking, answer, closed):
    split = split_thinking(text, in_thinking=inside)
    assert (split.thinking, split.answer, split.closed) == (thinking, answer, closed)
    split = split_thinking_tokens(tokenizer.encode(text, special=False), tokenizer, in_thinking=inside)
    assert (tokenizer.decode(split.thinking), tokenizer.decode(split.answer), split.closed) == (
        thinking,
        answer,
        closed,
    )


def test_without_think_tokens_all_is_of_one_part(tmp_path):
    path = write_checkpoint(tmp_path) / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("think>", "other>"), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.think_start_id is None and tokenizer.think_end_id is None
    split = split_thinking_tokens([7, 8], tokenizer)
    assert (split.thinking, split.answer, split.closed) == ([], [7, 8], True)
    assert not opens_thinking([7, 8], tokenizer)
    assert ThinkingStream(tokenizer).push(tokenizer.encode("a")[1]) == Piece("a", False)


@pytest.mark.parametrize(
    "prompt, expected",
    [("", False), ("a", False), ("<think>", True), ("<think>a</think>b", False), ("<think></think>a<think>\n", True)],
)
def test_a_prompt_opens_a_block(tokenizer, prompt, expected):
    assert opens_thinking(tokenizer.encode_prompt(prompt), tokenizer) is expected


def test_a_prompt_without_thinking_opens_none(tokenizer):
    messages = [{"role": "user", "content": "a"}]
    for thinking_on in (True, False):
        assert not opens_thinking(tokenizer.encode_chat(messages, enable_thinking=thinking_on), tokenizer)


def streamed(tokenizer, tokens, **keywords):
    stream = ThinkingStream(tokenizer, **keywords)
    return [*(stream.push(token) for token in tokens), stream.flush()]


def test_a_stream_tells_reasoning_from_answer(tokenizer):
    tokens = tokenizer.encode("é<think>€</think>b<|im_end|>", special=False)
    pieces = [piece for piece in streamed(tokenizer, tokens) if piece.text]
    assert pieces == [Piece("é", False), Piece("€", True), Piece("b", False)]


def test_a_half_character_belongs_to_the_block_it_began_in(tokenizer):
    euro = tokenizer.encode("€", special=False)
    tokens = [tokenizer.think_start_id, *euro[:2], tokenizer.think_end_id, *euro[2:]]
    pieces = [piece for piece in streamed(tokenizer, tokens) if piece.text]
    assert pieces == [Piece("\ufffd", True), Piece("\ufffd", False)]


@given(parts=st.lists(st.text(max_size=5) | st.sampled_from(["<think>", "</think>"])), inside=st.booleans())
def test_a_stream_agrees_with_the_split(tokenizer, parts, inside):
    tokens = tokenizer.encode("".join(parts), special=False)
    marks = [token for token in tokens if token in (tokenizer.think_start_id, tokenizer.think_end_id)]
    inside = inside or marks[:1] == [tokenizer.think_end_id]
    split = split_thinking_tokens(tokens, tokenizer, in_thinking=inside)
    pieces = streamed(tokenizer, tokens, in_thinking=inside)
    for kind, expected in ((True, split.thinking), (False, split.answer)):
        assert "".join(piece.text for piece in pieces if piece.thinking is kind) == tokenizer.decode(expected)


@given(st.lists(st.text(max_size=5) | st.sampled_from(["<think>", "</think>"])), st.booleans())
def test_text_and_tokens_split_alike(tokenizer, parts, inside):
    text = "".join(parts)
    whole = split_thinking(text, in_thinking=inside)
    tokens = split_thinking_tokens(tokenizer.encode(text, special=False), tokenizer, in_thinking=inside)
    assert (whole.thinking, whole.answer) == (tokenizer.decode(tokens.thinking), tokenizer.decode(tokens.answer))
    assert whole.closed == tokens.closed
