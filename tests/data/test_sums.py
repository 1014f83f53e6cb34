"""Sums made on the spot: every working is right, the parts are apart, and rows are good conversations."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.data.schema import parse_chat
from zaya_jax.data.sums import PARTS, conversations, working
from zaya_jax.errors import UserError

NUMBER = st.integers(0, 9999)


@given(NUMBER, NUMBER)
def test_the_working_is_that_of_paper_and_pencil(a, b):
    *lines, last = working(a, b)
    assert last == f"{a} + {b} = {a + b}"
    carry = 0
    for place, line in enumerate(lines):
        x, y, carried, total, written, carry = map(int, re.findall(r"\d+", line))
        assert (x, y) == (a // 10**place % 10, b // 10**place % 10)
        assert total == x + y + carried == 10 * carry + written
        assert written == (a + b) // 10**place % 10


@pytest.mark.parametrize("part", PARTS)
def test_answers_are_right_and_some_attempts_are_not(part):
    seen, wrong = 0, 0
    for _, record in conversations(part):
        prompt, reply = record["messages"]
        a, b = map(int, re.match(r"What is (\d+) \+ (\d+)\?", prompt["content"]).groups())
        assert reply["content"] == str(a + b) and reply["reasoning_content"].endswith(f"= {a + b}")
        for claim in re.findall(rf"{a} \+ {b} = (-?\d+)", prompt["content"]):
            seen, wrong = seen + 1, wrong + (int(claim) != a + b)
        assert parse_chat(record).weights == (0.0, 1.0)
    assert seen == 3 * PARTS[part] / 4 and 0.3 < wrong / seen < 0.5


def test_no_sum_is_in_both_parts():
    def questions(part):
        return {record["messages"][0]["content"].split("?")[0] for _, record in conversations(part)}

    assert not questions("train") & questions("held_out")
    with pytest.raises(UserError, match="no such part of the sums; expected train or held_out; found 'test'"):
        list(conversations("test"))
