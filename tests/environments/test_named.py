"""From a specification to an environment, and what is said where there is none."""

import json
import sys
import types

import pytest

from tests.environments import own_environments
from zaya_jax.environments import named as module
from zaya_jax.environments.named import named
from zaya_jax.environments.workers import Workers
from zaya_jax.errors import UserError

OWN = "tests.environments.own_environments"
ROWS = [
    {"id": f"p{i}", "problem": f"What is {i} + {i}?", "kind": "integer", "answer": 2 * i, "source": "school"}
    for i in range(5)
]


@pytest.fixture
def native(monkeypatch):
    """A stand-in for the native families."""
    for package, table in module.NATIVE.items():
        monkeypatch.setitem(sys.modules, package, stand_in := types.ModuleType(package))
        setattr(stand_in, table, {"addition": own_environments.SUMS} if table == "FAMILIES" else {"other": None})


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "school.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_native_family_by_its_name(native):
    assert named("addition") is own_environments.SUMS
    with pytest.raises(UserError, match=r"'additon': no such environment; .*; did you mean addition"):
        named("additon")


def test_ones_own_by_module_and_attribute():
    assert named(f"{OWN}:SUMS") is own_environments.SUMS
    assert named(f"{OWN}:sums").generate(3, 2) == own_environments.SUMS.generate(3, 2)


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("", "'': no such environment; expected a native family, package.module:function, file:PATH.jsonl"),
        ("nowhere.at_all:make", "environment nowhere.at_all:make: no module 'nowhere'; run in its folder"),
        (f"{OWN}:summs", f"no 'summs' in {OWN}; found "),
        (f"{OWN}:summs", "did you mean sums?"),
        (f"{OWN}:NUMBER", "is no environment; expected an Environment, or a function without arguments that gives one"),
        (f"{OWN}:with_argument", "needs arguments; expected an Environment, or a function without arguments"),
        (f"{OWN}:no_environment", "gave no environment; expected an Environment; found a dict"),
        (f"{OWN}:hostile_import", "raised; expected an Environment, or a function without arguments that gives one; "
                                  "found OSError: cannot make it"),
        (f"{OWN}:swapped", "generate has another signature; expected generate(seed, difficulty)"),
        (f"{OWN}:not_functions", "verify is no function; expected verify(problem, response); found a int"),
        (f"{OWN}:nameless", "has no name"),
        ("a b:c", "not a specification; expected package.module:function, file:PATH.jsonl"),
        (f"{OWN}:", "not a specification"),
        ("file:", "environment 'file:': names nothing; expected file:PATH.jsonl"),
        ("file:/no/such.jsonl", "/no/such.jsonl: cannot be read; found No such file or directory"),
        ("rlve:Sorting", "environment rlve:Sorting: names no checkout; expected rlve:NAME@PATH"),
        ("rlve:Sorting@/no/such", "no checkout of RLVE; expected a folder Gym/environments in it"),
        ("rlve:Countdown@/no/such", "is not usable for training; found its scorer evaluates the answer as Python"),
        ("reasoning_gym:sudoku", "environment reasoning_gym:sudoku: is not usable for training; found takes minutes"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(specification, message):
    with pytest.raises(UserError) as caught:
        named(specification)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import surely_not_installed", "cannot be imported; found it imports 'surely_not_installed', which is not"),
        ("1 / 0", "cannot be imported; found ZeroDivisionError: division by zero"),
        ("def broken(:", "cannot be imported; found SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch, source, message):
    name = f"own_module_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        named(f"{name}:make")
    assert f"environment {name}:make: {name} {message}" in str(caught.value)


def test_the_rows_of_a_file_each_once_before_any_comes_again(rows):
    environment = named(f"file:{rows}")
    problems = [environment.generate(seed, 7) for seed in range(10)]
    for epoch in (problems[:5], problems[5:]):
        assert sorted(problem.id for problem in epoch) == [f"school/p{i}" for i in range(5)]
    assert [p.id for p in problems[:5]] != [p.id for p in problems[5:]]  # 119 times out of 120; the seed is fixed
    meta = {"benchmark": "school", "source": "school", "environment": "school", "saturated": True}
    assert problems[3].meta == meta | {"difficulty": 7, "seed": 3}
    assert environment.generate(3, 0).prompt == problems[3].prompt


def test_files_are_judged_as_benchmarks_are(rows):
    environment = named(f"file:{rows}")
    problem = environment.generate(0, 0)
    right = 2 * int(problem.id.rpartition("p")[2])
    assert environment.verify(problem, rf"So it is \boxed{{{right}}}.").reward == 1
    assert environment.verify(problem, rf"So it is \boxed{{{right + 1}}}.").reward == 0
    assert not environment.verify(problem, "no idea").format


def test_programs_run_in_the_sandbox(tmp_path, sandbox_works):
    row = {"id": "double", "problem": "Double it.", "kind": "code", "tests": [{"input": "3\n", "output": "6\n"}]}
    (tmp_path / "code.jsonl").write_text(json.dumps(row))
    name = f"file:{tmp_path / 'code.jsonl'}"
    programs = [f"```python\nprint({factor} * int(input()))\n```" for factor in (2, 3)]
    with Workers(1) as workers:
        problem = workers.generate(name, 0, 0).result()
        verdicts = [workers.verify(name, problem, program).result() for program in programs]
    assert [verdict.correct for verdict in verdicts] == [True, False]
    assert verdicts[1].error == "wrong at test 1 of 1"


@pytest.fixture
def sandbox_works():
    from zaya_jax.grading.isolation import isolation

    if isolation() == "none":
        pytest.skip("no isolation works here")


def test_latex_is_refused_without_math_verify(tmp_path, monkeypatch):
    row = {"id": "x", "problem": "Simplify.", "kind": "latex", "answer": "x+1"}
    (tmp_path / "algebra.jsonl").write_text(json.dumps(row))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from zaya_jax.environments import files

    files._math_verifier.cache_clear()
    with pytest.raises(UserError, match="its LaTeX answers need math-verify; found it is not installed"):
        named(f"file:{tmp_path / 'algebra.jsonl'}")
