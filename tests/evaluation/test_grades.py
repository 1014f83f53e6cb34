"""Grading stored samples: as verify says, however many at once, and again without sampling."""

import json

import pytest

from tests.environments.rows import EVERY, write
from tests.environments.test_benchmarks import RIGHT, WRONG
from tests.evaluation.made import grade_of, sample
from zaya_jax.environments.benchmarks import read_benchmark, verify
from zaya_jax.errors import UserError
from zaya_jax.evaluation.grades import grade, grades_path, read_grades, write_grades

# Whether math-verify is there is no matter here: nothing needs it.
pytestmark = pytest.mark.filterwarnings("ignore:math-verify is not installed")


@pytest.fixture
def problems(tmp_path):
    return read_benchmark(write(tmp_path / "b.jsonl", *EVERY))


@pytest.fixture
def samples():
    texts = ["<think>x</think>{}", "<think>{}", ""]
    responses = {name: [text.replace("{}", answer) for answer in (RIGHT[name], WRONG[name]) for text in texts]
                 for name in RIGHT}  # fmt: skip
    return [sample(name, i, response=text) for name, group in responses.items() for i, text in enumerate(group)]


@pytest.mark.parametrize("workers", [1, 4])
def test_grades_are_what_verify_says(problems, samples, workers):
    by_id = {problem.id: problem for problem in problems}
    grades = grade(problems, samples, workers)
    assert [one.key for one in grades] == [one.key for one in samples]
    for one, found in zip(samples, grades):
        verdict = verify(by_id[one.problem], one.response)
        assert (found.correct, found.format, found.answer) == (verdict.correct, verdict.format, verdict.answer)
        assert bool(found.error) == bool(verdict.error)
    assert sum(one.correct for one in grades) == len(RIGHT)


def test_equivalent_answers_share_a_class_and_no_answer_has_none(problems):
    answers = ["42", "042", "41", None, "+42"]
    responses = [r"</think>\boxed{" + answer + "}" if answer else "<think>" for answer in answers]
    grades = grade(problems, [sample("i", i, response=text) for i, text in enumerate(responses)])
    clusters = [one.cluster for one in grades]
    assert clusters[0] == clusters[1] == clusters[4] != clusters[2] and clusters[3] is None
    assert [one.correct for one in grades] == [True, True, False, False, True]


def test_programs_and_instructions_have_no_vote(problems):
    grades = grade(problems, [sample("n", response=RIGHT["n"]), sample("p", response=RIGHT["p"])])
    assert [(one.correct, one.cluster) for one in grades] == [(True, None), (True, None)]


def test_an_answer_given_often_is_judged_once(problems, monkeypatch):
    judged = []
    monkeypatch.setattr(
        "zaya_jax.evaluation.grades.judge", lambda problem, answer, *_: judged.append(answer) or (1, None)
    )
    grade(problems, [sample("e", i, response=r"\boxed{1 2 3}") for i in range(9)])
    assert len(judged) == 1


def test_grades_on_disk(tmp_path, problems, samples):
    grades = grade(problems, samples)
    path = grades_path(tmp_path / "samples.jsonl")
    assert path == tmp_path / "grades.jsonl"
    write_grades(path, grades)
    assert read_grades(path) == grades
    assert set(json.loads(path.read_text().splitlines()[0])) == {
        "benchmark", "problem", "index", "method", "seed", "correct", "format", "answer", "cluster", "error",
    }  # fmt: skip
    assert grades_path(tmp_path / "single.jsonl") == tmp_path / "single.grades.jsonl"


def test_without_math_verify_a_warning_says_what_counts_as_wrong(problems, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(
        UserWarning, match="math-verify is not installed: what exact rules cannot compare counts as wrong"
    ):
        grades = grade(problems, [sample("l", response=RIGHT["l"]), sample("l", 1, response=WRONG["l"])])
    assert [one.correct for one in grades] == [True, False]


def test_a_sample_of_no_problem(problems):
    with pytest.raises(UserError, match=r"b: a sample of no problem; found 'zzz'; was it sampled from another file\?"):
        grade(problems, [sample("zzz")])


def test_a_letter_means_another_option_where_they_were_shuffled_otherwise(problems):
    saw = [sample("c", seed, response=r"\boxed{A}", meta={"choices_seed": seed}) for seed in (0, 1)]
    assert len(grade(problems, saw[:1])) == 1
    with pytest.raises(
        UserError, match="b, problem c: options in another order; expected those of seed 1; found seed 0"
    ):
        grade(problems, saw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": 1}, "line 1: no verdict; expected 'correct' and 'format', true or false"),
        ({"cluster": "a"}, "line 1: no 'cluster'; expected a whole number from 0 up; found 'a'"),
        ({"reward": 1}, "line 1: unknown key 'reward'"),
        ({"problem": ""}, "line 1: no 'problem'"),
    ],
)
def test_a_bad_grade_is_one_line(tmp_path, change, message):
    path = write(tmp_path / "grades.jsonl", vars(grade_of(sample(), True)) | change)
    with pytest.raises(UserError) as caught:
        read_grades(path)
    assert message in str(caught.value)
