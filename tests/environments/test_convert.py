"""Published files as ours, from made-up rows with the publishers' column names."""

import csv
import json
import pickle

import pytest

from tests.environments.rows import packed, write
from zaya_jax.environments.benchmarks import read_benchmark, verify
from zaya_jax.environments.convert import convert
from zaya_jax.errors import UserError

AIME = {"problem_idx": 1, "problem": "What is $1+1$?", "answer": 2, "problem_type": ["Algebra"]}
HMMT = AIME | {"problem_idx": 2, "answer": r"\frac{1}{2}"}
ANSWERBENCH = {
    "Problem ID": "imo-bench-algebra-001", "Problem": "Find all $x$.", "Short Answer": "$x=3$ ", "Category": "Algebra",
    "Level": "IMO-easy", "Subcategory": "Equation", "Source": "Somewhere 2010",
}  # fmt: skip
GPQA = {
    "Record ID": "rec1", "Question": "Which?", "Correct Answer": "this\n", "Incorrect Answer 1": "that",
    "Incorrect Answer 2": "these", "Incorrect Answer 3": "those", "Explanation": "Because, see \"it\".",
    "High-level domain": "Physics", "Canary String": "x",
}  # fmt: skip
MMLU_PRO = {
    "question_id": 70, "question": "Which?", "options": ["a", "b", "c"], "answer": "B", "answer_index": 1,
    "cot_content": "", "category": "law", "src": "ori_mmlu",
}  # fmt: skip
STDIN = {"input": "1\n", "output": "2\n", "testtype": "stdin"}
CALL = {"input": "[1]\n2", "output": "3", "testtype": "functional"}


def livecodebench(private: str, **changes) -> dict:
    return {
        "question_title": "t", "question_content": "Do it.", "platform": "atcoder", "question_id": "abc_a",
        "contest_id": "abc", "contest_date": "2025-02-08T00:00:00", "starter_code": "", "difficulty": "easy",
        "public_test_cases": json.dumps([STDIN]), "private_test_cases": private, "metadata": "{}",
    } | changes  # fmt: skip


IFEVAL = {
    "key": 1000, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"relation": None}, {"relation": "at least", "num_words": 300, "keywords": None}],
}  # fmt: skip


def converted(tmp_path, form: str, *rows: dict, **days) -> list[dict]:
    source, output = write(tmp_path / "source.jsonl", *rows), tmp_path / "out.jsonl"
    assert convert(source, form, output, **days) == len(read_benchmark(output))
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_aime_has_whole_numbers_and_hmmt_latex_throughout(tmp_path):
    (row,) = converted(tmp_path, "matharena", AIME)
    assert row == {"id": "1", "problem": "What is $1+1$?", "kind": "integer", "answer": "2"}
    assert converted(tmp_path, "matharena", AIME, AIME | {"problem_idx": 2, "answer": 1000})[0]["kind"] == "latex"
    rows = converted(tmp_path, "matharena", AIME, HMMT)
    assert [(row["kind"], row["answer"]) for row in rows] == [("latex", "2"), ("latex", r"\frac{1}{2}")]


def test_answerbench(tmp_path):
    (row,) = converted(tmp_path, "answerbench", ANSWERBENCH)
    assert row == {
        "id": "imo-bench-algebra-001", "problem": "Find all $x$.", "kind": "latex", "answer": "$x=3$",
        "source": "Somewhere 2010",
    }  # fmt: skip


def test_gpqa_as_csv(tmp_path):
    with (tmp_path / "gpqa.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, GPQA)
        writer.writeheader()
        writer.writerow(GPQA)
    assert convert(tmp_path / "gpqa.csv", "gpqa", tmp_path / "out.jsonl") == 1
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["choices"], row["answer"]) == (["this", "that", "these", "those"], 0)


