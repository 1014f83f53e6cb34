"""Benchmark files: prompts, shuffled options, and verdicts on right, wrong, cut-off and empty responses."""

import collections
import json
import re

import pytest

from tests.environments.rows import CHOICE, CODE, EVERY, FUNCTION, INTEGER, packed, write
from zaya_jax.environments.benchmarks import read_benchmark, shuffled, verify
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.prompts import FIELDS, fill, read_template
from zaya_jax.errors import UserError


@pytest.fixture
def problems(tmp_path) -> dict[str, Problem]:
    return {problem.id: problem for problem in read_benchmark(write(tmp_path / "mixed.jsonl", *EVERY))}


def test_prompts_begin_with_the_problem_and_say_what_form_the_answer_has(problems):
    for row in EVERY:
        prompt = problems[row["id"]].prompt
        assert prompt.startswith(row["problem"]) and "{{" not in prompt
        form = {"code": "```python", "instructions": ""}.get(row["kind"], r"\boxed{}")
        assert form in prompt
    assert problems["n"].prompt == "Say hello in at least three words, without commas."
    assert "def twice(self, x):" in problems["f"].prompt and "standard input" not in problems["f"].prompt
    assert "standard input" in problems["p"].prompt


def test_answers_are_hidden_and_the_rest_is_known(problems):
    assert problems["i"].hidden == {"kind": "integer", "answer": "42"}
    assert problems["i"].meta == {"benchmark": "mixed", "source": "made up"}
    assert problems["p"].meta == {"benchmark": "mixed", "date": "2025-03-01"}
    assert problems["p"].hidden["tests"][0] == {"input": "2\n", "output": "4\n", "testtype": "stdin"}
    assert all(Problem.from_json(json.loads(json.dumps(p.to_json()))) == p for p in problems.values())


def options(problem: Problem) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z])\) (.*)$", problem.prompt, re.MULTILINE))


def test_the_letter_is_that_of_the_right_option_wherever_it_went(tmp_path):
    rows = [CHOICE | {"id": str(i)} for i in range(200)]
    places = collections.Counter()
    for problem in read_benchmark(write(tmp_path / "b.jsonl", *rows)):
        assert sorted(options(problem).values()) == sorted(CHOICE["choices"])
        assert options(problem)[problem.hidden["answer"]] == "4"
        places[problem.hidden["answer"]] += 1
    assert sorted(places) == list("ABCD") and min(places.values()) > 25  # 50 expected of each
    assert "(A, B, C or D)" in problem.prompt


def test_the_order_of_options_depends_on_seed_and_problem_alone(tmp_path):
    rows = [CHOICE | {"id": str(i)} for i in range(20)]
    path = write(tmp_path / "b.jsonl", *rows)
    first = {p.id: options(p) for p in read_benchmark(path)}
    last = {p.id: options(p) for p in read_benchmark(write(tmp_path / "c.jsonl", *rows[::-1], INTEGER))[:-1]}
    assert first == last
    assert first != {p.id: options(p) for p in read_benchmark(path, seed=1)}
    assert shuffled(5, 0, "a") == [3, 2, 4, 0, 1]  # for good: prompts already sampled depend on it


def test_a_letter_and_an_index_mean_the_same_option(tmp_path):
    by_index, by_letter = (
        read_benchmark(write(tmp_path / "b.jsonl", CHOICE | {"answer": answer})) for answer in (2, "C")
    )
    assert by_index == by_letter and options(by_index[0])[by_index[0].hidden["answer"]] == "7"


def test_packed_tests_are_read(tmp_path):
    tests = packed(json.dumps(CODE["tests"]).encode())
    (problem,) = read_benchmark(write(tmp_path / "b.jsonl", CODE | {"tests": tests}))
    assert [test["output"] for test in problem.hidden["tests"]] == ["4\n", "-2\n"]


RIGHT = {
    "i": r"So it is \boxed{42}.",
    "l": r"Then $x = \boxed{\frac{1}{2}}$.",
    "e": r"\boxed{1 2 3}",
    "p": "```python\nprint(2 * int(input()))\n```",
    "f": "```python\nclass Solution:\n    def twice(self, x):\n        return 2 * x\n```",
    "n": "Hello my dear friend",
}
WRONG = {
    "i": r"\boxed{41}",
    "l": r"\boxed{\frac{1}{3}}",
    "e": r"\boxed{3 2 1}",
    "p": "```python\nprint(abs(2 * int(input())))\n```",
    "f": "```python\nclass Solution:\n    def twice(self, x):\n        return x\n```",
    "n": "Hello, my dear friend",
}


@pytest.mark.parametrize("name", sorted(RIGHT))
@pytest.mark.parametrize("form", ["{}", "<think>hmm</think>{}", "hmm</think>\n\n{}"])
def test_right_and_wrong_answers_of_every_kind(problems, name, form):
    right = verify(problems[name], form.replace("{}", RIGHT[name]))
    assert (right.reward, right.correct, right.format, right.error) == (1.0, True, True, None)
    wrong = verify(problems[name], form.replace("{}", WRONG[name]))
    assert (wrong.reward, wrong.correct, wrong.format) == (0.0, False, True) and wrong.answer


