"""The page of a Markovian RSA run: its figures, what it makes of a run that is not whole, and strangers' texts."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.experiments.in_process import run as launch
from tests.report.pages import Page, assert_stands_alone
from tests.report.rsa_example import example, write_example
from zaya_jax.errors import UserError
from zaya_jax.report.candidates import candidates_page, read_run
from zaya_jax.report.candidates_run import arrange, letter
from zaya_jax.report.candidates_text import find_limit, find_tail, readable, shortened, trace

PLACE = '{"problem": 1, "round": 1, "index": 0'


def candidate(problem, number, index, answer, **changes):
    """A candidate that thought 100 tokens and read candidate 0 of the round before."""
    return {
        "problem": problem, "round": number, "index": index, "parents": [0] if number else [], "prompt_tokens": 10,
        "tokens": 100, "thinking": "so it is " + str(answer), "answer": f"It is {answer}.", "extracted": answer,
        "correct": answer == "4", "finish": "stop", "think_forced": False, "logprob": -0.5, "tail": str(answer),
        "probe": None,
    } | changes  # fmt: skip


def small():
    """Two problems, N = 3, T = 1. Correct of round 0: 1 of 6, of round 1: 3 of 6."""
    answers = {"p": [["4", "5", "5"], ["4", "4", "5"]], "q": [["7", "8", None], ["4", "8", "8"]]}
    candidates = [candidate(name, number, index, answer, tokens=100 * (index + 1)) for name, rounds in answers.items()
                  for number, row in enumerate(rounds) for index, answer in enumerate(row)]  # fmt: skip
    spent = {"generated": 600, "prefilled": 30, "reused": 20, "carried": 9, "probed": 1, "seconds": 2.0}
    problems = [
        {"problem": name, "prompt": f"What is {name}?", "gold": "4", "mean": mean, "majority": majority, "final": None,
         "rounds": [{"round": 0} | spent, {"round": 1} | spent]}
        for name, mean, majority in (("p", 2 / 3, {"answer": "4", "votes": 2, "correct": True}),
                                     ("q", 1 / 3, {"answer": "8", "votes": 2, "correct": False}))
    ]  # fmt: skip
    return {"n": 3, "c": 1, "t": 1, "beta": 8192, "tau": 64, "checkpoint": "dir/nano"}, problems, candidates


def table_rows(content, start):
    """The rows of the first table behind a heading, cell by cell."""
    body = content.split(f"<h2>{start}</h2>")[1].split("<tbody>")[1].split("</tbody>")[0]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>") if row]
    return [[" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row] for row in cells]


def test_figures_worked_by_hand():
    content = candidates_page(*small())
    text = Page(content).text
    assert "Markovian RSA: nano N 3 · C 1 · T 1 · β 8,192 · τ 64" in text
    for tile in ("problems 2", "candidates 12", "tokens generated 2,400", "mean accuracy, round 1 50.0 %",
                 "majority accuracy 50.0 %"):  # fmt: skip
        assert tile in text, tile
    # Most frequent answers: 2 of 3 and 1 of 3, then 2 of 3 twice. Different ones: 2 a problem in both rounds.
    assert table_rows(content, "Round by round") == [
        ["round 0", "6", "16.7 % (1 of 6)", "50.0 %", "2.0", "200", "0.0 %", "−0.500", "4 s"],
        ["round 1", "6", "50.0 % (3 of 6)", "66.7 %", "2.0", "200", "0.0 %", "−0.500", "4 s"],
    ]
    assert [row[:7] for row in table_rows(content, "Tokens by round")] == [
        ["round 0", "1,200", "60", "40", "18", "2", "1,302"],
        ["round 1", "1,200", "60", "40", "18", "2", "1,302"],
    ]
    # p: 4 and 5 have three votes each, and 4 came first. q: 8 has three, then 7 and 4 with one.
    assert table_rows(content, "Answers") == [
        ["p", "A B A B", "1/3 → 2/3", "A 4 2 votes ✓ correct", "–", "4"],
        ["q", "A B – A C", "0/3 → 1/3", "A 8 2 votes ✗ incorrect", "–", "4"],
    ]


def test_a_card_says_everything_in_words():
    page = Page(candidates_page(*small()))
    assert "#2 ✗ incorrect – no answer 1 of 3 have none 300 tokens · log p −0.500" in page.text
    assert "#1 ✓ correct A 4 2 of 3 agree 200 tokens · log p −0.500 from #0" in page.text
    colors = {a["id"]: a["class"] for tag, a in page.tags if tag == "details" and "id" in a}
    assert colors["p0-r0-c0"] == colors["p0-r1-c0"] == colors["p0-r1-c1"] != colors["p0-r0-c1"]
    assert colors["p1-r0-c2"] == "candidate none"


def test_lines_go_from_parents_to_children():
    page = Page(candidates_page(*example()))
    lines = {(a["data-from"], a["data-to"]) for tag, a in page.tags if tag == "path"}
    _, _, candidates = example()
    places = {"hmmt-square": 0, "triangles": 1, "aime-lattice": 2}
    assert lines == {
        (f"p{places[c['problem']]}-r{c['round'] - 1}-c{parent}", f"p{places[c['problem']]}-r{c['round']}-c{c['index']}")
        for c in candidates for parent in c["parents"]
    }  # fmt: skip


def test_the_page_stands_alone_and_runs_one_script():
    content = candidates_page(*example())
    assert_stands_alone(content)
    assert len(Page(content).scripts) == 1


def test_the_tail_is_marked_inside_the_thinking():
    settings, problems, candidates = small()
    whole = "first " * 20 + "TAIL OF IT"
    candidates[0] |= {"thinking": whole + "\n", "tail": "TAIL OF IT"}
    candidates[1] |= {"thinking": "thought", "tail": "an answer carried"}
    content = candidates_page(settings, problems, candidates)
    assert "<mark>TAIL OF IT</mark>\n</pre>" in content and "The tail of 10 characters" in Page(content).text
    assert "Carried to the next round 17 characters an answer carried" in Page(content).text


@pytest.mark.parametrize("kept", [1, 7, 11])
def test_a_run_that_goes_on(kept):
    settings, problems, candidates = small()
    page = Page(candidates_page(settings, [], candidates[:kept]))
    slots = 6 * len({c["problem"] for c in candidates[:kept]})
    assert f"Unfinished: {slots - kept} of {slots} candidates are not there" in page.text
    assert [a.get("class") for _, a in page.tags].count("missing") == slots - kept
    assert "is not there yet" in page.text and "The problem's text is not recorded yet." in page.text
    assert "Unfinished" not in Page(candidates_page(settings, problems, candidates)).text


def test_a_run_that_has_only_begun():
    assert "No problem and no candidate is recorded yet." in Page(candidates_page(small()[0], [], [])).text
    assert "The settings are not known." in Page(candidates_page({}, [], [])).text


def test_nothing_is_needed_but_a_place():
    text = Page(candidates_page({}, [{"problem": 1}], [{"problem": 1, "round": 0, "index": 1}])).text
    assert "#1 ? unknown – no answer 1 of 1 have none – tokens · log p –" in text and "#0 is missing" in text


def test_a_candidate_recorded_twice_counts_once():
    settings, problems, candidates = small()
    (first, _) = arrange(settings, problems, [*candidates, candidate("p", 0, 0, "9")])
    assert first.votes(0) == {"9": 1, "5": 2} and first.answers == ["5", "4", "9"]


def test_many_answers_have_letters_of_their_own():
    assert [letter(rank) for rank in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "A",
        "Z",
        "AA",
        "AB",
        "AZ",
        "BA",
        "ZZ",
        "AAA",
    ]
    candidates = [candidate("p", 0, index, f"answer {index}") for index in range(30)]
    page = Page(candidates_page({"n": 30, "t": 0}, [], candidates))
    classes = [a.get("class") for tag, a in page.tags if tag == "details"]
    assert classes.count("candidate rare") == 23 and "AD answer 29" in page.text and "and 10 more" in page.text


def test_reading_a_run(tmp_path):
    assert read_run(write_example(tmp_path / "run")) == example()
    for name in ("candidates", "problems"):
        (tmp_path / "run" / f"{name}.jsonl").unlink()
    assert read_run(tmp_path / "run")[1:] == ([], [])


def test_a_torn_last_line_is_dropped(tmp_path):
    directory = write_example(tmp_path)
    path = directory / "candidates.jsonl"
    torn = '{"problem": "x", "thinking": "é'.encode()[:-1]
    path.write_bytes(path.read_bytes() + torn)
    assert read_run(directory)[2] == example()[2]
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(UserError, match=r"candidates\.jsonl, line 61: is not JSON"):
        read_run(directory)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("settings.json", None, "has no settings.json; give the directory of a Markovian RSA run"),
        ("settings.json", "[]", r"settings\.json: is not a record; expected {...}; found list"),
        ("settings.json", '{"n": 0}', "n is not a whole number from 1 to 10000; found 0"),
        ("settings.json", '{"beta": "8K"}', "beta is not a number; found '8K'"),
        ("candidates.jsonl", "{}\n", "line 1: problem is not a text or a number; found nothing"),
        ("candidates.jsonl", '{"problem": 1, "round": 0, "index": 8}\n', "index is not a whole number from 0 to 7;"),
        ("candidates.jsonl", '{"problem": 1, "round": true, "index": 8}\n', "round is not a number; found True"),
        ("candidates.jsonl", '{"problem": 1, "round": 3, "index": 0}\n', "round is not a whole number from 0 to 2;"),
        ("candidates.jsonl", ', "parents": ["a"]}\n', "parents is not a whole"),
        ("candidates.jsonl", ', "thinking": 3}\n', "thinking is not a text; found 3"),
        ("candidates.jsonl", ', "correct": 1}\n', "correct is not true or false"),
        ("candidates.jsonl", ', "probe": []}\n', "probe is not an object"),
        ("candidates.jsonl", "[" * 100_000 + "\n", "line 1: is not JSON"),
        ("candidates.jsonl", "\xff\n", "line 1: is not JSON"),
        ("problems.jsonl", '{"problem": 1, "rounds": [3]}\n', "rounds is not a list of objects; found 3"),
        ("problems.jsonl", '{"problem": 1, "rounds": [{"round": 0, "generated": "x"}]}\n', "generated is not a number"),
        ("problems.jsonl", '{"problem": 1, "majority": {"votes": "x"}}\n', "votes is not a number; found 'x'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path, file, text, said):
    directory = write_example(tmp_path)
    (directory / file).unlink()
    if text is not None:
        (directory / file).write_bytes((PLACE + text if text.startswith(",") else text).encode("latin-1"))
    with pytest.raises(UserError, match=said) as error:
        read_run(directory)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_what_json_allows_beyond_the_standard(tmp_path):
    directory = write_example(tmp_path)
    line = {"problem": "x", "round": 0, "index": 0, "logprob": float("nan"), "extracted": "\ud800", "tokens": 3}
    (directory / "candidates.jsonl").write_text(json.dumps(line) + "\n")
    assert "log p –" in Page(candidates_page(*read_run(directory))).text


def test_the_launcher(tmp_path):
    directory = write_example(tmp_path / "run")
    assert launch("rsa_report", f"--run={directory}") == (0, f"{directory}/candidates.html\n", "")
    output = tmp_path / "page.html"
    assert launch("rsa_report", f"--run={directory}", f"--output={output}") == (0, f"{output}\n", "")
    assert output.read_text() == (directory / "candidates.html").read_text() == candidates_page(*example())
    code, out, err = launch("rsa_report", f"--run={tmp_path}")
    assert (
        (code, out) == (2, "") and err.startswith(f"error: {tmp_path}: has no settings.json") and err.count("\n") == 1
    )


@given(st.text(st.characters(), max_size=60))
def test_nothing_hides_in_a_text(value):
    shown = readable(value)
    shown.encode()
    assert readable(shown) == shown
    assert Page(f"<p>{trace(value, 1000)}</p>").words == ([shown] if shown else [])


def test_pictures_of_what_is_not_seen():
    assert readable("a\x00b\r\nc\rd\x7f\x85\u202e\ud800\t\n") == "a␀b\nc␍d␡⟨U+0085⟩⟨U+202E⟩⟨U+D800⟩\t\n"
    assert shortened("one\n two  three", 60) == "one two three"
    assert shortened("x" * 100, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("whole", "tail", "found"),
    [
        ("one two", "two", (4, 7)),
        ("one two \n", " two", (4, 7)),
        ("one é two", "\ufffd two", (6, 9)),
        ("one two", "three", None),
        ("one two", "", None),
        ("", "", None),
        ("two", "two", (0, 3)),
    ],
)
def test_where_a_tail_stands(whole, tail, found):
    assert find_tail(whole, tail) == found


def test_a_long_text_loses_its_middle_and_says_so():
    value = "a" * 1000 + "b" * 8000 + "c" * 1000
    shown = trace(value, 900, (9500, 10_000))
    page = Page(shown)
    assert page.words == ["a" * 300, "… 9,100 of 10,000 characters are left out here …", "c" * 100, "c" * 500]
    assert "<mark>" + "c" * 500 + "</mark>" in shown
    # A tail that begins in what is left out is marked as far as it is shown.
    assert trace(value, 900, (5000, 10_000)).count("<mark>" + "c" * 600 + "</mark>") == 1


def test_the_limit_follows_what_the_page_has_to_hold():
    assert find_limit(["x" * 100]) == find_limit([]) == 30_000
    plain, costly = find_limit(["x" * 50_000] * 1440), find_limit(["<" * 50_000] * 1440)
    assert 12_000 < plain <= 20_000_000 / 1440 + 50 and 4 * costly <= plain + 400
