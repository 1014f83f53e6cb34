"""The groups of an update: problems are drawn, answered, judged and scored until enough of them teach something."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from zaya_jax.environments.aggregation import original
from zaya_jax.environments.environment import Problem
from zaya_jax.environments.failures import Failure, Failures
from zaya_jax.environments.parts import part_of
from zaya_jax.environments.workers import Workers
from zaya_jax.errors import mistake
from zaya_jax.rl import scheduling
from zaya_jax.rl.completion import Progress
from zaya_jax.rl.config import RlConfig
from zaya_jax.rl.generation import Asked, Spent, answer, prompt_of
from zaya_jax.rl.reward_scores import ScoreGroup
from zaya_jax.rl.scoring import Scored, score
from zaya_jax.sampling.engine import Engine
from zaya_jax.text.tokenizer import Tokenizer

_TRIES = 64  # assignments in a row that make no problem


@dataclasses.dataclass(frozen=True)
class Asking:
    """What problems are drawn from and answered with.

    Attributes:
        config: of the run.
        engine: with the weights of the moment, idle.
        tokenizer: of the model.
        workers: run the environments.
        failures: of their calls, counted.
        scorer: of answers, where a reward model or a judge pays.
    """

    config: RlConfig
    engine: Engine
    tokenizer: Tokenizer
    workers: Workers
    failures: Failures
    scorer: ScoreGroup | None = None


def gather(asking: Asking, progress: Progress, step: int) -> tuple[Progress, list[Scored], Spent]:
    """All groups of an update, those without signal among them, in the order of their assignments.

    A wave is answered as a whole before the next is drawn, so that what is asked depends on what was answered and on
    nothing that happens to be fast.

    Raises:
        UserError: an environment fails too often, or makes no problems.
    """
    config, found, spent, kept = asking.config, [], Spent(), 0
    for wave in range(config.waves):
        missing = config.groups - kept
        if missing <= 0:
            break
        count = missing if wave == 0 else math.ceil(missing * config.oversample)
        asked, progress = draw(asking, progress, count)
        verify = asking.workers.verify
        answered, own = answer(asking.engine, asking.tokenizer, asked, config.decoding, verify, config.seed)
        spent = Spent(*(a + b for a, b in zip(dataclasses.astuple(spent), dataclasses.astuple(own))))
        for one in answered:
            for verdict in one.verdicts:
                asking.failures.add(one.asked.environment, verdict)
            progress, scored = score(config.rewards, config.schedule, progress, one, step, asking.scorer)
            found.append(scored)
            kept += scored.reason is None
    return progress, found, spent


def draw(asking: Asking, progress: Progress, count: int) -> tuple[list[Asked], Progress]:
    """The next problems. An assignment that makes none, or one that is held out, is passed over."""
    asked, tries = [], 0
    while len(asked) < count:
        assignments, progress = _assign(asking.config, progress, count - len(asked))
        calls = [(one, asking.workers.generate(one.environment, one.seed, one.difficulty)) for one in assignments]
        for one, call in calls:
            problem = call.result()
            asking.failures.add(one.environment, problem)
            good = not isinstance(problem, Failure) and not is_held_out(asking.config, one.environment, problem)
            tries = 0 if good else tries + 1
            if tries > _TRIES:
                found = str(problem) if isinstance(problem, Failure) else "held-out ones alone"
                raise mistake("makes no problems", where=f"environment {one.environment}", found=found)
            if good:
                prompt = prompt_of(asking.tokenizer, problem)
                asked.append(Asked(one.number, one.environment, one.difficulty, problem, prompt))
    return asked, progress


def is_held_out(config: RlConfig, environment: str, problem: Problem) -> bool:
    """Whether a problem is not to be learnt from: of problems without end, those whose prompts are held out
    (`environments.parts`), of those with attempts the problem's own; of a given set, none."""
    source = config.schedule.sources[scheduling.place_of(config.schedule, environment)]
    return source.cap != 0 and part_of(original(problem).prompt) == "held_out"


def _assign(config: RlConfig, progress: Progress, count: int) -> tuple[list[scheduling.Assignment], Progress]:
    state, assignments = progress.schedule, []
    for _ in range(count):
        assignment, state = scheduling.next_problem(config.schedule, state)
        assignments.append(assignment)
    return assignments, dataclasses.replace(progress, schedule=state)


def taught(found: list[Scored]) -> Iterator[Scored]:
    """Those that the learner gets."""
    return (one for one in found if one.reason is None)