def test_mmlu_pro(tmp_path, capsys):
    (row,) = converted(tmp_path, "mmlu_pro", MMLU_PRO)
    assert (row["choices"], row["answer"], row["source"]) == (["a", "b", "c"], 1, "law")
    (row,) = converted(tmp_path, "mmlu_pro", MMLU_PRO | {"options": ["b ", "a", "b"], "answer_index": 2})
    assert (row["choices"], row["answer"]) == (["a", "b"], 1)
    assert "line 1: the right option is there twice; one of them is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    "private",
    [
        json.dumps([STDIN]),
        packed(json.dumps([STDIN]).encode()),
        *(packed(pickle.dumps(json.dumps([STDIN]), protocol)) for protocol in (2, 3, 4, 5)),
    ],
)
def test_livecodebench_with_private_tests_in_every_wrapping(tmp_path, private):
    (row,) = converted(tmp_path, "livecodebench", livecodebench(private))
    assert row["tests"] == [{"input": "1\n", "output": "2\n", "testtype": "stdin"}] * 2
    assert (row["date"], row["source"]) == ("2025-02-08", "atcoder easy") and "starter_code" not in row


def test_livecodebench_functions(tmp_path):
    changes = {"starter_code": "class Solution:", "metadata": '{"func_name": "add"}'}
    (row,) = converted(tmp_path, "livecodebench", livecodebench(json.dumps([CALL]), **changes))
    assert row["tests"][1] == {"input": "[1]\n2", "output": "3", "testtype": "functional", "fn_name": "add"}
    assert row["starter_code"] == "class Solution:"


def test_days_are_kept_with_both_ends(tmp_path):
    days = ["2025-01-31", "2025-02-01", "2025-05-31", "2025-06-01"]
    rows = [livecodebench("[]", question_id=day, contest_date=f"{day}T00:00:00") for day in days]
    kept = converted(tmp_path, "livecodebench", *rows, since="2025-02-01", until="2025-05-31")
    assert [row["id"] for row in kept] == days[1:3]


class Harmful:
    def __reduce__(self):
        return (print, ("loaded",))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    ("thing", "opcode"), [(Harmful(), "GLOBAL"), ([1], "EMPTY_LIST"), (("a", "b"), "TUPLE2"), (b"text", "BINBYTES")]
)
def test_a_pickle_of_anything_but_a_text_is_refused_by_name_and_never_loaded(
    tmp_path, monkeypatch, capsys, protocol, thing, opcode
):
    row = livecodebench(packed(pickle.dumps(thing, protocol)))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    with pytest.raises(UserError, match="tests are pickled; expected a text alone; found") as caught:
        converted(tmp_path, "livecodebench", row)
    assert opcode in str(caught.value) or protocol == 2  # older protocols say the same otherwise
    assert "loaded" not in capsys.readouterr().out and not (tmp_path / "out.jsonl").exists()


def test_ifeval_without_the_arguments_that_are_not_meant(tmp_path):
    (row,) = converted(tmp_path, "ifeval", IFEVAL)
    assert row["instructions"] == [
        {"name": "no_commas", "arguments": {}},
        {"name": "words", "arguments": {"relation": "at least", "number": 300}},
    ]


def test_rows_with_an_instruction_that_nothing_checks_are_left_out_and_said(tmp_path, capsys):
    language = {
        "key": 7, "prompt": "Auf Deutsch!", "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "de"}],
    }  # fmt: skip
    assert [row["id"] for row in converted(tmp_path, "ifeval", language, IFEVAL)] == ["1000"]
    assert "1 rows are left out; there is no check of language:response_language (1)" in capsys.readouterr().err
    with pytest.raises(UserError, match="no problems; expected at least one that can be checked"):
        converted(tmp_path, "ifeval", language)


KWARGS = {
    "keywords:existence": ({"keywords": ["tea", "cup"]}, "A cup of tea.", "A cup."),
    "keywords:frequency": ({"keyword": "tea", "frequency": 2, "relation": "at least"}, "tea, tea", "tea"),
    "keywords:forbidden_words": ({"forbidden_words": ["tea"]}, "coffee", "tea"),
    "keywords:letter_frequency": ({"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "z", "zz"),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
    "length_constraints:number_words": ({"num_words": 2, "relation": "at least"}, "One two", "One"),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "so"}, "Yes.\n\nSo it is.", "So.\n\nYes."),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[a] [b] [c]", "[a]"),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Hi\nP.S. more", "Hi"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n* b", "* a\n* b\n* c"),
    "detectable_format:constrained_response": ({}, "My answer is no.", "No."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 1}, "*so* it is", "so it is"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Part", "num_sections": 2}, "Part 1\na\nPart 2\nb", "Part 1\na"),
    "detectable_format:json_format": ({}, '{"a": 1}', "a"),
    "detectable_format:title": ({}, "<<Tea>> it is", "Tea"),
    "combination:two_responses": ({}, "a\n******\nb", "a"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Why?"}, "Why? Because.", "Because."),
    "startend:end_checker": ({"end_phrase": "Bye."}, "So. Bye.", "Bye. So."),
    "startend:quotation": ({}, '"So."', "So."),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 1, "capital_relation": "at least"}, "OK then", "Ok then"),
    "change_case:english_capital": ({}, "TEA", "Tea"),
    "change_case:english_lowercase": ({}, "tea", "Tea"),
    "punctuation:no_comma": ({}, "a b", "a, b"),
}  # fmt: skip


