"""Groups of answers to problems: drawn by the engine, judged by environments while it draws on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from zaya_jax.environments.aggregation import aggregation_of
from zaya_jax.environments.environment import Problem, Verdict
from zaya_jax.environments.failures import Failure
from zaya_jax.errors import mistake
from zaya_jax.rl.attempt_prompts import aggregation_tokens
from zaya_jax.rl.checks import check_range
from zaya_jax.rl.rollout import Rollout, rollout
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.request import Completion, Delta, Request, Sampling
from zaya_jax.text.aggregation import cut_prompts, load_wording
from zaya_jax.text.tokenizer import Tokenizer

Verify = Callable[[str, Problem, str], Future]  # (environment, problem, response) -> a Verdict, or a Failure
UNFINISHED = "unfinished"  # the reasoning was never closed: there is no answer to be judged


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How answers are drawn. Temperature is 1 and, unless `min_p` is on, nothing is filtered: the policy itself is
    what learns.

    Attributes:
        group_size: G, answers to a problem.
        thinking_budget: tokens of reasoning; where they are spent, `</think>` is forced, from which nothing is learnt.
        answer_budget: tokens of the answer behind it.
        slots: answers drawn together.
        chunk: tokens of a prompt read at a time.
        prompt_budget: the longest prompt, in tokens.
        min_p: tokens less probable than this times the most probable one are not drawn; 0 draws from all. The report's
            appendix E has 1e-5 against gibberish. The ids that were kept go to the learner, whose probabilities are
            those among the same ids (`train.kept_loss`).
        kept: with `min_p`, the most ids that a token is drawn from, its most probable ones. It bounds what the learner
            is sent; ours, the report tells no such bound.
    """

    group_size: int = 16
    thinking_budget: int = 64
    answer_budget: int = 16
    slots: int = 32
    chunk: int = 256
    prompt_budget: int = 128
    min_p: float = 0.0
    kept: int = 64

    def __post_init__(self):
        least = {"group_size": 2, "thinking_budget": 0, "answer_budget": 1, "slots": 2, "chunk": 4, "prompt_budget": 1}
        least |= {"kept": 2}
        check_range(self, "min_p", 0, 1)
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
        texts: the same as text, marks of reasoning included.
        responses: what stands behind the reasoning; empty if that was never closed.
        verdicts: a `Failure` where the environment gave none.
        truncated: whether a budget cut the reasoning or the answer off.
        ended: whether the answer came to an end of its own.
    """

    asked: Asked
    rollouts: tuple[Rollout, ...]
    texts: tuple[str, ...]
    responses: tuple[str, ...]
    verdicts: tuple[Verdict | Failure, ...]
    truncated: tuple[bool, ...]
    ended: tuple[bool, ...]


@dataclasses.dataclass
class Spent:
    """Wall time of generation: in the engine's steps, and waiting for verdicts when nothing was left to draw."""

    engine: float = 0.0
    waiting: float = 0.0
    tokens: int = 0


