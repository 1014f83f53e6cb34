"""Markovian RSA (ZAYA1-8B report, section VI-A): rounds of candidates, of whose reasoning only the end is carried.

Round 0 draws N candidates for a problem, each with a budget of beta tokens of reasoning. Each of rounds 1 to T draws N
more, prompted with the problem and the tails of C candidates of the round before; a tail is the last tau tokens of a
candidate's reasoning, finished or not. T counts the rounds of aggregation: there are N (T + 1) candidates in all. The
rounds before the last end with the reasoning; answers are drawn in round T alone.

    T = 0               N independent answers
    tau = beta          recursive self-aggregation (arXiv 2509.26626) of reasoning
    C = 1, parents own  each candidate goes on from its own tail, as a Markovian thinker does (arXiv 2510.06557)

This file is the algorithm without a model: what is asked in which round (`Search`), given what was answered before.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.sampling.reasoning import reasoning
from zaya_jax.sampling.request import Completion, Request, Sampling
from zaya_jax.text.aggregation import Pieces

FINAL = "final"  # the round of the call behind the last one


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a search does.

    Attributes:
        n, c, t: candidates a round, tails a prompt, rounds of aggregation.
        beta: most tokens of reasoning of a candidate.
        tau: most tokens of a tail.
        answer_budget: most tokens of an answer, behind the reasoning. The report's is 40K whatever beta is.
        parents: whose tails a candidate reads: C drawn "uniform"ly without replacement from the round before, or its
            "own" and C - 1 others.
        carry: what is carried: always the "tail", or the "answer" of a candidate that finished its reasoning and else
            its tail (PaCoRe's way; every round then draws answers).
        probe_answers: draw an answer behind every candidate of the earlier rounds too, to be looked at: it is billed
            apart and carried nowhere.
        final_call: draw one more candidate, of C tails of the last round, to be the search's answer.
        sampling: how tokens are drawn.
        seed: another one gives another search.

    Raises:
        UserError: a value is out of its range.
    """

    n: int = 16
    c: int = 4
    t: int = 2
    beta: int = 16384
    tau: int = 4096
    answer_budget: int = 40960
    parents: Literal["uniform", "own"] = "uniform"
    carry: Literal["tail", "answer"] = "tail"
    probe_answers: bool = False
    final_call: bool = False
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    seed: int = 0

    def __post_init__(self):
        for name, least in (("n", 1), ("c", 1), ("t", 0), ("beta", 1), ("tau", 1), ("answer_budget", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise mistake("out of range", where=name, expected=f"an integer of at least {least}", found=repr(value))
        if self.tau > self.beta:
            expected, fix = f"at most beta = {self.beta}", "tau = beta carries all of the reasoning"
            raise mistake("a tail longer than the reasoning", where="tau", expected=expected, found=self.tau, fix=fix)
        if self.c > self.n and (self.t or self.final_call):
            expected, fix = f"at most n = {self.n}", "tails are drawn without replacement"
            raise mistake("more tails than candidates", where="c", expected=expected, found=self.c, fix=fix)
        for name, choices in (("parents", ("uniform", "own")), ("carry", ("tail", "answer"))):
            found = getattr(self, name)
            if found not in choices:
                raise mistake("unknown choice", where=name, expected=" or ".join(choices), found=repr(found))

    @property
    def generations(self) -> int:
        """Candidates of a search, without probes and the final call."""
        return self.n * (self.t + 1)


@dataclasses.dataclass(frozen=True)
class Question:
    """A problem to be searched.

    Attributes:
        id: names it; its candidates' noise depends on it.
        pieces: its prompts in tokens.
        stop_ids: ids that end an answer.
        think_ids: the ids of the marks of reasoning; None for a model that has none: all it says is reasoning then,
            and a candidate of the last round has both budgets for it.
    """

    id: str
    pieces: Pieces
    stop_ids: tuple[int, ...] = ()
    think_ids: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """One of a search's candidates.

    Attributes:
        round: 0 to T, or T + 1 for the final call.
        index: its place in the round.
        parents: the candidates of the round before that it has read.
        request, completion: what was asked and drawn.
        carried: the tokens of it that others may read, at most tau; with `carry="answer"` its answer, whole.
        probe: the answer drawn to be looked at, if one was.
    """

    round: int
    index: int
    parents: tuple[int, ...]
    request: Request
    completion: Completion
    carried: np.ndarray
    probe: Completion | None = None


def draw_parents(settings: Settings, question: str, round: int) -> list[tuple[int, ...]]:
    """Whose tails each candidate of a round reads: none in round 0. The final call is round T + 1, of one candidate."""
    if round == 0:
        return [()] * settings.n
    return [_parents(settings, question, round, index) for index in range(settings.n if round <= settings.t else 1)]


def _parents(settings: Settings, question: str, round: int, index: int) -> tuple[int, ...]:
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, *_digest(question), 1, round, index]))
    if settings.parents == "uniform" or round > settings.t:
        return tuple(rng.choice(settings.n, settings.c, replace=False).tolist())
    others = [other for other in range(settings.n) if other != index]
    return (index, *rng.choice(others, settings.c - 1, replace=False).tolist()) if settings.c > 1 else (index,)


