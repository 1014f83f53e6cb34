"""Reasoning, answer and calls told apart while a reply arrives."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tests.sampling.models import tokenizer
from zaya_jax.sampling.request import Completion, Delta, Request
from zaya_jax.serving.reply import Gained, Reply, with_visible_tags
from zaya_jax.serving.tool_calls import CLOSE, OPEN, ToolCall, write_call

MARKS = (5, 6)
STOP = 4


def read(text, cuts=(1,), opened=False, tools=None, stops=(), end=True):
    """What a reply gains, cut into deltas."""
    tokens = [*tokenizer().encode(text, special=False), *([STOP] if end else [])]
    prompt = (9, MARKS[0]) if opened else (9,)
    request = Request("r", prompt, think_ids=MARKS, stop_ids=(STOP,), stop_strings=stops)
    reply, gained, place, turn = Reply(request, tokenizer(), tools), Gained(), 0, 0
    while place < len(tokens) or not tokens:
        step = cuts[turn % len(cuts)]
        part = np.array(tokens[place : place + step], np.int32)
        place, turn = place + step, turn + 1
        last = place >= len(tokens)
        numbers = -part.astype(np.float32)
        whole = Completion("r", part, numbers, numbers, np.zeros((1, 1)), "stop", part) if last else None
        gained.add(reply.push(Delta("r", 0, part, numbers, numbers, completion=whole)))
        if last:
            break
    return gained


@pytest.mark.parametrize(
    "text, opened, reasoning, content",
    [
        ("an answer\n", False, "", "an answer\n"),
        ("\n\nan answer", False, "", "\n\nan answer"),
        ("<think>\nwhy\n\nso\n</think>\n\nan answer\n", False, "why\n\nso", "an answer\n"),
        ("\nwhy\n</think>\n\nan answer", True, "why", "an answer"),
        ("\n</think>\n\nHello", False, "", "Hello"),
        ("\n<think>why</think>yes", False, "why", "yes"),
        ("<think>why\n", False, "why", ""),
        ("<think>\n\n</think>\n\n", False, "", ""),
        ("\n\n", False, "", "\n\n"),
        ("", False, "", ""),
        ("<think>a</think>b<think>c</think>d", False, "ac", "bd"),
        ("<think>é\n</think>ü", False, "é", "ü"),
    ],
)
@pytest.mark.parametrize("cuts", [(1,), (3, 1), (100,)])
def test_parts(text, opened, reasoning, content, cuts):
    gained = read(text, cuts, opened)
    assert (gained.reasoning, gained.content) == (reasoning, content)
    marks = text.count("<think>") + text.count("</think>")
    count = len(gained.reasoning_tokens) + len(gained.content_tokens)
    assert count == len(tokenizer().encode(text, special=False)) - marks
    assert all(logprob == -token for token, logprob in gained.reasoning_tokens + gained.content_tokens)


parts = st.lists(st.sampled_from(["<think>", "</think>", "\n", "a", "é", " b", OPEN, CLOSE, "<zy"]), max_size=12)


@given(parts, st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_however_it_arrives_the_parts_are_the_same(pieces, cuts, opened, tools):
    text = "".join(pieces)
    one, whole = (read(text, c, opened, tools=[] if tools else None) for c in (cuts, (1000,)))
    assert dataclasses.asdict(one) == dataclasses.asdict(whole)


def test_calls_are_found_in_the_answer_alone():
    call = ToolCall("f", {"x": "1"})
    text = f"<think>{write_call(call)}</think>\nI call:\n{write_call(call)}\n{write_call(call)}"
    gained = read(text, (4,), tools=[])
    assert gained.content == "I call:" and gained.calls == [(0, call), (1, call)]
    assert gained.reasoning == write_call(call)
    assert read(text, (4,)).content == text.partition("</think>\n")[2]


@pytest.mark.parametrize("cuts", [(1,), (4,), (100,)])
def test_a_stop_string_and_all_behind_it_is_left_out(cuts):
    assert read("<think>why</think>yes STOP no", cuts, stops=("STOP",)).content == "yes "
    assert read("<think>why STOP", cuts, stops=("STOP",)).reasoning == "why "


def test_tags_that_are_special_tokens_are_seen():
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(tokenizer().backend.to_str())
    backend.add_special_tokens([tokenizers.AddedToken(tag, normalized=False) for tag in (OPEN, CLOSE)])
    ids = frozenset(backend.token_to_id(tag) for tag in (OPEN, CLOSE))
    hidden = dataclasses.replace(tokenizer(), backend=backend, hidden_ids=tokenizer().hidden_ids | ids)
    call = ToolCall("f", {"x": "é"})
    tokens = np.array(hidden.encode(write_call(call), special=False), np.int32)
    assert ids <= set(tokens.tolist())
    numbers = np.zeros(len(tokens), np.float32)
    whole = Completion("r", tokens, numbers, numbers, np.zeros((1, 1)), "stop", tokens)
    reply = Reply(Request("r", (9,), think_ids=MARKS), with_visible_tags(hidden), [])
    assert reply.push(Delta("r", 0, tokens, numbers, numbers, completion=whole)).calls == [(0, call)]