def test_right_and_wrong_letters(problems):
    letter = problems["c"].hidden["answer"]
    assert verify(problems["c"], rf"</think>\boxed{{{letter}}}").correct
    other = "ABCD".replace(letter, "")[0]
    assert not verify(problems["c"], rf"</think>\boxed{{{other}}}").correct


def test_the_reasoning_is_not_the_answer(problems):
    assert not verify(problems["i"], r"<think>\boxed{42}</think>\boxed{41}").correct
    assert verify(problems["i"], r"<think>\boxed{41}</think>\boxed{42}").correct
    verdict = verify(problems["i"], r"\boxed{42}<think>no</think>I do not know")
    assert (verdict.correct, verdict.format, verdict.error) == (False, False, "no answer")
    verdict = verify(problems["n"], "<think>a, b, c</think>Hello my friend")
    assert verdict.correct and verdict.answer == "Hello my friend"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (r"<think>it is \boxed{42}", "unfinished"),
        (r"<think>a</think>\boxed{42}<think>or not", "unfinished"),
        ("", "empty"),
        (" \n", "empty"),
        (r"<think>\boxed{42}</think>", "empty"),
        ("<think>a</think>It is hard to say.", "no answer"),
    ],
)
def test_a_response_without_an_answer_is_wrong_and_out_of_form(problems, response, error):
    verdict = verify(problems["i"], response)
    assert (verdict.reward, verdict.correct, verdict.format) == (0.0, False, False)
    assert (verdict.error, verdict.answer) == (error, None)


def test_a_response_may_begin_inside_the_reasoning(problems):
    assert verify(problems["i"], r"it is \boxed{42}", in_thinking=True).error == "unfinished"
    assert verify(problems["i"], r"it is \boxed{42}").correct


def test_what_failed_is_said(problems):
    assert verify(problems["p"], WRONG["p"]).error == "wrong at test 2 of 2"
    assert verify(problems["n"], "Hello, you").error == ("not followed: no_commas, words")


def test_fields_are_filled_once():
    assert fill(r"{{ problem }} \boxed{} {{problem}}", {"problem": "{{choices}} $x$"}) == (
        r"{{choices}} $x$ \boxed{} {{choices}} $x$"
    )
    with pytest.raises(UserError, match=r"no value for \{\{b\}\}; expected one of \{\{a\}\}"):
        fill("{{b}}", {"a": "1"})


def test_own_templates(tmp_path):
    path = write(tmp_path / "b.jsonl", INTEGER)
    (tmp_path / "integer.txt").write_text("Q: {{problem}}\nA:\n")
    assert read_benchmark(path, prompts=tmp_path)[0].prompt == "Q: What is 6 * 7?\nA:"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{problem}} {{answer}}", r"integer.txt: unknown field {{answer}}; expected one of {{problem}}"),
        ("Solve it.", r"integer.txt: no {{problem}}; expected a prompt with {{problem}}"),
        (None, "integer.txt: cannot be read; expected a prompt; found No such file or directory"),
    ],
)
def test_bad_templates(tmp_path, template, message):
    if template is not None:
        (tmp_path / "integer.txt").write_text(template)
    with pytest.raises(UserError) as caught:
        read_benchmark(write(tmp_path / "b.jsonl", INTEGER), prompts=tmp_path)
    assert message in str(caught.value)


def test_every_template_of_ours_is_sound():
    assert all(read_template(name).startswith("{{problem}}") for name in FIELDS)


def change(row: dict, without: str = "", **values) -> dict:
    return {key: value for key, value in (row | values).items() if key != without}


