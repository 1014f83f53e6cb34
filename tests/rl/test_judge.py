"""A pairwise judge: both orders, pairs that contradict themselves, win rates, position bias, strict reading."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.models import tiny, tokenizer
from zaya_jax.errors import UserError
from zaya_jax.rl.judge import (
    Comparison,
    Question,
    compare,
    engine_judge,
    group_rewards,
    one_by_one,
    position_bias,
    question_text,
    read_answer,
)
from zaya_jax.sampling.engine import Engine


def longer(prompt, first, second):
    """Reads: the longer reply wins, equally long ones tie."""
    if len(first) == len(second):
        return "tie"
    return "first" if len(first) > len(second) else "second"


def stubborn(prompt, first, second):
    """Does not read."""
    return "first"


@pytest.mark.parametrize(("a", "b", "verdict"), [("aaa", "b", "first"), ("a", "bbb", "second"), ("a", "b", "tie")])
def test_a_judge_that_reads_says_the_same_in_both_orders(a, b, verdict):
    assert compare(longer, "?", a, b).verdict == verdict


def test_both_orders_are_asked():
    asked = []

    def judge(*question):
        asked.append(question)
        return "tie"

    compare(judge, "p", "a", "b")
    assert asked == [("p", "a", "b"), ("p", "b", "a")]


ANSWERS = ("first", "second", "tie", None)


@pytest.mark.parametrize(("there", "back"), list(itertools.product(ANSWERS, ANSWERS)))
def test_only_answers_that_agree_are_a_verdict(there, back):
    """All sixteen: `back` is in the order shown, where the pair's first reply stands second."""
    answers = iter([there, back])
    verdict = compare(lambda *_: next(answers), "p", "a", "b").verdict
    agreed = {("first", "second"): "first", ("second", "first"): "second", ("tie", "tie"): "tie"}
    assert verdict == agreed.get((there, back))


def test_rewards_are_win_rates_over_the_siblings():
    """Lengths 1, 2, 2, 3: by hand 0, 1 and a half of 3, the same, 3 of 3."""
    rewards, pairs, bias = group_rewards(one_by_one(longer), "?", ["a", "bb", "cc", "ddd"])
    np.testing.assert_allclose(rewards, [0, 1.5 / 3, 1.5 / 3, 1], rtol=1e-15)
    np.testing.assert_array_equal(pairs, [3, 3, 3, 3])
    assert (bias.pairs, bias.inconsistent, bias.unreadable, bias.lean) == (6, 0, 0, 0)


def test_an_anchor_is_compared_with_each_and_gets_no_reward():
    rewards, pairs, _ = group_rewards(one_by_one(longer), "?", ["a", "bb", "ccc"], anchor="xx")
    np.testing.assert_array_equal(rewards, [0, 0.5, 1])
    np.testing.assert_array_equal(pairs, [1, 1, 1])


def test_pairs_that_contradict_themselves_are_dropped_and_counted():
    """A judge that mostly reads, but takes what is shown first where "b" is in the pair."""

    def judge(prompt, first, second):
        return "first" if "b" in (first, second) else longer(prompt, first, second)

    rewards, pairs, bias = group_rewards(one_by_one(judge), "?", ["a", "b", "cc", "ddd"])
    np.testing.assert_array_equal(rewards, [0, 0.5, 0.5, 1])
    np.testing.assert_array_equal(pairs, [2, 0, 2, 2])
    assert (bias.pairs, bias.inconsistent) == (6, 3)
    assert (bias.shown_first, bias.shown_second) == (3 * 2 + 3, 3)
    assert bias.lean == (9 - 3) / 12


def test_a_judge_that_does_not_read_leans_all_the_way_and_decides_nothing():
    rewards, pairs, bias = group_rewards(one_by_one(stubborn), "?", ["a", "bb", "ccc"])
    np.testing.assert_array_equal(rewards, [0.5] * 3)
    assert not pairs.any() and bias.lean == 1 and bias.inconsistent == 3
    assert group_rewards(one_by_one(lambda *_: "second"), "?", ["a", "b"]).bias.lean == -1


