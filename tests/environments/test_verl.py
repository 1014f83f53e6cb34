"""verl's rows as problems, and what is refused."""

import json

import pytest

from zaya_jax.environments.named import named
from zaya_jax.environments.verl import read_verl
from zaya_jax.errors import UserError

MATH = {
    "data_source": "lighteval/MATH",
    "prompt": [{"role": "user", "content": "What is 2 + 3? Answer in a box."}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"split": "train", "index": 0},
}
GSM8K = MATH | {"data_source": "openai/gsm8k", "reward_model": {"style": "rule", "ground_truth": "1,234"}}
TESTS = [{"input": "3\n", "output": "6\n"}, {"input": "5\n", "output": "10\n"}]
PAIRS = {"inputs": ["3\n", "5\n"], "outputs": ["6\n", "10\n"]}


def code(truth) -> dict:
    return MATH | {"ability": "code", "reward_model": {"style": "rule", "ground_truth": truth}}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_become_problems_with_their_own_prompts(tmp_path):
    problems = read_verl(write(tmp_path / "a.jsonl", [MATH, GSM8K, code(json.dumps(TESTS)), code(json.dumps(PAIRS))]))
    assert [problem.id for problem in problems] == ["0", "1", "2", "3"]
    assert problems[0].prompt == "What is 2 + 3? Answer in a box."
    assert problems[0].hidden == {"kind": "latex", "answer": "5"}
    assert problems[0].meta == {"source": "lighteval/MATH", "row": 0}
    assert problems[1].hidden == {"kind": "latex", "answer": "1,234", "mark": "####"}
    assert problems[2].hidden == problems[3].hidden
    assert problems[2].hidden["tests"] == [{**test, "testtype": "stdin"} for test in TESTS]


def test_parquet_gives_the_same(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason='needs the extra "parquet"')
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [MATH, GSM8K]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_verl(tmp_path / "a.parquet") == read_verl(write(tmp_path / "a.jsonl", rows))


def test_answers_are_judged_where_the_source_says_they_stand(tmp_path):
    pytest.importorskip("math_verify", reason='needs the extra "grading"')
    environment = named(f"verl:{write(tmp_path / 'school.jsonl', [MATH, GSM8K])}")
    problems = {problem.meta["source"]: problem for problem in (environment.generate(seed, 0) for seed in range(2))}
    assert problems["lighteval/MATH"].id == "school/0"
    for source, response, correct, form in [
        ("lighteval/MATH", r"It is \boxed{5}.", True, True),
        ("lighteval/MATH", r"It is \boxed{6}.", False, True),
        ("lighteval/MATH", "#### 5", False, False),
        ("openai/gsm8k", "so\n#### 1234", True, True),
        ("openai/gsm8k", "#### 7\nno:\n#### 1,234\n", True, True),
        ("openai/gsm8k", "#### 1,234\n#### 7", False, True),
        ("openai/gsm8k", r"\boxed{1234}", True, True),
        ("openai/gsm8k", "#### ", False, False),
    ]:
        verdict = environment.verify(problems[source], response)
        assert (verdict.correct, verdict.format) == (correct, form), response


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ability": "alignment"}, "line 1: unknown ability; expected math or code; found 'alignment'"),
        ({"ability": None}, "line 1: no 'ability'"),
        ({"prompt": "What?"}, """line 1: no prompt; expected [{"role": "user", "content": "..."}]; found 'What?'"""),
        ({"prompt": [{"role": "system", "content": "x"}, *MATH["prompt"]]}, "the prompt is not one message"),
        ({"prompt": [{"role": "user", "content": " "}]}, "line 1, prompt[0]: no 'content'"),
        ({"reward_model": None}, "line 1: no reward_model"),
        ({"reward_model": {"style": "model", "ground_truth": "5"}}, "rewards of a model are not read"),
        ({"reward_model": {"style": "rule"}}, "line 1, reward_model: no ground_truth"),
        ({"data_source": ""}, "line 1: no 'data_source'"),
        (code("no json"), "line 1: ground_truth is not JSON"),
        (code({"inputs": ["1"], "outputs": []}), "line 1, ground_truth: no tests; expected"),
        (code({"inputs": [], "outputs": []}), "line 1: no tests; expected a list of at least one"),
        (code({**PAIRS, "fn_name": "double"}), "tests of a function in this form are not read"),
        (code([{"input": "1"}]), "line 1, tests[0]: no 'output'"),
    ],
)
def test_what_is_not_read_is_refused_with_its_row(tmp_path, change, message):
    with pytest.raises(UserError) as caught:
        read_verl(write(tmp_path / "a.jsonl", [MATH | change]))
    assert message in str(caught.value)
