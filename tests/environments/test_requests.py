"""Requests: merit by hand, explained replies in the form asked for and of mixed merit, rows of data, files of chat."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.environments.rows import write
from zaya_jax.data.made_preferences import FORMS
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.named import named
from zaya_jax.environments.requests import ENVIRONMENTS
from zaya_jax.environments.sft import Making, make_rows, part_of

REQUESTS = ENVIRONMENTS["requests"]
SEEDS = st.integers(0, 2**62)


def asked(form):
    return Problem("r", f"Tell me of the wet owl, {form}.", {"form": form, "kind": "wet", "thing": "owl"})


@pytest.mark.parametrize(
    ("form", "response", "right", "merit"),
    [
        ("in one line", "The owl.", True, 4 + 0.9),
        ("in one line", "The owl. Thank you.", True, 4 + 2 + 0.8),
        ("in one line", "The\nowl.", False, 0.9),
        ("as a list", "\n\n- The owl.\n- Thank you.", True, 4 + 2 + 0.8),
        ("as a list", "The owl.", False, 0.9),
        ("in capitals", "THE OWL. IT IS WET.", True, 4 + 0.75),
        ("in capitals", "THE owl.", False, 0.9),
    ],
)
def test_merit_by_hand(form, response, right, merit):
    """4 for the form, 2 for thanks, 1 less a twentieth of the words; of 7."""
    verdict = REQUESTS.verify(asked(form), response)
    assert verdict.reward == pytest.approx(merit / 7) and (verdict.correct, verdict.format) == (right, True)
    assert verdict.error == (None if right else f"not {form}")


@pytest.mark.parametrize("response", ["", " \n", "\0", "x" * 10**5, "a, " * 10**4, "- " * 999])
def test_any_text_gets_a_verdict(response):
    for form in FORMS:
        verdict = REQUESTS.verify(asked(form), response)
        assert 0 <= verdict.reward <= 1 and (response.strip() or not (verdict.correct or verdict.reward))


@given(SEEDS)
def test_explained_replies_are_right_and_short_enough_for_nano(seed):
    problem = REQUESTS.generate(seed, 0)
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem
    reasoning, reply = REQUESTS.explain(problem)
    assert REQUESTS.verify(problem, reply).correct and REQUESTS.explain(problem) == (reasoning, reply)
    assert len(problem.prompt) <= 96 and len(reasoning) + len(reply) <= 134


def test_replies_are_of_mixed_merit():
    problems = [REQUESTS.generate(seed, 0) for seed in range(300)]
    merits = [7 * REQUESTS.verify(problem, REQUESTS.explain(problem)[1]).reward for problem in problems]
    with_thanks = sum(merit > 5 for merit in merits)
    assert 110 < with_thanks < 190  # 150 expected
    assert len({round(merit, 2) for merit in merits}) == 8, "one to four facts, with thanks or without"
    assert {problem.hidden["form"] for problem in problems} == set(FORMS)


def test_problems_are_the_same_in_another_process():
    code = (
        "from zaya_jax.environments.requests import ENVIRONMENTS as E; import json; e = E['requests'];"
        "print(json.dumps([[p.to_json(), *e.explain(p)] for p in (e.generate(s, 0) for s in range(20))]))"
    )
    environments = [os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)} for seed in "12"]
    command = [sys.executable, "-c", code]
    first, second = (subprocess.run(command, env=e, capture_output=True, check=True).stdout for e in environments)
    assert first == second and len(json.loads(first)) == 20


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_rows_of_requests_and_instructions(part):
    names = ("requests", "simple_instructions", "hard_instructions")
    rows = list(make_rows(Making(names, (0, 1), 90, part, aggregation=1.0)))
    prompts = [row["messages"][0]["content"] for row in rows]
    assert len(set(prompts)) == 90, "difficulties of requests are alike: no prompt is there twice"
    assert {part_of(prompt) for prompt in prompts} == {part}
    for row in rows:
        environment = named(row["environment"])
        problem = environment.generate(row["seed"], row["difficulty"])
        reasoning, reply = environment.explain(problem)
        assert row["messages"][1] == {"role": "assistant", "reasoning_content": reasoning, "content": reply}
        assert environment.verify(problem, reply).correct and "aggregation" not in row
    assert {row["environment"] for row in rows} == set(names)


def test_a_file_of_chat_has_no_right_answer(tmp_path):
    path = write(tmp_path / "chat.jsonl", {"id": "1", "problem": "What would you pack?", "kind": "chat"})
    environment = named(f"file:{path}")
    problem = environment.generate(0, 0)
    assert problem.prompt == "What would you pack?" and problem.hidden == {"kind": "chat"}
    verdict = environment.verify(problem, "A hat.")
    assert (verdict.reward, verdict.correct, verdict.answer) == (1, True, "A hat.")
    assert not environment.verify(problem, " \n").correct
