"""`experiments.filter_problems`: problems and grades in, a smaller file out, mistakes in one line."""

import json

from tests.environments.rows import EXACT, INTEGER, write
from tests.evaluation.made import grade_of, sample
from tests.experiments.in_process import run
from zaya_jax.evaluation.grades import write_grades


def test_filters_and_says_what_went(tmp_path):
    problems = write(tmp_path / "numbers.jsonl", INTEGER, EXACT)
    rates, output = tmp_path / "grades.jsonl", tmp_path / "left.jsonl"
    right = {"i": (True, True, True), "e": (True, True, False)}
    grades = [grade_of(sample(name, i, benchmark="numbers"), one) for name, row in right.items()
              for i, one in enumerate(row)]  # fmt: skip
    write_grades(rates, grades)
    flags = [f"--problems={problems}", f"--rates={rates}", f"--output={output}"]
    code, out, err = run("filter_problems", *flags)
    assert (code, err) == (0, "") and json.loads(output.read_text()) == EXACT
    assert out.splitlines()[:2] == [
        f"{output}: 1 of 2 problems, by 3 samples each",
        "went: 1 too easy (pass rate above 0.75), 0 too hard (below 0)",
    ]
    code, out, err = run("filter_problems", *flags, "--at_most=0.5")
    assert (code, out) == (2, "") and "no problem is left" in err and len(err.splitlines()) == 1
    assert json.loads(output.read_text()) == EXACT
    code, _, err = run("filter_problems", *flags, "--at_most=1.5")
    assert code == 2 and "at_most" in err and len(err.splitlines()) == 1
    assert "--rates is required" in run("filter_problems", flags[0], flags[2])[2]
