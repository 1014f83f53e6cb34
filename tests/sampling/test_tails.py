"""Tails and prompts put together on the device, against lists joined on the host."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampling.joined import make_tails, run_assemble
from zaya_jax.sampling.reasoning import reasoning
from zaya_jax.sampling.request import Completion, Request
from zaya_jax.sampling.tails import cut_tails, make_template

START, END, EOS = 1, 2, 3
TAU, N, C, WIDTH = 4, 3, 2, 32

tails = st.lists(st.lists(st.integers(10, 99), max_size=6), min_size=N, max_size=N)
pieces = st.lists(st.lists(st.integers(100, 199), max_size=4), min_size=C + 1, max_size=C + 1)
parents = st.lists(st.lists(st.integers(0, N - 1), min_size=C, max_size=C), min_size=N, max_size=N)


@settings(max_examples=100, deadline=None)
@given(tails, pieces, parents)
def test_a_prompt_is_its_parts_joined(tails, pieces, parents):
    padded = [*pieces[:-1], [*pieces[-1], *[0] * (4 * (C + 1) - sum(map(len, pieces)))]]  # one shape, one program
    tokens_NP, count_N = run_assemble(make_template(padded), make_tails(tails, TAU), np.array(parents), width=WIDTH)
    for row, count, own in zip(np.asarray(tokens_NP), np.asarray(count_N), parents):
        expected = [*padded[0], *tails[own[0]][-TAU:], *padded[1], *tails[own[1]][-TAU:], *padded[2]]
        assert row[:count].tolist() == expected
        assert (row[count:] == 0).all()


drawn = st.lists(st.sampled_from([START, END, 50, 51, 52, 53]), max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(drawn, st.booleans()), min_size=2, max_size=2))
def test_tails_are_cut_on_the_device_as_on_the_host(rows):
    tokens = [[*row, EOS] if ended else row for row, ended in rows]
    width = 12
    tokens_NT = np.array([[*row, *[99] * (width - len(row))] for row in tokens], np.int32)
    stop_ids_NS = np.array([[EOS, -1]] * 2, np.int32)
    cut = cut_tails(tokens_NT, np.array([*map(len, tokens)]), np.array([START, END]), stop_ids_NS, TAU)
    for row, tail, count in zip(tokens, np.asarray(cut.tokens_NX), np.asarray(cut.count_N)):
        expected = host(row)[-TAU:]
        assert tail[:count].tolist() == expected and (tail[count:] == 0).all()


def host(tokens, think_ids=(START, END)):
    request = Request("r", (9, START), stop_ids=(EOS,), think_ids=think_ids)
    row = np.array(tokens, np.int32)
    return reasoning(request, Completion("r", row, row, row, row[None], "stop", row)).tolist()


def test_reasoning_by_hand():
    assert host([50, 51]) == [50, 51]
    assert host([50, END, 51, EOS]) == [50]
    assert host([50, EOS]) == [50]
    assert host([END, 51]) == []
    assert host([50, END, 51, START, 52, END, 53]) == [50, 52]
    assert host([50, START, 51]) == [50, 51]
    assert host([50, START, 51, EOS], think_ids=None) == [50, START, 51]
