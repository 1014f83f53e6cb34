"""Replies in tokens and what of them counts, against ChatML's rules written a second time (conversations.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conversations import KEEPING, byte_level, conversations, flat, pieces
from tests.text.checkpoints import CHATML as ZAYA_LIKE
from tests.text.checkpoints import IM_END, write_checkpoint
from zaya_jax.data.encoding import encode
from zaya_jax.data.schema import parse_chat
from zaya_jax.data.sources import SourceConfig
from zaya_jax.data.turns import chat_turns, weights_of
from zaya_jax.errors import UserError
from zaya_jax.text.tokenizer import load_tokenizer

DROPPING_TEMPLATE, KEEPING_TEMPLATE = byte_level(), byte_level(KEEPING)
CHATS = SourceConfig("chats", "chat", "unused")


def weights(messages):
    return [float(m["role"] == "assistant" and m.get("train", True)) for m in messages]


@settings(max_examples=150)
@given(conversations(), st.booleans())
def test_tokens_are_the_rendering_and_exactly_the_replies_count(messages, keep):
    tokenizer = KEEPING_TEMPLATE if keep else DROPPING_TEMPLATE
    chat = parse_chat({"messages": messages})
    turns = chat_turns(chat, tokenizer)
    tokens = [token for turn in turns for token in turn.turn.tokens]
    expected = flat(pieces(messages, weights(messages), keep), tokenizer)
    assert (tokens, weights_of(turns)) == expected
    assert tokens == tokenizer.encode_chat(chat.messages, add_generation_prompt=False)


def shorter_and_shorter(messages):
    """The conversation in the forms that trimming may give it, the best first: one reasoning token less each time."""
    last = messages[-1]
    reasoning = last.get("reasoning_content")
    bare = [{key: value for key, value in m.items() if key != "reasoning_content"} for m in messages[:-1]]
    for earlier in (messages[:-1], bare):
        yield [*earlier, last]
        for end in reversed(range(len(reasoning or ""))):
            yield [*earlier, last | {"reasoning_content": reasoning[:end]}]


@settings(max_examples=150)
@given(conversations(), st.integers(20, 250))
def test_trimming_never_cuts_an_answer(messages, length):
    """Whatever of a conversation reaches a window: its answers are whole, and the mask covers exactly the replies."""
    outcome = encode(parse_chat({"messages": messages}), CHATS, KEEPING_TEMPLATE, length)
    forms = [flat(pieces(form, weights(form), True), KEEPING_TEMPLATE) for form in shorter_and_shorter(messages)]
    fitting = [form for form in forms if len(form[0]) <= length]
    assert [(e.tokens.tolist(), e.weights.tolist()) for e in outcome.examples] == fitting[:1]
    assert outcome.fate == ("dropped" if not fitting else "whole" if fitting[0] == forms[0] else "trimmed")


def test_the_four_steps_on_a_packed_source_are_those_of_the_report():
    ask, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "ANSWER"}
    messages = [ask, answer | {"reasoning_content": "one" * 9}, ask, answer | {"reasoning_content": "two" * 9}]

    def text(length):
        outcome = encode(parse_chat({"messages": messages}), CHATS, KEEPING_TEMPLATE, length)
        return outcome.fate, [KEEPING_TEMPLATE.decode(e.tokens, skip_special=False) for e in outcome.examples]

    whole = KEEPING_TEMPLATE.render_chat(messages, add_generation_prompt=False)
    size = len(KEEPING_TEMPLATE.encode(whole, special=False))
    assert text(size) == ("whole", [whole])
    assert text(size - 5) == ("trimmed", [whole.replace("two" * 9, ("two" * 9)[:-5])])
    block = "<think>\n" + "one" * 9 + "\n</think>\n\n"
    removed = len(KEEPING_TEMPLATE.encode(block, special=False))
    bare = whole.replace(block, "")
    assert text(size - 28) == ("trimmed", [bare])
    assert text(size - removed - 4) == ("trimmed", [bare.replace("two" * 9, ("two" * 9)[:-4])])
    assert text(size - removed - 27) == ("trimmed", [bare.replace("two" * 9, "")])
    assert text(size - removed - 28) == ("dropped", [])


def test_a_vocabulary_of_zayas_kind(tmp_path):
    tokenizer = load_tokenizer(write_checkpoint(tmp_path, template=ZAYA_LIKE, config={"eos_token_id": IM_END}))
    thought = "<think>\nthe hello\n</think>\n\nhello the"
    messages = [{"role": "user", "content": "the"}, {"role": "assistant", "content": thought}]
    ((turn, weight, uncounted),) = chat_turns(parse_chat({"messages": messages}), tokenizer)
    parts = [tokenizer.decode(part, skip_special=False) for part in (turn.opening, turn.thinking, turn.closing)]
    assert parts == ["<think>\n", "the hello", "\n</think>\n\n"]
    assert tokenizer.decode(turn.answer, skip_special=False) == "hello the<|im_end|>\n"
    assert (weight, uncounted, turn.answer[-2]) == (1, 1, IM_END)
    assert list(turn.tokens) == tokenizer.encode_chat(messages, add_generation_prompt=False)


def test_a_header_that_opens_the_block_gives_its_tag_to_the_turn():
    template = KEEPING.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A", "reasoning_content": "why"}]
    tokenizer = byte_level(template)
    ((turn, *_),) = chat_turns(parse_chat({"messages": messages}), tokenizer)
    assert tokenizer.decode(turn.header, skip_special=False).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(turn.without_thinking().tokens, skip_special=False).endswith("assistant\nA<|im_end|>\n")


def test_a_block_that_never_closes_is_answer():
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nA"}]
    ((turn, *_),) = chat_turns(parse_chat({"messages": messages}), DROPPING_TEMPLATE)
    assert (turn.thinking, len(turn.answer)) == ((), 1 + 2 + 1 + 1)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | length }}" + KEEPING,  # the beginning of the whole is not that of a part
        KEEPING.replace("{{ m.content }}", "{{ m.content if loop.last else m.content | upper }}"),
        KEEPING.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "<|other|>"),
    ],
)
def test_a_template_that_rewrites_what_came_before_is_refused(template):
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(UserError, match=r"messages\[[13]\]: the chat template renders .* unlike .* split the conv"):
        chat_turns(parse_chat({"messages": turn * 2}), byte_level(template))


def test_a_weight_counts_as_it_says():
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "abc", "weight": 0.25}]
    (example,) = encode(parse_chat({"messages": messages}), CHATS, DROPPING_TEMPLATE, 64).examples
    np.testing.assert_array_equal(np.unique(example.weights), np.float32([0, 0.25]))
    assert (example.weights == 0.25).sum() == 4
