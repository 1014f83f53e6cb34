"""Aggregation prompts from the rollouts of a finished run: its candidates of round 0, the ends of their reasoning."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments.environment import Problem
from zaya_jax.errors import mistake
from zaya_jax.evaluation.aggregation_mix import Mix, draw_attempts, plan
from zaya_jax.evaluation.search_records import CANDIDATES, PROBLEMS, SETTINGS, Row, known, read_rows
from zaya_jax.evaluation.search_task import digest
from zaya_jax.sampling.markovian_rsa import Question
from zaya_jax.sampling.reasoning import reasoning
from zaya_jax.sampling.request import Completion, Request
from zaya_jax.text.aggregation import Wording, prompt_text
from zaya_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Rollout:
    """An attempt, as an aggregation prompt holds it.

    Attributes:
        index: which of the problem's rollouts it is.
        tail: the last tokens of its reasoning.
        right: whether its answer is; None if nobody asked it for one.
        finished: whether its reasoning ended by itself rather than by a budget.
    """

    index: int
    tail: tuple[int, ...]
    right: bool | None
    finished: bool


@dataclasses.dataclass(frozen=True)
class Source:
    """A finished run.

    Attributes:
        settings: as its settings.json has them.
        rollouts: by problem, all n of them.
    """

    settings: Mapping[str, Any]
    rollouts: Mapping[str, Sequence[Rollout]]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """An aggregation prompt.

    Attributes:
        problem: what is to be solved.
        number: which of the problem's draws it is.
        attempts: in their order.
        tokens: the prompt as Markovian RSA makes it.
        text: the user's message, the attempts decoded.
        exact: whether `text` through the chat template is cut into these tokens again.
    """

    problem: Problem
    number: int
    attempts: tuple[Rollout, ...]
    tokens: tuple[int, ...]
    text: str
    exact: bool

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from the others."""
        return self.problem.id, self.number

    @property
    def right(self) -> int | None:
        """How many attempts are right; None if that is not known of one."""
        return None if any(one.right is None for one in self.attempts) else sum(one.right for one in self.attempts)


def read_settings(directory: pathlib.Path) -> dict[str, Any]:
    """What a run was given.

    Raises:
        UserError: there is no finished run of independent rollouts.
    """
    for name in (SETTINGS, CANDIDATES, PROBLEMS):
        if not (directory / name).is_file():
            fix = "give the directory of a finished run, e.g. of experiments.evaluate: OUTPUT/BENCHMARK"
            raise mistake("no finished run", where=directory, expected=name, found="no such file", fix=fix)
    try:
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise mistake("cannot be read", where=directory / SETTINGS, expected="JSON", found=error) from None
    if not isinstance(settings, dict) or settings.get("method") == "delethink" or "n" not in settings:
        expected, fix = "rollouts of single, rsa or markovian_rsa", "chunks of delethink are no attempts of their own"
        raise mistake("not a run of rollouts", where=directory, expected=expected, fix=fix)
    return settings


def read_source(
    directory: pathlib.Path, problems: Sequence[Problem], questions: Sequence[Question], tau: int
) -> Source:
    """The rollouts of a finished run at these problems.

    Raises:
        UserError: the run lacks one of the problems or a rollout, or it was made of another problem of that name.
    """
    settings = read_settings(directory)
    # Of the words around attempts round 0 has seen none: they may be others.
    asked = {one.id: {"problem": digest(one, question)["problem"]} for one, question in zip(problems, questions)}
    rows = {(row["problem"], row["index"]): row for row in read_rows(directory, asked) if row["round"] == 0}
    completions = known(list(rows.values()))
    rollouts = {}
    for problem, question in zip(problems, questions, strict=True):
        if (problem.id, 0) not in rows:
            found, fix = "no such problem", "give the problems that it was made of"
            raise mistake("not a problem of the run", where=directory, expected=problem.id, found=found, fix=fix)
        lacking = [index for index in range(settings["n"]) if (problem.id, index) not in rows]
        if lacking:
            found, fix = f"none for {problem.id}, rollout {lacking[0]}", "finish it with the command it was made with"
            raise mistake("an unfinished run", where=directory, found=found, fix=fix)
        rollouts[problem.id] = [
            _rollout(question, rows[problem.id, index], completions[problem.id][0, index][0], settings, tau)
            for index in range(settings["n"])
        ]
    return Source(settings, rollouts)


def _rollout(question: Question, row: Row, completion: Completion, settings: Mapping[str, Any], tau: int) -> Rollout:
    request = Request(question.id, question.pieces.direct, stop_ids=question.stop_ids, think_ids=question.think_ids)
    thought = reasoning(request, completion).tolist()
    closed = completion.think_end >= 0
    finished = not completion.think_forced if closed else completion.finish_reason == "stop"
    return Rollout(row["index"], tuple(thought[max(len(thought) - tau, 0) :]), _verdict(row, settings), finished)


def _verdict(row: Row, settings: Mapping[str, Any]) -> bool | None:
    """Whether a rollout is right. One that was asked for an answer and gave none is not."""
    asked = settings.get("t") == 0 or settings.get("probe_answers") or settings.get("compaction") == "answer"
    found = [drawn["correct"] for drawn in (row, row.get("probe")) if drawn and drawn.get("correct") is not None]
    return found[0] if found else False if asked else None


def make_prompts(
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    questions: Sequence[Question],
    wordings: Sequence[Wording],
    source: Source,
    *,
    n: int,
    c: int,
    m: int,
    mix: Mix | None,
    seed: int,
) -> list[Prompt]:
    """Draws and prompts, in the order of the problems.

    Raises:
        UserError: a mix is wanted of rollouts of which nobody knows whether they are right.
    """
    right = {problem.id: _right(problem.id, source.rollouts[problem.id][:n], mix) for problem in problems}
    kinds = plan({name: len(indices) for name, indices in right.items()}, n, c, m, mix, seed)
    prompts = []
    for problem, question, wording in zip(problems, questions, wordings, strict=True):
        draws = draw_attempts(problem.id, kinds[problem.id], right[problem.id], n, c, seed)
        for number, draw in enumerate(draws):
            attempts = tuple(source.rollouts[problem.id][index] for index in draw)
            prompts.append(_prompt(tokenizer, problem, number, attempts, question, wording))
    return prompts


def _right(problem: str, rollouts: Sequence[Rollout], mix: Mix | None) -> set[int]:
    if mix is not None and any(one.right is None for one in rollouts):
        fix = "take rollouts with answers (--t=0 or --probe_answers), or no mix"
        raise mistake("a mix of rollouts that gave no answers", where=f"problem {problem}", fix=fix)
    return {one.index for one in rollouts if one.right}


def _prompt(
    tokenizer: Tokenizer,
    problem: Problem,
    number: int,
    attempts: tuple[Rollout, ...],
    question: Question,
    wording: Wording,
) -> Prompt:
    tokens = question.pieces.around([one.tail for one in attempts])
    text = prompt_text(problem.prompt, wording, [tokenizer.decode(one.tail) for one in attempts])
    again = tuple(tokenizer.encode_chat([{"role": "user", "content": text}]))
    # What may stand behind the rendering is `<think>`, which the reply begins with where the template does not.
    exact = tokens[: len(again)] == again and tokens[len(again) :] in ((), (tokenizer.think_start_id,))
    return Prompt(problem, number, attempts, tokens, text, exact)
