"""A judge that compares two replies, and rewards made of its verdicts.

A judge is any function from a request and two replies to a choice: a model (`engine_judge`), a person's file, a script
in a test. Models prefer a position besides preferring a reply (Zheng et al., arXiv 2306.05685, section 3.3); so every
pair is asked twice, in both orders, and a pair whose two answers contradict each other is dropped and counted. What
remains does not depend on the position; `Bias` tells how strong it was.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from zaya_jax.environments.prompts import fill
from zaya_jax.errors import mistake
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.request import Request, Sampling, derive_seed
from zaya_jax.text.thinking import opens_thinking, split_thinking_tokens
from zaya_jax.text.tokenizer import Tokenizer

Choice = Literal["first", "second", "tie"]
Judge = Callable[[str, str, str], Choice | None]  # (prompt, first, second); None: no verdict could be read
_ANSWERS: dict[str, Choice] = {"A": "first", "B": "second", "TIE": "tie"}
_TURNED: dict[Choice | None, Choice | None] = {"first": "second", "second": "first", "tie": "tie", None: None}


class Question(NamedTuple):
    """What a judge is asked: which of two replies to a prompt is better."""

    prompt: str
    first: str
    second: str


JudgeAll = Callable[[Sequence[Question]], Sequence[Choice | None]]  # many questions at once, answered in their order


class Comparison(NamedTuple):
    """What a judge said of a pair, asked in both orders.

    Attributes:
        forward: with the pair's first reply shown first.
        backward: with the second reply shown first, told in the pair's own order too.
    """

    forward: Choice | None
    backward: Choice | None

    @property
    def verdict(self) -> Choice | None:
        """What both answers say; None if they contradict each other or one could not be read: the pair is dropped."""
        return self.forward if self.forward == self.backward else None


@dataclasses.dataclass(frozen=True)
class Bias:
    """How much a judge's answers hang on the order in which replies are shown. Sums over pairs.

    Attributes:
        pairs: asked in both orders.
        unreadable: pairs of which an answer could not be read.
        inconsistent: readable pairs whose answers contradict each other.
        shown_first, shown_second: answers for the reply in that place, of all readable answers but ties.
    """

    pairs: int
    unreadable: int
    inconsistent: int
    shown_first: int
    shown_second: int

    @property
    def lean(self) -> float:
        """From -1 (always the reply shown second) to 1 (always the first); 0 for a judge that reads. 0 of nothing."""
        return (self.shown_first - self.shown_second) / max(self.shown_first + self.shown_second, 1)


class GroupRewards(NamedTuple):
    """Win rates of the replies to one prompt.

    Attributes:
        rewards_G: wins plus half of the ties, over the consistent pairs of each reply; 1/2 for one without any, which
            is what two replies that nobody can tell apart would get.
        pairs_G: consistent pairs of each reply, int64.
        bias: over all pairs of the group.
    """

    rewards_G: np.ndarray
    pairs_G: np.ndarray
    bias: Bias


def one_by_one(judge: Judge) -> JudgeAll:
    """A judge of single questions for a list of them."""
    return lambda questions: [judge(*question) for question in questions]


def compare(judge: Judge, prompt: str, a: str, b: str) -> Comparison:
    """Asks about one pair in both orders."""
    (comparison,) = compare_all(one_by_one(judge), [Question(prompt, a, b)])
    return comparison


def compare_all(judge: JudgeAll, pairs: Sequence[Question]) -> list[Comparison]:
    """Asks about pairs, each in both orders, all at once.

    Raises:
        UserError: the judge gave too few answers, or one that is none.
    """
    asked = [*pairs, *(Question(prompt, second, first) for prompt, first, second in pairs)]
    answers = list(judge(asked))
    if len(answers) != len(asked):
        raise mistake("the judge left questions out", expected=f"{len(asked)} answers", found=len(answers))
    strangers = [answer for answer in answers if answer not in _TURNED]
    if strangers:
        expected = "'first', 'second', 'tie' or None"
        raise mistake("not an answer of a judge", expected=expected, found=repr(strangers[0])[:40])
    there, back = answers[: len(pairs)], answers[len(pairs) :]
    return [Comparison(forward, _TURNED[backward]) for forward, backward in zip(there, back, strict=True)]


def position_bias(comparisons: Iterable[Comparison]) -> Bias:
    """Counts what the order of the replies has done."""
    comparisons = list(comparisons)
    readable = [pair for pair in comparisons if None not in pair]
    # An answer for the reply that was shown first is "first" of the forward and "second" of the backward one.
    shown = [answer for pair in comparisons for answer in (pair.forward, _TURNED[pair.backward])]
    return Bias(
        pairs=len(comparisons),
        unreadable=len(comparisons) - len(readable),
        inconsistent=sum(pair.forward != pair.backward for pair in readable),
        shown_first=shown.count("first"),
        shown_second=shown.count("second"),
    )


def group_rewards(judge: JudgeAll, prompt: str, replies: Sequence[str], anchor: str | None = None) -> GroupRewards:
    """Rewards of the replies to a prompt: how often each wins, against its siblings or against an anchor.

    Args:
        judge: see `one_by_one`, `engine_judge`.
        prompt: what was asked.
        replies: G of them, at least two unless there is an anchor.
        anchor: a reply that all are compared with, 2 G questions; None compares every two, G (G - 1) questions.

    Raises:
        UserError: nothing to compare with; as `compare_all`.
    """
    if len(replies) < (2 if anchor is None else 1):
        fix = "sample more replies, or give an anchor"
        raise mistake("nothing to compare a reply with", expected="two or more", found=len(replies), fix=fix)
    everyone = [*replies] if anchor is None else [*replies, anchor]
    places = [(i, len(replies)) for i in range(len(replies))]
    if anchor is None:
        places = list(itertools.combinations(range(len(replies)), 2))
    comparisons = compare_all(judge, [Question(prompt, everyone[i], everyone[j]) for i, j in places])
    won, count = np.zeros(len(everyone)), np.zeros(len(everyone), np.int64)
    for (i, j), comparison in zip(places, comparisons, strict=True):
        if comparison.verdict is not None:
            share = {"first": 1.0, "second": 0.0, "tie": 0.5}[comparison.verdict]
            won += np.bincount([i, j], [share, 1 - share], len(everyone))
            count[[i, j]] += 1
    rates = np.where(count > 0, won / np.maximum(count, 1), 0.5)
    return GroupRewards(rates[: len(replies)], count[: len(replies)], position_bias(comparisons))


def read_answer(text: str) -> Choice | None:
    """The choice in a judge's reply: its last line that is not empty, which is A, B or TIE and nothing else.

    Anything more (a full stop, "Answer: A", both letters) is None: what has to be guessed is no verdict.
    """
    lines = text.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return _ANSWERS.get(last)


def question_text(question: Question) -> str:
    """What a judge that is a model reads: `judge.txt` beside this file, in our own words."""
    template = pathlib.Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").strip()
    return fill(template, question._asdict())


def engine_judge(
    engine: Engine, tokenizer: Tokenizer, *, max_new_tokens: int = 512, seed: int = 0, sampling: Sampling | None = None
) -> JudgeAll:
    """A judge that is a model: its last line is its choice.

    Args:
        engine: of the judging model, without other requests. All questions of a call are answered together.
        tokenizer: the judge's, with a chat template.
        max_new_tokens: of a reply, reasoning included; one cut short has no verdict.
        seed: of the run; the i-th question of a call draws with a seed derived from it.
        sampling: greedy by default.
    """

    def request(index: int, question: Question) -> Request:
        return Request(
            id=f"judge {index}",
            tokens=tokenizer.encode_chat([{"role": "user", "content": question_text(question)}]),
            seed=derive_seed(seed, index),
            sampling=sampling or Sampling(temperature=0),
            max_new_tokens=max_new_tokens,
            stop_ids=tokenizer.stop_ids,
        )

    def answers(questions: Sequence[Question]) -> list[Choice | None]:
        requests = [request(index, question) for index, question in enumerate(questions)]
        return [_choice(asked, done, tokenizer) for asked, done in zip(requests, engine.run(requests), strict=True)]

    return answers


def _choice(request: Request, completion, tokenizer: Tokenizer) -> Choice | None:
    if completion.finish_reason != "stop":
        return None
    inside = opens_thinking(request.tokens, tokenizer)
    return read_answer(tokenizer.decode(split_thinking_tokens(completion.tokens, tokenizer, in_thinking=inside).answer))
