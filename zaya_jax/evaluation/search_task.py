"""A benchmark to be searched: its prompts in tokens, the settings, and what makes two runs of it the same run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from zaya_jax.environments import prompts as templates
from zaya_jax.environments.environment import Problem
from zaya_jax.sampling.delethink import Chains, Delethink
from zaya_jax.sampling.markovian_rsa import Question, Search, Settings, check_room
from zaya_jax.text.aggregation import cut_prompts, load_wording
from zaya_jax.text.tokenizer import Tokenizer

WORDINGS = {"integer": "math", "latex": "math", "choice": "choice", "code": "code"}  # the others are "general"
_ANY_LIMIT = 2**30

AnySettings = Settings | Delethink
Digest = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Task:
    """A benchmark to be searched.

    Attributes:
        benchmark, method: as samples name them.
        problems, questions: what is asked, and the prompts of each in tokens.
        settings: what is done with each.
        context: the most tokens of prompt and answer.
        directory: of its records (`search_records`).
        wording: of the aggregation prompts, a kind or a file (`text.aggregation`); None goes by the problem's kind.
        prompts: a directory of one's own templates of problems; None for ours.
        choices_seed: of the order of options in multiple choice.
    """

    benchmark: str
    method: str
    problems: Sequence[Problem]
    questions: Sequence[Question]
    settings: AnySettings
    context: int
    directory: pathlib.Path
    wording: str | None = None
    prompts: str | None = None
    choices_seed: int = 0

    @functools.cached_property
    def digests(self) -> dict[str, Digest]:
        """Of every problem, by its id."""
        return {problem.id: digest(problem, one) for problem, one in zip(self.problems, self.questions, strict=True)}

    @property
    def last_round(self) -> int:
        """The last round, or chunk; the final call is behind it."""
        return self.settings.t if isinstance(self.settings, Settings) else self.settings.chunks - 1

    @property
    def final_call(self) -> bool:
        """Whether there is one."""
        return isinstance(self.settings, Settings) and self.settings.final_call

    @property
    def most_candidates(self) -> int:
        """The most that there may be of a problem."""
        return self.settings.n * (self.last_round + 1) + self.final_call

    def search(self, question: Question) -> Search | Chains:
        """The search of one problem, not begun.

        Raises:
            UserError: it does not fit into the context.
        """
        make = Search if isinstance(self.settings, Settings) else Chains
        return make(question, self.settings, self.context)


def make_questions(
    tokenizer: Tokenizer, problems: Sequence[Problem], count: int, wording: str | None
) -> list[Question]:
    """Problems' prompts in tokens, with this many attempts in those of aggregation."""
    marks = (tokenizer.think_start_id, tokenizer.think_end_id)
    think_ids = None if None in marks else marks
    questions = []
    for problem in problems:
        pieces = cut_prompts(tokenizer, problem.prompt, load_wording(wording_of(problem, wording)), count)
        questions.append(Question(problem.id, pieces, tuple(tokenizer.stop_ids), think_ids))
    return questions


def wording_of(problem: Problem, wording: str | None) -> str:
    """The aggregation prompts that are asked for, or those of the problem's kind."""
    return wording or WORDINGS.get(problem.hidden["kind"], "general")


def room(task: Task) -> int:
    """The most tokens that any request of a task needs room for."""
    return max(_needed(question, task.settings) for question in task.questions)


def _needed(question: Question, settings: AnySettings) -> int:
    direct = len(question.pieces.direct)
    if isinstance(settings, Delethink):
        return direct + settings.chunk + (settings.head if settings.chunks > 1 else 0)
    # A probe goes on behind a candidate of an earlier round: of one that aggregates it is no longer than the last's.
    probe = direct + settings.beta + 1 + settings.answer_budget if settings.probe_answers else 0
    return max(check_room(question, settings, _ANY_LIMIT), probe)


def digest(problem: Problem, question: Question) -> Digest:
    """Tells a problem from another one of its id: what is asked and what is right, and what stands around attempts."""
    asked = [problem.prompt, dict(problem.hidden), question.pieces.direct]
    return {"problem": _sha256(asked)[:32], "attempts": _sha256(question.pieces.between)[:32]}


def recorded(task: Task, checkpoint: str, dtype: str) -> dict[str, Any]:
    """What makes two runs the same run, as settings.json has it."""
    values = dataclasses.asdict(task.settings)
    sampling = values.pop("sampling")
    if "carry" in values:
        values["compaction"] = values.pop("carry")
    if isinstance(task.settings, Delethink):
        values = {"t": task.last_round, "c": 1, **values}
    own = {"checkpoint": checkpoint, "dtype": dtype, "choices_seed": task.choices_seed, "wording": task.wording}
    files = {"wordings": wording_digests(task.problems, task.wording), "prompts": _templates(task)}
    return {"method": task.method, "benchmark": task.benchmark, **values, **sampling, **own, **files}


def wording_digests(problems: Sequence[Problem], wording: str | None) -> dict[str, str]:
    """The contents of the wordings in use, by name."""
    names = sorted({wording_of(problem, wording) for problem in problems})
    return {name: _sha256(dataclasses.astuple(load_wording(name))) for name in names}


def _templates(task: Task) -> dict[str, str]:
    """The contents of the templates in use, by name; of programs both, as a problem does not say which it had."""
    kinds = sorted({problem.hidden["kind"] for problem in task.problems})
    names = [name for kind in kinds for name in ((kind, "code_starter") if kind == "code" else (kind,))]
    directory = pathlib.Path(task.prompts or pathlib.Path(templates.__file__).parent)
    files = {name: directory / f"{name}.txt" for name in names}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
