"""Problems with attempts at them: which are drawn, what the prompt says, who judges."""

import collections
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.environments.attempt_rows import ATTEMPTS, row, rows, write
from zaya_jax.environments.aggregation import Aggregation, aggregation_of, attempts_environment, original, split
from zaya_jax.environments.attempts import Attempt
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.named import named
from zaya_jax.environments.workers import Workers
from zaya_jax.errors import UserError

LEVELS = ("addition", 0), ("sorting", 2), ("addition", 6)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("attempts") / "tries.jsonl", rows(LEVELS))


@pytest.fixture(scope="module")
def pairs(file):
    """Two attempts a prompt."""
    return named(f"attempts:{file}?count=2&wording=compact")


@given(seed=st.integers(0, 2**62), difficulty=st.integers(0, 12))
def test_a_draw(pairs, file, seed, difficulty):
    problem = pairs.generate(seed, difficulty)
    assert problem == attempts_environment(f"{file}?count=2&wording=compact").generate(seed, difficulty)
    nearest = {0: 0, 1: 0, 2: 2, 3: 2, 4: 2}.get(difficulty, 6)
    assert problem.meta["difficulty"] == nearest and problem.meta["saturated"] == (difficulty > 6)
    places = problem.meta["shown"]["places"]
    assert len(set(places)) == 2 and all(0 <= place < len(ATTEMPTS) for place in places)
    first, second = (ATTEMPTS[place] for place in places)
    asked = original(problem).prompt
    assert problem.prompt == f"{asked}\n\n#1\n{first}\n\n#2\n{second}\nmerge"
    assert aggregation_of(problem) == Aggregation(asked, (Attempt(first), Attempt(second)), "compact")


def test_draws_are_even(pairs):
    """Rows, ordered pairs of attempts, and both together: each within five deviations of its share."""
    drawn = [pairs.generate(seed, 0).meta for seed in range(3600)]
    for key, kinds in {
        lambda meta: meta["row"]: 3,
        lambda meta: tuple(meta["shown"]["places"]): 12,
        lambda meta: (meta["row"], *meta["shown"]["places"]): 36,
    }.items():
        counts = collections.Counter(map(key, drawn))
        mean = len(drawn) / kinds
        assert len(counts) == kinds
        assert max(abs(count - mean) for count in counts.values()) < 5 * math.sqrt(mean)


def test_it_is_judged_and_explained_as_the_problem_itself(pairs):
    for seed, difficulty in itertools.product(range(4), (0, 2)):
        problem = Problem.from_json(pairs.generate(seed, difficulty).to_json())
        family, own = FAMILIES["sorting" if difficulty else "addition"], original(problem)
        told = family.explain(own)
        assert pairs.explain(problem) == told
        assert pairs.verify(problem, told[1]) == family.verify(own, told[1]) and pairs.verify(problem, told[1]).correct
        assert pairs.verify(problem, "7 7") == family.verify(own, "7 7") and not pairs.verify(problem, "7 7").correct


def test_others_are_their_own_problems():
    problem = FAMILIES["addition"].generate(0, 0)
    assert original(problem) is problem and aggregation_of(problem) is None


def test_it_explains_if_all_of_its_environments_do(tmp_path):
    own = row(Problem("easy/0", "abc", {"kind": "easy"}), "tests.rl.easy:EASY")
    assert named(f"attempts:{write(tmp_path / 'a.jsonl', [*rows(), own])}").explain is None


def test_in_a_worker(file):
    specification = f"attempts:{file}?wording=compact"
    with Workers(1) as workers:
        problem = workers.generate(specification, 3, 2).result()
        told = workers.explain(specification, problem).result()
        assert workers.verify(specification, problem, told[1]).result().correct
        assert not workers.verify(specification, problem, "no").result().correct
        with pytest.raises(UserError, match=r"unknown key 'tail'; expected one of count, wording"):
            workers.generate(f"attempts:{file}?tail=3", 0, 0).result()
    assert problem == named(specification).generate(3, 2)


@pytest.mark.parametrize(
    "options, said",
    [
        ("count=5", r"id 'addition/0/0': too few attempts; expected at least 5.*; found 4; add \?count=4"),
        ("count=0", "too few; expected 1 or more; found 0"),
        ("count=two", "options cannot be read"),
        ("count", "options cannot be read"),
        ("count=2&count=3", "the same option twice"),
        ("cuont=2", "unknown key 'cuont'.*did you mean 'count'"),
        ("wording=compcat", "no such aggregation prompt"),
    ],
)
def test_mistakes(file, options, said):
    with pytest.raises(UserError, match=said):
        named(f"attempts:{file}?{options}")


def test_a_row_of_no_environment(tmp_path):
    records = [record | {"environment": "additon"} for record in rows(LEVELS[:1])]
    with pytest.raises(UserError, match="no such environment"):
        named(f"attempts:{write(tmp_path / 'a.jsonl', records)}")
    with pytest.raises(UserError, match="names nothing"):
        named("attempts:")


def test_options_have_defaults():
    assert split("a.jsonl")[1].count == 4 and split("a.jsonl")[1].wording == "general"
