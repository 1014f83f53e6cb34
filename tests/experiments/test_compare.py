"""`experiments.compare` and `experiments.convert_benchmark`: files in, tables and pages out, mistakes in one line."""

import json

import pytest

from tests.environments.rows import EVERY, INTEGER, write
from tests.evaluation.made import sample
from tests.experiments.in_process import run
from zaya_jax.evaluation.grades import read_grades
from zaya_jax.evaluation.samples import SampleWriter

RIGHT, WRONG, CUT = r"<think>a</think>\boxed{42}", r"<think>a</think>\boxed{41}", "<think>a"


def samples(directory, *responses, **changes):
    with SampleWriter(directory / "samples.jsonl") as writer:
        for index, response in enumerate(responses):
            writer.write(sample("i", index, benchmark="numbers", response=response, **changes))
    return directory / "samples.jsonl"


@pytest.fixture
def benchmark(tmp_path):
    return write(tmp_path / "numbers.jsonl", INTEGER)


def test_grades_scores_compares_and_writes_a_page(tmp_path, benchmark):
    a, b = samples(tmp_path / "a", RIGHT, WRONG, CUT, WRONG), samples(tmp_path / "b", RIGHT, RIGHT, RIGHT, WRONG)
    flags = [f"--samples={a}", f"--samples={b}"]
    output = tmp_path / "page.html"
    code, out, err = run("compare", *flags, f"--benchmark={benchmark}", f"--output={output}")
    assert (code, err) == (0, f"{output}\n")
    rows = [line.split() for line in out.splitlines() if line.startswith("numbers")]
    assert rows[0][:3] == ["numbers", "a", "25.0"] and rows[1][:3] == ["numbers", "b", "75.0"]
    assert "+50.0" in rows[2] and "Evaluation" in output.read_text()
    assert [row.correct for row in read_grades(tmp_path / "a" / "grades.jsonl")] == [True, False, False, False]
    assert run("compare", *flags)[:2] == (0, out)  # now without the problems
    code, marked, _ = run("compare", *flags, "--style=markdown")
    assert marked.startswith("| benchmark | run | score |")


def test_samples_that_came_since_are_graded_or_asked_for(tmp_path, benchmark):
    path = samples(tmp_path, RIGHT)
    assert run("compare", f"--samples={path}", f"--benchmark={benchmark}")[0] == 0
    with SampleWriter(path) as writer:
        writer.write(sample("i", 1, benchmark="numbers", response=WRONG))
    code, out, err = run("compare", f"--samples={path}")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert f"{path}: samples without grades; found 1 of numbers; give its problems: --benchmark=" in err
    code, out, _ = run("compare", f"--samples={path}", f"--benchmark={benchmark}")
    assert code == 0 and "50.0" in out


def test_mistakes_are_one_line(tmp_path, benchmark):
    path = samples(tmp_path, RIGHT)
    for flags, message in [
        ([f"--samples={path}", f"--samples={path}"], "given twice"),
        ([f"--samples={tmp_path / 'none.jsonl'}"], "none.jsonl: cannot be read; found No such file or directory"),
        ([f"--samples={path}", "--png"], "charts without a page; expected --output with --png"),
        ([f"--samples={path}", f"--benchmark={path}"], "no kind of problem"),
        ([], "--samples is required"),
    ]:
        code, out, err = run("compare", *flags)
        assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1


def test_a_published_file_becomes_ours(tmp_path):
    source = write(tmp_path / "aime.jsonl", {"problem_idx": 1, "problem": "1+1?", "answer": 2})
    output = tmp_path / "out.jsonl"
    flags = [f"--source={source}", "--form=matharena", f"--output={output}"]
    assert run("convert_benchmark", *flags)[:2] == (0, f"{output}: 1 problems\n")
    assert json.loads(output.read_text())["kind"] == "integer"
    code, _, err = run("convert_benchmark", *flags, "--since=2025")
    assert code == 2 and "--since: not a day" in err and len(err.splitlines()) == 1


def test_every_kind_at_once(tmp_path):
    mixed = write(tmp_path / "numbers.jsonl", *EVERY)
    code, out, _ = run("compare", f"--samples={samples(tmp_path, RIGHT)}", f"--benchmark={mixed}")
    assert code == 0 and "100.0" in out
