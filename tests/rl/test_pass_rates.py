"""Filtering by pass rate: what stays, what went and why, and what is refused with nothing written."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.environments.rows import write
from tests.evaluation.made import grade_of, run, sample
from zaya_jax.errors import UserError
from zaya_jax.evaluation.grades import write_grades
from zaya_jax.evaluation.samples import SampleWriter
from zaya_jax.rl.pass_rates import count_passes, filter_file

# Pass rates 1, 3/4, 1/2, 1/4, 0; capitals are right, a dot has no answer.
WORDS = {"e": "XXXX", "d": "XXXo", "c": "XXo.", "b": "Xooo", "a": "oo.."}


def problem(name):
    return {"id": name, "problem": f"What is {name}?", "kind": "exact", "answer": "é"}


@pytest.fixture
def files(tmp_path):
    """Problems in the order of WORDS, and their grades under the benchmark's name `b`."""
    return write(tmp_path / "b.jsonl", *map(problem, WORDS)), graded(tmp_path / "grades.jsonl", WORDS)


def graded(path, words, **changes):
    write_grades(path, (dataclasses.replace(one, **changes) for one in run(words)[1]))
    return path


def left(path):
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("at_least", "at_most", "names", "went", "mean"),
    [
        (0.0, 0.75, "dcba", "1 too easy (pass rate above 0.75), 0 too hard (below 0)", "0.375"),
        (0.25, 0.75, "dcb", "1 too easy (pass rate above 0.75), 1 too hard (below 0.25)", "0.500"),
        (0.26, 0.74, "c", "2 too easy (pass rate above 0.74), 2 too hard (below 0.26)", "0.500"),
        (0.0, 0.0, "a", "4 too easy (pass rate above 0), 0 too hard (below 0)", "0.000"),
        (0.0, 1.0, "edcba", "0 too easy (pass rate above 1), 0 too hard (below 0)", "0.500"),
    ],
)
def test_both_ends_stay_and_the_rest_is_counted(files, tmp_path, at_least, at_most, names, went, mean):
    output = tmp_path / "out.jsonl"
    text = filter_file(*files, output, at_most, at_least)
    assert left(output) == list(names)
    assert text.splitlines() == [
        f"{output}: {len(names)} of 5 problems, by 4 samples each",
        f"went: {went}",
        f"mean pass rate: 0.500 before, {mean} after",
    ]


def test_lines_stay_as_they_are(tmp_path):
    lines = [b'{"id":"d",  "problem": "\\u00e9"}', b"", '{"problem": "é", "more": [1], "id": "c"}'.encode()]
    problems = tmp_path / "b.jsonl"
    problems.write_bytes(b"\n".join(lines))  # no end of the last line
    filter_file(problems, graded(tmp_path / "g.jsonl", WORDS), problems, at_most=0.75)
    assert problems.read_bytes() == lines[0] + b"\n" + lines[2] + b"\n"
    filter_file(problems, tmp_path / "g.jsonl", problems, at_most=0.5)  # grades of more problems than there are
    assert problems.read_bytes() == lines[2] + b"\n"


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.text("Xo.", min_size=1, max_size=6), min_size=1))
def test_rates_are_shares_of_right_samples(words):
    samples, grades = run(words)
    assert count_passes(grades) == {name: (word.count("X"), len(word)) for name, word in words.items()}


def test_samples_of_several_seeds_count_together(tmp_path):
    problems = write(tmp_path / "b.jsonl", problem("e"), problem("d"))
    grades = [*run({"e": "XX", "d": "XX"})[1], *[grade_of(sample("d", i, seed=1), False) for i in range(2)]]
    write_grades(tmp_path / "g.jsonl", grades)
    text = filter_file(problems, tmp_path / "g.jsonl", tmp_path / "out.jsonl")
    assert left(tmp_path / "out.jsonl") == ["d"] and "by 2 to 4 samples each" in text


def test_the_samples_that_the_grades_lie_beside_may_be_named(files, tmp_path):
    problems, grades = files
    samples = tmp_path / "samples.jsonl"
    with SampleWriter(samples) as writer:
        for one in run(WORDS)[0]:
            writer.write(one)
    filter_file(problems, samples, tmp_path / "out.jsonl")
    assert left(tmp_path / "out.jsonl") == ["d", "c", "b", "a"]
    with SampleWriter(samples) as writer:
        writer.write(sample("c", 4))
    with pytest.raises(UserError, match=r"samples.jsonl: samples without grades; found 1, the first of problem c;"):
        filter_file(problems, samples, tmp_path / "out.jsonl")
    grades.unlink()
    with pytest.raises(
        UserError, match=r"samples without grades; expected grades.jsonl; python -m experiments.compare"
    ):
        filter_file(problems, samples, tmp_path / "out.jsonl")


def refused(files, tmp_path, message, rates=None, problems=None, **options):
    output = tmp_path / "out.jsonl"
    output.write_text("old\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as caught:
        filter_file(problems or files[0], rates or files[1], output, **options)
    assert message in str(caught.value)
    assert output.read_text() == "old\n" and sorted(tmp_path.iterdir()) == before


def test_a_problem_without_samples_is_refused_by_name(files, tmp_path):
    rates = graded(tmp_path / "g.jsonl", {"e": "X", "d": "o", "b": "X"})
    message = f"problems without a grade in {rates}; found 2, the first 'c'; sample them too"
    refused(files, tmp_path, message, rates)


def test_mistakes_leave_the_old_file(files, tmp_path):
    refused(files, tmp_path, "no problem is left; found 5 outside of 0.3 to 0.4; widen", at_least=0.3, at_most=0.4)
    refused(files, tmp_path, "no range of pass rates", at_least=0.8, at_most=0.7)
    refused(files, tmp_path, "no range of pass rates", at_most=float("nan"))
    refused(files, tmp_path, "none.jsonl: cannot be read", problems=tmp_path / "none.jsonl")
    refused(files, tmp_path, "none.jsonl: cannot be read", rates=tmp_path / "none.jsonl")
    twice = write(tmp_path / "t.jsonl", problem("a"), problem("a"))
    refused(files, tmp_path, "t.jsonl, line 2: id 'a' is there twice", problems=twice)
    refused(files, tmp_path, "no 'id'", problems=write(tmp_path / "n.jsonl", {"problem": "1"}))
    refused(files, tmp_path, "void.jsonl: is empty", problems=write(tmp_path / "void.jsonl"))


def test_grades_of_something_else(files, tmp_path):
    other = graded(tmp_path / "other.jsonl", WORDS, benchmark="c")
    refused(files, tmp_path, "other.jsonl: no grades of these problems; expected b; found c; sample this file", other)
    mixed = tmp_path / "mixed.jsonl"
    write_grades(mixed, [*run(WORDS)[1], grade_of(sample("a", 0, method="rsa"), True)])
    refused(files, tmp_path, "mixed.jsonl: several methods; expected one; found rsa, single", mixed)
    write_grades(mixed, [*run(WORDS)[1], *run({"a": "X"})[1]])
    refused(files, tmp_path, "mixed.jsonl: the same grade twice; found problem a, sample 0, seed 0", mixed)