def test_unreadable_answers_are_no_verdicts():
    _, pairs, bias = group_rewards(one_by_one(lambda *_: None), "?", ["a", "b"])
    assert not pairs.any() and (bias.unreadable, bias.inconsistent, bias.lean) == (1, 0, 0)
    assert position_bias([Comparison(None, "first")]).shown_second == 1  # the one answer that could be read


@given(st.lists(st.text("ab", min_size=1, max_size=5), min_size=2, max_size=6))
def test_wins_are_handed_out_once(replies):
    """Whatever the judge: rewards times pairs sum to one for each consistent pair."""
    rewards, pairs, bias = group_rewards(one_by_one(longer), "?", replies)
    assert (rewards * pairs).sum() == pytest.approx(pairs.sum() / 2)
    assert pairs.sum() == 2 * (bias.pairs - bias.inconsistent - bias.unreadable)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B is shorter.\nA", "first"),
        ("A is wrong.\n  B \n\n", "second"),
        ("TIE", "tie"),
        ("", None),
        ("A.", None),
        ("a", None),
        ("Answer: A", None),
        ("**A**", None),
        ("A\nB", "second"),
        ("A\nor so", None),
        ("A or B", None),
        ("tie", None),
    ],
)
def test_replies_are_read_strictly(text, answer):
    assert read_answer(text) == answer


def test_the_question_holds_all_and_fields_within_replies_stay():
    text = question_text(Question("Greet {{second}}.", "Hi {{prompt}}", "Hello \\1 $x"))
    for part in ("Greet {{second}}.", "Hi {{prompt}}", "Hello \\1 $x"):
        assert text.count(part) == 1
    assert text.index("Hi {{") < text.index("Hello") and text.endswith("A, B, or TIE.")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare(lambda *_: "A", "p", "a", "b"), "not an answer of a judge; expected 'first', 'second', 'tie'"),
        (lambda: group_rewards(lambda asked: [], "p", ["a", "b"]), "left questions out; expected 2 answers; found 0"),
        (
            lambda: group_rewards(one_by_one(longer), "p", ["a"]),
            "nothing to compare a reply with; expected two or more",
        ),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)


class Scribe:
    """An engine's `run` that says what it is told to: a text for each request, in order."""

    def __init__(self, texts):
        self.texts, self.asked = texts, []

    def run(self, requests):
        self.asked += requests
        words = tokenizer()
        made = [[*words.encode_prompt(text)[1:], words.stop_ids[0]] for text in self.texts]
        return [Said(np.array(tokens), "length" if text == "cut\nA" else "stop") for text, tokens in
                zip(self.texts, made, strict=True)]  # fmt: skip


class Said:
    """What of a completion is read."""

    def __init__(self, tokens, finish_reason):
        self.tokens, self.finish_reason = tokens, finish_reason


def test_an_engine_as_a_judge():
    engine = Scribe(["A", "<think>\nA\n</think>\n\nB", "cut\nA", "perhaps A"])
    questions = [Question("p", "x", f"y{i}") for i in range(4)]
    assert engine_judge(engine, tokenizer())(questions) == ["first", "second", None, None]
    for request, question in zip(engine.asked, questions, strict=True):
        assert question_text(question) in tokenizer().decode(request.tokens)
    assert len({request.seed for request in engine.asked}) == len({request.id for request in engine.asked}) == 4


def test_a_model_judges_through_the_engine(monkeypatch, quick_programs):
    """A random one, asked in few words: nothing that could be read."""
    monkeypatch.setattr("zaya_jax.rl.judge.question_text", lambda question: question.prompt)
    engine = Engine(*tiny(), slots=2, capacity=64, chunk=64)
    assert engine_judge(engine, tokenizer(), max_new_tokens=4)([Question("p", "x", "y")] * 2) == [None, None]