class InFlight:
    """Groups under way: requests at the engine, answers at the verifiers.

    Args:
        name: begins the ids of its requests; two that share an engine have different ones, and each hears what the
            other's steps have drawn (`hear`).

    Attributes:
        spent: so far.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, decoding: Decoding, verify: Verify, seed: int, name: str = ""
    ):
        self._engine, self._tokenizer, self._decoding, self._verify = engine, tokenizer, decoding, verify
        self._seed, self._name = seed, name
        self._owners: dict[str, tuple[Asked, Request]] = {}
        self._done: dict[str, tuple[Completion, str, Future]] = {}
        self._groups: dict[int, Asked] = {}
        self.spent = Spent()

    @property
    def asked(self) -> list[Asked]:
        """The problems whose groups have not been taken, in the order they were asked."""
        return list(self._groups.values())

    def ask(self, one: Asked) -> None:
        """Puts a problem to the engine, G times."""
        for request in make_requests(one, self._decoding, self._tokenizer, self._seed):
            request = dataclasses.replace(request, id=self._name + request.id)
            self._owners[request.id] = (one, request)
            self._engine.submit(request)
        self._groups[one.number] = one

    def step(self) -> list[Delta]:
        """A step of the engine; finished answers go to the verifiers. Returns what the engine gave."""
        start = time.monotonic()
        deltas = self._engine.step()
        self.spent.engine += time.monotonic() - start
        self.hear(deltas)
        return deltas

    def hear(self, deltas: Sequence[Delta]) -> None:
        """Takes what the engine gave; other people's requests are passed over."""
        for delta in deltas:
            if delta.id not in self._owners:
                continue
            self.spent.tokens += len(delta.tokens)
            if delta.completion is not None:
                one, request = self._owners.pop(delta.id)
                response = response_of(request, delta.completion, self._tokenizer)
                self._done[delta.id] = (delta.completion, response or "", self._judge(one, response))

    def take(self, *, wait: bool = False) -> list[Answered]:
        """The groups that are complete, in the order they were asked; they are no longer under way.

        Args:
            wait: for the verdicts on all groups whose answers are drawn.
        """
        start, taken = time.monotonic(), []
        for one in self.asked:
            found = [self._done.get(name) for name in self._names(one)]
            if None not in found and (wait or all(future.done() for _, _, future in found)):
                taken.append(_collected(one, found, self._tokenizer))
                del self._groups[one.number]
                for name in self._names(one):
                    del self._done[name]
        self.spent.waiting += time.monotonic() - start
        return taken

    def _names(self, one: Asked) -> list[str]:
        return [f"{self._name}{one.number}/{place}" for place in range(self._decoding.group_size)]

    def _judge(self, one: Asked, response: str | None) -> Future:
        """A verdict to come."""
        if response is not None:
            return self._verify(one.environment, one.problem, response)
        future: Future = Future()
        future.set_result(Verdict(0.0, False, False, UNFINISHED))
        return future


def prompt_of(tokenizer: Tokenizer, problem: Problem) -> tuple[int, ...]:
    """A problem as the chat template puts it, up to where reasoning begins; one with attempts as a round of Markovian
    RSA puts it together from them.

    Raises:
        UserError: attempts are in tokens of another tokenizer.
    """
    if (given := aggregation_of(problem)) is not None:
        return aggregation_tokens(tokenizer, given, f"problem {problem.id}")
    return tuple(cut_prompts(tokenizer, problem.prompt, load_wording("general"), 1).direct)


def make_requests(asked: Asked, decoding: Decoding, tokenizer: Tokenizer, seed: int) -> list[Request]:
    """The G requests of a problem. Their noise depends on the run's seed, the problem's number and the place in the
    group, on nothing else.

    Raises:
        UserError: the prompt is longer than the budget.
    """
    if len(asked.prompt) > decoding.prompt_budget:
        where, fix = f"problem {asked.problem.id}", "raise decoding.prompt_budget, or give the source a cap"
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
            sampling=Sampling(min_p=decoding.min_p),
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
    flight = InFlight(engine, tokenizer, decoding, verify, seed)
    for one in asked:
        flight.ask(one)
    while engine.busy:
        flight.step()
    return flight.take(wait=True), flight.spent


def response_of(request: Request, completion: Completion, tokenizer: Tokenizer) -> str | None:
    """The text behind the reasoning; None if it was never closed."""
    tokens = completion.tokens
    if request.think_ids is not None:
        if completion.think_end < 0 and request.in_thinking:
            return None
        tokens = tokens[completion.think_end + 1 :]
    return tokenizer.decode([token for token in tokens.tolist() if token not in request.stop_ids])


def _collected(one: Asked, found: Sequence[tuple[Completion, str, Future]], tokenizer: Tokenizer) -> Answered:
    completions = [completion for completion, _, _ in found]
    return Answered(
        asked=one,
        rollouts=tuple(rollout(one.prompt, completion) for completion in completions),
        texts=tuple(tokenizer.decode(completion.tokens, skip_special=False) for completion in completions),
        responses=tuple(response for _, response, _ in found),
        verdicts=tuple(future.result() for _, _, future in found),
        truncated=tuple(each.think_forced or each.finish_reason == "length" for each in completions),
        ended=tuple(each.finish_reason != "length" for each in completions),
    )
