"""`evaluate` and `markovian_rsa` from end to end, on a tiny checkpoint: records, resuming, tables, mistakes."""

import dataclasses
import json
import warnings

import pytest

from tests.evaluation.searching import CONTEXT, WORDING, read, write_problems, write_sums
from tests.experiments.in_process import run
from zaya_jax.errors import UserError
from zaya_jax.evaluation.evaluate import evaluate, grade_again, read_all
from zaya_jax.evaluation.search_records import CANDIDATES, FINALS, PROBLEMS, SETTINGS
from zaya_jax.evaluation.search_run import Machine
from zaya_jax.evaluation.wanted import Wanted
from zaya_jax.report.candidates import candidates_page, read_run

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = Wanted("markovian_rsa", n=3, c=2, t=1, beta=16, tau=6, answer_budget=12)
FLAGS = ["--n=3", "--c=2", "--t=1", "--beta=16", "--tau=6", "--answer_budget=12", "--dtype=float32", "--slots=4"]


@pytest.fixture
def machine(roomy):
    return Machine(str(roomy), "float32", slots=4, chunk=16)


@pytest.fixture
def wording(tmp_path):
    path = tmp_path / "wording.txt"
    path.write_text(WORDING)
    return str(path)


@pytest.fixture
def search(machine, wording, tmp_path):
    """Runs a search of problems a and b into `out/`, and gives the directory of its records and the table."""

    def go(wanted=SMALL, output="out", names=("a", "b"), **more):
        problems = write_problems(tmp_path / "p.jsonl", *names)
        table = evaluate(machine, [str(problems)], wanted, str(tmp_path / output), wording=wording, **more)
        return tmp_path / output / "p", table

    return go


def right(response):
    """A problem is solved by an answer without a comma."""
    _, closed, answer = response.rpartition("</think>")
    return bool(closed and answer.strip()) and "," not in answer


def score(table):
    """The first score of the first table."""
    return float(table.splitlines()[2].split()[1])


def by_hand(directory):
    """avg@k in per cent, from the samples alone."""
    by_problem = {}
    for sample in read(directory / "samples.jsonl"):
        by_problem.setdefault(sample["problem"], []).append(right(sample["response"]))
    return 100 * sum(sum(group) / len(group) for group in by_problem.values()) / len(by_problem)


def test_records_of_a_run(search):
    directory, table = search(dataclasses.replace(SMALL, n=4, t=2), html=True)
    candidates, settings = read(directory / CANDIDATES), json.loads((directory / SETTINGS).read_text())
    places = [(row["problem"], row["round"], row["index"]) for row in candidates]
    assert places == [(name, round, index) for name in "ab" for round in range(3) for index in range(4)]
    assert {key: settings[key] for key in ("n", "c", "t", "beta", "tau")} == {
        "n": 4, "c": 2, "t": 2, "beta": 16, "tau": 6,
    }  # fmt: skip
    for row in candidates:
        assert len(row["token_ids"]) == row["tokens"] and len(row["parents"]) == (2 if row["round"] else 0)
        assert row["round"] == 2 or row["answer"] is None, "answers are drawn in the last round alone"
        assert row["correct"] == (right(row["response"]) if row["extracted"] is not None else None)
    samples = read(directory / "samples.jsonl")
    last = [row for row in candidates if row["round"] == 2]
    assert [one["response"] for one in samples] == [row["response"] for row in last]
    assert samples[0]["meta"] | {"rounds": 0} == {"T": 2, "N": 4, "C": 2, "beta": 16, "tau": 6, "rounds": 0}
    for problem in read(directory / PROBLEMS):
        own = [row for row in candidates if row["problem"] == problem["problem"]]
        spent = [sum(row["tokens"] for row in own if row["round"] == number) for number in range(3)]
        assert [one["generated"] for one in problem["rounds"]] == spent
        read_ = [sum(row["prompt_tokens"] for row in own if row["round"] == number) for number in range(3)]
        assert [one["prefilled"] + one["reused"] for one in problem["rounds"]] == read_
        assert problem["rounds"][0]["reused"] > 0
        ends = [one for one in last if one["problem"] == problem["problem"]]
        assert problem["mean"] == sum(bool(one["correct"]) for one in ends) / 4
    assert 0 < score(table) < 100 and score(table) == pytest.approx(by_hand(directory), abs=0.05)
    assert "Unfinished" not in candidates_page(*read_run(directory))
    assert (directory / "run.html").is_file() and (directory.parent / "evaluation.html").is_file()


