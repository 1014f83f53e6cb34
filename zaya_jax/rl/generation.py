"""Groups of answers to problems: drawn by the engine, judged by environments while it draws on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failure
from zaya_jax.errors import mistake
from zaya_jax.rl.rollout import Rollout, rollout
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.request import Completion, Request
from zaya_jax.text.aggregation import cut_prompts, load_wording
from zaya_jax.text.tokenizer import Tokenizer

Verify = Callable[[str, Problem, str], Future]  # (environment, problem, response) -> a Verdict, or a Failure
UNFINISHED = "unfinished"  # the reasoning was never closed: there is no answer to be judged


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How answers are drawn. Temperature is 1 and nothing is filtered: the policy itself is what learns.

    Attributes:
        group_size: G, answers to a problem.
        thinking_budget: tokens of reasoning; where they are spent, `</think>` is forced, from which nothing is learnt.
        answer_budget: tokens of the answer behind it.
        slots: answers drawn together.
        chunk: tokens of a prompt read at a time.
        prompt_budget: the longest prompt, in tokens.
    """

    group_size: int = 16
    thinking_budget: int = 64
    answer_budget: int = 16
    slots: int = 32
    chunk: int = 256
    prompt_budget: int = 128

    def __post_init__(self):
        least = {"group_size": 2, "thinking_budget": 0, "answer_budget": 1, "slots": 2, "chunk": 4, "prompt_budget": 1}
        for name, fewest in least.items():
            value = getattr(self, name)
            if value < fewest:
                raise mistake("too few", where=f"decoding.{name}", expected=f"{fewest} or more", found=value)

    @property
    def new_tokens(self) -> int:
        """The most that are drawn for an answer, the mark between its parts and the one behind it included."""
        return self.thinking_budget + self.answer_budget + 2

    @property
    def capacity(self) -> int:
        """Tokens of the longest prompt with the longest answer."""
        return self.prompt_budget + self.new_tokens


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """A problem that is put to the policy.

    Attributes:
        number: of its assignment (`scheduling.Assignment`); the noise of its answers depends on it.
        environment: its specification.
        difficulty: that it was made at.
        problem: as the environment made it.
        prompt: in tokens.
    """

    number: int
    environment: str
    difficulty: int
    problem: Problem
    prompt: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Answered:
    """A problem with G answers.

    Attributes:
        asked: the problem.
        rollouts: what was drawn.
        responses: what stands behind the reasoning; empty if that was never closed.
        verdicts: a `Failure` where the environment gave none.
        truncated: whether a budget cut the reasoning or the answer off.
    """

    asked: Asked
    rollouts: tuple[Rollout, ...]
    responses: tuple[str, ...]
    verdicts: tuple[Verdict | Failure, ...]
    truncated: tuple[bool, ...]


@dataclasses.dataclass
class Spent:
    """Wall time of generation: in the engine's steps, and waiting for verdicts when nothing was left to draw."""

    engine: float = 0.0
    waiting: float = 0.0
    tokens: int = 0


def prompt_of(tokenizer: Tokenizer, problem: Problem) -> tuple[int, ...]:
    """A problem as the chat template puts it, up to where reasoning begins."""
    return tuple(cut_prompts(tokenizer, problem.prompt, load_wording("general"), 1).direct)


def make_requests(asked: Asked, decoding: Decoding, tokenizer: Tokenizer, seed: int) -> list[Request]:
    """The G requests of a problem. Their noise depends on the run's seed, the problem's number and the place in the
    group, on nothing else.

    Raises:
        UserError: the prompt is longer than the budget.
    """
    if len(asked.prompt) > decoding.prompt_budget:
        where, fix = f"problem {asked.problem.id}", "raise decoding.prompt_budget"
        expected = f"at most {decoding.prompt_budget} tokens"
        raise mistake("too long a prompt", where=where, expected=expected, found=len(asked.prompt), fix=fix)
    marks = (tokenizer.think_start_id, tokenizer.think_end_id)
    budgets = {} if None in marks else {
        "think_ids": marks, "thinking_budget": decoding.thinking_budget, "answer_budget": decoding.answer_budget,
    }  # fmt: skip
    seeds = np.random.SeedSequence([seed, asked.number]).generate_state(decoding.group_size)
    return [
        Request(
            id=f"{asked.number}/{place}",
            tokens=asked.prompt,
            seed=int(own),
            max_new_tokens=decoding.new_tokens,
            stop_ids=tuple(tokenizer.stop_ids),
            prefix=len(asked.prompt),
            **budgets,
        )
        for place, own in enumerate(seeds)
    ]


def answer(
    engine: Engine, tokenizer: Tokenizer, asked: Sequence[Asked], decoding: Decoding, verify: Verify, seed: int
) -> tuple[list[Answered], Spent]:
    """Answers problems on an idle engine, in their order, and has the answers judged meanwhile.

    What comes back does not depend on which verdict came first.
    """
    owners, spent = {}, Spent()
    for one in asked:
        for place, request in enumerate(make_requests(one, decoding, tokenizer, seed)):
            owners[request.id] = (one, place, request)
            engine.submit(request)
    done: dict[str, tuple[Completion, str, Future]] = {}
    while engine.busy:
        start = time.monotonic()
        deltas = engine.step()
        spent.engine += time.monotonic() - start
        spent.tokens += sum(len(delta.tokens) for delta in deltas)
        for delta in deltas:
            if delta.completion is not None:
                one, _, request = owners[delta.id]
                done[delta.id] = (delta.completion, *_judge(one, request, delta.completion, tokenizer, verify))
    start = time.monotonic()
    verdicts = {name: future.result() for name, (_, _, future) in done.items()}
    spent.waiting = time.monotonic() - start
    return [_collect(one, decoding, done, verdicts) for one in asked], spent


def _judge(
    one: Asked, request: Request, completion: Completion, tokenizer: Tokenizer, verify: Verify
) -> tuple[str, Future]:
    """What stands behind the reasoning, and a verdict to come."""
    response = response_of(request, completion, tokenizer)
    if response is not None:
        return response, verify(one.environment, one.problem, response)
    future: Future = Future()
    future.set_result(Verdict(0.0, False, False, UNFINISHED))
    return "", future


def response_of(request: Request, completion: Completion, tokenizer: Tokenizer) -> str | None:
    """The text behind the reasoning; None if it was never closed."""
    tokens = completion.tokens
    if request.think_ids is not None:
        if completion.think_end < 0 and request.in_thinking:
            return None
        tokens = tokens[completion.think_end + 1 :]
    return tokenizer.decode([token for token in tokens.tolist() if token not in request.stop_ids])


def _collect(one: Asked, decoding: Decoding, done, verdicts) -> Answered:
    names = [f"{one.number}/{place}" for place in range(decoding.group_size)]
    completions = [done[name][0] for name in names]
    return Answered(
        asked=one,
        rollouts=tuple(rollout(one.prompt, completion) for completion in completions),
        responses=tuple(done[name][1] for name in names),
        verdicts=tuple(verdicts[name] for name in names),
        truncated=tuple(each.think_forced or each.finish_reason == "length" for each in completions),
    )
