"""Problems as JSON: there and back, and what is refused."""

import json

import pytest

from zaya_jax.environments.environment import Problem
from zaya_jax.errors import UserError

PROBLEM = Problem("a", "What?", {"answer": "1", "tests": [1, None]}, {"date": "2026-01-01"})


def test_a_problem_survives_json():
    assert Problem.from_json(json.loads(json.dumps(PROBLEM.to_json()))) == PROBLEM
    assert Problem.from_json({"id": "a", "prompt": "b", "hidden": {}}) == Problem("a", "b", {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "no 'id' of a problem; expected a text that is not empty; found ''"),
        ({"id": 3}, "no 'id' of a problem; expected a text that is not empty; found 3"),
        ({"prompt": None}, "no 'prompt' of a problem; expected a text that is not empty; found None"),
        ({"hidden": "x"}, "no 'hidden' of a problem; expected a JSON object; found 'x'"),
        ({"meta": []}, "no 'meta' of a problem; expected a JSON object; found []"),
        ({"answer": 1}, "unknown key 'answer' of a problem; expected id, prompt, hidden, meta"),
        ({"hidden": {"a": {1}}}, "problem a: not JSON; found Object of type set is not JSON serializable"),
        ({"meta": {"a": float("nan")}}, "problem a: not JSON; found Out of range float values are not JSON compliant"),
    ],
)
def test_what_is_no_problem_is_refused(change, message):
    with pytest.raises(UserError) as caught:
        Problem.from_json(PROBLEM.to_json() | change)
    assert message in str(caught.value)


def test_a_list_is_no_problem():
    with pytest.raises(UserError, match="not a problem; expected a JSON object; found list"):
        Problem.from_json([])