def candidate_seed(seed: int, question: str, round: int, index: int, probe: bool = False) -> int:
    """The seed of a candidate's noise, which depends on what names it and on nothing else."""
    words = [seed, *_digest(question), 2 + probe, round, index]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])


def _digest(text: str) -> list[int]:
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], np.uint32).tolist()


Known = Mapping[tuple[int, int], tuple[Completion, Completion | None]]


class Search:
    """The search of one problem: what to ask now, given what was answered.

    Attributes:
        question, settings: what it was made with.
        candidates: all that are known, by (round, index).

    Args of the constructor:
        context: the most tokens a prompt and what is drawn may have together.

    Raises:
        UserError: the longest prompt would leave no room in the context.
    """

    def __init__(self, question: Question, settings: Settings, context: int):
        self.question, self.settings = question, settings
        self.candidates: dict[tuple[int, int], Candidate] = {}
        self._open: dict[str, tuple[int, int, tuple[int, ...], Request, bool]] = {}
        check_room(question, settings, context)

    @property
    def rounds(self) -> int:
        """How many rounds there are, the final call's included."""
        return self.settings.t + 1 + self.settings.final_call

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask."""
        return len(self.population(self.rounds - 1)) == self._size(self.rounds - 1) and not self._open

    def population(self, round: int) -> list[Candidate]:
        """The known candidates of a round, in order."""
        return [candidate for (r, _), candidate in sorted(self.candidates.items()) if r == round]

    def begin(self, known: Known | None = None) -> list[Request]:
        """The first requests: round 0's, or what an interrupted search has left to ask.

        Args:
            known: the completions, and those of probes, of the candidates that are known, by (round, index). Those of
                a round count only if all of the round before are known.
        """
        self.candidates, self._open = {}, {}
        requests: list[Request] = []
        for round in range(self.rounds):
            asked = self._ask(round)
            for request in asked:
                round, index, *_ = self._open[request.id]
                if (round, index) in (known or {}):
                    completion, probe = known[round, index]
                    _, more = self._settle(request.id, completion, probe)
                    requests += more
                else:
                    requests.append(request)
            if len(self.population(round)) < self._size(round):
                break
        return requests

    def take(self, completion: Completion) -> tuple[list[Candidate], list[Request]]:
        """Takes an answer to one of the requests.

        Returns:
            The candidates that are complete with it (at most one), and what is to be asked next.
        """
        round, index, *_, probe = self._open[completion.id]
        if probe:
            del self._open[completion.id]
            self.candidates[round, index] = dataclasses.replace(self.candidates[round, index], probe=completion)
            return [self.candidates[round, index]], []
        candidate, probes = self._settle(completion.id, completion, None)
        complete = len(self.population(round)) == self._size(round)
        return ([] if probes else [candidate]), probes + (self._ask(round + 1) if complete else [])

    def _settle(
        self, request_id: str, completion: Completion, probe: Completion | None
    ) -> tuple[Candidate, list[Request]]:
        """Makes a candidate of a completion; returns also the request of its probe, if one is wanted."""
        round, index, parents, request, _ = self._open.pop(request_id)
        candidate = Candidate(round, index, parents, request, completion, self._carried(request, completion), probe)
        self.candidates[round, index] = candidate
        return candidate, self._probe(candidate)

    def _size(self, round: int) -> int:
        return 1 if round > self.settings.t else self.settings.n

    def _ask(self, round: int) -> list[Request]:
        """The requests of a round whose predecessor is complete, but for candidates that are known."""
        if round >= self.rounds:
            return []
        parents, requests = draw_parents(self.settings, self.question.id, round), []
        for index, tokens in enumerate(self._prompts(round, parents)):
            if (round, index) not in self.candidates:
                request = make_request(self.question, self.settings, round, index, tokens)
                self._open[request.id] = (round, index, parents[index], request, False)
                requests.append(request)
        return requests

    def _prompts(self, round: int, parents: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        if round == 0:
            return [self.question.pieces.direct] * len(parents)
        carried = [candidate.carried.tolist() for candidate in self.population(round - 1)]
        return [self.question.pieces.around([carried[parent] for parent in own]) for own in parents]

    def _probe(self, candidate: Candidate) -> list[Request]:
        """The request of an answer behind a candidate that was to have none."""
        s, think_ids = self.settings, self.question.think_ids
        wanted = s.probe_answers and candidate.round < s.t and s.carry == "tail" and think_ids is not None
        if not wanted or candidate.probe is not None:
            return []
        drawn = [token for token in candidate.completion.tokens.tolist() if token not in self.question.stop_ids]
        if drawn[-1:] != [think_ids[1]]:
            drawn.append(think_ids[1])
        request = dataclasses.replace(
            candidate.request,
            id=f"{candidate.request.id}/probe",
            tokens=(*candidate.request.tokens, *drawn),
            seed=candidate_seed(s.seed, self.question.id, candidate.round, candidate.index, probe=True),
            max_new_tokens=s.answer_budget,
            thinking_budget=0,
            force_end=True,
            answer_budget=s.answer_budget,
        )
        self._open[request.id] = (candidate.round, candidate.index, candidate.parents, request, True)
        return [request]

    def _carried(self, request: Request, completion: Completion) -> np.ndarray:
        if self.settings.carry == "answer" and completion.think_end >= 0:
            answer = completion.tokens[completion.think_end + 1 :]
            answer = answer[~np.isin(answer, request.stop_ids)]
            if len(answer):
                return answer
        thought = reasoning(request, completion)
        return thought[max(len(thought) - self.settings.tau, 0) :]


def make_request(question: Question, settings: Settings, round: int, index: int, tokens: tuple[int, ...]) -> Request:
    """What is asked for a candidate whose prompt is put together."""
    last, budgets = round >= settings.t, {}
    if question.think_ids:  # in an earlier round an answer is drawn, if at all, behind reasoning that ended by itself
        answers = settings.answer_budget if last or settings.carry == "answer" else 0
        budgets = {"thinking_budget": settings.beta, "answer_budget": answers, "force_end": last}
    return Request(
        id=f"{question.id}/{round}/{index}",
        tokens=tokens,
        seed=candidate_seed(settings.seed, question.id, round, index),
        sampling=settings.sampling,
        max_new_tokens=most_new_tokens(question, settings, round),
        stop_ids=question.stop_ids,
        think_ids=question.think_ids,
        prefix=question.pieces.prefix,
        **budgets,
    )


def check_room(question: Question, settings: Settings, context: int) -> int:
    """The most tokens that any request of a search may need.

    Raises:
        UserError: they are more than `context`.
    """
    prompts = {0: len(question.pieces.direct)}
    if settings.t or settings.final_call:
        prompts[max(settings.t, 1)] = longest_prompt(question, settings)
    needed = {round: prompt + most_new_tokens(question, settings, round) for round, prompt in prompts.items()}
    round = max(needed, key=needed.get)
    if needed[round] > context:
        kind = f"{settings.c} tails of {settings.tau} tokens" if round else "its prompt"
        expected, found = f"at most {context} tokens", f"{needed[round]} with {kind} and what is drawn"
        fix = "lower beta, tau, c or answer_budget, or shorten the problem"
        where = f"problem {question.id}"
        raise mistake("longer than the context", where=where, expected=expected, found=found, fix=fix)
    return needed[round]


def most_new_tokens(question: Question, settings: Settings, round: int) -> int:
    """The most that a candidate of a round may draw: reasoning, its closing mark, an answer."""
    answers = round >= settings.t or settings.carry == "answer"
    return settings.beta + (bool(question.think_ids) + settings.answer_budget if answers else 0)


def longest_prompt(question: Question, settings: Settings) -> int:
    """Tokens of the longest prompt a round of aggregation can have."""
    return sum(map(len, question.pieces.between)) + settings.c * _longest_carried(settings)


def _longest_carried(settings: Settings) -> int:
    return max(settings.tau, settings.answer_budget) if settings.carry == "answer" else settings.tau
