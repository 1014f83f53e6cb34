"""Prompts of aggregation: cut into tokens around the attempts, the problem first."""

import pytest

from tests.sampling.models import tokenizer
from zaya_jax.errors import UserError
from zaya_jax.text.aggregation import KINDS, Wording, cut_prompts, load_wording
from zaya_jax.text.byte_level import THINK_START_ID

PLAIN = Wording(
    "These {count}:\n{attempts}\nGo {x}\\boxed{}.", "This one:\n{attempts}\nGo on.", "<{number}>{tail}</{number}>"
)


def text(tokens):
    return tokenizer().decode(tokens, skip_special=False)


def joined(pieces, tails):
    parts = [part for pair in zip(pieces.between, [*map(tokenizer().encode_prompt, tails), []]) for part in pair]
    return text([token for part in parts for token in part if token != 2])


def test_what_is_around_the_attempts_is_the_wording():
    pieces = cut_prompts(tokenizer(), "What is 1 + 1?", PLAIN, 2)
    assert len(pieces.between) == 3
    head = "<|im_start|>user\nWhat is 1 + 1?"
    foot = "<|im_end|>\n<|im_start|>assistant\n<think>"
    assert text(pieces.direct) == head + foot
    expected = f"{head}\n\nThese 2:\n<1>one</1>\n\n<2>two</2>\nGo {{x}}\\boxed{{}}.{foot}"
    assert joined(pieces, ["one", "two"]) == expected


def test_one_attempt_is_refined():
    pieces = cut_prompts(tokenizer(), "P", PLAIN, 1)
    assert "This one:\n<1>tail</1>\nGo on." in joined(pieces, ["tail"])


def test_all_rounds_begin_with_the_problem():
    problem = "A long problem.\n\n" * 9
    pieces = cut_prompts(tokenizer(), problem, load_wording("math"), 4)
    assert pieces.direct[: pieces.prefix] == pieces.between[0][: pieces.prefix]
    assert text(pieces.direct[: pieces.prefix]).endswith(problem)


def test_reasoning_is_opened_once():
    opened = cut_prompts(tokenizer(), "P", PLAIN, 2)
    assert opened.direct[-1] == opened.between[-1][-1] == THINK_START_ID
    closed = cut_prompts(tokenizer(), "P", PLAIN, 2, open_thinking=False)
    assert THINK_START_ID not in (*closed.direct, *closed.between[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_wordings_are_whole(kind):
    wording = load_wording(kind)
    for count in (1, 4):
        around = wording.around(count)
        assert around.count("\ue0f1") == count
        assert not any(field in around for field in ("{attempts}", "{count}", "{number}", "{tail}"))
    assert ("\\boxed{}" in wording.aggregate) == (kind in ("math", "choice"))


@pytest.mark.parametrize(
    "content, said",
    [
        (
            "[aggregate]\n{attempts}\n[refine]\n{attempts}\n",
            r"lacks a section; expected \[attempt\]; found \['aggregate'",
        ),
        (
            "[aggregate]\nx\n[refine]\n{attempts}\n[attempt]\n{tail}\n",
            r"\[aggregate\]: lacks a field; expected {attempts}",
        ),
        (
            "[aggregate]\n{attempts}\n[refine]\n{attempts}\n[attempt]\nx\n",
            r"\[attempt\]: lacks a field; expected {tail}",
        ),
        ("", "lacks a section.*found none"),
    ],
)
def test_a_wording_that_lacks_something_is_refused(tmp_path, content, said):
    path = tmp_path / "mine.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        load_wording(str(path))


def test_a_file_that_is_not_there_and_a_problem_with_our_marks():
    with pytest.raises(UserError, match=r"nothing\.txt: no such aggregation prompt; expected one of math, code"):
        load_wording("nothing.txt")
    with pytest.raises(UserError, match="the prompt cannot be cut"):
        cut_prompts(tokenizer(), "odd \ue0f1 letters", PLAIN, 2)