@pytest.mark.parametrize("name", KWARGS)
def test_an_instruction_of_ifeval_means_what_it_says(tmp_path, name):
    given, right, wrong = KWARGS[name]
    row = IFEVAL | {"instruction_id_list": [name], "kwargs": [given | {"something_else": None}]}
    converted(tmp_path, "ifeval", row)
    (problem,) = read_benchmark(tmp_path / "out.jsonl")
    assert verify(problem, f"</think>{right}").correct and not verify(problem, f"</think>{wrong}").correct


def test_parquet_and_json_say_the_same(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([MMLU_PRO]))
    assert convert(tmp_path / "a.json", "mmlu_pro", tmp_path / "a.jsonl") == 1
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow (extra `parquet`) is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([MMLU_PRO]), tmp_path / "b.parquet")
    assert convert(tmp_path / "b.parquet", "mmlu_pro", tmp_path / "b.jsonl") == 1
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("matharena", GPQA, "line 1: no 'problem_idx'; expected columns problem_idx, problem, answer; found"),
        ("matharena", AIME | {"answer": None}, "line 1: no 'answer'"),
        ("mmlu_pro", MMLU_PRO | {"answer_index": 3}, "line 1: answer_index is none of the options; found 3"),
        ("livecodebench", livecodebench("!"), "line 1: private_test_cases cannot be unpacked"),
        ("livecodebench", livecodebench("[1"), "line 1: private_test_cases is not JSON"),
        ("livecodebench", livecodebench(json.dumps([CALL])), "line 1: no func_name in metadata"),
        (
            "ifeval",
            IFEVAL | {"kwargs": [{}, {"num_words": 3}]},
            "line 1: no 'relation' among the kwargs of length_constraints:number_words; found ['num_words']",
        ),
        ("ifeval", IFEVAL | {"kwargs": []}, "line 1: kwargs do not fit instruction_id_list; found 0 for 2"),
    ],
)
def test_a_bad_row_is_one_line(tmp_path, form, row, message):
    with pytest.raises(UserError) as caught:
        converted(tmp_path, form, row)
    assert message in str(caught.value) and not (tmp_path / "out.jsonl").exists()


def test_days_need_dates_and_leave_something(tmp_path):
    with pytest.raises(UserError, match="problem 1: no dates; leave out --since and --until"):
        converted(tmp_path, "matharena", AIME, since="2025-01-01")
    with pytest.raises(UserError, match="no problems; expected at least one that can be checked, within the days"):
        converted(tmp_path, "livecodebench", livecodebench("[]"), since="2026-01-01")
    with pytest.raises(UserError, match="--until: not a day"):
        converted(tmp_path, "livecodebench", livecodebench("[]"), until="May")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "", "a.xlsx: unknown kind of file; expected .csv, .json, .jsonl, .parquet; found .xlsx"),
        ("a.csv", "", "a.csv: is empty; expected at least one row"),
        ("a.json", "{}", "a.json: is not a list of JSON objects; found dict"),
        ("a.json", "[", "a.json: the file is not JSON"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        convert(tmp_path / name, "matharena", tmp_path / "out.jsonl")
    assert message in str(caught.value)


def test_a_failed_conversion_leaves_the_old_file(tmp_path):
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(UserError):
        converted(tmp_path, "matharena", GPQA)
    assert (tmp_path / "out.jsonl").read_text() == "old"
