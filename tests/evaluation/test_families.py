"""Held-out problems of task families as benchmarks: which they are, and how they are searched and graded."""

import pytest

from tests.evaluation.searching import read
from zaya_jax.environments.benchmarks import verify
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.families import FAMILIES
from zaya_jax.environments.named import families
from zaya_jax.environments.parts import part_of
from zaya_jax.errors import UserError
from zaya_jax.evaluation.evaluate import evaluate
from zaya_jax.evaluation.families import family_benchmarks
from zaya_jax.evaluation.grades import grade
from zaya_jax.evaluation.samples import Sample
from zaya_jax.evaluation.search_run import Machine
from zaya_jax.evaluation.search_task import make_questions, wording_of
from zaya_jax.evaluation.wanted import Wanted
from zaya_jax.text.byte_level import IM_END_ID, THINK_END_ID, THINK_START_ID
from zaya_jax.text.tokenizer import require_tokenizer

pytestmark = pytest.mark.usefixtures("quick_programs")


def test_problems_are_held_out_ones_of_each_family_and_difficulty():
    found = family_benchmarks(["addition", "sorting"], [0, 2], 5)
    assert list(found) == ["addition-0", "addition-2", "sorting-0", "sorting-2"]
    for name, problems in found.items():
        family, _, difficulty = name.partition("-")
        assert len({problem.prompt for problem in problems}) == 5
        for problem in problems:
            assert part_of(problem.prompt) == "held_out" and problem.meta["difficulty"] == int(difficulty)
            assert problem.prompt == FAMILIES[family].generate(problem.meta["seed"], int(difficulty)).prompt
    assert found["sorting-2"] == family_benchmarks(["sorting"], [2], 5)["sorting-2"]


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_judged_by_the_family(name):
    problem = family_benchmarks([name], [1], 1)[f"{name}-1"][0]
    own = FAMILIES[name].generate(problem.meta["seed"], 1)
    assert problem.hidden["hidden"] == own.hidden, "nothing of the family's own is lost"
    problem = Problem.from_json(problem.to_json())
    reasoning, answer = FAMILIES[name].explain(own)
    assert verify(problem, f"<think>{reasoning}</think>{answer}").correct
    wrong = verify(problem, f"<think>{reasoning}</think>{answer} no")
    assert not wrong.correct and wrong.error == FAMILIES[name].verify(own, f"{answer} no").error
    assert (
        verify(problem, f"<think>{answer}").error == "unfinished"
        and verify(problem, "<think></think>").error == "empty"
    )
    assert wording_of(problem, None) == "general" and wording_of(problem, "compact") == "compact"


@pytest.mark.parametrize("name", ["requests", "simple_instructions"])
def test_instructions_are_judged_by_their_environment(name):
    (problem,) = family_benchmarks([name], [0], 1)[f"{name}-0"]
    environment = families()[name]
    own = environment.generate(problem.meta["seed"], 0)
    reply = environment.explain(own)[1]
    assert problem.prompt == own.prompt and verify(problem, reply).correct
    for other in ("no", "NO", f"{reply}, {reply}"):
        assert verify(problem, other).correct == environment.verify(own, other).correct


def test_answers_vote():
    """Of three equal answers and a right one the first have the majority; white space makes no difference."""
    (problem,) = family_benchmarks(["sorting"], [0], 1)["sorting-0"]
    right = problem.hidden["hidden"]["answer"]
    answers = ["9 8 7 6", "9  8 7 6", right, "<think>"]
    samples = [
        Sample("sorting-0", problem.id, i, "single", 0, f"<think></think>{answer}", "stop", 1, 1)
        for i, answer in enumerate(answers)
    ]
    grades = grade([problem], samples)
    assert [one.correct for one in grades] == [False, False, True, False]
    assert grades[0].cluster == grades[1].cluster != grades[2].cluster


def test_a_search(roomy, tmp_path):
    machine = Machine(str(roomy), "float32", slots=4, chunk=16)
    wanted = Wanted("markovian_rsa", n=3, c=2, t=1, beta=16, tau=6, answer_budget=12)
    families = family_benchmarks(["addition", "sorting"], [0], 2)
    tokenizer = require_tokenizer(roomy)
    table = evaluate(machine, [], wanted, str(tmp_path), families=families, wording="compact")
    assert "addition-0" in table and "sorting-0" in table
    for name, problems in families.items():
        candidates, grades = (read(tmp_path / name / f"{file}.jsonl") for file in ("candidates", "grades"))
        assert [row["problem"] for row in candidates] == [problem.id for problem in problems for _ in range(6)]
        around = {
            one.id: sum(map(len, one.pieces.between)) for one in make_questions(tokenizer, problems, 2, "compact")
        }
        carried = {(row["problem"], row["index"]): carried_tokens(row) for row in candidates if row["round"] == 0}
        for row in (row for row in candidates if row["round"] == 1):
            own = sum(carried[row["problem"], parent] for parent in row["parents"])
            assert row["prompt_tokens"] == around[row["problem"]] + own
        last = [row for row in candidates if row["round"] == 1]
        assert [one["correct"] for one in grades] == [
            bool(row["answer"]) and FAMILIES[name[:-2]].verify(problem, row["answer"]).correct
            for problem in problems
            for row in last
            if row["problem"] == problem.id
        ]


def carried_tokens(row):
    """How many tokens of reasoning a candidate of round 0 has, of which six are carried at most."""
    marks = {THINK_START_ID, THINK_END_ID, IM_END_ID}
    return min(6, sum(token not in marks for token in row["token_ids"]))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((["additon"],), "no family 'additon'; did you mean 'addition'"),
        ((["addition"], [-1]), "difficulties: out of range"),
        ((["automaton"], [0], 10**4), "family automaton, difficulty 0: too few held-out problems; expected 10000"),
    ],
)
def test_mistakes(arguments, said):
    with pytest.raises(UserError, match=said):
        family_benchmarks(*arguments)


def test_a_family_and_a_file_of_one_name(roomy, tmp_path):
    path = tmp_path / "addition-0.jsonl"
    path.write_text('{"id": "a", "problem": "1+1", "kind": "integer", "answer": 2}\n')
    families = family_benchmarks(["addition"], [0], 1)
    with pytest.raises(UserError, match="two benchmarks of one name; found addition-0; rename the file"):
        evaluate(Machine(str(roomy)), [str(path)], Wanted(), str(tmp_path / "out"), families=families)
