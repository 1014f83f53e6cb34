"""What holds for every family: its own working is right, other answers are not, nothing a response holds does harm."""

import hashlib
import importlib
import itertools
import json
import os
import pickle
import random
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.environments.families.oracles import ORACLES
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.families import FAMILIES, POSITIONAL, positions, spoil
from zaya_jax.errors import UserError

EVERY = pytest.mark.parametrize("name", FAMILIES)
CHARACTERS = "0123456789abcxyz+-*/%(),;=>| \n"
HOSTILE = [
    "", " \n\t", "a", "-", "+1", "1_000", "١٢", "１２", "²", "NaN", "inf", "1e5", "0x10", "--1", "1.0", "None", "\x00",
    "\ud800", "<think>12", "</think>", "</think></think>", "9**9**9", "y=9**9**9", "__import__('os').system('true')",
    "9" * 5000, "1" * 1_000_000, "a" * 1_000_000, "a+" * 500_000, "(" * 1_000_000, "1 " * 500_000,
    "\n" * 1_000_000 + "1", "</think>" * 100_000, "é" * 4000,
    "y=" + "(" * 150 + "x" + ")" * 150, "y=" + "-" * 3000 + "x", "y=" * 1500 + "x",
    "min(" * 500, "not " * 900 + "x", ";".join(["y=x*999999999"] + ["y=y*y"] * 500), "y=x" + "*999999999" * 380,
]  # fmt: skip


def digest() -> str:
    problems = [family.generate(seed, d) for family in FAMILIES.values() for seed in range(4) for d in (0, 3, 17)]
    texts = [[problem.to_json(), FAMILIES[problem.meta["environment"]].explain(problem)] for problem in problems]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


@EVERY
def test_the_answer_of_the_working_is_right(name):
    family = FAMILIES[name]
    for difficulty in (0, 1, 2, 3, 5, 9):
        for seed in range(12):
            problem = family.generate(seed, difficulty)
            reasoning, answer = family.explain(problem)
            for response in (answer, f" {answer}\n", f"<think>{reasoning}</think>{answer}"):
                verdict = family.verify(problem, response)
                assert (verdict.reward, verdict.correct, verdict.format, verdict.error) == (1.0, True, True, None)
                assert verdict.answer == answer
            assert ORACLES[name](problem.prompt, answer)


@EVERY
def test_the_example_in_the_docstring_is_right(name):
    text = importlib.import_module(f"zaya_jax.environments.families.{name}").__doc__
    assert ORACLES[name](*re.search(r'"([^"]+)" -> "([^"]+)"', text).groups())


@EVERY
@settings(max_examples=60)
@given(data=st.data())
def test_of_other_answers_those_are_right_that_the_oracle_finds_right(name, data):
    family = FAMILIES[name]
    problem = family.generate(data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 4)))
    answer = family.explain(problem)[1]
    place = data.draw(st.integers(0, len(answer)))
    changed = data.draw(st.sampled_from(CHARACTERS)) if data.draw(st.booleans()) else ""
    other = (answer[:place] + changed + answer[place + data.draw(st.integers(0, 1)) :]).strip()
    verdict = family.verify(problem, other)
    assert verdict.correct == ORACLES[name](problem.prompt, other)
    assert verdict.reward == float(verdict.correct)
    assert verdict.format or not verdict.correct
    assert (verdict.error is None) == verdict.correct


@EVERY
def test_attempts_that_go_wrong_differ_from_sound_ones_and_are_wrong(name):
    family = FAMILIES[name]
    wrong = 0
    for seed in range(40):
        problem = family.generate(seed, 3)
        reasoning, answer = spoil(family, problem, random.Random(seed))
        assert (reasoning, answer) == spoil(family, problem, random.Random(seed))
        correct = ORACLES[name](problem.prompt, answer)
        assert family.verify(problem, answer).correct == correct
        wrong += not correct
        assert correct or reasoning != family.explain(problem)[0]
    assert wrong >= 39


@EVERY
def test_prompts_are_compact_plain_and_theirs_alone(name):
    family = FAMILIES[name]
    problems = [family.generate(seed, 0) for seed in range(200)]
    texts = [text for problem in problems for text in (problem.prompt, *family.explain(problem))]
    assert all(re.fullmatch(r"[\x20-\x7e\n]+", text) for text in texts)
    lengths = sorted(len(problem.prompt) for problem in problems)
    assert lengths[100] <= 40 and lengths[-1] <= 56
    assert len({problem.prompt for problem in problems}) > 80
    assert {problem.id for problem in problems} == {f"{name}/0/{seed}" for seed in range(200)}
    assert all(problem.meta == {"environment": name, "difficulty": 0, "seed": s} for s, problem in enumerate(problems))


