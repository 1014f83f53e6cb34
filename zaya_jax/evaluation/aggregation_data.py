"""Data that teaches a model to aggregate attempts (ZAYA1-8B report, section VI-B): SFT rows and RL prompts.

For each problem n rollouts; m times C of them are drawn and their tails, the last tau tokens of their reasoning, put
into an aggregation prompt. What a teacher answers is a row of supervised fine-tuning, right or not; the prompt with the
problem's own verifier is a prompt of RL. Rollouts that are wrong or unfinished stay in: so are those that the model
will have to aggregate.

    settings.json     what the run was given; another run does not go on in its directory
    rollouts/         the run of the rollouts (`search_records`), unless an older one is given
    replies.jsonl     replies to the prompts, as they came
    sft.jsonl         conversations (docs/data.md); "prompt_ids" has a prompt's own tokens, "meta" where it is from
    rl.jsonl          problems (`environments.environment`); "aggregation" in their meta has where each is from
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from zaya_jax.data.schema import parse_chat
from zaya_jax.data.turns import sections
from zaya_jax.environments.benchmarks import read_benchmark
from zaya_jax.environments.environment import Problem
from zaya_jax.errors import UserError, mistake
from zaya_jax.evaluation.aggregation_mix import KINDS, Mix, kind_of, quotas
from zaya_jax.evaluation.aggregation_prompts import Prompt, Source, make_prompts, read_settings, read_source
from zaya_jax.evaluation.aggregation_replies import (
    Reply,
    Teacher,
    ask_oracle,
    ask_teacher,
    load_oracle,
    open_teacher,
    read_replies,
    record,
)
from zaya_jax.evaluation.evaluate import make_sandbox
from zaya_jax.evaluation.samples import SINGLE
from zaya_jax.evaluation.search_records import CANDIDATES, claim, rewrite
from zaya_jax.evaluation.search_run import Machine, open_machine, search_problems
from zaya_jax.evaluation.search_task import Task, make_questions, wording_digests, wording_of
from zaya_jax.evaluation.tables import Table, text
from zaya_jax.loading import load
from zaya_jax.report.progress import Progress
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.markovian_rsa import Question, Settings, longest_prompt
from zaya_jax.sampling.request import Sampling
from zaya_jax.text.aggregation import load_wording
from zaya_jax.text.thinking import split_thinking
from zaya_jax.text.tokenizer import Tokenizer

SFT, RL, ROLLOUTS = "sft.jsonl", "rl.jsonl", "rollouts"


@dataclasses.dataclass(frozen=True)
class Making:
    """What is to be made.

    Attributes:
        n: rollouts a problem; None is 8, or those of an older run.
        c, tau: attempts a prompt, and the most tokens of each.
        m: prompts a problem.
        beta: tokens of reasoning of a rollout; None is 16384, or what an older run had.
        answer_budget: tokens of an answer, behind the reasoning.
        sampling: how rollouts and the teacher's replies are drawn.
        seed: another one gives other rollouts, draws and replies.
        mix: shares of prompts by how many attempts are right (`aggregation_mix.plan`); None draws evenly.
        wording: of the prompts, a kind or a file (`text.aggregation`); None goes by the problem's kind.
        inexact: what becomes of prompts whose text is cut into other tokens than their own: "keep" or "drop".
        teacher: a checkpoint that answers; `teacher_beta` tokens of reasoning, None as many as a rollout.
        oracle: "package.module:function" that answers.
        rl_only: nobody answers.

    Raises:
        UserError: a value is out of its range, or it is not clear who answers.
    """

    n: int | None = None
    c: int = 4
    m: int = 4
    beta: int | None = None
    tau: int = 4096
    answer_budget: int = 8192
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    seed: int = 0
    mix: Mix | None = None
    wording: str | None = None
    inexact: Literal["keep", "drop"] = "keep"
    teacher: str | None = None
    teacher_beta: int | None = None
    oracle: str | None = None
    rl_only: bool = False

    def __post_init__(self):
        if sum(map(bool, (self.teacher, self.oracle, self.rl_only))) != 1:
            expected = "one of --teacher, --oracle and --rl_only"
            raise mistake("who answers the prompts is not clear", expected=expected)

    def settled(self, old: Mapping[str, Any] | None) -> Making:
        """With every value known, those of an older run taken over, and checked.

        Raises:
            UserError: a value is out of its range, or not that of the older run.
        """
        n = self.n or (old["n"] if old else 8)
        beta = self.beta or (old["beta"] if old else 16384)
        if old and n > old["n"]:
            raise mistake("more than the rollouts that are there", where="n", expected=f"at most {old['n']}", found=n)
        if old and beta != old["beta"]:
            raise mistake("not that of the rollouts", where="beta", expected=old["beta"], found=beta)
        Settings(n, self.c, 1, beta, self.tau, self.answer_budget, sampling=self.sampling, seed=self.seed)
        most = math.comb(n, self.c)
        if not 1 <= self.m <= most:
            expected = f"1 to {most}, the draws of {self.c} out of {n} that differ"
            raise mistake("out of range", where="m", expected=expected, found=self.m)
        made = dataclasses.replace(self, n=n, beta=beta, teacher_beta=self.teacher_beta or beta)
        return made if self.teacher else dataclasses.replace(made, teacher_beta=None)


def make_aggregation_data(
    machine: Machine,
    problems: str,
    making: Making,
    output: str,
    *,
    rollouts: str | None = None,
    prompts: str | None = None,
    choices_seed: int = 0,
    limit: int | None = None,
    workers: int = 2,
    allow_unisolated: bool = False,
) -> str:
    """Makes the files of this module; gives a summary. An interrupted run goes on where it was.

    Args:
        machine: its checkpoint makes the rollouts; empty for that of an older run.
        problems: a benchmark file.
        rollouts: the directory of a finished run with rollouts of these problems.
        prompts: a directory of one's own templates of problems; None for ours.
        limit: only so many problems.
        allow_unisolated: run the code of rollouts even where it cannot be isolated.

    Raises:
        UserError: a file or a setting is not right; nothing has been sampled then.
    """
    group = read_benchmark(problems, choices_seed, prompts)[:limit]
    directory = pathlib.Path(output)
    old = read_settings(pathlib.Path(rollouts)) if rollouts else None
    making = making.settled(old)
    machine = _machine(machine, old)
    tokenizer, context = open_machine(machine)
    questions = make_questions(tokenizer, group, making.c, making.wording)
    answering = _answering(making, tokenizer, questions)  # its mistakes show before anything is sampled
    recorded = _recorded(machine, making, group, rollouts)
    if rollouts is None:
        what = (group, make_questions(tokenizer, group, 1, None), _rolling(making), context, directory / ROLLOUTS)
        task = Task(pathlib.Path(problems).stem, SINGLE, *what, prompts=prompts, choices_seed=choices_seed)
        for question in task.questions:
            task.search(question)  # that one is too long shows before there is a directory
        sandbox = make_sandbox(group, allow_unisolated)
        claim(directory, recorded)
        search_problems(machine, task, tokenizer, workers, sandbox)
    source = read_source(pathlib.Path(rollouts or directory / ROLLOUTS), group, questions, making.tau)
    drawn = _prompts(tokenizer, group, questions, source, making)
    claim(directory, recorded)
    kept = [one for one in drawn if one.exact or making.inexact == "keep"]
    provenance = {one.key: _provenance(one, machine, making, source) for one in kept}
    replies = _replies(machine, making, answering, tokenizer, kept, questions, directory)
    _write(directory, kept, provenance, replies, tokenizer, making)
    return _summary(drawn, kept, replies, making, len(group))


def _machine(machine: Machine, old: Mapping[str, Any] | None) -> Machine:
    """With the checkpoint of an older run where none is given."""
    checkpoint = machine.checkpoint or (old or {}).get("checkpoint")
    if not checkpoint:
        raise mistake("--checkpoint is required", expected="it, or --rollouts")
    return dataclasses.replace(machine, checkpoint=checkpoint)


def _rolling(making: Making) -> Settings:
    """Independent answers: a search without aggregation."""
    budgets = {"beta": making.beta, "tau": making.beta, "answer_budget": making.answer_budget}
    return Settings(n=making.n, c=1, t=0, **budgets, sampling=making.sampling, seed=making.seed)


def _answering(making: Making, tokenizer: Tokenizer, questions: Sequence[Question]) -> Any:
    """The teacher, the oracle, or None."""
    if making.oracle:
        return load_oracle(making.oracle)
    if not making.teacher:
        return None
    budgets = making.teacher_beta, making.answer_budget
    teacher, context = open_teacher(making.teacher, tokenizer, budgets, making.sampling, making.seed)
    for question in questions:
        if (needed := _longest(question, making) + teacher.room) > context:
            expected, found = f"at most {context} tokens", f"{needed} with {making.c} tails of {making.tau}"
            where, fix = f"problem {question.id}", "lower tau, c, teacher_beta or answer_budget"
            raise mistake("longer than the teacher's context", where=where, expected=expected, found=found, fix=fix)
    return teacher


def _longest(question: Question, making: Making) -> int:
    return longest_prompt(question, Settings(n=making.n, c=making.c, t=1, beta=making.beta, tau=making.tau))


def _recorded(machine: Machine, making: Making, problems: Sequence[Problem], rollouts: str | None):
    """What makes two runs the same run, as settings.json has it."""
    values = dataclasses.asdict(making)
    content = json.dumps([problem.to_json() for problem in problems]).encode()
    own: dict[str, Any] = {"checkpoint": machine.checkpoint, "dtype": machine.dtype}
    own["problems"] = hashlib.sha256(content).hexdigest()
    own["wordings"] = wording_digests(problems, making.wording)
    if rollouts:
        own["rollouts"] = hashlib.sha256((pathlib.Path(rollouts) / CANDIDATES).read_bytes()).hexdigest()
    return {"method": "aggregation_data", **values.pop("sampling"), **values, **own}


def _prompts(
    tokenizer: Tokenizer, problems: Sequence[Problem], questions: Sequence[Question], source: Source, making: Making
) -> list[Prompt]:
    wordings = [load_wording(wording_of(problem, making.wording)) for problem in problems]
    numbers = {"n": making.n, "c": making.c, "m": making.m, "mix": making.mix, "seed": making.seed}
    return make_prompts(tokenizer, problems, questions, wordings, source, **numbers)


def _provenance(prompt: Prompt, machine: Machine, making: Making, source: Source) -> dict[str, Any]:
    """Where a prompt is from."""
    attempts = prompt.attempts
    return {
        "problem": prompt.problem.id,
        "draw": prompt.number,
        "rollouts": [one.index for one in attempts],
        "tails": [len(one.tail) for one in attempts],
        "right": [one.right for one in attempts],
        "correct": prompt.right,
        "finished": [one.finished for one in attempts],
        "prompt_tokens": len(prompt.tokens),
        "exact": prompt.exact,
        "checkpoint": machine.checkpoint,
        "seed": making.seed,
        "rollout_seed": source.settings.get("seed"),
        "beta": making.beta,
        "tau": making.tau,
    }


def _replies(
    machine: Machine,
    making: Making,
    answering: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    questions: Sequence[Question],
    directory: pathlib.Path,
) -> dict[tuple[str, int], Reply]:
    """Replies by problem and draw; those that are not recorded yet are asked for."""
    if answering is None:
        return {}
    known = read_replies(directory)
    left = [prompt for prompt in prompts if prompt.key not in known]
    if not left:
        return known
    if isinstance(answering, Teacher):
        model, variables, _ = load(answering.checkpoint, dtype=machine.dtype)
        # As much room as any prompt may need, whatever is left: the programs are the same when a run goes on.
        room = max(_longest(question, making) for question in questions) + answering.room
        engine = Engine(model, variables, slots=machine.slots, capacity=room, chunk=machine.chunk)
        asked = ask_teacher(engine, answering, tokenizer, left, {question.id: question for question in questions})
    else:
        asked = ask_oracle(answering, tokenizer, left)
    with Progress("answer", len(prompts), "prompts") as progress:
        for prompt, reply in record(directory, asked):
            known[prompt.key] = reply
            progress.show(len(known))
    return known


def _write(directory, prompts, provenance, replies: Mapping, tokenizer: Tokenizer, making: Making) -> None:
    problems = [_rl_problem(one, provenance[one.key]).to_json() for one in prompts]
    rewrite(directory / RL, problems)
    files = [RL]
    if not making.rl_only:
        whole = [one for one in prompts if replies[one.key].whole]
        rows = [_sft_row(one, provenance[one.key], replies[one.key], making) for one in whole]
        for row in rows:
            _check_row(row, tokenizer)
        rewrite(directory / SFT, rows)
        files.insert(0, SFT)
    for name in files:
        print(directory / name, file=sys.stderr)


def _rl_problem(prompt: Prompt, provenance: Mapping[str, Any]) -> Problem:
    """The problem with the prompt in its prompt's place; its verifier is the problem's."""
    problem = prompt.problem
    meta = {**problem.meta, "aggregation": dict(provenance)}
    return Problem(f"{problem.id}/aggregation/{prompt.number}", prompt.text, problem.hidden, meta)


def _sft_row(prompt: Prompt, provenance: Mapping[str, Any], reply: Reply, making: Making) -> dict[str, Any]:
    """A conversation. The reply stands in the content, marks and all: what templates pass on as it is."""
    messages = [{"role": "user", "content": prompt.text}, {"role": "assistant", "content": reply.text}]
    answered = {"answered_by": making.teacher or making.oracle, "reply_tokens": reply.tokens}
    meta = {**provenance, **answered, "think_forced": reply.think_forced}
    return {"schema": 1, "messages": messages, "prompt_ids": list(prompt.tokens), "meta": meta}


def _check_row(row: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """That training reads from a row what it is to learn; a template may lose some of it."""
    where = f"problem {row['meta']['problem']}, draw {row['meta']['draw']}"
    try:
        (learnt,) = sections(parse_chat(row), tokenizer)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    said = split_thinking(row["messages"][-1]["content"])
    if not all(part.strip() in learnt.reply for part in (said.thinking, said.answer)):
        raise mistake("the chat template loses a part of the reply", where=where, fix="correct the template")


def _summary(prompts: Sequence[Prompt], kept: Sequence[Prompt], replies: Mapping, making: Making, count: int) -> str:
    """The table of what was made, and a line for everything that was left out."""
    groups = collections.defaultdict(list)
    for prompt in kept:
        groups[prompt.right].append(prompt)
    order = sorted(groups, key=lambda right: -1 if right is None else right)
    rows = [_row(_label(right, making.c), groups[right], len(kept), replies) for right in order]
    if len(rows) != 1:
        rows.append(_row("all", kept, len(kept), replies))
    head = ["right attempts", "prompts", "share", "finished tails", "unfinished", "tokens a tail", "a prompt", "rows",
            "tokens a reply", "same tokens again"]  # fmt: skip
    if making.rl_only:
        head, rows = head[:7] + head[9:], [row[:7] + row[9:] for row in rows]
    return "\n".join([text(Table(head, rows)), *_left_out(prompts, kept, replies, making, count)])


def _label(right: int | None, c: int) -> str:
    return "not known" if right is None else f"{right} of {c}"


def _row(label: str, prompts: Sequence[Prompt], total: int, replies: Mapping) -> list[str]:
    attempts = [one for prompt in prompts for one in prompt.attempts]
    learnt = [replies[one.key] for one in prompts if one.key in replies and replies[one.key].whole]
    finished, exact = sum(one.finished for one in attempts), sum(one.exact for one in prompts)
    return [
        label,
        f"{len(prompts):,}",
        f"{len(prompts) / max(total, 1):.1%}",
        f"{finished:,}",
        f"{len(attempts) - finished:,}",
        _mean([len(one.tail) for one in attempts]),
        _mean([len(one.tokens) for one in prompts]),
        f"{len(learnt):,}",
        _mean([one.tokens for one in learnt]),
        f"{exact:,}",
    ]


def _mean(values: Sequence[int]) -> str:
    return f"{sum(values) / len(values):,.0f}" if values else "–"


def _left_out(prompts, kept, replies: Mapping, making: Making, count: int) -> list[str]:
    lines, there = [], collections.Counter(kind_of(one.right or 0, making.c) for one in prompts)
    if making.mix is not None:
        wanted = quotas(making.mix, making.m * count)
        short = [f"{kind} {there[kind]} of {wanted[kind]}" for kind in KINDS if there[kind] < wanted[kind]]
        lines += [f"mix: the rollouts allow {', '.join(short)} prompts that were wanted"] if short else []
    if len(kept) < len(prompts):
        lines.append(f"left out: {len(prompts) - len(kept)} prompts whose text is cut into other tokens")
    cut = sum(not replies[one.key].whole for one in kept if one.key in replies)
    return lines + ([f"left out of {SFT}: {cut} replies without an end or an answer"] if cut else [])