PICKLE = b"\x80\x04\x8c\x0c[not, loaded]\x94."
BAD = {
    "another kind": (change(INTEGER, kind="proof"), "no kind of problem; expected one of integer, latex, exact, "),
    "no kind": (change(INTEGER, "kind"), "no kind of problem; expected one of integer, latex, exact, "),
    "misspelt key": (change(INTEGER, "answer", anwser=1), "unknown key 'anwser'; expected one of schema, id, "),
    "key of another kind": (change(INTEGER, tests=[]), "unknown key 'tests'"),
    "no answer": (change(INTEGER, "answer"), "no 'answer'; expected one: the kind is 'integer'"),
    "null answer": (change(EVERY[1], answer=None), "no 'answer'; expected one: the kind is 'latex'"),
    "no id": (change(INTEGER, "id"), "no 'id'; expected a text that is not empty; found nothing"),
    "id is a number": (change(INTEGER, id=7), "no 'id'; expected a text that is not empty; found 7"),
    "blank problem": (change(INTEGER, problem=" "), "no 'problem'; expected a text that is not empty; found ' '"),
    "not whole": (change(INTEGER, answer=4.5), "answer is not a whole number from 0 to 999; found 4.5; kind "),
    "true": (change(INTEGER, answer=True), "answer is not a whole number from 0 to 999; found True"),
    "too large": (change(INTEGER, answer=1000), "answer is not a whole number from 0 to 999; found 1000"),
    "negative": (change(INTEGER, answer="-7"), "answer is not a whole number from 0 to 999; found '-7'"),
    "not a text": (change(EVERY[1], answer=["1"]), "answer is not a text; expected \"answer\": \"...\"; found ['1']"),
    "one option": (change(CHOICE, choices=["4"]), "choices are not a choice; expected a list of 2 to 10; found 1 of"),
    "blank option": (change(CHOICE, choices=["4", ""]), "choices[1] is not a text; expected an option; found ''"),
    "no such index": (change(CHOICE, answer=4), "answer is none of the choices; expected 0 to 3, or A to D; found 4"),
    "no such letter": (change(CHOICE, answer="E"), "answer is none of the choices; expected 0 to 3, or A to D; found"),
    "text of option": (change(CHOICE, answer="44"), "answer is none of the choices"),
    "right twice": (change(CHOICE, choices=["4", "4", "5"]), "the right option is there twice; found '4'"),
    "no tests": (change(CODE, tests=[]), "no tests; expected a list of at least one; found an empty one"),
    "half a test": (change(CODE, tests=[{"input": "1"}]), "tests[0]: no 'output'; expected a text, which may be empty"),
    "number in test": (change(CODE, tests=[{"input": 1, "output": "2"}]), "tests[0]: no 'input'; expected a text"),
    "key of a test": (change(CODE, tests=[{"input": "", "output": "", "type": "stdin"}]), "tests[0]: unknown key"),
    "functional without name": (
        change(FUNCTION, tests=[{"input": "1", "output": "2", "testtype": "functional"}]), "tests[0]: no 'fn_name'"),
    "pickled tests": (
        change(CODE, tests=packed(PICKLE)), "tests are pickled; expected JSON; a pickle is never loaded"),
    "not base64": (change(CODE, tests="!!"), "tests cannot be unpacked; expected a list of tests, or base64 of zlib"),
    "not zlib": (change(CODE, tests="YWJj"), "tests cannot be unpacked"),
    "not JSON inside": (change(CODE, tests=packed(b"[1, ")), "unpacked tests are not JSON; found b'[1, '"),
    "starter code": (change(CODE, starter_code=["a"]), "starter_code is not a text; found list"),
    "no instructions": (change(EVERY[6], instructions=[]), "no instructions; expected"),
    "nameless": (change(EVERY[6], instructions=[{"arguments": {}}]), "instructions[0]: no 'name'"),
    "no such check": (change(EVERY[6], instructions=[{"name": "no_comma"}]), "no check 'no_comma'; did you mean 'no_c"),
    "other arguments": (
        change(EVERY[6], instructions=[{"name": "words", "arguments": {"relation": "at least"}}]),
        "instructions[0]: arguments do not fit 'words'; found missing a required argument: 'number'"),
    "arguments": (
        change(EVERY[6], instructions=[{"name": "words", "arguments": [1]}]),
        "instructions[0]: arguments are not an object; found list"),
    "date": (change(INTEGER, date="May 2025"), "not a day; expected \"date\": \"YYYY-MM-DD\"; found 'May 2025'"),
    "schema": (change(INTEGER, schema=2), 'unknown schema; expected "schema": 1, or none; found 2'),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_line_that_says_where_and_what(tmp_path, name):
    row, message = BAD[name]
    path = write(tmp_path / "b.jsonl", INTEGER | {"id": "first"}, row)
    with pytest.raises(UserError) as caught:
        read_benchmark(path)
    line = str(caught.value)
    assert line.startswith(f"{path}, line 2") and message in line and "\n" not in line and len(line) < 400


def test_a_misspelt_key_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'answer'\?"):
        read_benchmark(write(tmp_path / "b.jsonl", BAD["misspelt key"][0]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a JSON object a line"),
        (b"\n\n", "is empty; expected a JSON object a line"),
        (b"{\n", "line 1: is not JSON; found Expecting property name enclosed in double quotes"),
        (b"[1]\n", "line 1: is not a JSON object"),
        (b'{"id": "\xff"}\n', "line 1: is not UTF-8; found byte 8 is not"),
        (b'{"answer": NaN}\n', "line 1: is not JSON; found NaN, which JSON does not have"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, content, message):
    (tmp_path / "b.jsonl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_benchmark(tmp_path / "b.jsonl")
    assert str(caught.value).startswith(str(tmp_path / "b.jsonl")) and message in str(caught.value)


def test_an_id_stands_once(tmp_path):
    with pytest.raises(UserError, match=r"line 3: id 'i' is there twice; found it is in line 1 too"):
        read_benchmark(write(tmp_path / "b.jsonl", INTEGER, CHOICE, INTEGER))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read; found No such file or directory"):
        read_benchmark(tmp_path / "b.jsonl")


def test_a_pickle_is_not_loaded(tmp_path):
    # Loading it would make a file.
    pickle = b"cos\nsystem\n(S'touch " + str(tmp_path / "loaded").encode() + b"'\ntR."
    for data in (pickle, b"\x80\x04" + pickle):
        with pytest.raises(UserError, match=r"pickled|not JSON"):
            read_benchmark(write(tmp_path / "b.jsonl", CODE | {"tests": packed(data)}))
    assert not (tmp_path / "loaded").exists()