@EVERY
def test_harder_problems_are_longer_without_end(name):
    family = FAMILIES[name]

    def size(difficulty):
        problems = [family.generate(seed, difficulty) for seed in range(40)]
        return sum(len(problem.prompt + family.explain(problem)[0]) for problem in problems)

    sizes = [size(difficulty) for difficulty in (0, 3, 8, 20)]
    assert all(more > 1.15 * less for less, more in itertools.pairwise(sizes))
    start = time.process_time()
    problem = family.generate(1, 200)
    assert time.process_time() - start < 1
    assert family.verify(problem, family.explain(problem)[1]).correct


@EVERY
@pytest.mark.parametrize("difficulty", [0, 30])
def test_whatever_a_response_holds_a_verdict_comes_back_soon(name, difficulty):
    family = FAMILIES[name]
    problem = family.generate(5, difficulty)
    for text in HOSTILE:
        start = time.process_time()
        verdict = family.verify(problem, text)
        assert time.process_time() - start < 5, text[:20]  # not minutes, and not without end
        assert not verdict.correct or ORACLES[name](problem.prompt, verdict.answer)
        assert len(verdict.answer or "") <= 4096
        assert verdict.error is None or 0 < len(verdict.error) < 80


@EVERY
@given(text=st.text(max_size=60))
def test_any_text_gets_a_verdict(name, text):
    problem = FAMILIES[name].generate(0, 1)
    verdict = FAMILIES[name].verify(problem, text)
    assert verdict.reward in (0.0, 1.0) and (verdict.format or verdict.answer is None)


@EVERY
def test_problems_and_families_go_to_other_processes(name):
    family = pickle.loads(pickle.dumps(FAMILIES[name]))
    problem = Problem.from_json(json.loads(json.dumps(FAMILIES[name].generate(7, 6).to_json())))
    assert problem == family.generate(7, 6)
    assert family.verify(problem, family.explain(problem)[1]).correct
    assert family.explain(problem) == FAMILIES[name].explain(FAMILIES[name].generate(7, 6))


def test_nothing_but_seed_and_difficulty_decides(root):
    code = "from tests.environments.families.test_contract import digest; print(digest())"
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == digest(), done.stderr


@pytest.mark.parametrize(
    "seed, difficulty, said",
    [
        (-1, 0, "chain: not a seed; expected an integer from 0 up; found -1"),
        (0, -1, "chain: not a difficulty; expected an integer from 0 up; found -1"),
        (0, 1.5, "chain: not a difficulty; expected an integer from 0 up; found 1.5"),
        (True, 0, "chain: not a seed; expected an integer from 0 up; found True"),
    ],
)
def test_what_is_no_seed_or_difficulty_is_refused(seed, difficulty, said):
    with pytest.raises(UserError) as caught:
        FAMILIES["chain"].generate(seed, difficulty)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "hidden, name, response, expected",
    [
        ("xqdx", "cipher", "xqdx", (4, 4)),
        ("xqdx", "cipher", "xqax", (3, 4)),
        ("xqdx", "cipher", "xq", (2, 4)),
        ("1002", "addition", "002", (3, 4)),
        ("1002", "addition", "</think>1003", (3, 4)),
        ("0 13 4", "sorting", "0 13 5 4", (2, 3)),
        ("a-b+c-", "knights", "a-b-c-", (2, 3)),
        ("a-b+c-", "knights", "", (0, 3)),
        ("0110", "automaton", "x" * 10**6, (0, 4)),
    ],
)
def test_positions_are_counted(hidden, name, response, expected):
    assert positions(Problem("p", "?", {"answer": hidden}, {"environment": name}), response) == expected


def test_every_position_of_a_right_answer_is_right_and_others_have_none():
    for name, family in FAMILIES.items():
        problem = family.generate(2, 5)
        if name in POSITIONAL:
            right, count = positions(problem, family.explain(problem)[1])
            assert right == count >= 5
        else:
            with pytest.raises(UserError, match="no positions; expected a problem of cipher, addition"):
                positions(problem, "1")
