"""Reading the answers of a run, on lines written by hand."""

import json

import pytest

from zaya_jax.errors import UserError
from zaya_jax.rl.rollout_view import Wanted, columns, compared, parse_steps, read, summary, text_of, write_rollouts

BASE = {
    "schema": 1, "step": 1, "group": 0, "place": 0, "environment": "addition", "difficulty": 2,
    "problem": "addition/2/7", "prompt": "add 1+2",
    "text": "<think>1:1+2=3</think>3", "response": "3", "token_ids": [1, 2, 3],
    "mu": [-1.0] * 3,
    "versions": [0, 0, 1], "correct": True, "reward": 1.0, "bonus": 0.0, "advantage": 0.5, "degenerate": False,
    "truncated": False, "error": None, "dropped": None,
}  # fmt: skip
ROWS = [
    BASE,
    BASE | {"place": 1, "correct": False, "truncated": True, "token_ids": [1] * 5}
    | {"text": "<think>1:1+", "error": "unfinished"},
    BASE | {"step": 2, "difficulty": 3, "dropped": "all right"},
    BASE | {"step": 3, "environment": "sorting", "correct": None, "dropped": "verifier failed", "versions": [2]},
]  # fmt: skip


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_the_table_counts_by_environment_and_difficulty(workdir):
    lines = summary(read(workdir, Wanted()))
    assert lines == [
        ["addition", "2", "2", "50.0%", "50.0%", "4.0", "100.0%"],
        ["addition", "3", "1", "100.0%", "0.0%", "3.0", "0.0%"],
        ["sorting", "2", "1", "0.0%", "0.0%", "3.0", "0.0%"],
    ]
    assert columns(lines).splitlines()[1].split() == lines[0]


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        (Wanted((2, 3)), [2, 3]),
        (Wanted(environment="sorting"), [3]),
        (Wanted(verdict="right"), [1, 2]),
        (Wanted(verdict="wrong"), [1]),
        (Wanted(verdict="none"), [3]),
        (Wanted(taught=True), [1, 1]),
        (Wanted(taught=False), [2, 3]),
        (Wanted(contains="</think>"), [1, 2, 3]),
    ],
)
def test_filters(workdir, wanted, steps):
    assert [row["step"] for row in read(workdir, wanted)] == steps


def test_what_became_of_a_group_later_is_said_of_its_earlier_lines(workdir):
    """A pipeline's group that left the buffer, and one that was asked again and learnt then."""
    later = [
        BASE | {"group": 7},
        BASE | {"group": 8},
        {"schema": 1, "step": 2, "group": 7, "dropped": "evicted"},
        {"schema": 1, "step": 2, "group": 8, "dropped": "asked again"},
        BASE | {"group": 8, "step": 3},
        BASE | {"group": 9, "step": 3, "dropped": "all right"},
        {"schema": 1, "step": 4, "group": 9, "dropped": "stale"},
    ]
    with (workdir / "rollouts.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in later)
    found = [(row["group"], row["step"], row["dropped"]) for row in read(workdir, Wanted())]
    assert found == [(7, 1, "evicted"), (8, 1, "asked again"), (8, 3, None), (9, 3, "all right")]
    assert [row["group"] for row in read(workdir, Wanted(taught=True))] == [8]


def test_two_runs_side_by_side():
    a, b = summary(ROWS[:2]), summary(ROWS[2:3])
    assert compared(a, b) == [
        ["addition", "2", "2 / -", "50.0% / -", "50.0% / -", "4.0 / -", "100.0% / -"],
        ["addition", "3", "- / 1", "- / 100.0%", "- / 0.0%", "- / 3.0", "- / 0.0%"],
    ]


def test_an_answer_and_the_page(workdir):
    shown = text_of(ROWS[1])
    assert "step 1, addition/2/7#1, wrong" in shown and "weights 0 to 1" in shown and "unfinished" in shown
    write_rollouts(workdir / "page.html", "Rollouts", summary(ROWS), ROWS)
    page = (workdir / "page.html").read_text()
    assert "&lt;think&gt;1:1+2=3&lt;/think&gt;3" in page and "<think>" not in page


@pytest.mark.parametrize("given", ["x", "5-", "9-5", "-3", "5-6-7"])
def test_steps_that_are_none(given):
    with pytest.raises(UserError, match="not steps"):
        parse_steps(given)
    assert parse_steps("5") == (5, 5) and parse_steps("5-9") == (5, 9) and parse_steps("") is None


def test_another_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        list(read(tmp_path, Wanted()))
    (tmp_path / "rollouts.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UserError, match="not an answer of a run"):
        list(read(tmp_path, Wanted()))
