"""Who answers aggregation prompts: a teacher's checkpoint, or a function of one's own. Nobody checks the answers."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zaya_jax.checkpoint import open_checkpoint, resolve
from zaya_jax.environments.environment import Problem
from zaya_jax.errors import mistake
from zaya_jax.evaluation.aggregation_prompts import Prompt
from zaya_jax.evaluation.samples import LineWriter, whole_rows
from zaya_jax.evaluation.search_records import response
from zaya_jax.sampling.markovian_rsa import Question, candidate_seed
from zaya_jax.sampling.request import Request, Sampling
from zaya_jax.sampling.rsa_run import Answering
from zaya_jax.text.thinking import THINK_END, THINK_START, split_thinking
from zaya_jax.text.tokenizer import Tokenizer, require_tokenizer

FILE = "replies.jsonl"

Oracle = Callable[[Problem, list[str]], str]


@dataclasses.dataclass(frozen=True)
class Reply:
    """What was answered to an aggregation prompt.

    Attributes:
        text: reasoning between think marks, and answer.
        tokens: how many it has.
        finish: "stop", or "length" if a budget cut it off.
        think_forced: whether a budget ended the reasoning.
    """

    text: str
    tokens: int
    finish: str = "stop"
    think_forced: bool = False

    @property
    def whole(self) -> bool:
        """Whether it ended by itself, with an answer: what a model should learn to say."""
        split = split_thinking(self.text)
        return self.finish == "stop" and split.closed and bool(split.answer.strip())


def read_replies(directory: pathlib.Path) -> dict[tuple[str, int], Reply]:
    """The replies that were recorded so far, by problem and draw. One that was cut off is left out, with a warning."""
    out, path = {}, directory / FILE
    for where, row in whole_rows(path) if path.exists() else ():
        try:
            reply = Reply(*(row[field.name] for field in dataclasses.fields(Reply)))
            out[row["problem"], row["draw"]] = reply
        except KeyError as error:
            raise mistake("is not a reply", where=where, expected=f"the key {error}") from None
    return out


def record(directory: pathlib.Path, replies: Iterator[tuple[Prompt, Reply]]) -> Iterator[tuple[Prompt, Reply]]:
    """Writes every reply as it comes, and passes it on."""
    with LineWriter(directory / FILE) as writer:
        for prompt, reply in replies:
            writer.write({"problem": prompt.problem.id, "draw": prompt.number, **dataclasses.asdict(reply)})
            yield prompt, reply


def load_oracle(name: str) -> Oracle:
    """The function that "package.module:function" names.

    Raises:
        UserError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        oracle = getattr(importlib.import_module(module), function)
    except Exception as error:  # a module of somebody else's may fail in any way
        found = f"{type(error).__name__}: {error}"
        expected = "package.module:function"
        raise mistake("the oracle cannot be imported", where=name, expected=expected, found=found) from error
    if not callable(oracle):
        raise mistake("the oracle is no function", where=name, found=type(oracle).__name__)
    return oracle


def ask_oracle(oracle: Oracle, tokenizer: Tokenizer, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, Reply]]:
    """Asks a function, one prompt after the other.

    Raises:
        UserError: it raises, or gives no text; the problem is named.
    """
    for prompt in prompts:
        attempts = [tokenizer.decode(one.tail) for one in prompt.attempts]
        where = f"problem {prompt.problem.id}, draw {prompt.number}"
        try:
            text = oracle(prompt.problem, attempts)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            raise mistake("the oracle failed", where=where, found=found) from error
        if not isinstance(text, str) or not text.strip():
            expected = "a text of reasoning and answer"
            raise mistake("the oracle gave no text", where=where, expected=expected, found=repr(text)[:40])
        if THINK_END in text and not text.startswith(THINK_START):
            text = THINK_START + text
        yield prompt, Reply(text, len(tokenizer.encode(text, special=False)))


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A checkpoint that answers.

    Attributes:
        checkpoint: its directory.
        thinking_budget, answer_budget: most tokens of each.
        stop_ids: ids that end its answers.
        sampling: how it draws.
        seed: another one gives other replies.
    """

    checkpoint: str
    thinking_budget: int
    answer_budget: int
    stop_ids: tuple[int, ...]
    sampling: Sampling
    seed: int

    @property
    def room(self) -> int:
        """The most tokens of a reply, the mark behind its reasoning included."""
        return self.thinking_budget + 1 + self.answer_budget


def open_teacher(
    checkpoint: str, tokenizer: Tokenizer, budgets: tuple[int, int], sampling: Sampling, seed: int
) -> tuple[Teacher, int]:
    """A teacher, and how long its context is; no weight is read.

    Raises:
        UserError: it reads token ids otherwise than the model whose attempts it is given.
    """
    opened = open_checkpoint(resolve(checkpoint))
    own = require_tokenizer(opened.directory)
    if fingerprint(own) != fingerprint(tokenizer):
        expected, found = (f"that of {one.source}, {fingerprint(one)[:12]}" for one in (tokenizer, own))
        fix = "attempts are token ids: take a teacher with the same tokenizer.json, or an oracle, which reads text"
        raise mistake("the teacher has another tokenizer", where=checkpoint, expected=expected, found=found, fix=fix)
    teacher = Teacher(checkpoint, *budgets, tuple(own.stop_ids), sampling, seed)
    return teacher, opened.config.max_position_embeddings


def fingerprint(tokenizer: Tokenizer) -> str:
    """Equal for tokenizers that cut texts alike."""
    return hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()


def ask_teacher(
    engine: Answering,
    teacher: Teacher,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    questions: Mapping[str, Question],
) -> Iterator[tuple[Prompt, Reply]]:
    """Has prompts answered by a model; replies come as they are complete."""
    asked: dict[str, Prompt] = {}
    for prompt in prompts:
        request = _request(teacher, prompt, questions[prompt.problem.id])
        asked[request.id] = prompt
        engine.submit(request)
    while asked:
        for delta in engine.step():
            if (completion := delta.completion) is not None:
                prompt = asked.pop(delta.id)
                question = dataclasses.replace(questions[prompt.problem.id], stop_ids=teacher.stop_ids)
                text = response(tokenizer, question, completion.tokens)
                yield prompt, Reply(text, len(completion.tokens), completion.finish_reason, completion.think_forced)


def _request(teacher: Teacher, prompt: Prompt, question: Question) -> Request:
    budgets: dict[str, Any] = {}
    if question.think_ids:
        budgets = {"thinking_budget": teacher.thinking_budget, "answer_budget": teacher.answer_budget}
    return Request(
        id=f"{prompt.problem.id}/{prompt.number}",
        tokens=prompt.tokens,
        seed=candidate_seed(teacher.seed, f"{prompt.problem.id}/teacher", 1, prompt.number),
        sampling=teacher.sampling,
        max_new_tokens=teacher.room,
        stop_ids=teacher.stop_ids,
        think_ids=question.think_ids,
        prefix=question.pieces.prefix,
        **budgets,
    )