@pytest.mark.parametrize("options", [{}, {"probe_answers": True, "final_call": True}])
def test_a_killed_run_goes_on(search, options):
    """Cut at every line and within it, candidates.jsonl is in the end what it is without an interruption."""
    wanted = dataclasses.replace(SMALL, **options)
    names = ("a", "b") if not options else ("a",)
    directory, table = search(wanted, names=names)
    assert (directory / FINALS).exists() == bool(options), "there is a file of final calls if there are any"
    there = (CANDIDATES, *([FINALS] if options else []), "samples.jsonl", "grades.jsonl")
    files = [directory / name for name in there]
    whole = {file: file.read_bytes() for file in files}
    lines = whole[directory / CANDIDATES].splitlines(keepends=True)
    assert len(lines) == len(names) * 6 and (not options or len(whole[directory / FINALS].splitlines()) == 1)
    for count, line in enumerate(lines):
        for torn in (b"", line[: len(line) // 2], line[:-1]):
            for file in files[1:]:
                file.unlink()
            (directory / CANDIDATES).write_bytes(b"".join(lines[:count]) + torn)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*the last line was cut off")
                _, again = search(wanted, names=names)
            assert {file.name: file.read_bytes() == whole[file] for file in files} == {
                file.name: True for file in files
            }
            assert again == table


def test_lines_in_another_order_are_no_other_run(search):
    directory, _ = search()
    whole = (directory / CANDIDATES).read_bytes()
    lines = whole.splitlines(keepends=True)
    (directory / CANDIDATES).write_bytes(b"".join(lines[6:9] + lines[2:3] + lines[:1]))
    search()
    assert (directory / CANDIDATES).read_bytes() == whole


def test_the_order_of_problems_changes_nothing(search):
    directory, _ = search()
    whole = read(directory / CANDIDATES)
    other, _ = search(output="again", names=("b", "a"))
    by_place = {(row["problem"], row["round"], row["index"]): row for row in read(other / CANDIDATES)}
    assert [by_place[row["problem"], row["round"], row["index"]] for row in whole] == whole


def test_more_and_fewer_problems_in_one_directory(search):
    directory, _ = search(limit=1)
    one = read(directory / CANDIDATES)
    search()
    both = read(directory / CANDIDATES)
    assert [row for row in both if row["problem"] == "a"] == one and len(both) == 12
    search(limit=1)
    assert read(directory / CANDIDATES) == both and len(read(directory / "samples.jsonl")) == 3


def test_another_run_does_not_go_on(search):
    directory, _ = search()
    before = (directory / CANDIDATES).read_bytes()
    said = r"the directory of another run; found beta: 16 -> 14, seed: 0 -> 5; choose another --output"
    with pytest.raises(UserError, match=said):
        search(dataclasses.replace(SMALL, beta=14, seed=5))
    assert (directory / CANDIDATES).read_bytes() == before
    (directory / SETTINGS).unlink()
    with pytest.raises(UserError, match="holds other files; expected a new directory, or one of this run"):
        search()


def test_single_answers(search):
    directory, table = search(Wanted("single", n=5, beta=16, answer_budget=12))
    samples, candidates = read(directory / "samples.jsonl"), read(directory / CANDIDATES)
    assert len(samples) == 10 and {row["round"] for row in candidates} == {0}
    assert [one["generated"] for one in samples] == [row["tokens"] for row in candidates]
    assert not set(samples[0]["meta"]) & {"T", "N", "C", "beta", "tau"}, "tables would take it for a population"
    assert score(table) == pytest.approx(by_hand(directory), abs=0.05)


def test_rsa_carries_whole_reasonings(search):
    directory, table = search(dataclasses.replace(SMALL, method="rsa"))
    assert json.loads((directory / SETTINGS).read_text())["tau"] == 16
    for row in read(directory / CANDIDATES):
        assert row["tail"] == row["thinking"]
    assert score(table) == pytest.approx(by_hand(directory), abs=0.05)


def test_delethink(search, tmp_path):
    wanted = Wanted("delethink", n=3, t=3, beta=16, tau=6, head=3, temperature=1.0)
    directory, table = search(wanted)
    candidates, samples = read(directory / CANDIDATES), read(directory / "samples.jsonl")
    assert len(samples) == 6 and score(table) == pytest.approx(by_hand(directory), abs=0.05)
    for sample in samples:
        chunks = [row for row in candidates if (row["problem"], row["index"]) == (sample["problem"], sample["index"])]
        assert [row["round"] for row in chunks] == list(range(len(chunks))) and len(chunks) <= 4
        assert sample["generated"] == sum(row["tokens"] for row in chunks)
        assert sample["meta"]["chunks"] == len(chunks)
    assert any(sample["meta"]["chunks"] > 1 for sample in samples)
    whole = (directory / CANDIDATES).read_bytes()
    (directory / CANDIDATES).write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    assert search(wanted)[1] == table and (directory / CANDIDATES).read_bytes() == whole


def test_grades_are_made_again(search, tmp_path):
    directory, table = search()
    (directory / "grades.jsonl").unlink()
    assert grade_again(str(tmp_path / "out"), [str(tmp_path / "p.jsonl")]) == table
    code, out, err = run(
        "evaluate", f"--benchmark={tmp_path / 'p.jsonl'}", f"--output={tmp_path / 'out'}", "--grade_only"
    )
    assert (code, out) == (0, table + "\n"), err


def test_the_launchers(roomy, wording, tmp_path, search):
    directory, table = search()
    problems = write_problems(tmp_path / "p.jsonl", "a", "b")
    common = [f"--checkpoint={roomy}", f"--wording={wording}", f"--output={tmp_path / 'again'}", *FLAGS]
    code, out, err = run("markovian_rsa", f"--problems={problems}", *common)
    assert code == 0 and out.splitlines()[2:] == table.splitlines()[2:], err
    whole = read(tmp_path / "again/p" / CANDIDATES)
    assert [row["token_ids"] for row in whole] == [row["token_ids"] for row in read(directory / CANDIDATES)]
    code, again, err = run("evaluate", f"--benchmark={problems}", "--method=markovian_rsa", *common)
    assert (code, again) == (0, out), err


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--tau=17"], "tau: a tail longer than the reasoning; expected at most beta = 16; found 17"),
        (["--c=4"], "c: more tails than candidates; expected at most n = 3; found 4"),
        (["--beta=500"], f"problem a: longer than the context; expected at most {CONTEXT} tokens; found "),
        (["--context=60"], "problem a: longer than the context; expected at most 60 tokens; found "),
        (["--temperature=-1"], "temperature: out of range"),
        (["--slots=1"], "slots"),
    ],
)
def test_mistaken_settings(roomy, wording, tmp_path, flags, said):
    problems = write_sums(tmp_path / "p.jsonl", "a")
    common = [f"--checkpoint={roomy}", f"--problems={problems}", f"--output={tmp_path / 'out'}", *FLAGS]
    code, out, err = run("markovian_rsa", *common, f"--wording={wording}", *flags)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err
    assert said in err
    assert not (tmp_path / "out/p" / CANDIDATES).exists()


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("p.jsonl", "", "p.jsonl: is empty; expected a JSON object a line"),
        ("p.jsonl", "{", "p.jsonl, line 1: is not JSON"),
        ("p.jsonl", '{"id": "a"}', "p.jsonl, line 1: no kind of problem"),
        ("wording.txt", WORDING.replace("{tail}", ""), "[attempt]: lacks a field; expected {tail}; add it"),
        ("wording.txt", "", "lacks a section; expected [aggregate]; found none"),
    ],
)
def test_mistaken_files(roomy, tmp_path, name, content, said):
    write_sums(tmp_path / "p.jsonl", "a")
    (tmp_path / "wording.txt").write_text(WORDING)
    (tmp_path / name).write_text(content)
    files = [f"--problems={tmp_path / 'p.jsonl'}", f"--wording={tmp_path / 'wording.txt'}"]
    code, out, err = run("markovian_rsa", f"--checkpoint={roomy}", *files, f"--output={tmp_path / 'out'}", *FLAGS)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err
    assert said in err
    assert not (tmp_path / "out").exists()


def test_benchmarks_are_told_apart_by_name(tmp_path):
    (tmp_path / "x").mkdir()
    files = [str(write_sums(path, "a")) for path in (tmp_path / "p.jsonl", tmp_path / "x/p.jsonl")]
    with pytest.raises(UserError, match="two benchmarks of one name; found p"):
        read_all(files)
