"""Looks at problems that the policy never learns from, at difficulties that do not move."""

from __future__ import annotations

import dataclasses

import numpy as np

from zaya_jax.environments.aggregation import is_aggregation
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.failures import Failure
from zaya_jax.environments.parts import part_of
from zaya_jax.environments.workers import Workers
from zaya_jax.errors import mistake
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.generation import Answered, Asked, Decoding, answer, prompt_of
from zaya_jax.rl.reward_scores import ScoreGroup
from zaya_jax.sampling.engine import Engine
from zaya_jax.text.tokenizer import Tokenizer

# Seeds of assignments have 62 bits, those of looks stand above them: no problem of one is a problem of the other.
_FIRST_SEED = 2**62
_TRIES = 64  # seeds at a time; one prompt in ten is held out
_NOISE = 1  # tells a look's noise from that of training


@dataclasses.dataclass(frozen=True)
class Look:
    """What an environment's problems of one difficulty came to.

    Attributes:
        environment, difficulty: of the problems.
        average: mean accuracy over problems and answers (avg@k).
        any: share of the problems that an answer of theirs solves (pass@k).
        truncated: share of answers that a budget cut off.
        tokens: mean length of an answer.
        verified: mean reward of the verdicts.
        score: mean score of the answers that have one; None where neither a reward model nor a judge pays.
    """

    environment: str
    difficulty: int
    average: float
    any: float
    truncated: float
    tokens: float
    verified: float
    score: float | None = None


def make_problems(config: RlConfig, workers: Workers, tokenizer: Tokenizer) -> list[Asked]:
    """The problems of all looks, made once: of the schedule's environments without end, with prompts that are held out
    of training and of the data for SFT, and those of the files. Prompts with attempts are made of problems to learn
    from: there are no looks at them.

    Raises:
        UserError: an environment does not make enough of them, or there is nothing to look at.
    """
    options, asked = config.held_out, []
    for source in config.schedule.sources:
        given = source.cap == 0 or is_aggregation(source.environment)
        for difficulty in () if given else options.difficulties:
            for problem in _problems(source.environment, difficulty, options.problems, workers):
                prompt = prompt_of(tokenizer, problem)
                asked.append(Asked(len(asked), source.environment, difficulty, problem, prompt))
    for file in options.files:
        for problem in _of_file(f"file:{file}", options.problems, workers):
            asked.append(Asked(len(asked), f"file:{file}", 0, problem, prompt_of(tokenizer, problem)))
    if not asked:
        fix = "name benchmarks in held_out.files, or set held_out.every=0"
        raise mistake("nothing to look at: all sources are given sets", where="held_out", fix=fix)
    return asked


def _of_file(environment: str, count: int, workers: Workers) -> list[Problem]:
    """Problems of a file, as many as are wanted or there are, each prompt once."""
    made = [call.result() for call in [workers.generate(environment, seed, 0) for seed in range(count)]]
    found = {one.prompt: one for one in made if isinstance(one, Problem)}
    if not found:
        raise mistake("gives no problem", where=f"held_out.files, {environment}", found=made[0])
    return list(found.values())


def _problems(environment: str, difficulty: int, count: int, workers: Workers) -> list[Problem]:
    """The first `count` seeds' problems that are held out, each prompt once."""
    found: dict[str, Problem] = {}
    for start in range(0, _TRIES * count, _TRIES):
        calls = [workers.generate(environment, _FIRST_SEED + start + i, difficulty) for i in range(_TRIES)]
        for call in calls:
            problem = call.result()
            if not isinstance(problem, Failure) and part_of(problem.prompt) == "held_out":
                found.setdefault(problem.prompt, problem)
        if len(found) >= count:
            return list(found.values())[:count]
    where, fix = f"environment {environment}, difficulty {difficulty}", "ask for fewer, or for harder ones"
    raise mistake("too few held-out problems", where=where, expected=count, found=len(found), fix=fix)


def look(
    config: RlConfig,
    engine: Engine,
    tokenizer: Tokenizer,
    asked: list[Asked],
    workers: Workers,
    scorer: ScoreGroup | None = None,
) -> list[Look]:
    """Answers all of them with the engine's weights. The noise is the same at every look, so that looks compare."""
    answered, _ = answer(engine, tokenizer, asked, decoding_of(config), workers.verify, seed_of(config))
    return looks_of(config, answered, scorer)


def decoding_of(config: RlConfig) -> Decoding:
    """How answers of a look are drawn: as those of training, but for their number."""
    return dataclasses.replace(config.decoding, group_size=max(config.held_out.answers, 2))


def seed_of(config: RlConfig) -> int:
    """Of a look's noise, which is none of training's."""
    return config.seed + _NOISE * 2**32


def looks_of(config: RlConfig, answered: list[Answered], scorer: ScoreGroup | None = None) -> list[Look]:
    """What answers to `make_problems` came to, by environment and difficulty."""
    kept = config.held_out.answers
    groups: dict[tuple[str, int], list] = {}
    for one in answered:
        groups.setdefault((one.asked.environment, one.asked.difficulty), []).append(one)
    return [_look(*place, found, kept, scorer) for place, found in groups.items()]


def _look(environment: str, difficulty: int, found: list, kept: int, scorer: ScoreGroup | None) -> Look:
    right = np.array([[not isinstance(v, Failure) and v.correct for v in one.verdicts[:kept]] for one in found])
    cut = [one.truncated[:kept] for one in found]
    lengths = [len(each.tokens) for one in found for each in one.rollouts[:kept]]
    return Look(
        environment, difficulty, float(right.mean()), float(right.any(axis=1).mean()), float(np.mean(cut)),
        float(np.mean(lengths)), _verified(found, kept), None if scorer is None else _scored(found, kept, scorer),
    )  # fmt: skip


def _verified(found: list, kept: int) -> float:
    """A failure pays nothing."""
    verdicts = [verdict for one in found for verdict in one.verdicts[:kept]]
    return float(np.mean([0.0 if isinstance(verdict, Failure) else verdict.reward for verdict in verdicts]))


def _scored(found: list, kept: int, scorer: ScoreGroup) -> float | None:
    known = []
    for one in found:
        shown = [text if ended else "" for text, ended in zip(one.responses[:kept], one.ended[:kept])]
        scores = scorer(one.asked.problem.prompt, shown)
        known += scores.values_G[scores.known_G].tolist()
    return float(np.mean(known)) if known else None


def accuracy(looks: list[Look]) -> float:
    """Mean over environments and difficulties."""
    return float(np.mean([one.average for one in looks]))
