"""Instructions about a response's form: each check against texts that keep to it and texts that do not."""

import time

import pytest

from zaya_jax.errors import UserError
from zaya_jax.grading.instructions import CHECKS, check

TWO = {"relation": "exactly", "number": 2}
THREE = {"relation": "at least", "number": 3}

# name, arguments, responses that keep to it, responses that do not
CASES = [
    ("words", TWO, ["one two", "well-known man's", "1 2", "«a» - «b»"], ["one", "one two three"]),
    ("words", {"relation": "less than", "number": 3}, ["a b"], ["a b c"]),
    ("words", {"relation": "at most", "number": 3}, ["a b", "a b c"], ["a b c d"]),
    ("words", {"relation": "more than", "number": 3}, ["a b c d"], ["a b c"]),
    (
        "sentences",
        TWO,
        [
            "It rains. It pours.",
            "Is it? It is!",
            "Wait... No.",
            "One. Two without an end",
            "He said “no.” She left.",
            "It costs 3.50 today. Cheap!",
            "We saw J. Smith there. He ran.",
        ],
        ["It rains, e.g. here.", "One. Two. Three.", "Nothing ends here"],
    ),
    ("paragraphs", TWO, ["a\nb\n\nc", "a\n \t\nb\n\n\n"], ["a\nb", "a\n\nb\n\nc"]),
    (
        "paragraphs",
        {**TWO, "separator": "***"},
        ["a\n***\nb", "***\na\n\nc\n***\nb\n***"],
        ["a\n\nb", "a\n***\n***\nb", "a ***b*** c", "a\n***\nb\n***\nc"],
    ),
    (
        "paragraph_starts",
        {"paragraph": 2, "word": "Then", "number": 3},
        ["a\n\nThen b\n\nc", "a\n\n**then**, b\n\nc"],
        ["Then a\n\nb\n\nc", "a\n\nThenceforth\n\nc", "a\n\nThen b"],
    ),
    (
        "bullets",
        TWO,
        ["* a\n* b", "text\n- a\n  - b\nend", "+ a\n\n+ b"],
        ["* a", "**a**\n**b**", "-5\n-6", "1. a\n2. b"],
    ),
    ("keywords", {"words": ["sun", "old man"]}, ["The Sun and the Old Man."], ["sunny old man", "sun, old, man"]),
    ("keyword_frequency", {"word": "go", **TWO}, ["Go, go!", "go (go) going"], ["go", "gogo", "go go go"]),
    ("forbidden_words", {"words": ["bad", "c++"]}, ["badly", "c", "fine"], ["Bad!", "I like C++."]),
    ("letter_frequency", {"letter": "z", **TWO}, ["Zz", "pizza"], ["zoo", "zzz"]),
    ("capital_words", TWO, ["THE END", "A NASA day"], ["The End", "ALL OF IT"]),
    ("lowercase", {}, ["all small, 1 2", "é"], ["Not", "123", "éÉ"]),
    ("uppercase", {}, ["ALL BIG 1"], ["ALL BUt", "123"]),
    ("no_commas", {}, ["none at all"], ["one, two", "一，二", "一、二"]),
    (
        "json_format",
        {},
        ['{"a": 1}', ' [1, "two"] ', '```json\n{"a": [1]}\n```', "```\n[]\n```"],
        ["{'a': 1}", 'Here: {"a": 1}', "5", '{"a": NaN}', '{"a": 1} and more', "[" * 100_000],
    ),
    ("starts_with", {"phrase": "Dear"}, ["Dear you", "  dear you"], ["My dear", "De ar"]),
    (
        "ends_with",
        {"phrase": "The end."},
        ["Well. The end.", 'x the END."', "The end.\n"],
        ["The end. Not.", "The end"],
    ),
    ("title", {}, ["<<A day>>\ntext"], ["<A day>", "<< >>", "<<A\nday>>", "a << b"]),
    ("placeholders", TWO, ["[name] of [place]", "[x](y) [z]"], ["[name]", "[] []", "[a [b]"]),
    ("highlighted", TWO, ["*a* and *b c*", "**a** *b*"], ["*a*", "* a\n* b\n", "a * b * c", "****"]),
    (
        "sections",
        {"splitter": "Section", **TWO},
        ["Section 1\na\nSection 2\nb", "## SECTION 1\n## section 2"],
        ["Section 1", "a Section 1 Section 2"],
    ),
    (
        "postscript",
        {"marker": "P.S."},
        ["Bye\nP.S. more", "Bye\n\n**P.S.** more", "PS: more", "p.s. more"],
        ["no such", "P.S.", "oops. more", "PSALM 1"],
    ),
    ("postscript", {"marker": "P.P.S"}, ["Bye\nP.P.S more", "P.P.S. more"], ["P.S. more"]),
    (
        "two_responses",
        {},
        ["a\n******\nb"],
        ["a", "a\n******\na", "a\n******\n", "a\n******\nb\n******\nc", "a ****** b", "a\n***\nb"],
    ),
    ("quotation", {}, ['"all of it"', " “all of it” "], ['"', '""', 'say "it"', '"it" he said']),
    (
        "repeats_prompt",
        {"prompt": "What is 1+1? "},
        ["What is 1+1?\n\n2", "what is 1+1? 2"],
        ["2", "What is 1+1?", "So: What is 1+1? 2"],
    ),
    (
        "one_of",
        {"options": ["My answer is yes.", "My answer is no."]},
        ["My answer is no."],
        ["my answer is no.", "yes"],
    ),
]


@pytest.mark.parametrize(("name", "arguments", "response"), [(n, a, r) for n, a, kept, _ in CASES for r in kept])
def test_kept(name, arguments, response):
    assert check(name, arguments, response)


@pytest.mark.parametrize(("name", "arguments", "response"), [(n, a, r) for n, a, _, broken in CASES for r in broken])
def test_broken(name, arguments, response):
    assert not check(name, arguments, response)


def test_every_check_has_cases():
    assert {name for name, *_ in CASES} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_an_empty_response_keeps_to_nothing(name):
    arguments = next(arguments for case, arguments, *_ in CASES if case == name)
    assert not check(name, arguments, " \n")


def test_mistakes_end_in_one_line():
    with pytest.raises(UserError, match=r"no such instruction.*words"):
        check("word", {}, "a")
    with pytest.raises(UserError, match=r"words: arguments are not usable.*relation"):
        check("words", {"number": 3}, "a")
    with pytest.raises(UserError, match="words: arguments are not usable"):
        check("words", {"number": 3, "relation": "about"}, "a")


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        ".",
        "[a",
        "*a",
        "**",
        "'a",
        "\n\n",
        "*",
        "[",
        "<<",
        "\n",
        ". ",
        "- ",
        "* a\n",
        "'",
        '"',
        "P.S.",
        "```json\n",
        " ",
    ],
)
def test_a_hostile_megabyte_is_judged_at_once(piece):
    begun = time.process_time()
    for before in ("x", "<<", "**", "```\n", "[", "P.S."):
        text = before + piece * (200_000 // len(piece))
        for name in CHECKS:
            check(name, next(arguments for case, arguments, *_ in CASES if case == name), text)
    assert time.process_time() - begun < 5  # a quadratic one takes minutes
