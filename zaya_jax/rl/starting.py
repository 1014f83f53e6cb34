"""Start difficulties of a run: groups are asked until the difficulty that the policy solves half of the time is known.

The policy stands still meanwhile, so that nothing of a search has to be kept: one that was cut off is made again.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from zaya_jax.environments.environment import Problem
from zaya_jax.environments.failures import Failure
from zaya_jax.errors import mistake
from zaya_jax.rl import start_difficulty as search_of
from zaya_jax.rl.completion import Progress
from zaya_jax.rl.gathering import Asking, is_held_out
from zaya_jax.rl.generation import Answered, Asked, answer, prompt_of
from zaya_jax.rl.scheduling import Source, hardest_of
from zaya_jax.rl.start_difficulty import Pool, Search

_FIRST = 2**40  # numbers of these groups, whose noise is then no training group's
_TRIES = 32  # problems of a proposal; most prompts are not held out


@dataclasses.dataclass(frozen=True)
class Start:
    """Where an environment begins, and how many groups were asked to find it."""

    difficulty: int
    groups: int


def find_starts(asking: Asking, search: Search) -> dict[str, Start]:
    """The start difficulty of every environment without end; those of given sets are not sought.

    Args:
        asking: the engine has the weights that the run begins with.
        search: how it is sought.

    Raises:
        UserError: an environment fails too often.
    """
    sources = [source for source in asking.config.schedule.sources if source.cap != 0]
    pools = {
        source.environment: search_of.begin(_bounded(search, source), asking.config.seed + place)
        for place, source in enumerate(sources)
    }
    bounds, numbers = {one.environment: _bounded(search, one) for one in sources}, itertools.count(_FIRST)
    while under_way := [name for name, pool in pools.items() if not search_of.finished(bounds[name], pool)]:
        asked = [one for name in under_way if (one := _ask(asking, bounds[name], name, pools[name], numbers))]
        if not asked:
            raise mistake("makes no problems to find a start difficulty with", where=f"environment {under_way[0]}")
        for one in asked:
            if (hardest := hardest_of(one.problem, one.difficulty)) is not None:
                bounds[one.environment] = _at_most(bounds[one.environment], hardest)
        config = asking.config
        verify = asking.workers.verify
        answered, _ = answer(asking.engine, asking.tokenizer, asked, config.decoding, verify, config.seed)
        for one in answered:
            pools[one.asked.environment] = _observed(asking, bounds, pools, one)
    return {name: Start(search_of.estimate(bounds[name], pool), len(pool.history)) for name, pool in pools.items()}


def with_starts(progress: Progress, starts: dict[str, Start]) -> Progress:
    """Progress of no groups, at these difficulties."""
    tracks = tuple(
        dataclasses.replace(
            track, level=dataclasses.replace(track.level, difficulty=starts[track.environment].difficulty)
        )
        if track.environment in starts
        else track
        for track in progress.schedule.tracks
    )
    return dataclasses.replace(progress, schedule=dataclasses.replace(progress.schedule, tracks=tracks))


def _bounded(search: Search, source: Source) -> Search:
    return search if source.cap < 0 else _at_most(search, source.cap)


def _at_most(search: Search, cap: int) -> Search:
    return dataclasses.replace(search, cap=min(search.cap, cap))


def _ask(asking: Asking, search: Search, environment: str, pool: Pool, numbers: Iterator[int]) -> Asked | None:
    """A problem of the difficulty that is proposed; None where none is made that may be learnt from."""
    difficulty = search_of.propose(search, pool)
    for number in itertools.islice(numbers, _TRIES):
        problem = asking.workers.generate(environment, number, difficulty).result()
        asking.failures.add(environment, problem)
        if isinstance(problem, Problem) and not is_held_out(asking.config, environment, problem):
            return Asked(number, environment, difficulty, problem, prompt_of(asking.tokenizer, problem))
    return None


def _observed(asking: Asking, bounds: dict[str, Search], pools: dict[str, Pool], one: Answered) -> Pool:
    name = one.asked.environment
    for verdict in one.verdicts:
        asking.failures.add(name, verdict)
    known = [verdict.correct for verdict in one.verdicts if not isinstance(verdict, Failure)]
    if not known:
        return pools[name]
    difficulty = min(one.asked.difficulty, bounds[name].cap)  # that it really had, where difficulties end
    return search_of.observe(bounds[name], pools[name], difficulty, sum(known), len(known))
