"""What a run of `evaluate` is asked for, and the settings that this comes to on a benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from zaya_jax.errors import mistake
from zaya_jax.evaluation.presets import preset
from zaya_jax.evaluation.samples import SINGLE
from zaya_jax.evaluation.search_task import AnySettings
from zaya_jax.sampling.delethink import Delethink
from zaya_jax.sampling.markovian_rsa import Question, Settings, check_room
from zaya_jax.sampling.request import Sampling

Method = Literal["single", "rsa", "markovian_rsa", "delethink"]

BETA = 16384
SINGLE_ANSWER = 8192
REPORT_ANSWER = 40960  # the report's final response has 40K, whatever beta is
_ANY_LIMIT = 2**30
_POPULATION = ("c", "carry", "parents", "final_call", "probe_answers")
IDLE = {
    "single": (*_POPULATION, "t", "tau", "head", "wording"),
    "delethink": (*_POPULATION, "answer_budget", "wording"),
    "rsa": ("tau", "head"),
    "markovian_rsa": ("head",),
}  # what a method has no use for


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked for; None leaves it to the preset, or to the value in brackets.

    Attributes:
        method: "single" independent answers, "rsa" (whole reasoning is carried), "markovian_rsa", "delethink".
        n: samples a problem, or candidates a round [16].
        c, t: tails a prompt, rounds of aggregation; for "delethink" t + 1 chunks.
        beta: tokens of reasoning [16384; single answers have what the longest prompt and the answer leave of the
            context]; of the first chunk for "delethink".
        tau: tokens that are carried.
        answer_budget: tokens of an answer [40960, as in the report; 8192 for single answers].
        head: tokens of the first chunk that later ones keep ("delethink").
        temperature, top_p, top_k, min_p: how tokens are drawn [1, 1, off, off].
        parents, carry, probe_answers, final_call, seed: see `markovian_rsa.Settings`.
        preset: "report" takes temperature, top-p, top-k and n of each benchmark from the report, for single answers.
    """

    method: Method = SINGLE
    n: int | None = None
    c: int = 4
    t: int = 2
    beta: int | None = None
    tau: int = 4096
    answer_budget: int | None = None
    head: int = 100
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = 0.0
    parents: str = "uniform"
    carry: str = "tail"
    probe_answers: bool = False
    final_call: bool = False
    seed: int = 0
    preset: str | None = None

    @property
    def attempts(self) -> int:
        """How many there are in a prompt of aggregation."""
        return self.c if self.method in ("rsa", "markovian_rsa") else 1

    @property
    def fills_context(self) -> bool:
        """Whether settings depend on the longest prompt."""
        return self.method == SINGLE and self.beta is None

    def settings(self, benchmark: str, questions: Sequence[Question], context: int) -> AnySettings:
        """What is done with a benchmark.

        Args:
            questions: of all its problems if `fills_context`: which of them are searched then changes nothing.
            context: the most tokens of prompt and answer.

        Raises:
            UserError: a value is out of its range, the preset has no such benchmark, or a budget that was not given
                does not fit.
        """
        common: dict[str, Any] = {"n": self._count(benchmark), "sampling": self._sampling(benchmark), "seed": self.seed}
        if self.method == "delethink":
            chunk = BETA if self.beta is None else self.beta
            return Delethink(**common, chunk=chunk, chunks=self.t + 1, carry=self.tau, head=self.head)
        if self.method == SINGLE:
            answer = SINGLE_ANSWER if self.answer_budget is None else self.answer_budget
            beta = _rest(questions, context, answer) if self.beta is None else self.beta
            return Settings(c=1, t=0, beta=beta, tau=beta, answer_budget=answer, **common)
        settings = self._aggregating(common)
        if self.answer_budget is None:
            _check_answer_fits(questions, settings, context)
        return settings

    def _aggregating(self, common: dict[str, Any]) -> Settings:
        beta = BETA if self.beta is None else self.beta
        return Settings(
            c=self.c,
            t=self.t,
            beta=beta,
            tau=beta if self.method == "rsa" else self.tau,
            answer_budget=REPORT_ANSWER if self.answer_budget is None else self.answer_budget,
            parents=self.parents,
            carry=self.carry,
            probe_answers=self.probe_answers,
            final_call=self.final_call,
            **common,
        )

    def _sampling(self, benchmark: str) -> Sampling:
        """Test-time compute was measured at temperature 1 without filters, whatever a single answer is drawn with."""
        found = preset(benchmark) if self.preset and self.method == SINGLE else Sampling()
        given = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k")}
        chosen = {name: getattr(found, name) if value is None else value for name, value in given.items()}
        return Sampling(**chosen, min_p=self.min_p)

    def _count(self, benchmark: str) -> int:
        if self.n is not None:
            return self.n
        return preset(benchmark).k if self.preset and self.method == SINGLE else 16


def check_given(method: str, names: Iterable[str]) -> None:
    """Refuses what was given and would do nothing.

    Raises:
        UserError: the method has no use for some of it; all of that is named.
    """
    idle = [f"--{name}" for name in names if name in IDLE[method]]
    if idle:
        raise mistake(f"does nothing with the method {method}", where=", ".join(idle), fix="leave it out")


def _rest(questions: Sequence[Question], context: int, answer_budget: int) -> int:
    """What the longest prompt, the mark behind the reasoning and the answer leave for reasoning."""
    longest = max(questions, key=lambda question: len(question.pieces.direct))
    prompt = len(longest.pieces.direct)
    rest = context - prompt - 1 - answer_budget
    if rest < 1:
        where, found = f"problem {longest.id}", f"{prompt} of its prompt, and answer_budget = {answer_budget}"
        fix = "lower answer_budget, or shorten the problem"
        raise mistake("no room for reasoning", where=where, expected=f"less than {context}", found=found, fix=fix)
    return rest


def _check_answer_fits(questions: Sequence[Question], settings: Settings, context: int) -> None:
    for question in questions:
        needed = check_room(question, settings, _ANY_LIMIT)
        if needed > context:
            expected = f"at most {context} tokens"
            found = f"{needed}, of which {settings.answer_budget} for the answer, as in the report"
            where, fix = f"problem {question.id}", "lower answer_budget (or beta, tau, c)"
            raise mistake("longer than the context", where=where, expected=expected, found=found, fix=fix)
