"""Files of attempts: what is read comes back, and what is wrong is named with its line."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.environments.attempt_rows import row, rows, write
from zaya_jax.environments.attempts import Attempt, difficulties, parse, parse_attempt, read_attempts
from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.sft import draw
from zaya_jax.errors import UserError

maybe = st.none() | st.booleans()
attempts = st.builds(
    Attempt, st.text("ab\n", max_size=5), st.none() | st.lists(st.integers(0, 300), max_size=4).map(tuple), maybe, maybe
)


@given(attempts)
def test_an_attempt_comes_back(attempt):
    assert parse_attempt(attempt.to_json(), "here") == attempt


def test_rows_come_back(tmp_path):
    records = rows()
    path = write(tmp_path / "a.jsonl", records)
    found = read_attempts(path)
    assert [one.id for one in found] == [record["id"] for record in records]
    assert [parse(one.to_json(), "here") for one in found] == found
    assert difficulties(path) == (0, 2)


GOOD = rows(count=1)[0]
HELD_OUT = row(next(draw(FAMILIES["addition"], 0, "held_out")))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"schema": 2}, "line 2: unknown schema; expected \"schema\": 1; found 2"),
        ({"schema": None}, "unknown schema"),
        ({"atempts": []}, "unknown key 'atempts'.*did you mean 'attempts'"),
        ({"id": ""}, "no 'id'"),
        ({"environment": "attempts:b.jsonl"}, "attempts at prompts with attempts"),
        ({"difficulty": -1}, "no 'difficulty'"),
        ({"problem": {"id": "x", "prompt": "y"}}, "line 2: no 'hidden' of a problem"),
        ({"problem": HELD_OUT["problem"]}, "line 2: a held-out problem; found 'addition/0/"),
        ({"attempts": []}, "no attempts"),
        ({"attempts": ["one"]}, r"attempts\[0\]: is not an attempt"),
        ({"attempts": [{"text": "a"}, {"txt": "b"}]}, r"attempts\[1\]: unknown key 'txt'"),
        ({"attempts": [{"text": 3}]}, "no 'text'"),
        ({"attempts": [{"text": "a</think>b"}]}, "marks of reasoning in an attempt"),
        ({"attempts": [{"text": "a", "tokens": [1, -2]}]}, "tokens are no ids"),
        ({"attempts": [{"text": "a", "right": 1}]}, "right is no flag"),
        ({"made": []}, "made is not an object"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, change, said):
    path = write(tmp_path / "a.jsonl", [GOOD, GOOD | {"id": "other"} | change])
    with pytest.raises(UserError, match=said):
        read_attempts(path)


def test_a_row_twice(tmp_path):
    with pytest.raises(UserError, match=r"line 3: id 'addition/0/.*' is there twice"):
        read_attempts(write(tmp_path / "a.jsonl", [GOOD, rows()[1], GOOD]))


def test_every_problem_that_is_held_out_is_refused():
    for problem in itertools.islice(draw(FAMILIES["sorting"], 1, "held_out"), 20):
        with pytest.raises(UserError, match="held-out"):
            parse(row(problem), "here")
