"""Environments of instructions: every problem can be solved, what breaks an instruction is found, nothing is chance."""

import itertools
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.environments import benchmarks
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.instructions import ENVIRONMENTS
from zaya_jax.environments.instructions.environment import HARD, MOST, SIMPLE
from zaya_jax.environments.instructions.kinds import KINDS, conflict, subjects

NAMES = st.sampled_from([SIMPLE, HARD])
SEEDS = st.integers(0, 10**6)


def names(problem):
    return [item["name"] for item in problem.hidden["instructions"]]


@given(NAMES, SEEDS, st.integers(0, 30))
def test_every_problem_has_a_response_that_keeps_to_all(name, seed, difficulty):
    environment = ENVIRONMENTS[name]
    problem = environment.generate(seed, difficulty)
    reasoning, answer = environment.explain(problem)
    assert environment.verify(problem, answer).reward == 1
    assert benchmarks.verify(problem, answer).correct  # the way a benchmark's problems are judged
    assert reasoning.count("\n") + 1 == len(names(problem))
    assert all(line.partition(" ")[2] in problem.prompt for line in reasoning.split("\n"))


@given(NAMES, SEEDS, st.integers(0, 30))
def test_sets_are_as_large_as_they_should_be_and_do_not_contradict_themselves(name, seed, difficulty):
    problem = ENVIRONMENTS[name].generate(seed, difficulty)
    found, wanted = names(problem), 1 + (name == HARD) + difficulty // 2
    assert len(found) <= min(wanted, MOST)
    assert len(found) == wanted or difficulty > 12
    assert not any(conflict(a, b) for a, b in itertools.combinations(found, 2))
    about = [subjects(item["arguments"]) for item in problem.hidden["instructions"]]
    assert not any(a & b for a, b in itertools.combinations([*about, {problem.hidden["topic"]}], 2))


def test_prompts_of_difficulty_0_are_short_and_harder_ones_longer():
    for name, most in {SIMPLE: 60, HARD: 110}.items():
        lengths = [[len(ENVIRONMENTS[name].generate(seed, d).prompt) for seed in range(100)] for d in (0, 2, 4, 8, 16)]
        assert max(lengths[0]) <= most
        means = [sum(some) / len(some) for some in lengths]
        assert means == sorted(means) and means[-1] > 3 * means[0]


def test_numbers_grow_without_bound():
    def largest(difficulty):
        problems = [ENVIRONMENTS[SIMPLE].generate(seed, difficulty) for seed in range(40)]
        return max(i["arguments"].get("number", 0) for p in problems for i in p.hidden["instructions"])

    assert largest(0) < 10 < largest(20) < largest(200)


def test_simple_ones_are_of_everyday_kinds_and_hard_ones_of_all():
    seen = {
        name: {kind for seed in range(150) for kind in names(ENVIRONMENTS[name].generate(seed, 6))}
        for name in ENVIRONMENTS
    }
    assert seen[HARD] == set(KINDS)
    assert seen[SIMPLE] == {name for name, kind in KINDS.items() if kind.weight} < set(KINDS)


BREAKS = {  # what is wrong with it for whom: written by hand
    "lowercase": "One word",
    "uppercase": "One word",
    "no_commas": "one, two",
    "json_format": "no object",
    "quotation": "no marks",
    "title": "no title",
    "postscript": "no line",
    "starts_with": "zzz",
    "ends_with": "zzz",
    "keywords": "zzz",
    "one_of": "zzz",
    "bullets": "zzz",
    "two_responses": "zzz",
    "sections": "zzz",
    "placeholders": "zzz",
    "highlighted": "zzz",
    "capital_words": "zzz",
    "keyword_frequency": "zzz",
    "paragraphs": "zzz",
    "paragraph_starts": "zzz",
}


@given(NAMES, SEEDS, st.integers(0, 8))
def test_the_first_that_fails_is_named(name, seed, difficulty):
    problem = ENVIRONMENTS[name].generate(seed, difficulty)
    first = names(problem)[0]
    if first in BREAKS:
        verdict = ENVIRONMENTS[name].verify(problem, BREAKS[first])
        assert (verdict.reward, verdict.correct, verdict.format) == (0, False, True)
        assert verdict.error == f"not followed: {first}"


def test_a_response_with_one_word_too_many_fails():
    """Of "exactly n words": the witness has n, and fails with a word more."""
    tried = 0
    for seed in range(120):
        problem = ENVIRONMENTS[HARD].generate(seed, 8)
        words = next((i["arguments"] for i in problem.hidden["instructions"] if i["name"] == "words"), {})
        if words.get("relation") == "exactly":
            _, answer = ENVIRONMENTS[HARD].explain(problem)
            assert len(re.findall(r"\w+(?:['’-]\w+)*", answer)) == words["number"]
            assert not ENVIRONMENTS[HARD].verify(problem, f"more {answer}").correct
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("response", ["", " \n", "x" * 10**6, "\0", "٣", "[" * 10**5, "a, " * 10**5, "*" * 10**5])
def test_any_text_gets_a_verdict(response):
    for environment in ENVIRONMENTS.values():
        verdict = environment.verify(environment.generate(3, 10), response)
        assert verdict.reward == 0 and verdict.error


def test_problems_survive_json_and_say_where_they_are_from():
    problem = ENVIRONMENTS[HARD].generate(5, 3)
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem
    assert problem.id == "hard_instructions/3/5"
    assert problem.meta == {"environment": HARD, "difficulty": 3, "seed": 5}
    assert ENVIRONMENTS[HARD].generate(6, 3) != problem


def test_problems_are_the_same_in_another_process():
    code = (
        "from zaya_jax.environments.instructions import ENVIRONMENTS as E; import json;"
        "made = [e.generate(s, 7) for e in E.values() for s in range(20)];"
        "print(json.dumps([[p.to_json(), E[p.meta['environment']].explain(p)[1]] for p in made]))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert outputs[0] == outputs[1] and len(json.loads(outputs[0])) == 40
